"""Stores the decided images of an evaluation, so that a killed one can resume.

    with RunDirectory.open("runs/mine", {"eps": 8 / 255}, name="mine") as run:
        with Journal(run, checksum([variables, images, labels])) as journal:
            result = advfeat.evaluate(key, model_fn, images, labels, ..., **journal.hooks())

Run again after a kill, the same lines attack only the images that are not decided yet, and return
the result of an unbroken evaluation.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections import Counter
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from advfeat.evaluation.result import AttackChunk
from advfeat.runs.directory import RunDirectory
from advfeat.runs.files import read_arrays

SAVE_SECONDS = 10.0  # a kill loses the decisions of this time, and the images in flight


def check_same_problem(path: str | os.PathLike[str], problem: str) -> None:
    """Checks that the verdicts stored in a run directory are about the same network and images.

    Equal flags do not suffice, since the files behind them may have changed: a checkpoint may have
    been retrained, or data prepared again, under the same name.

    Args:
      path: the run directory; need not exist.
      problem: a checksum of the network's weights, the images and the labels (`files.checksum`).

    Raises:
      ValueError: if they are not.
    """
    for part in sorted(pathlib.Path(path).glob("parts/*.npz"))[:1]:
        saved = read_arrays(part)
        if "problem" not in saved or str(saved["problem"]) != problem:
            raise ValueError(
                f"{path} holds verdicts on another network or other images than are given now; "
                "choose another directory, or delete it"
            )


class Journal:
    """Stores the parts of an evaluation in `parts/` of its run, and shows a progress bar.

    Args:
      run: the open run directory.
      problem: a checksum of the network's weights, the images and the labels (`files.checksum`).

    Attributes:
      done: images decided by earlier processes, by attack.

    Raises:
      ValueError: if the directory holds verdicts on another problem.

    >>> import tempfile
    >>> from advfeat.runs.files import checksum
    >>> import jax
    >>> import advfeat
    >>> x, y = np.full((4, 2, 2, 1), 0.5, np.float32), np.zeros(4, int)
    >>> network = advfeat.as_model_fn(lambda x: x.ravel() + np.array([0.3, 0.0, 0.0, 0.0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunDirectory.open(folder, {"eps": 0.2}, name="mine") as run:
    ...         with Journal(run, checksum([x, y])) as journal:
    ...             result = advfeat.evaluate(
    ...                 jax.random.key(0), network, x, y, threat=advfeat.linf(0.2), suite="fgsm",
    ...                 checks=False, **journal.hooks())
    ...         with Journal(run, checksum([x, y])) as journal:
    ...             decided = journal.done["fgsm"]
    >>> result.robust_accuracy.mean, decided.rows.tolist(), bool(decided.fooled.all())
    (0.0, [0, 1, 2, 3], True)
    """

    def __init__(self, run: RunDirectory, problem: str):
        check_same_problem(run.path, problem)
        self._run, self._problem = run, problem
        self.done: dict[str, AttackChunk] = {}
        self._seconds: dict[str, float] = {}
        self._count = 0
        found: dict[str, list[AttackChunk]] = {}
        for path in sorted(run.path.glob("parts/*.npz")):
            saved = read_arrays(path)
            name = str(saved["attack"])
            part = AttackChunk(*(saved[field] for field in AttackChunk._fields))
            self._seconds[name] = self._seconds.get(name, 0.0) + float(saved["seconds"])
            found.setdefault(name, []).append(part)
            self._count += 1
        for name, parts in found.items():
            joined = zip(*parts, strict=True)
            self.done[name] = AttackChunk(*(np.concatenate(columns) for columns in joined))
        self._decided = Counter({name: len(part.rows) for name, part in self.done.items()})
        self._name = ""
        self._waiting: list[AttackChunk] = []
        self._since = time.perf_counter()
        self._bar: Any = None
        self._checks: Any = None

    def hooks(self) -> dict[str, Any]:
        """Returns the arguments of `advfeat.evaluate` that store and resume."""
        return {
            "done": self.done,
            "on_part": self.part,
            "on_attack": self.attack,
            "on_check": self.check,
        }

    def attack(self, name: str, count: int) -> None:
        """Starts an attack on a number of images, or resumes it on more of them."""
        self._finish()
        self._name, self._since = name, time.perf_counter()
        self._bar = tqdm(total=count, initial=self._decided[name], desc=name, unit="image")
        self._finish_if_complete()

    def part(self, name: str, part: AttackChunk) -> None:
        """Records images that have just been decided."""
        self._waiting.append(part)
        self._decided[name] += len(part.rows)
        self._bar.update(len(part.rows))
        if time.perf_counter() - self._since > SAVE_SECONDS:
            self._flush()
        self._finish_if_complete()

    def check(self, name: str) -> None:
        """Starts a check; on a large network, checks take minutes."""
        self._finish()
        if self._checks is None:
            self._checks = tqdm(desc="checks", unit="check")
        else:
            self._checks.update()
        self._checks.set_postfix_str(name)

    def seconds(self) -> dict[str, float]:
        """Returns the wall time by attack, over all processes of the run."""
        self._finish()
        return dict(self._seconds)

    def _finish_if_complete(self) -> None:
        # At once, so that what follows (e.g. the checks) does not count as this attack's time.
        if self._bar.n >= self._bar.total:
            self._finish()

    def _flush(self) -> None:
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + passed
        if not self._waiting:
            return
        joined = AttackChunk(*(np.concatenate(c) for c in zip(*self._waiting, strict=True)))
        fooled = int(joined.fooled.sum())
        arrays = {
            **joined._asdict(),
            "attack": np.str_(self._name),
            "seconds": passed,
            "problem": np.str_(self._problem),
        }
        self._run.save_arrays(f"parts/{self._count:05d}", arrays, {"attack": self._name})
        self._run.log(
            self._count, stage=f"attack/{self._name}", decided=len(joined.rows), fooled=fooled
        )
        self._count += 1
        self._waiting = []

    def _finish(self) -> None:
        if self._bar is not None:
            self._flush()
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Keep what was decided before an error or Ctrl-C.
        self._finish()
        if self._checks is not None:
            self._checks.update()
            self._checks.close()
