"""Do maps, pictures and counterfactuals show the feature that a network provably uses?

    python -m experiments.ground_truth --workdir=runs/ground_truth

Drawn images contain three planted features (`advfeat.features.planted`): a shape (robust), a faint
texture (non-robust) and a corner mark (spurious). Three networks could only learn one of them; a
standard and a robust network could learn shape or texture; another robust one could also learn the
mark. Images in which a single feature determines the class show what each network uses. Then every
method is scored: does its map point at the feature, does a picture of the class contain it, does a
counterfactual change it? `--methods=gradient,lime` gives the husky-and-wolf explanation: the
decisions of the mark's network are explained by a corner.

Two CPU cores: 165 seconds. Numbers: docs/results/maps.md.
"""
