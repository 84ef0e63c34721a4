"""The flat face: what `import advfeat` offers, at which price."""

import inspect
import subprocess
import sys

import pytest

import advfeat

HEAVY = (
    "flax",
    "tensorflow",
    "tensorflow_datasets",
    "grain",
    "matplotlib",
    "orbax",
    "sklearn",
    "PIL",
    "tensorboardX",
    "scipy.stats",
    "experiments",
)


def test_everything_promised_is_there_and_documented():
    assert sorted(advfeat.__all__) == list(advfeat.__all__)
    for name in advfeat.__all__:
        thing = getattr(advfeat, name)
        if callable(thing) and inspect.getmodule(thing).__name__.startswith("advfeat"):
            assert inspect.getdoc(thing), name


def test_options_of_factories_are_keyword_only():
    for make in (
        advfeat.pgd,
        advfeat.fgsm,
        advfeat.gaussian_noise,
        advfeat.uniform_noise,
        advfeat.salt_and_pepper_noise,
        advfeat.carlini_wagner,
        advfeat.ddn,
        advfeat.elastic_net,
        advfeat.fmn,
    ):
        first, *options = inspect.signature(make).parameters.values()
        assert first.name == "threat"
        assert options
        assert all(option.kind is option.KEYWORD_ONLY for option in options)


@pytest.mark.slow
def test_importing_it_stays_light():
    code = f"import sys, advfeat; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("layer", ["models", "data", "training", "runs"])
def test_outer_layers_are_on_the_face_but_not_of_it(layer):
    assert layer not in advfeat.__all__  # `from advfeat import *` stays light
    assert layer in dir(advfeat)


def ran(code):
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:advfeat", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


PARTS = """
import sys, advfeat
assert "flax" not in sys.modules
for name in dir(advfeat):
    getattr(advfeat, name)
assert "flax" in sys.modules
for part in ("zoo", "data", "models", "saliency", "training", "features", "theory", "figures",
             "evaluation", "objectives", "threats", "images", "runs"):
    assert getattr(advfeat, part).__name__ == "advfeat." + part
assert "Any" not in dir(advfeat) and advfeat.ATTACKS["pgd"] is advfeat.pgd
try:
    advfeat.nothing
except AttributeError as error:
    assert "nothing" in str(error)
from advfeat import *
assert pgd is advfeat.pgd and "zoo" not in globals()
import jax
jax.config.update("jax_num_cpu_devices", 3)  # nothing has asked for a device so far
print(len(jax.devices()))
"""


def test_every_part_is_there_on_its_first_use():
    assert ran(PARTS) == ["3"]


ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchattacks", "foolbox", "tensorflow", "lime", "haiku",
                                  "equinox"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
"""
ORDERS = {
    "flax first": "import flax, advfeat",
    "the last layer first": "import advfeat.models.adapters, advfeat.figures, advfeat",
    "in threads": (
        "import threading, advfeat\n"
        "use = lambda part: getattr(advfeat, part).__name__\n"
        "threads = [threading.Thread(target=use, args=(part,))\n"
        "           for part in ('zoo', 'training', 'models', 'data', 'zoo', 'training')]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]"
    ),
}


@pytest.mark.slow_for("in threads", "the last layer first")
@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_imports_does_not_matter(order):
    use = "\nmodel = advfeat.models.create('linear', num_classes=2); print(advfeat.zoo.names()[0])"
    assert ran(ABSENT + ORDERS[order] + use) == ["cifar10_cnn_l2_robust"]
