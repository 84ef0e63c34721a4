"""Do maps, pictures and counterfactuals show the feature that a network provably uses?

    python -m experiments.ground_truth --workdir=runs/ground_truth

Drawn images with three planted features (`advfeat.features.planted`): a shape (robust), a faint
texture (non-robust) and a corner mark (spurious). Networks that could only have learned one of
them; a standard and a robust one that could have learned shape or texture; a robust one that could
have learned the mark too. What each uses is found by showing it images in which a single feature
tells the class. Then every method is scored: does its map point at the feature, does a picture of
the class hold it, does a counterfactual change it? With `--methods=gradient,lime` the
husky-and-wolf explanation: the network of the mark is explained by a corner.

Two CPU cores: 165 seconds. Numbers: docs/results/maps.md.
"""
