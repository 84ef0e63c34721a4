"""Enhance the top two features: what would have turned a wrong prediction into the right label?

    python -m experiments.counterfactual --workdir=runs/counterfactual

Takes test images that a network misclassifies. Finds the two features of its representation that,
made stronger, speak most for the label against the prediction, and names them by the test images
that activate them most. Then finds the nearest image that the network gets right by enhancing these
features, shown before and after. Standard and robust network side by side: for the first the change
is noise, for the other it is visible. Control: two features drawn at random.

By default on the samples that come with the package, few of which are misclassified;
`--dataset=cifar10`, once prepared, uses the whole test set (two CPU cores: 84 seconds). Numbers:
docs/results/pictures.md.
"""
