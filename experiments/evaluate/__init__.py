"""Measures a network's robust accuracy by AutoAttack or other attacks, and checks the result.

    python -m experiments.evaluate --workdir=runs/evaluated --checkpoint=runs/robust \\
        --attack=autoattack --norm=l2 --eps=1 --num_examples=445

`--attack` is a suite (autoattack, standard, plus, rand, quick) or attacks separated by commas, each
run on the images that the previous ones left standing (`--each`: each on all images). A killed run
resumes with the images not decided yet. Checks and curves take mostly compile time, however few
images there are: for a quick look, use `--nochecks --nocurves`. Times and numbers are in
docs/results/evaluation.md.
"""
