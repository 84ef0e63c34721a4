"""Do robust representations transfer better? Sources of growing eps, another data set as target.

    python -m experiments.transfer_learning --workdir=runs/transfer_learning
    python -m experiments.transfer_learning --workdir=W --dataset=digits --target=mnist
    python -m experiments.transfer_learning --workdir=W --dataset=cifar10 --target=cifar10

Networks trained adversarially on the source at each eps, 0 being standard training; on a few images
of the target, a linear classifier on their frozen representation, and all of their weights
fine-tuned. Controls: representations of networks that were never trained, and training from
scratch. Source and target of one name are two halves of its classes; images of another size are
resized to the source's. The claim is that a network of some eps above 0 transfers best (Salman et
al. 2020, https://arxiv.org/abs/2007.08489), and that the best eps is not the same everywhere. Which
eps is best for one seed's networks is told by the other seeds', on training images of the target
that no network saw: neither the luck of its networks nor that of the test images enters the choice.

Two CPU cores: a minute for the default. Numbers: docs/results/pictures.md.
"""
