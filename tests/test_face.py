"""The flat face: what `import advfeat` offers, at which price."""

import inspect
import subprocess
import sys

import pytest

import advfeat

HEAVY = ("flax", "tensorflow", "tensorflow_datasets", "grain", "matplotlib", "orbax", "sklearn",
         "PIL", "tensorboardX", "experiments")


def test_everything_promised_is_there_and_documented():
    assert sorted(advfeat.__all__) == list(advfeat.__all__)
    for name in advfeat.__all__:
        thing = getattr(advfeat, name)
        if callable(thing) and inspect.getmodule(thing).__name__.startswith("advfeat"):
            assert inspect.getdoc(thing), name


def test_options_of_factories_are_keyword_only():
    for make in (advfeat.pgd, advfeat.fgsm, advfeat.gaussian_noise, advfeat.uniform_noise,
                 advfeat.salt_and_pepper_noise, advfeat.carlini_wagner, advfeat.ddn,
                 advfeat.elastic_net, advfeat.fmn):
        first, *options = inspect.signature(make).parameters.values()
        assert first.name == "threat"
        assert options
        assert all(option.kind is option.KEYWORD_ONLY for option in options)


def test_importing_it_stays_light():
    code = f"import sys, advfeat; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("layer", ["models", "data", "training", "checkpoints"])
def test_outer_layers_are_not_on_the_face(layer):
    assert layer not in advfeat.__all__
