"""What an experiment sets before JAX is imported: devices, and where compiled programs are kept."""

import os
import stat
import sys

import launchers
import pytest

from experiments.shared import start

OURS = ("XLA_FLAGS", "JAX_", "SLURM_", "OMPI_", "ADVFEAT_", "XDG_")


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No variable of this test run; a cache folder of its own."""
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    for name in ("NUM_CPU_DEVICES", "COMPILATION_CACHE_DIR", "COMPILATION_CACHE_MAX_SIZE"):
        monkeypatch.setenv(f"JAX_{name}", "")  # so that what is set here is undone
        monkeypatch.delenv(f"JAX_{name}")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    monkeypatch.setenv("ADVFEAT_CACHE_DIR", str(tmp_path / "cache"))


def cpu_devices():
    return os.environ.get("JAX_NUM_CPU_DEVICES")


def test_there_is_a_cpu_device_per_core(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    start.prepare_jax(None)
    assert cpu_devices() == "3"


def test_the_flag_decides():
    start.prepare_jax(1)
    assert cpu_devices() == "1"


@pytest.mark.parametrize(
    "given",
    [
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        {"JAX_NUM_CPU_DEVICES": "4"},
        # Several processes are several devices already.
        launchers.explicit(0, 1234),
        launchers.slurm(0, 1234),
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"JAX_NUM_PROCESSES": "2"},  # the runner will say that two variables are missing
    ],
    ids=lambda given: next(iter(given)),
)
def test_who_chose_already_is_left_alone(monkeypatch, given):
    before = cpu_devices()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    start.prepare_jax(None)
    assert cpu_devices() == given.get("JAX_NUM_CPU_DEVICES", before)


def test_an_allocation_of_several_tasks_is_one_process_without_srun(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    start.prepare_jax(None)
    assert int(cpu_devices()) >= 1


def test_other_flags_of_xla_are_no_choice(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    start.prepare_jax(None)
    assert int(cpu_devices()) >= 1


def test_compiled_programs_are_kept_in_the_cache_folder(tmp_path):
    start.prepare_jax(None)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "cache" / "compiled")
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) == start.CACHE_BYTES
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0.5"


def test_a_folder_of_the_users_own_is_used(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    start.prepare_jax(None)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADVFEAT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    start.prepare_jax(None)
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_not_used(tmp_path):
    folder = tmp_path / "cache" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    start.prepare_jax(None)
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
