"""Measures a network's robust accuracy by AutoAttack or other attacks, and checks the result.

    python -m experiments.evaluate --workdir=runs/evaluated --checkpoint=runs/robust \\
        --attack=autoattack --norm=l2 --eps=1 --eval_examples=445
    python -m experiments.evaluate --workdir=runs/evaluated --checkpoint=runs/imagenet \\
        --dataset=imagenet2012 --stream --norm=linf --eps=4/255 --eval_examples=5000

`--attack` is a suite (autoattack, standard, plus, rand, quick) or attacks separated by commas, each
run on the images that the previous ones left standing (`--each`: each on all images). A killed run
resumes with the images not decided yet. Checks and curves take mostly compile time, however few
images there are: for a quick look, use `--nochecks --nocurves`. Times and numbers are in
docs/results/evaluation.md.

With `--stream` only the drawn images are read from disk, at most a thousand at a time. Of more than
these, checks, curves and pictures are of the first thousand, drawn like the others.
"""
