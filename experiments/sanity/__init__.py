"""Do maps show what was learned? The same networks trained on labels that say nothing.

    python -m experiments.sanity --workdir=runs/sanity

The test of permuted labels (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292, section 4):
networks trained on true labels, and networks that learned the same images with permuted labels by
heart. A method whose maps are alike for both shows the image, not what was learned. Controls: two
networks trained on true labels from different initial weights differ too; maps of two different
images say how alike unrelated maps of a method are; and edges, which no network made, are the same
for all networks.

Two CPU cores: 63 seconds on digits. Numbers: docs/results/maps.md.
"""
