"""Recipes of networks: architecture, objective, procedure and selection of the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import advfeat
from advfeat import models, training
from advfeat.models.network import Network, NetworkSpec
from advfeat.training.losses.entries import USUAL_STEPS
from advfeat.training.selection import Selection

from .flags.train import fact
from .images import AnyDataset

AWP_WARMUP = 0.05  # the authors begin after 10 of 200 epochs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe of one network.

    Attributes:
      spec: the architecture.
      config: the training hyper-parameters.
      norm: of the threat model of robust training.
      eps: its eps as it was asked for, which a float32 rounds; None means standard
        training.
      objective: one of the flag's `OBJECTIVES`, used with a threat model.
      attack_steps: PGD steps, for objectives that use them.
      attack_step_size: in the threat model's norm; None means `1.4 * eps / attack_steps`, which at
        seven steps is the fifth of eps of Ilyas et al., C.3; eps for one step of `mixed` and for
        `free`, 1.25 eps for `fast`.
      numbers: the objective's own parameters, complete.
      label_smoothing: of the loss.
      accumulate: number of parts in which a batch is attacked and differentiated.
      awp: gamma of the weight perturbation; None disables it.
      ema: decay of the exponential average of the weights; None disables it.
      swa: share of the training after which the uniform average begins; None disables it.
      reading: how a stream reads its images; None for images in memory.
      start: a network whose weights initialise the training.
      start_name: the reference by which it was given.
      selection: rule that selects the epoch whose weights are kept; None keeps the last,
        unmonitored.
    """

    spec: NetworkSpec
    config: training.TrainConfig
    norm: str = "l2"
    eps: float | None = None
    objective: str = "adversarial"
    attack_steps: int = USUAL_STEPS
    attack_step_size: float | None = None
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    label_smoothing: float = 0.0
    accumulate: int = 1
    awp: float | None = None
    ema: float | None = None
    swa: float | None = None
    reading: str | None = None
    start: Network | None = None
    start_name: str = ""
    selection: Selection | None = None

    @property
    def threat(self) -> advfeat.ThreatModel | None:
        """The threat model of robust training; None for standard training."""
        return None if self.eps is None else advfeat.threat_model(self.norm, self.eps)

    def loss_fn(self) -> Any:
        """Returns the objective of this recipe."""
        model = self.spec.build()
        loss: Any = advfeat.cross_entropy
        if self.label_smoothing:
            loss = advfeat.label_smoothing(self.label_smoothing)
        if self.threat is None:
            return training.standard(model, loss)
        return training.OBJECTIVES[self.objective].build(
            model,
            loss,
            self.threat,
            attack_steps=self.attack_steps,
            step_size=self.attack_step_size,
            **self.numbers,
        )

    def procedure(self) -> training.Procedure:
        """Returns the procedure by which a train step uses the objective."""
        inner: training.Procedure
        entry = training.OBJECTIVES[self.objective]
        if self.eps is not None and entry.procedure is not None:
            inner = entry.build_procedure(
                self.threat,
                step_size=self.attack_step_size,
                accumulate=self.accumulate,
                **self.numbers,
            )
        elif self.awp is not None:
            inner = training.awp(gamma=self.awp, warmup=AWP_WARMUP, accumulate=self.accumulate)
        else:
            inner = training.plain(accumulate=self.accumulate)
        if self.ema is not None:
            return training.ema(inner, decay=self.ema)
        return inner if self.swa is None else training.swa(inner, start=self.swa)

    def variables(self, key: jax.Array) -> dict[str, Any]:
        """Returns initial variables: random, or those of `start` with a matching classifier."""
        drawn = dict(models.init(key, self.spec.build(), self.spec.input_shape))
        if self.start is None:
            return drawn
        given = jax.tree.map(jnp.asarray, dict(self.start.variables))
        if len(self.start.spec.class_names) == len(self.spec.class_names):
            return given
        params = {**given["params"], "classifier": drawn["params"]["classifier"]}
        return {**given, "params": params}

    def summary(self) -> dict[str, Any]:
        """Returns the entries of a run's summary: the architecture and the record."""
        return {"model": self.spec.model, "width": self.spec.width, **self.record()}

    def record(self) -> dict[str, Any]:
        """Returns the recipe's entries in a network's record."""
        made: dict[str, Any] = {"training": dataclasses.asdict(self.config)}
        if self.eps is not None:
            made["objective"] = self.objective
            made["threat"] = {"norm": self.norm, "eps": self.eps}
            made |= dict(self.numbers)
            if fact(self.objective, "attack_steps"):
                made["attack_steps"] = self.attack_steps
        for name in ("label_smoothing", "awp", "ema", "swa", "reading"):
            if getattr(self, name):
                made[name] = getattr(self, name)
        if self.start is not None:
            made["start"] = {"checkpoint": self.start_name, **self.start.record}
        return made


def fine_tuned(
    given: Network, dataset: AnyDataset, reference: str, *, bfloat16: bool = False
) -> tuple[NetworkSpec, tuple[str, ...]]:
    """Returns the specification for fine-tuning a network on a data set, and notes about it.

    Architecture and pixel statistics are those of the given network, to which its weights belong;
    only the classifier may be replaced.

    Args:
      given: the network to start from.
      dataset: the training data.
      reference: the reference by which the network was given.
      bfloat16: whether to compute in bfloat16.

    Raises:
      ValueError: for images of another shape.
    """
    spec = given.spec
    if tuple(spec.input_shape) != tuple(dataset.input_shape):
        raise ValueError(
            f"flag --start={reference}: takes images of {tuple(spec.input_shape)}, "
            f"the data set's are {tuple(dataset.input_shape)}"
        )
    notes = [f"training begins with the weights of {reference}"]
    ours, theirs = tuple(dataset.class_names), spec.class_names
    if len(ours) != len(theirs):
        notes.append(
            f"its classifier is replaced: it knows {len(theirs)} classes, the data set has "
            f"{len(ours)}"
        )
    elif ours != theirs:
        notes.append("its classifier is kept, though the classes have other names")
    return dataclasses.replace(spec, class_names=ours, bfloat16=bfloat16), tuple(notes)
