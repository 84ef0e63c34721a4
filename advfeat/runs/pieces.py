"""Evaluates images that do not fit in memory at once, piece by piece, and resumes after a kill.

    first, *rest = cut(images, seed=0)
    pieces = Pieces(key=key, model_fn=model_fn, threat=threat, suite=suite, problem=fingerprint)
    with RunDirectory.open("runs/mine", {"eps": 8 / 255}, name="mine") as run:
        others = pieces.verdicts(run, rest)
        here = first.read()
        result = joined(pieces.attacked(run, data.unit(here.image), here.label, here.id), others)

The drawn images are shuffled and cut into pieces, each of which is evaluated by itself. Of all but
the first piece only the verdicts are kept. The first comes last: its images stay in memory for the
checks, the curves and the report. An image's draws depend on its id, so the verdicts are those of
one evaluation of all images, except that the gates of `quick` adapt to the images of a piece.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import data
from advfeat.evaluation.result import SuiteResult
from advfeat.evaluation.suites import Suite
from advfeat.runs.directory import RunDirectory
from advfeat.runs.files import read_arrays
from advfeat.runs.journal import Journal
from advfeat.runs.verdicts import BY_IMAGE, TOTALS, VERDICTS, packed, unpacked
from advfeat.threats.balls import ThreatModel
from advfeat.types import Key

WHOLE = "whole"  # folder of the verdict on the images in memory, checks included
PIECE = 1000  # images in memory at once: of 224 x 224 pixels 600 MB, a few times over


def cut(
    images: data.DiskSplit, *, seed: int, most: int | None = None
) -> tuple[data.DiskSplit, ...]:
    """Cuts a drawn sample into pieces; several are shuffled before.

    Args:
      images: on disk.
      seed: of the order.
      most: largest number of images in a piece; by default `PIECE`.
    """
    count = math.ceil(len(images) / (most or PIECE))
    if count < 2:
        return (images,)
    shuffled = data.subset(images, len(images), seed=seed)
    return tuple(shuffled.take(rows) for rows in np.array_split(np.arange(len(images)), count))


def places(workdir: str) -> list[pathlib.Path]:
    """Returns the folders that may hold verdicts: the run directory, and those of its pieces."""
    path = pathlib.Path(workdir)
    return [path, path / WHOLE, path / "pieces", *sorted(path.glob("pieces/[0-9]*"))]


class _Room:
    """The part of a run directory in which the journal of one piece is kept."""

    def __init__(self, run: RunDirectory, name: str):
        self._run, self._name = run, name
        self.path = run.path / name

    def save_arrays(
        self, name: str, arrays: Mapping[str, Any], about: Mapping[str, Any]
    ) -> pathlib.Path:
        """Like the run's, in this folder."""
        return self._run.save_arrays(f"{self._name}/{name}", arrays, about)

    def log(self, step: int, *, stage: str, **scalars: Any) -> None:
        """Like the run's, in stages of its own."""
        self._run.log(step, stage=f"{self._name}/{stage}", **scalars)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pieces:
    """What is attacked, and how: the arguments of `advfeat.evaluate` that all pieces share.

    Attributes:
      key: a typed key.
      model_fn: the network.
      threat: the threat model.
      suite: the attacks, as `evaluation.suites.resolve` returns them.
      problem: a checksum of the network's weights and of all images (`files.checksum`).
      sequential: as of `advfeat.evaluate`.
      batch_size: images attacked at a time.
    """

    key: Key
    model_fn: advfeat.ModelFn
    threat: ThreatModel
    suite: Suite
    problem: str
    sequential: bool = True
    batch_size: int = 250

    def attacked(
        self,
        run: Any,
        images: np.ndarray,
        labels: np.ndarray,
        ids: np.ndarray,
        *,
        checks: bool = True,
    ) -> SuiteResult:
        """Attacks images in memory, or resumes where a killed process stopped.

        Raises:
          ValueError: as `advfeat.evaluate`, or if the run holds verdicts on another problem.
        """
        with Journal(run, self.problem) as journal:
            result = advfeat.evaluate(
                self.key,
                self.model_fn,
                images,
                labels,
                threat=self.threat,
                suite=self.suite,
                sequential=self.sequential,
                batch_size=self.batch_size,
                ids=ids,
                checks=checks,
                **journal.hooks(),
            )
            seconds = journal.seconds()
        attacks = [
            dataclasses.replace(part, seconds=seconds.get(part.name, part.seconds))
            for part in result.attacks
        ]
        return dataclasses.replace(result, attacks=tuple(attacks))

    def first(
        self,
        run: RunDirectory,
        images: np.ndarray,
        labels: np.ndarray,
        ids: np.ndarray,
        *,
        checks: bool = True,
    ) -> SuiteResult:
        """Attacks and checks images in memory, unless the run holds the whole result."""

        def measure() -> tuple[dict[str, Any], dict[str, Any]]:
            whole = self.attacked(run, images, labels, ids, checks=checks)
            made = {"adversarial": whole.adversarial, "problem": self.problem}
            return {**packed(whole), **made}, {}

        saved = run.cached(f"{WHOLE}/parts/00000", measure)
        return unpacked(saved, self.threat, images.shape[1:])

    def verdicts(self, run: RunDirectory, pieces: Sequence[data.DiskSplit]) -> list[SuiteResult]:
        """Returns the verdicts on pieces that are read here, one at a time, and forgotten."""
        found = []
        for number, piece in enumerate(pieces, 1):
            name = f"pieces/parts/{number:05d}"
            if not run.arrays_path(name).exists():
                tqdm.write(f"piece {number} of {len(pieces) + 1}: {len(piece)} images")
                here = piece.read()
                room = _Room(run, f"pieces/{number:05d}")
                whole = self.attacked(
                    room, data.unit(here.image), here.label, here.id, checks=False
                )
                run.save_arrays(name, {**packed(whole), "problem": self.problem}, {})
            # After its verdicts are written, or by the process after one that was killed here.
            shutil.rmtree(run.path / f"pieces/{number:05d}", ignore_errors=True)
            saved = read_arrays(run.arrays_path(name))
            found.append(unpacked(saved, self.threat, piece.input_shape))
        return found


def joined(first: SuiteResult, others: Sequence[SuiteResult]) -> SuiteResult:
    """Joins the verdicts on all pieces; the adversarial images are those of the first alone.

    Its warnings are followed by those of other pieces whose codes it does not have.
    """
    parts = [first, *others]
    attacks = []
    for of_pieces in zip(*(part.attacks for part in parts), strict=True):
        columns = {
            field: np.concatenate([getattr(piece, field) for piece in of_pieces])
            for field in BY_IMAGE
        }
        totals = {field: sum(getattr(piece, field) for piece in of_pieces) for field in TOTALS}
        attacks.append(dataclasses.replace(of_pieces[0], **columns, **totals))
    known = {warned.code for warned in first.warnings}
    more = {w.code: w for part in others for w in part.warnings if w.code not in known}
    verdicts: dict[str, Any] = {
        field: np.concatenate([getattr(part, field) for part in parts]) for field in VERDICTS
    }
    return dataclasses.replace(
        first, attacks=tuple(attacks), warnings=(*first.warnings, *more.values()), **verdicts
    )
