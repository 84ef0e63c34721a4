"""Measures how robust a network is: AutoAttack, or attacks you name, and whether to believe it.

    python -m experiments.evaluate --workdir=runs/evaluated --checkpoint=runs/robust \
        --attack=autoattack --norm=l2 --eps=1 --num_examples=445

`--attack` is a suite (autoattack, standard, plus, rand, quick) or attacks with commas, run one
after the other on what the ones before them left (`--each`: each on all images). A killed run goes
on with the images it had not decided. The checks and the curves mostly compile, however few images
there are: for a quick look, `--nochecks --nocurves`. Time and numbers stand in
docs/results/evaluation.md.
"""
