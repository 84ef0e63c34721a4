"""Data-parallel training: one device, eight, and two processes of two end at the same weights.

Sums over a batch are made in another order, so the last bits differ; a step's difference is about
1e-7 of the weights, and nine steps of a network that learns make it a few times that.
"""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import sharded
from launchers import ROOT, environment, explicit, free_port, open_mpi, slurm

from advfeat import devices
from advfeat.runs import processes

TOLERANCE = 2e-5  # of weights of about 1


def together(command, launcher, *, devices=2, count=2):
    """Starts the processes of one run; their ends, what they print, and what they complain of."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment(devices, **launcher(i, port, count)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(count)
    ]
    said = [process.communicate(timeout=900) for process in started]
    return [process.returncode for process in started], said


@pytest.fixture(scope="module")
def alone():
    """On one device, by the plain update."""
    hooks, told = sharded.telling()
    state = sharded.trained(16, None, hooks=hooks)
    return {**sharded.flat(state), "told": np.array(told)}


def same(path, alone, devices):
    with np.load(path) as found:
        assert int(found["devices"]) == devices
        assert sorted(found.files) == sorted([*alone, "devices"])
        for name, wanted in alone.items():
            np.testing.assert_allclose(found[name], wanted, atol=TOLERANCE, err_msg=name)


def test_eight_devices_train_as_one(alone, tmp_path):
    out = tmp_path / "eight.npz"
    subprocess.run(
        [sys.executable, "tests/helpers/sharded.py", out], env=environment(8), check=True, cwd=ROOT
    )
    same(out, alone, 8)


@pytest.mark.slow
def test_two_processes_of_two_devices_train_as_one(alone, tmp_path):
    out = tmp_path / "two.npz"
    ends, said = together(["tests/helpers/sharded.py", out], explicit)
    assert ends == [0, 0], said
    same(out, alone, 4)


@pytest.mark.slow
def test_each_process_reads_its_share_of_a_stream(tmp_path):
    hooks, told = sharded.telling()
    state = sharded.trained(16, None, sharded.Shares(16), hooks=hooks)
    out = tmp_path / "shares.npz"
    ends, said = together(["tests/helpers/sharded.py", out, 16, "stream"], explicit)
    assert ends == [0, 0], said
    same(out, {**sharded.flat(state), "told": np.array(told)}, 4)


@pytest.mark.slow
def test_a_mesh_of_one_device_is_bit_for_bit_no_mesh(alone):
    found = sharded.flat(sharded.trained(16, devices.data_mesh(jax.devices()[:1])))
    for name, value in found.items():
        np.testing.assert_array_equal(value, alone[name])


@pytest.mark.slow
def test_a_batch_that_the_devices_cannot_share(tmp_path):
    command = [sys.executable, "tests/helpers/sharded.py", tmp_path / "x.npz", "18"]
    found = subprocess.run(command, env=environment(4), capture_output=True, text=True, cwd=ROOT)
    assert found.returncode != 0
    assert "a batch of 18 examples cannot be shared by 4 devices" in found.stderr


# --- What a launcher says. ------------------------------------------------------------------------


@pytest.fixture
def nothing_set(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("JAX_", "SLURM_", "OMPI_")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("launcher", "name"), [(explicit, "environment"), (slurm, "slurm"), (open_mpi, "openmpi")]
)
def test_how_a_process_was_started(nothing_set, launcher, name):
    assert processes.launched() is None
    for key, value in launcher(1, 1234).items():
        nothing_set.setenv(key, value)
    assert processes.launched() == name
    for key, value in launcher(0, 1234, 1).items():  # one task alone is no distributed run
        nothing_set.setenv(key, value)
    assert processes.launched() is None


def test_a_batch_script_is_no_step(nothing_set):
    # sbatch's own shell has all of srun's variables but the step's.
    for key, value in slurm(0, 1234).items():
        if "STEP" not in key:
            nothing_set.setenv(key, value)
    assert processes.launched() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"JAX_PROCESS_ID": ""}, "without JAX_PROCESS_ID: all three or none"),
        ({"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID=2 must lie in"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: must be a whole number"),
    ],
)
def test_an_environment_that_contradicts_itself(nothing_set, change, words):
    for key, value in {**explicit(0, 1234), **change}.items():
        nothing_set.setenv(key, value)
    with pytest.raises(ValueError, match=words):
        processes.launched()


def test_alone_there_is_nobody_to_wait_for(nothing_set):
    assert processes.join() == 0
    assert processes.alone()
    assert processes.first()
    processes.wait("nobody")
    processes.leave()
