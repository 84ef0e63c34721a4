"""Do robust representations transfer better? Sources of growing eps, another data set as target.

    python -m experiments.transfer_learning --workdir=runs/transfer_learning
    python -m experiments.transfer_learning --workdir=W --dataset=digits --target=mnist
    python -m experiments.transfer_learning --workdir=W --dataset=cifar10 --target=cifar10

Networks are trained adversarially on the source at each eps, 0 being standard training. On a few
images of the target, a linear classifier is trained on their frozen representation, and all of
their weights are fine-tuned. Controls: representations of untrained networks, and training from
scratch. If source and target are the same data set, they are two halves of its classes; images of
another size are resized to the source's. The claim is that a network of some eps above 0 transfers
best (Salman et al. 2020, https://arxiv.org/abs/2007.08489), with a best eps that depends on the
data. For one seed's networks, the best eps is selected by the other seeds' networks, on training
images of the target that no network saw: chance in its networks or test images cannot enter.

Two CPU cores: a minute for the default. Numbers: docs/results/pictures.md.
"""
