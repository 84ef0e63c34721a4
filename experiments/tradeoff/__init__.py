"""Does robustness cost accuracy? Training eps swept from 0, for two threat models.

    python -m experiments.tradeoff --workdir=runs/tradeoff

Networks trained adversarially at each eps are measured on clean images and under attack at one
fixed eps per norm; both lines start from the same networks at eps 0 (standard training). The claim:
networks that are fooled less often are also less accurate (Tsipras et al. 2019,
https://arxiv.org/abs/1805.12152).
"""
