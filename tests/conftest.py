"""Strictness for every test: rank promotion raises, so a missing axis cannot pass unseen.

Most of a run goes into compiling. So its workers share what they have compiled, in a folder that
goes away with it, and XLA optimises little; who sets these variables keeps them.

Whatever is compiled stays mapped until JAX forgets it. Thousands of tests reach the kernel's limit
of 65,530 mappings, at which the compiler crashes; so a worker forgets now and then.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

if "JAX_COMPILATION_CACHE_DIR" not in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
    folder = tempfile.mkdtemp(prefix="advfeat_tests_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import jaxtyping
import pytest

# Every call into these that returns is compared with its annotations, shapes included.
SHAPED = (
    "advfeat.attacks.batch",
    "advfeat.attacks.iterative",
    "advfeat.attacks.noise",
    "advfeat.attacks.survivors",
    "advfeat.edges",
    "advfeat.evaluation.prediction",
    "advfeat.features",
    "advfeat.images",
    "advfeat.objectives",
    "advfeat.saliency",
    "advfeat.stats",
    "advfeat.theory",
    "advfeat.threats",
    "advfeat.training.losses",
)
jaxtyping.install_import_hook(SHAPED, "shape_checks.after_the_call")

jax.config.update("jax_numpy_rank_promotion", "raise")

# Modules that need PyTorch and hold no tests: doctest would import them.
collect_ignore_glob = ["benchmarks/bench_*.py"]

MOST_MAPPINGS = 15_000
"""At a file's end, and twice as many within one; Linux allows 65,530 (`vm.max_map_count`)."""
_EVERY = 20  # tests; to count mappings takes milliseconds


def mappings() -> int:
    """How many memory mappings this process has; 0 where the system does not tell."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


class _Forgetting:
    """A plugin, for the doctests lie in folders to which a conftest's hooks do not apply."""

    done = 0

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        self.done += 1
        ended = nextitem is None or nextitem.path != item.path
        most = MOST_MAPPINGS if ended else 2 * MOST_MAPPINGS
        if (ended or self.done % _EVERY == 0) and mappings() > most:
            jax.clear_caches()


def pytest_configure(config: pytest.Config) -> None:
    """Registers what holds for every test, wherever it lies."""
    config.pluginmanager.register(_Forgetting())


@pytest.hookimpl(tryfirst=True)  # before pytest deselects what `-m` leaves out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Parameters that a test names in `slow_for` make it slow; the others stay in every run."""
    for item in items:
        params = getattr(item, "callspec", None)
        if params and any(params.id in mark.args for mark in item.iter_markers("slow_for")):
            item.add_marker(pytest.mark.slow)
