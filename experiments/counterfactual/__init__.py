"""Enhance the top two features: what would have turned a wrong prediction into the right label?

    python -m experiments.counterfactual --workdir=runs/counterfactual

Test images that a network gets wrong; the two features of its representation that, made stronger,
speak most for the label against what was predicted, named by the test images that activate them
most; and the nearest image on their way that the network gets right, before and after. Standard
network beside robust network: for one the change is noise, for the other it can be seen. Control:
two features drawn at random.

By default on the samples that come with the package, of which few are predicted wrongly;
`--dataset=cifar10`, once prepared, is the whole test set (two CPU cores: 84 seconds). Numbers:
docs/results/pictures.md.
"""
