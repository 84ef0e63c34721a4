"""Do saliency maps show what was learned? Compares networks trained on true and permuted labels.

    python -m experiments.sanity --workdir=runs/sanity

The test of permuted labels (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292, section 4)
compares networks trained on true labels with networks that memorised the same images with permuted
labels. A method whose maps are similar for both shows the image, not what was learned. Controls:
two networks trained on true labels from different initial weights also differ; maps of two
different images give the similarity of unrelated maps of a method; and edges, which do not depend
on a network, are the same for all networks.

Two CPU cores: 63 seconds on digits. Numbers: docs/results/maps.md.
"""
