"""Trains one network, standard or robust, and measures it clean and under attack.

    python -m experiments.train --workdir=runs/robust --objective=adversarial --eps=1
    python -m experiments.train --workdir=runs/mnist --dataset=mnist --objective=adversarial \\
        --norm=linf --eps=0.3
    python -m experiments.train --workdir=runs/trades --objective=trades --beta=6 --awp=0.01 \\
        --ema=0.99 --select=best --patience=10
    python -m experiments.train --workdir=runs/imagenet --model=resnet50 --dataset=imagenet2012 \\
        --stream --objective=adversarial --norm=linf --eps=4/255

`--stream` leaves the images on disk: the labels are read once and cached, then each batch is read,
decoded and cropped while the step before it runs. Subsets, classes and held-out images are drawn
from the labels. ImageNet and Restricted ImageNet have presets of their own (resnet50, crops of 224
pixels, L2 eps 3), after MadryLab's `robustness`; docs/results/streaming.md has what reading costs.

The run directory then serves as `--checkpoint=DIR` of other experiments, and as `--start=DIR` of
this one. A killed run resumes from its last checkpoint and ends bit for bit like an uninterrupted
one.

Hyper-parameters are not tuned beyond the presets. Measurements (the second line: 99.0 % clean,
93.5 % under PGD, in 18 minutes on one core) are in docs/results/robust_training.md.
"""
