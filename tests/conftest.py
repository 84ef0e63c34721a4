"""Strictness for every test: rank promotion raises, so a missing axis cannot pass unseen."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

# Modules that need PyTorch and hold no tests: doctest would import them.
collect_ignore = ["bench_autoattack.py", "bench_pictures.py", "torch_mirror.py"]
