"""A wheel built from the tree installs and imports elsewhere."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_wheel_installs_and_imports_elsewhere(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    skipped = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    for name in ("advfeat", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for path in ROOT.glob("*.*"):
        if path.is_file() and path.name[0] != ".":
            shutil.copy(path, source)
    pip = (sys.executable, "-m", "pip", "-q")
    run(*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("advfeat-*.whl")
    run(*pip, "install", "--no-deps", "--target", str(site), str(wheel))
    code = (
        "import advfeat, importlib.resources as r, advfeat.experiments.mislabeled.work;"
        "assert r.files('advfeat.runs').joinpath('report_template.html').is_file();"
        "assert advfeat.pgd and advfeat.zoo.names();"
        "print(advfeat.__file__)"
    )
    env = {**os.environ, "PYTHONPATH": str(site)}
    where = run(sys.executable, "-c", code, cwd=tmp_path, env=env).strip()
    assert pathlib.Path(where).is_relative_to(site)
    assert not (site / "experiments").exists()  # a name that is the user's
    told = run(sys.executable, "-m", "advfeat.experiments.train", "--help", cwd=tmp_path, env=env)
    assert "--objective" in told
