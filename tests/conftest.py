"""Strictness for every test: rank promotion raises, so a missing axis cannot pass unseen.

Most of a run goes into compiling. So its workers share what they have compiled, in a folder that
goes away with it, and XLA optimises little; who sets these variables keeps them.
"""

import atexit
import os
import shutil
import tempfile

if "JAX_COMPILATION_CACHE_DIR" not in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
    folder = tempfile.mkdtemp(prefix="advfeat_tests_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

# Modules that need PyTorch and hold no tests: doctest would import them.
collect_ignore = ["bench_autoattack.py", "bench_pictures.py", "torch_mirror.py"]
