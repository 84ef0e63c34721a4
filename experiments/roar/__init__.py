"""Remove and retrain: does a network do worse without the pixels that a map ranks first?

    python -m experiments.roar --workdir=runs/roar

Every method's maps of a trained network (of the class it predicts, with signs if the method has
them) select a share of the pixels of each training and test image, which are replaced by the mean
of the training pixels; networks are then retrained on the rest. The faster their accuracy falls,
the better the map identified what matters. Controls: random pixels, and edges (Hooker et al. 2019,
https://arxiv.org/abs/1806.10758). The pattern of removed pixels may itself reveal the class; this
is not corrected for. One network per method, share and seed: digits take three minutes on two
CPU cores. Numbers: docs/results/maps.md.
"""
