"""`experiments.train` over several processes, started as their launchers start them."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from imagenet_like import tiny
from launchers import ROOT, environment, explicit, free_port, slurm
from test_faults import files, summary, told

TRAIN = [
    "-m",
    "experiments.train",
    "--train_examples=100",
    "--batch_size=16",
    "--model=mlp",
    "--width=8",
    "--eval_examples=10",
    "--eval_steps=1",
    "--eps_grid=0,1",
    "--objective=adversarial",
    "--attack_steps=2",
]


def start(workdir, *flags, launcher=slurm, devices=1, command=TRAIN, each=((), ())):
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *command, f"--workdir={workdir}", *flags, *each[index]],
            env=environment(devices, **launcher(index, port), ADVFEAT_SAVE_SECONDS="0.2"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for index in range(2)
    ]


def ends(started):
    said = [process.communicate(timeout=900) for process in started]
    return [process.returncode for process in started], said


def test_a_wrong_flag_ends_all_processes_and_one_says_why(tmp_path):
    # 18 examples for two devices in each of two processes.
    codes, said = ends(start(tmp_path / "run", "--batch_size=18", devices=2, launcher=explicit))
    assert codes == [2, 2], said
    assert "a batch of 18 examples cannot be shared by 4 devices" in said[0][1]
    assert not (tmp_path / "run").exists()


STREAM = [flag for flag in TRAIN if not flag.startswith("--train_examples")]


def streamed(tmp_path):
    """The flags of a training on a stream, of which each process reads its own part."""
    folder = tiny(tmp_path / "tfds", each=6)
    return ["--stream", "--dataset=restricted_imagenet", f"--data_dir={folder}", "--image_size=8"]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["memory", "stream"])
def test_slurm_tasks_make_one_run_that_survives_preemption(tmp_path, monkeypatch, source):
    monkeypatch.setenv("ADVFEAT_CACHE_DIR", str(tmp_path / "labels"))
    command = TRAIN if source == "memory" else [*STREAM, *streamed(tmp_path)]
    launch = functools.partial(start, command=command)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    codes, said = ends(launch(whole, "--epochs=40"))
    assert codes == [0, 0], said
    assert "results: " in said[0][0] or "report: " in said[0][0]
    assert said[1] == ("", "")
    record = json.loads((whole / "run.json").read_text())
    assert record["devices"]["count"] == 2

    started = launch(broken, "--epochs=40")
    while not (broken / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in started), ends(started)
        time.sleep(0.05)
    os.kill(started[1].pid, signal.SIGTERM)  # a preempted task is not always the first
    codes, said = ends(started)
    assert codes == [143, 143], said
    assert said[0][1].splitlines()[-1].endswith("terminated; rerun the command to resume")
    assert len(told(broken)) < 40
    assert list((broken / "checkpoints" / "model").glob("[0-9]*"))

    codes, said = ends(launch(broken, "--epochs=40"))
    assert codes == [0, 0], said
    assert "resuming the run" in said[0][0]
    assert files(broken) == files(whole)
    assert summary(broken) == summary(whole)
    assert told(broken) == told(whole)

    codes, said = ends(launch(broken, "--epochs=40"))
    assert codes == [0, 0], said
    assert "finished" in said[0][0]
    assert said[1][0] == ""


@pytest.mark.slow
def test_a_killed_process_takes_the_others_with_it_and_the_run_goes_on(tmp_path):
    run = tmp_path / "run"
    started = start(run, "--epochs=300", launcher=explicit)
    while not list(run.glob("checkpoints/model/[0-9]*")):
        assert all(process.poll() is None for process in started), ends(started)
        time.sleep(0.05)
    started[0].kill()
    codes, _ = ends(started)
    assert codes[0] == -signal.SIGKILL
    assert codes[1] != 0
    codes, said = ends(start(run, "--epochs=300", launcher=explicit))
    assert codes == [0, 0], said
    assert "resuming the run" in said[0][0]


@pytest.mark.slow
def test_other_experiments_say_that_they_run_in_one_process(tmp_path):
    command = ["-m", "experiments.mislabeled"]
    found = subprocess.run(
        [sys.executable, *command, f"--workdir={tmp_path / 'x'}"],
        env=environment(1, **slurm(0, 1)),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert found.returncode == 2
    assert "runs in one process" in found.stderr
    assert found.stderr.count("\n") == 1
