"""Prepares `experiments.evaluate`: loads the network, the test images and the attacks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

import advfeat
from advfeat import data
from advfeat.checks import check_logits
from advfeat.evaluation.suites import Suite
from advfeat.keys import stream
from advfeat.models.network import Network
from advfeat.runs.checkpoints import check_fits, load_network
from advfeat.runs.files import checksum
from advfeat.runs.journal import check_same_problem
from advfeat.runs.pieces import Pieces, cut, places
from advfeat.threats.balls import ThreatModel, threat_model

from ..shared.attacks import suite_for
from ..shared.flag_checks import check_eps
from ..shared.images import in_memory, load
from .flags import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      network: the attacked network.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      ids: `[N]`, the images' indices in the test set.
      rest: further images of a stream that does not fit in memory at once, in pieces.
      class_names: of the data set.
      threat: the threat model.
      suite: the attacks by name; shortened in a dry run.
      fingerprint: of the network's weights and of the images; of `rest`, of labels and ids.
    """

    network: Network
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    rest: tuple[data.DiskSplit, ...]
    class_names: tuple[str, ...]
    threat: ThreatModel
    suite: Suite
    fingerprint: str

    def problem(self, config: Config) -> Pieces:
        """Returns what is attacked, and how."""
        return Pieces(
            key=stream(jax.random.key(config.seed), "suite"),
            model_fn=self.network.model_fn(),
            threat=self.threat,
            suite=self.suite,
            problem=self.fingerprint,
            sequential=not config.each,
            batch_size=config.attack_batch_size,
        )


def prepare(config: Config) -> Plan:
    """Loads what the flags name; writes nothing."""
    assert config.checkpoint is not None
    assert config.eps is not None
    network = load_network(config.checkpoint)
    dataset = load(config, network.spec.input_shape[0])
    check_fits(
        network,
        class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
        reference=config.checkpoint,
    )
    threat = threat_model(config.norm, config.eps)
    check_eps(config.norm, dataset.input_shape, eps=config.eps)
    named: Any = config.attack
    if options := config.pgd_options():
        options = {name.removeprefix("attack_"): value for name, value in options.items()}
        named = {"pgd": advfeat.pgd(threat, **options)}
    # raises on unsupported attacks
    suite = suite_for(config, named, threat, num_classes=dataset.num_classes)
    drawn: Any = data.subset(dataset.test, config.eval_examples, seed=config.seed)
    first, *rest = cut(drawn, seed=config.seed) if config.stream else (drawn,)
    test = in_memory(first)
    images = data.unit(test.image)
    logits = advfeat.predict(network.model_fn(), images, batch_size=config.attack_batch_size)
    check_logits(logits, name=f"checkpoint {config.checkpoint}")
    others = [(piece.label, piece.id) for piece in rest]
    known = checksum([network.variables, images, test.label, test.id, *others])
    for place in () if config.overwrite else places(config.workdir):
        try:
            check_same_problem(place, known)
        except ValueError as error:
            raise ValueError(
                f"workdir {error} (--overwrite does); now is what --checkpoint and --dataset hold"
            ) from error
    return Plan(
        network=network,
        images=images,
        labels=test.label,
        ids=test.id,
        rest=tuple(rest),
        class_names=tuple(dataset.class_names),
        threat=threat,
        suite=suite,
        fingerprint=known,
    )
