"""Remove and retrain: does a network do worse without the pixels that a map ranks first?

    python -m experiments.roar --workdir=runs/roar

Every method's maps of a trained network (of the class it predicts, signs counted where a method has
them) say which share of the pixels of each image, training and test, is replaced by the mean of the
training pixels; networks are trained anew on what is left. The sooner their accuracy falls, the
better the map knew. Controls: pixels drawn at random, and edges (Hooker et al. 2019,
https://arxiv.org/abs/1806.10758). Which pixels are gone may itself tell the class; nothing here
takes that out. A network for every method, share and seed: digits take three minutes on two
CPU cores. Numbers: docs/results/maps.md.
"""
