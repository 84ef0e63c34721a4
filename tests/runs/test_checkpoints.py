"""Networks and trainings on disk: the round trip, and one clear line for all that is broken."""

import json
import shutil
import warnings

import jax
import numpy as np
import pytest

from advfeat import models
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs import checkpoints
from advfeat.runs.checkpoints import load_network, save_network

SPEC = NetworkSpec(
    model="resnet9",
    class_names=("cat", "dog"),
    input_shape=(4, 4, 3),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.2, 0.3),
    width=2,
    options={"norm": "batch"},
)


def make(spec, seed=0):
    variables = models.init(jax.random.key(seed), spec.build(), spec.input_shape)
    return Network(spec, variables, {"training": {"epochs": 3}, "seed": seed})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    networks = {"standard": make(SPEC, 0), "robust": make(SPEC, 1)}
    for name, network in networks.items():
        save_network(path / "networks" / name, network)
    return path, networks


@pytest.fixture
def broken(saved, tmp_path):
    """A copy of one saved network, to be damaged."""
    return shutil.copytree(saved[0] / "networks" / "robust", tmp_path / "one")


def same(first, second):
    one, two = (jax.tree.leaves_with_path(tree) for tree in (first, second))
    return [path for path, _ in one] == [path for path, _ in two] and all(
        np.array_equal(a, b) for (_, a), (_, b) in zip(one, two, strict=True)
    )


@pytest.mark.slow
def test_what_comes_back_is_what_was_kept(saved):
    path, networks = saved
    for name, wanted in networks.items():
        for reference in (f"{path}:{name}", str(path / "networks" / name)):
            found = load_network(reference)
            assert found.spec == wanted.spec
            assert found.record == wanted.record
            assert same(found.variables, wanted.variables)
    assert not same(networks["standard"].variables, networks["robust"].variables)
    assert "batch_stats" in found.variables
    image = np.random.default_rng(0).random(SPEC.input_shape).astype(np.float32)
    np.testing.assert_array_equal(found.model_fn()(image), wanted.model_fn()(image))
    assert found.model_fn("representation")(image).ndim == 1


@pytest.mark.slow
def test_a_run_of_one_network_needs_no_name(saved, tmp_path):
    shutil.copytree(saved[0] / "networks" / "robust", tmp_path / "networks" / "only")
    assert load_network(str(tmp_path)).record["seed"] == 1
    assert load_network(f"{tmp_path}:only").record["seed"] == 1


def test_saving_again_replaces(tmp_path):
    linear = NetworkSpec(model="linear", class_names=("a", "b"), input_shape=(2, 2, 1))
    for seed in (0, 1):
        save_network(tmp_path / "net", make(linear, seed))
    assert load_network(str(tmp_path / "net")).record["seed"] == 1


def refused(reference, *words):
    with pytest.raises(ValueError, match="checkpoint") as caught:
        load_network(str(reference))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_references_that_name_nothing(saved, tmp_path):
    path, _ = saved
    refused(tmp_path / "nowhere", "no directory", "nowhere")
    refused(f"{tmp_path / 'nowhere'}:robust", "no directory")
    refused(tmp_path, "no network")
    refused(path, "standard", "robust", f"{path}:robust")
    refused(f"{path}:other", "standard", "robust")
    refused("", "no")


def edit(path, change):
    record = json.loads((path / "network.json").read_text())
    change(record)
    (path / "network.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["spec"].update(width=4),
        lambda r: r["spec"].update(width=1),
        lambda r: r["spec"].update(class_names=["cat", "dog", "pig"]),
        lambda r: r["spec"].update(model="linear", options={}),
        lambda r: r["spec"].update(model="resnet18", options={}),
        lambda r: r["spec"].update(model="unheard of"),
        lambda r: r["spec"].update(options={"color": "red"}),
        lambda r: r["spec"].update(shape=[2, 2]),
        lambda r: r["spec"].update(input_shape=[4, 4, 1]),
        lambda r: r["spec"].update(input_shape=[1, 1, 3]),
        lambda r: r["spec"].update(class_names=3),
        lambda r: r.update(spec=3),
        lambda r: r.pop("spec"),
        lambda r: r["spec"].pop("model"),
        lambda r: r.update(record=None),
    ],
)
def test_a_record_that_does_not_fit_its_arrays(broken, change):
    edit(broken, change)
    refused(broken, "one")


def test_another_architecture_is_named_by_what_differs(broken):
    edit(broken, lambda r: r["spec"].update(class_names=["cat", "dog", "pig"]))
    refused(broken, "params.classifier.bias", "(2,)", "(3,)")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00"])
def test_a_record_that_is_no_record(broken, text):
    (broken / "network.json").write_text(text)
    refused(broken, "network.json")


@pytest.mark.parametrize("kind", ["d/*", "_METADATA", "manifest.ocdbt"])
def test_files_that_are_cut_short_or_gone(broken, kind, capfd):
    def damage(change):
        for path in (broken / "variables").rglob(kind):
            change(path, path.read_bytes())

    damage(lambda path, whole: path.write_bytes(whole[: len(whole) // 2]))
    refused(broken, "one")
    damage(lambda path, whole: path.write_bytes(b""))
    refused(broken, "one")
    damage(lambda path, whole: path.unlink())
    refused(broken, "one")
    assert "Traceback" not in capfd.readouterr().err


def test_arrays_that_are_gone(broken):
    shutil.rmtree(broken / "variables")
    refused(broken, "resnet9")


def flipped(path, bit):
    whole = bytearray(path.read_bytes())
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole)


@pytest.mark.slow
def test_a_flipped_bit_is_noticed_or_harmless(saved, broken):
    original = saved[1]["robust"]
    largest = max((broken / "variables").rglob("d/*"), key=lambda path: path.stat().st_size)
    whole, refusals = largest.read_bytes(), []
    for bit in np.random.default_rng(0).integers(8 * len(whole), size=12):
        flipped(largest, int(bit))
        try:
            assert same(load_network(str(broken)).variables, original.variables)
        except ValueError as error:
            refusals.append(str(error))
        largest.write_bytes(whole)
    assert len(refusals) > 6  # most of the file is weights
    assert all(text.startswith(f"checkpoint {broken}") for text in refusals)


def test_arrays_of_another_network_of_the_same_shapes_are_refused(saved, broken):
    shutil.rmtree(broken / "variables")
    shutil.copytree(saved[0] / "networks" / "standard" / "variables", broken / "variables")
    refused(broken, "damaged")


def test_an_architecture_that_was_changed_is_refused_though_its_arrays_fit(broken):
    edit(broken, lambda r: r["spec"].update(mean=[0.4, 0.5, 0.7]))
    refused(broken, "damaged")


def test_a_network_of_an_earlier_version_is_read_with_a_warning(saved, broken):
    edit(broken, lambda r: r.pop("sha256"))
    with pytest.warns(UserWarning, match=f"checkpoint {broken} .*no checksum"):
        found = load_network(str(broken))
    assert same(found.variables, saved[1]["robust"].variables)
    save_network(broken, found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_network(str(broken))


def test_half_a_network_is_none(broken):
    (broken / "network.json").unlink()
    assert not checkpoints.is_saved(broken)
    refused(broken, "no network")


def test_whether_a_network_fits_the_data():
    network = Network(SPEC, {}, {})
    fits = {"class_names": ("cat", "dog"), "input_shape": (4, 4, 3), "reference": "runs/x"}
    checkpoints.check_fits(network, **fits)
    for change, word in (
        ({"input_shape": (8, 8, 3)}, "images"),
        ({"class_names": ("dog", "cat")}, "classes"),
        ({"class_names": ("cat", "dog", "pig")}, "classes"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint runs/x.*{word}"):
            checkpoints.check_fits(network, **{**fits, **change})
