"""Watches the epochs of a robust training on disk, and keeps the weights that a rule selects.

The rule is `training.selection.Selection`. The images are held out of the training set; the test
set is never used.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

import advfeat
from advfeat import models, stats
from advfeat.models.network import Network, NetworkSpec
from advfeat.rows import draw_rows
from advfeat.runs import checkpoints
from advfeat.runs.files import DamagedError, read_json, write_json
from advfeat.stats import Estimate
from advfeat.training.selection import Selection

KEY_SEED = 0  # same images and starts every epoch, so that epochs differ only by their weights


class Watch:
    """Monitors the epochs of one training.

    Its history is stored in its directory, so that a killed training resumes with it: a measured
    epoch is not measured again, and a training that has ended stays ended.
    """

    def __init__(
        self,
        path: pathlib.Path,
        rule: Selection,
        spec: NetworkSpec,
        threat: advfeat.ThreatModel,
        held_out: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Reads the history of an earlier process from `path`."""
        self._path, self._rule, self._spec, self._threat = path, rule, spec, threat
        rows = draw_rows(held_out[1], rule.examples, seed=KEY_SEED)
        self._images, self._labels = (part[rows] for part in held_out)
        self._model = spec.build()
        self.history: list[dict[str, Any]] = []
        self.ended: str | None = None
        if self._record.exists():
            found = read_json(self._record)
            try:
                self.history, self.ended = list(found["history"]), found["ended"]
                for line in self.history:
                    int(line["epoch"]), float(line["accuracy"])
            except (KeyError, TypeError, ValueError) as error:
                raise DamagedError(f"{self._record} is damaged ({error})") from error

    @property
    def _record(self) -> pathlib.Path:
        return self._path / "watch.json"

    def _kept(self, epoch: int) -> pathlib.Path:
        return self._path / f"epoch_{epoch}"

    @property
    def best(self) -> dict[str, Any]:
        """The epoch with the highest accuracy so far, the earliest if tied."""
        return max(self.history, key=lambda line: line["accuracy"])

    def accuracy(self, variables: Any) -> float:
        """Returns a network's robust accuracy on the held-out images."""
        sweep = advfeat.evaluate_epsilons(
            jax.random.key(KEY_SEED),
            lambda eps: advfeat.pgd(
                dataclasses.replace(self._threat, eps=eps), steps=self._rule.steps
            ),
            models.model_fn(self._model, variables),
            self._images,
            self._labels,
            [float(self._threat.eps)],
        )
        return float(sweep.robust[0].mean())

    def epoch(self, epoch: int, variables: Any) -> tuple[float, bool]:
        """Measures the network after an epoch; returns its accuracy, and whether to stop here."""
        known = [line for line in self.history if line["epoch"] == epoch]
        if known:
            return known[0]["accuracy"], self.ended is not None and epoch == self._last
        line = {"epoch": epoch, "accuracy": self.accuracy(variables)}
        self.history.append(line)
        self.ended = self._verdict()
        self._path.mkdir(parents=True, exist_ok=True)
        if self.best is line and self._rule.keeps_best:
            checkpoints.save_network(self._kept(epoch), Network(self._spec, variables, {}))
        # After the weights and before older ones go, so that it always names existing weights.
        write_json(self._record, {"history": self.history, "ended": self.ended})
        for path in self._path.glob("epoch_*"):
            if path != self._kept(self.best["epoch"]):
                shutil.rmtree(path, ignore_errors=True)
        return line["accuracy"], self.ended is not None

    @property
    def _last(self) -> int:
        return int(self.history[-1]["epoch"])

    def _verdict(self) -> str | None:
        now, best = self.history[-1], self.best
        drop = self._rule.max_drop
        if drop is not None and best["accuracy"] - now["accuracy"] > drop:
            tqdm.write(
                f"catastrophic overfitting: held-out accuracy under PGD fell from "
                f"{best['accuracy']:.1%} (epoch {best['epoch']}) to {now['accuracy']:.1%} (epoch "
                f"{now['epoch']}); the training ends and returns to epoch {best['epoch']}"
            )
            return "overfitting"
        patience = self._rule.patience
        if patience is not None and now["epoch"] - best["epoch"] >= patience:
            return "patience"
        return None

    def chosen(self, variables: Any) -> Any:
        """Returns the weights to keep; `variables` are the last epoch's, or None if unavailable."""
        if self.epoch_kept != self._last or variables is None:
            return checkpoints.load_network(str(self._kept(self.epoch_kept))).variables
        return variables

    @property
    def epoch_kept(self) -> int:
        """The epoch whose weights are kept."""
        return int((self.best if self._goes_back else self.history[-1])["epoch"])

    @property
    def _goes_back(self) -> bool:
        return self._rule.select == "best" or self.ended == "overfitting"

    def summary(self) -> dict[str, Any]:
        """Returns the selection's entry in the network's record."""
        return {
            "select": self._rule.select,
            "epoch": self.epoch_kept,
            "epochs": self._last,
            "held_out_robust_accuracy": self._accuracy_kept()._asdict(),
            "examples": len(self._labels),
            "steps": self._rule.steps,
            "ended_by": self.ended,
            "catastrophic_overfitting": self.ended == "overfitting",
            "history": self.history,
        }

    def _accuracy_kept(self) -> Estimate:
        """Returns the kept epoch's accuracy; its interval accounts for a selection of the best."""
        count = len(self._labels)
        found = {
            int(line["epoch"]): stats.counted(round(line["accuracy"] * count), count)
            for line in self.history
        }
        return stats.chosen(found)[1] if self._goes_back else found[self.epoch_kept]

    def close(self) -> None:
        """Removes the stored weights, once the network itself has been saved."""
        shutil.rmtree(self._path, ignore_errors=True)
