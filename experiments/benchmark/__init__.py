"""How fast is advfeat, beside other libraries and beside what the machine can do?

Measures attacks, robust accuracy, adversarial training, data construction and saliency maps, all
called as a user calls them, on networks with the same weights, images, threads and precision.

* Every contender takes its turn in every round, so that a machine that slows down slows all.
  The ratio of a work is the median over the rounds of the peer's time over ours: above 1, we are
  ahead. Its interval is that of a median and assumes no distribution.
* Results come before speed: the networks' logits must agree, and the attacks must reach the same
  loss or robust accuracy within a stated tolerance. Otherwise there is a line instead of a ratio.
* The first call, which compiles, is reported apart and as a ratio of its own.
* The share of the limit is the arithmetic of the work, per second, over the best matrix product
  measured on the machine in the same run.

Without `--peers` it measures advfeat alone, without `--full` a choice of works that fits two slow
cores. `pip install -e ".[peers]"` installs the peers: hand-written PyTorch in channels_last, also
under `torch.compile`; torchattacks; foolbox on PyTorch and on JAX; ART; captum. Those missing are
named. `--autoattack` adds the AutoAttack authors' code from a clone of fra31/auto-attack.

One GPU user's line, which sizes the works up by itself:

    python -m experiments.benchmark --workdir=runs/benchmark --full --peers
"""
