"""A sample is a sample: drawn by the seed, in proportion to the classes, whatever the order."""

import ast
import pathlib
import types

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import advfeat
from advfeat import data, models
from advfeat.data import draw_rows
from advfeat.evaluation.diagnostics import MOST, Context
from advfeat.models.network import NetworkSpec
from advfeat.runs import selection
from advfeat.training.selection import Selection
from experiments.evaluate import flags as evaluate_flags, work as evaluate_work

ROOT = pathlib.Path(__file__).parents[1]
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**32 - 1)


def labels_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


def counts_of(labels, rows, classes):
    return np.bincount(labels[rows], minlength=classes)


# --- What is drawn. -------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(SIZES, st.integers(1, 500), SEEDS)
def test_every_class_gives_its_share_rounded_whatever_the_order(sizes, most, seed):
    labels = labels_of(sizes)
    rows = draw_rows(labels, most, seed=seed)
    taken = min(most, len(labels))
    assert len(rows) == taken == len(set(rows.tolist()))
    assert rows.min() >= 0
    assert rows.max() < len(labels)
    counts = counts_of(labels, rows, len(sizes))
    # Whole numbers: floor and ceiling of taken * size / all.
    assert (counts >= taken * np.array(sizes) // len(labels)).all()
    assert (counts <= -(-taken * np.array(sizes) // len(labels))).all()
    shuffled = np.random.default_rng(seed).permutation(labels)
    other = draw_rows(shuffled, most, seed=seed)
    np.testing.assert_array_equal(counts, counts_of(shuffled, other, len(sizes)))
    np.testing.assert_array_equal(rows, draw_rows(labels, most, seed=seed))


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(1, 50), SEEDS)
def test_names_of_classes_do_not_matter_and_nothing_is_drawn_for_0(sizes, most, seed):
    labels = labels_of(sizes)
    names = np.array([f"{label:03d}" for label in labels])
    np.testing.assert_array_equal(
        draw_rows(labels, most, seed=seed), draw_rows(names, most, seed=seed)
    )
    assert draw_rows(labels, 0, seed=seed).tolist() == list(range(len(labels)))
    # Without labels all are of one class.
    np.testing.assert_array_equal(
        draw_rows(len(labels), most, seed=seed),
        draw_rows(np.zeros(len(labels)), most, seed=seed),
    )


@pytest.mark.parametrize("most", [2, 7, 30])
def test_every_example_is_as_likely_as_any_other(most):
    """With fewer places than classes too: the largest remainder would take the largest classes."""
    labels = labels_of([1, 2, 11, 12, 13])
    draws = 2000
    seen = np.zeros(len(labels))
    for seed in range(draws):
        seen[draw_rows(labels, most, seed=seed)] += 1
    share = most / len(labels)
    error = np.sqrt(share * (1 - share) / draws)
    assert np.abs(seen / draws - share).max() < 5 * error


def test_what_comes_back_is_shuffled_even_where_all_is_taken():
    labels = np.repeat(np.arange(10), 100)
    for most in (500, 1000, 5000):
        rows = draw_rows(labels, most, seed=0)
        # A beginning of it holds every class about as often: 10 of 100, 5 standard deviations.
        assert np.abs(counts_of(labels, rows[:100], 10) - 10).max() < 5 * 3
        # Neighbours are of one class as often as chance has it.
        same = (labels[rows][1:] == labels[rows][:-1]).mean()
        assert abs(same - 0.1) < 5 * np.sqrt(0.09 / len(rows))


def test_a_subset_keeps_the_ids_and_what_belongs_to_them():
    labels = labels_of([5, 9, 1])
    image = np.arange(15, dtype=np.uint8).reshape(15, 1, 1, 1)
    split = data.Split(image, labels, 100 + np.arange(15))
    part = data.subset(split, 6, seed=3)
    assert (part.id == 100 + part.image.ravel()).all()
    assert (part.label == labels[part.id - 100]).all()
    assert data.subset(split, 0, seed=3) is split
    assert sorted(data.subset(split, 99, seed=3).id) == split.id.tolist()


@pytest.mark.parametrize(
    ("labels", "most", "seed", "message"),
    [
        (5, -1, 0, "most must not be negative, got -1"),
        (-5, 1, 0, "labels must not be negative, got -5"),
        (5, 1, -3, "seed must not be negative, got -3"),
        (5, 1, (0, -3), r"seed must not be negative, got \(0, -3\)"),
        (np.zeros((2, 3)), 1, 0, r"labels must be \[N\], or the number N, got shape \[2, 3\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(labels, most, seed, message):
    with pytest.raises(ValueError, match=message):
        draw_rows(labels, most, seed=seed)


def test_of_nothing_there_is_nothing():
    assert draw_rows([], 3, seed=0).tolist() == draw_rows(0, 3, seed=0).tolist() == []


# --- Who draws. -----------------------------------------------------------------------------------


def spied(monkeypatch):
    """The labels that `evaluate_epsilons` was given."""
    seen = []

    def stop(key, attack_for, model_fn, images, labels, *rest, **options):
        seen.append(np.bincount(labels, minlength=10))
        raise StopIteration

    monkeypatch.setattr(advfeat, "evaluate_epsilons", stop)
    return seen


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_all_classes_of_a_sorted_set_are_watched(monkeypatch, tmp_path, order):
    labels = labels_of([100] * 10)
    labels = labels if order == "sorted" else np.random.default_rng(0).permutation(labels)
    images = np.zeros((1000, 2, 2, 1), np.float32)
    spec = NetworkSpec(model="linear", class_names=tuple("abcdefghij"), input_shape=(2, 2, 1))
    watch = selection.Watch(
        tmp_path, Selection(examples=500), spec, advfeat.linf(0.1), (images, labels)
    )
    seen = spied(monkeypatch)
    with pytest.raises(StopIteration):
        watch.accuracy(dict(models.init(jax.random.key(0), spec.build(), (2, 2, 1))))
    assert seen[0].tolist() == [50] * 10


def test_all_classes_of_a_sorted_set_are_in_the_curves(monkeypatch):
    labels = labels_of([100] * 10)
    plan = types.SimpleNamespace(
        images=np.zeros((1000, 2, 2, 1), np.float32), labels=labels, threat=advfeat.l2(0.5)
    )
    options = {"workdir": "unused", "checkpoint": "unused", "norm": "l2", "eps": 0.5}
    seen = spied(monkeypatch)
    for most, wanted in ((200, [20] * 10), (0, [100] * 10)):
        with pytest.raises(StopIteration):
            evaluate_work._curves(evaluate_flags.Config(sweep_examples=most, **options), plan, None)
        assert seen.pop().tolist() == wanted
    assert evaluate_work._curves(evaluate_flags.Config(curves=False, **options), plan, None) == {}
    assert not seen


def test_checks_look_at_all_classes():
    labels = labels_of([300, 150, 150])
    robust = np.random.default_rng(0).random(600) < 0.8
    clean = robust | (labels == 1)
    result = types.SimpleNamespace(robust=robust, clean=clean)
    case = Context(
        jax.random.key(0), None, np.zeros((600, 1, 1, 1)), labels, None, np.arange(600), result, 100
    )
    rows = case.standing()
    assert len(set(rows.tolist())) == len(rows) == MOST
    assert robust[rows].all()
    share = MOST * np.bincount(labels[robust]) / robust.sum()
    assert np.abs(np.bincount(labels[rows]) - share).max() < 1
    few = case._replace(result=types.SimpleNamespace(robust=labels < 0, clean=clean))
    assert np.bincount(labels[few.sample()]).sum() == MOST
    other = case._replace(key=jax.random.key(1))
    assert set(other.standing()) != set(rows)


# --- Nobody takes the first. ----------------------------------------------------------------------

PADDING = "takes off what filled the last batch"
BY_VALUE = "by value, not by place"
NO_EXAMPLES = "no examples: names, text, bytes, pixels, units or steps"
DRAWN = "of an order that was drawn"
EVERY_ROW = "the first of a queue that holds all rows"
ALLOWED = {
    ("advfeat/data/constructed_npz.py", "text[:57]"): NO_EXAMPLES,
    (
        "advfeat/data/sample_set.py",
        "np.flatnonzero(everything.label == label)[:_TRAIN]",
    ): "the set's own parts, of every class alike; its images were drawn",
    ("advfeat/evaluation/diagnostics/case.py", "self.right(name, x, batch)[:len(rows)]"): PADDING,
    (
        "advfeat/evaluation/diagnostics/numbers.py",
        "case.right('rounding', rounded, batch)[:len(rows)]",
    ): PADDING,
    ("advfeat/edges.py", "data[:2]"): NO_EXAMPLES,
    ("advfeat/figures/style.py", "line[:half]"): NO_EXAMPLES,
    ("advfeat/figures/style.py", "found[:lines - 1]"): NO_EXAMPLES,
    ("advfeat/runs/files.py", "str(found)[:40]"): NO_EXAMPLES,
    ("advfeat/stats/bootstrap.py", "samples[:_REST_DRAWS]"): DRAWN,
    ("advfeat/evaluation/robust_accuracy.py", "share[:len(rows)]"): PADDING,
    ("experiments/mislabeled/report.py", "examples[:6 - len(turned.examples)]"): DRAWN,
    ("experiments/saliency/plan.py", "checked[:_CHECKED]"): NO_EXAMPLES,
    (
        "experiments/transfer_learning/work.py",
        "slice(None, len(plan.choice))",
    ): "two sets that were measured in one pass",
    (
        "experiments/transfer_learning/work.py",
        "slice(len(plan.choice), None)",
    ): "two sets that were measured in one pass",
    ("advfeat/attacks/apgd_kernels.py", "due[begin + window:end:window]"): NO_EXAMPLES,
    ("advfeat/attacks/survivors.py", "itertools.islice(waiting, slots)"): EVERY_ROW,
    ("advfeat/devices.py", "found[:most]"): NO_EXAMPLES,
    ("advfeat/devices.py", "leaf[:count]"): PADDING,
    ("advfeat/devices.py", "np.asarray(leaf)[:real]"): PADDING,
    ("advfeat/evaluation/diagnostics/slopes.py", "leaf[:len(rows)]"): PADDING,
    ("advfeat/attacks/square_l2_l1.py", "numbers[0:2]"): NO_EXAMPLES,
    ("advfeat/features/mislabeled.py", "np.argsort(-resemblance, kind='stable')[:count]"): BY_VALUE,
    ("advfeat/data/archives.py", "data[:4]"): NO_EXAMPLES,
    ("advfeat/data/classes.py", "class_names[:5]"): NO_EXAMPLES,
    ("advfeat/data/classes.py", "classes[:position]"): NO_EXAMPLES,
    (
        "advfeat/data/digits.py",
        "np.flatnonzero(labels == label)[3::4]",
    ): "the set's own parts, of every class and writer, the same in every version",
    (
        "advfeat/data/folder.py",
        "members[np.argsort(hashes[members], kind='stable')][:count]",
    ): BY_VALUE,
    (
        "advfeat/data/label_index.py",
        "hashlib.sha256(repr(parts).encode()).hexdigest()[:32]",
    ): NO_EXAMPLES,
    ("advfeat/data/planted_images.py", "whole.take(np.arange(_TRAIN))"): "the set's own parts",
    (
        "advfeat/data/planted_images.py",
        "whole.take(np.arange(_TRAIN, len(labels)))",
    ): "the set's own parts",
    (
        "advfeat/data/streaming.py",
        "rng.permutation(members)[:counts.min()]",
    ): "as many of each class, drawn anew for every epoch",
    ("advfeat/data/types.py", "rng.permutation(members)[:count]"): "drawn within each class",
    (
        "advfeat/evaluation/broken_defences.py",
        "blocks.reshape(padded.shape)[:height, :width]",
    ): NO_EXAMPLES,
    ("advfeat/evaluation/broken_defences.py", "random[:place]"): NO_EXAMPLES,
    ("advfeat/figures/charts.py", "column_names[::step]"): NO_EXAMPLES,
    ("advfeat/figures/charts.py", "row_names[::step]"): NO_EXAMPLES,
    ("advfeat/features/representations.py", "order[::-1][:count]"): BY_VALUE,
    ("advfeat/features/representations.py", "order[:count]"): BY_VALUE,
    ("advfeat/evaluation/robust_accuracy.py", "inside[:len(rows)]"): PADDING,
    ("advfeat/training/loop.py", "images[:1]"): "one shows the shape and type of all",
    (
        "advfeat/training/loop.py",
        "itertools.islice(rest, min(CHUNK, steps - begin))",
    ): "the rest comes in the next chunk",
    ("advfeat/training/loop.py", "order[:steps * size]"): "an epoch's own shuffle",
    (
        "advfeat/runs/train_states.py",
        "(str(error).strip().splitlines() or [type(error).__name__])[0][:200]",
    ): NO_EXAMPLES,
    ("experiments/defences/flags.py", "DEFENCES.written()[:3]"): NO_EXAMPLES,
    (
        "advfeat/runs/journal.py",
        "sorted(pathlib.Path(path).glob('parts/*.npz'))[:1]",
    ): "whether there is any",
    ("experiments/evaluate/report.py", "fooled[:k]"): "which turn an image has",
    ("experiments/evaluate/report.py", "np.argsort(turn, kind='stable')[:5]"): DRAWN,
    ("experiments/representations/plan.py", "np.argsort(-values.std(axis=0))[:3]"): BY_VALUE,
    ("experiments/representations/pictures.py", "order[np.isin(order, read)][:_CLASSES]"): DRAWN,
    ("experiments/counterfactual/report.py", "range(min(config.features, 2))"): NO_EXAMPLES,
    ("experiments/shared/words.py", "words[:1]"): NO_EXAMPLES,
    ("experiments/transfer_learning/plan.py", "names[:half]"): "which classes are the source's",
    ("tests/benchmarks/bench_pictures.py", "chunks[:1]"): NO_EXAMPLES,
    ("tests/benchmarks/bench_training.py", "rng.permutation(4 * batch)[:batch]"): DRAWN,
    ("tests/benchmarks/coverage_table.py", "slice(None, seeds)"): NO_EXAMPLES,
    ("tests/benchmarks/coverage_table.py", "slice(seeds, None)"): NO_EXAMPLES,
}
"""(File, code) -> why it may take the first of something."""


def _is_shape(node):
    text = ast.unparse(node.value)
    return text.endswith("shape") or text.startswith(("np.shape(", "jnp.shape("))


def _end(place):
    """Whether a slice leaves out an end that is not just the last few or nothing at all."""
    begins = place.lower is None or ast.unparse(place.lower) == "0"
    ends = place.upper is not None and not isinstance(place.upper, ast.UnaryOp)
    empty = place.upper is not None and ast.unparse(place.upper) == "0"
    strides = place.step is not None and ast.unparse(place.step) != "-1"
    return (begins and ends and not empty) or strides


def takes_the_first(node):
    """Whether an expression takes the first of something, or every n-th, or at even distances."""
    if isinstance(node, ast.Subscript):
        place = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
        return isinstance(place, ast.Slice) and not _is_shape(node) and _end(place)
    if not isinstance(node, ast.Call):
        return False
    name, args = ast.unparse(node.func).split(".")[-1], [ast.unparse(arg) for arg in node.args]
    if name in ("islice", "slice"):
        return True
    if name == "take":
        return any(arg.startswith(("np.arange(", "jnp.arange(", "range(")) for arg in args)
    if name == "astype":
        return "linspace(" in ast.unparse(node.func)
    # A loop over places up to the number that is shown.
    return name == "range" and len(args) == 1 and args[0].startswith("min(")


def found_in(text):
    return [ast.unparse(node) for node in ast.walk(ast.parse(text)) if takes_the_first(node)]


def test_nothing_is_chosen_by_its_place():
    """Draw it by `advfeat.rows.draw_rows`; or say in `ALLOWED` why the first are as good."""
    found, wrong = set(), []
    for folder in ("advfeat", "experiments", "tests/benchmarks"):
        for path in sorted(ROOT.glob(f"{folder}/**/*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if takes_the_first(node):
                    place = (path.relative_to(ROOT).as_posix(), ast.unparse(node))
                    found.add(place)
                    if place not in ALLOWED:
                        wrong.append(f"{place[0]}:{node.lineno}: {place[1]}")
    assert not wrong, "\n".join(wrong)
    assert not set(ALLOWED) - found, "no longer there"


def test_the_reader_of_code_sees_what_takes_the_first():
    for taking in (
        "images[:n]",
        "plan.labels[: config.shown]",
        "x[0:5]",
        "x[::2]",
        "x[1::2]",
        "np.flatnonzero(wrong)[:6]",
        "itertools.islice(stream, 3)",
        "slice(0, 4)",
        "split.take(np.arange(9))",
        "split.take(range(9))",
        "part[:n, 3]",
        "rows[np.linspace(0, len(rows) - 1, most).astype(int)]",
        "range(min(shown, len(images)))",
        "images[: len(found)]",
    ):
        assert found_in(taking), taking
    for other in (
        "images[rows]",
        "images[:-1]",
        "x.shape[:2]",
        "x[:, :3]",
        "x[::-1]",
        "x[2:]",
        "np.linspace(0, 1, 5)",
        "split.take(rows)",
        "range(3)",
        "x[:0]",
    ):
        assert not found_in(other), other


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*.md")), ids=lambda p: p.name)
def test_no_cell_takes_the_first(path):
    blocks = path.read_text(encoding="utf-8").split("```python")[1:]
    for block in blocks:
        lines = block.split("```")[0].splitlines()
        code = "\n".join(line for line in lines if not line.startswith("%"))
        assert not found_in(code), code
