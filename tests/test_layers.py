"""The shape of the code: layers import downwards only, heavy libraries live in one place."""

import ast
import functools
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = {
    0: (
        "types",
        "checks",
        "devices",
        "edges",
        "keys",
        "numerics",
        "rows",
        "stats",
        "threats",
        "images",
    ),
    1: ("objectives",),
    2: ("attacks", "evaluation", "saliency", "features", "theory"),
    3: ("models", "training"),
    4: ("data", "figures", "runs", "zoo"),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
LIGHT = (  # no slow import
    "advfeat.runs",
    "advfeat.runs.config",
    "advfeat.runs.choices",
    "advfeat.runs.kinds",
)
FACE = 2  # the flat face may be imported wherever its layers may
OUTSIDE = 5  # experiments

FILES = sorted([*ROOT.glob("advfeat/**/*.py"), *ROOT.glob("experiments/**/*.py")])
NAMES = {}
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))


def imports(path):
    """Every module that a file names in an import, wherever it stands."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level], *base.split(".")])
            yield base
            # `from advfeat import data` names a module, `from advfeat.threats import l2` does not.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer_of(module):
    """The layer of a module of ours; None for what is not ours or not a module."""
    parts = module.split(".")
    if parts[0] == "experiments":
        return OUTSIDE
    if parts[0] != "advfeat":
        return None
    if len(parts) == 1:
        return FACE
    return LAYER_OF.get(parts[1])


def home(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES.update({home(path): path for path in FILES})


def test_every_module_has_a_layer():
    there = {path.stem for path in ROOT.glob("advfeat/*.py")} - {"__init__"}
    there |= {path.parent.name for path in ROOT.glob("advfeat/*/__init__.py")}
    assert there == set(LAYER_OF)


@each_file
def test_no_upward_import(path):
    mine = layer_of(home(path))
    assert mine is not None
    for module in imports(path):
        theirs = layer_of(module)
        if module == "advfeat" and mine < FACE:
            # `from advfeat import norms`: the modules themselves are what counts.
            continue
        assert theirs is None or theirs <= mine, f"{home(path)} imports {module}"


@each_file
def test_the_face_is_not_imported_from_below(path):
    if layer_of(home(path)) <= FACE and home(path) != "advfeat":
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "advfeat":
                assert all(alias.name in LAYER_OF for alias in node.names), home(path)
            if isinstance(node, ast.Import):
                assert all(alias.name != "advfeat" for alias in node.names), home(path)


ONLY_IN = {
    "flax": ("advfeat.models", "advfeat.training", "advfeat.runs.checkpoints"),
    "orbax": ("advfeat.runs.checkpoints", "advfeat.runs.train_states"),
    "tensorflow_datasets": ("advfeat.data",),
    "grain": ("advfeat.data",),
    "absl": ("advfeat.runs",),
    "matplotlib": ("advfeat.figures",),
    "tensorboardX": ("advfeat.runs.metrics",),
    "tensorflow": (),
    "torch": ("experiments.benchmark",),
    "clu": (),
}


@each_file
def test_heavy_libraries_have_one_home(path):
    for module in imports(path):
        homes = ONLY_IN.get(module.split(".")[0])
        if homes is not None:
            name = home(path)
            assert any(f"{name}.".startswith(f"{h}.") for h in homes), f"{name}: {module}"


PEERS = {"torch", "torchattacks", "foolbox", "art", "captum", "autoattack"}


@each_file
def test_without_the_peers_every_module_imports(path):
    """What needs a peer at its top is named `torch_*`, which pytest does not look into."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    named = {alias.name for node in tops if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in tops if isinstance(node, ast.ImportFrom)}
    needs = {name.split(".")[0] for name in named} & PEERS
    assert not needs or path.name.startswith("torch_"), f"{home(path)}: {needs}"
    ours = {name for name in named if name.split(".")[-1].startswith("torch_")}
    assert not ours or path.name.startswith("torch_"), f"{home(path)}: {ours}"


@each_file
def test_inner_layers_touch_no_disk(path):
    if layer_of(home(path)) <= 2:
        outside = {"os", "pathlib", "io", "json", "subprocess", "tempfile", "logging", "tqdm"}
        assert not {module.split(".")[0] for module in imports(path)} & outside
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if getattr(c.func, "id", "") in ("open", "print")]


@each_file
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


def known(module):
    """The file of ours that an import of `module` runs, by its dotted name; None for others."""
    while module not in NAMES and "." in module:
        module = module.rpartition(".")[0]
    return module if module in NAMES else None


@functools.cache
def graph():
    """Who imports whom among our files, wherever the import stands."""
    found = {}
    for name, path in NAMES.items():
        others = {known(module) for module in imports(path)} - {None, name}
        # A package's own modules are imported by its __init__, which is what a package is.
        found[name] = {other for other in others if not name.startswith(f"{other}.")}
    return found


def test_no_circle_of_files():
    edges, done = graph(), set()

    def visit(name, above):
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, [*above, name])
            done.add(name)

    for name in edges:
        visit(name, [])


def room(name):
    """The experiment, and what the file is in it."""
    _, *rest = name.split(".")
    return rest[0] if rest else "", rest[1] if len(rest) > 1 else "__init__"


# Flags know nothing slow, a plan no results, and nobody but the command what the work is.
@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("experiments.")])
def test_an_experiment_has_floors(name):
    mine, part = room(name)
    for other in graph()[name]:
        if not other.startswith("experiments."):
            if part == "flags" or name.startswith("experiments.shared.flags"):
                assert other in ("advfeat", *LIGHT), other
            continue
        theirs, floor = room(other)
        assert theirs in (mine, "shared"), f"{name} imports another experiment's {other}"
        if theirs == mine != "shared":
            assert floor != "work" or part == "__main__", f"{name} imports {other}"
            assert part != "plan" or floor not in ("report", "summary"), f"{name} imports {other}"
            assert part != "flags", f"{name} imports {other}"


def test_the_reader_of_imports_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "advfeat" / "attacks" / "new.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from advfeat import models\n"
        "def f():\n    import flax.linen as nn\n"
        "from .batch import attack_batch\n"
    )
    found = set(imports(file))
    assert {"advfeat.models", "flax.linen", "advfeat.attacks.batch"} <= found
    assert layer_of("advfeat.models") > layer_of(home(file))
