"""The practicum: its text is the source, the notebook is made from it, and all of it runs."""

import pathlib

import jupytext
import numpy as np
import pytest

import advfeat
from advfeat import data

HERE = pathlib.Path(__file__).parents[2] / "experiments"
TEXT, NOTEBOOK = HERE / "practicum.md", HERE / "practicum.ipynb"


def cells(path):
    return [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(path).cells]


def test_the_notebook_is_made_from_the_text():
    # jupytext --to ipynb experiments/practicum.md, then executed
    assert cells(NOTEBOOK) == cells(TEXT)


def test_every_cell_was_executed_and_drew_something():
    notebook = jupytext.read(NOTEBOOK)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    pictures = [
        output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 12
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]


@pytest.mark.parametrize("number", ["I.", "II.", "III.", "IV.", "V.", "VI.", "VI.1", "VI.2"])
def test_all_exercises_are_there(number):
    heads = [line for _, source in cells(TEXT) for line in source.splitlines() if line[:1] == "#"]
    assert any(f" {number} " in line for line in heads)


def test_both_bonuses_are_there():
    text = TEXT.read_text(encoding="utf-8")
    assert "### Bonus I. " in text
    assert "### Bonus II. " in text


@pytest.mark.slow
def test_the_practicum_runs_from_top_to_bottom(tmp_path):
    from nbclient import NotebookClient

    notebook = jupytext.read(TEXT)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()


def test_samples_are_evenly_of_all_classes():
    found = data.samples("cifar10")
    assert found.image.shape == (100, 32, 32, 3)
    assert found.image.dtype == np.uint8
    assert (np.bincount(found.label) == 10).all()
    assert found.class_names[3] == "cat"
    assert data.sample_names() == ("cifar10",)
    with pytest.raises(data.DataError, match="samples of cifar10; not of 'mnist'"):
        data.samples("mnist")


def test_samples_are_what_the_zoo_knows():
    from advfeat import zoo

    found = data.samples("cifar10")
    for name in ("cifar10_standard", "cifar10_l2_robust"):
        network = zoo.load(name)
        assert network.spec.class_names == found.class_names
        hits = advfeat.correct(network.model_fn(), data.unit(found.image), found.label)
        assert abs(hits.mean() - network.record["numbers"]["clean_accuracy"]["mean"]) < 0.15
