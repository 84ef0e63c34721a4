"""Prepares `experiments.evaluate`: loads the network, the test images and the attacks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import advfeat
from advfeat import data
from advfeat.checks import check_logits
from advfeat.evaluation.suites import Suite, resolve, shortened
from advfeat.models.network import Network
from advfeat.runs.checkpoints import check_fits, load_network
from advfeat.runs.files import checksum
from advfeat.runs.journal import check_same_problem
from advfeat.threats.balls import ThreatModel, threat_model

from ..shared.limits import check_eps
from .flags import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and settings of a run, prepared from its flags before anything is written.

    Attributes:
      network: the attacked network.
      images: `[N, H, W, C]` in [0, 1].
      labels: `[N]`.
      ids: `[N]`, the images' indices in the test set.
      class_names: of the data set.
      threat: the threat model.
      suite: the attacks by name; shortened in a dry run.
      fingerprint: of the network's weights and of the images.
    """

    network: Network
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    threat: ThreatModel
    suite: Suite
    fingerprint: str


def prepare(config: Config) -> Plan:
    """Loads what the flags name; writes nothing."""
    assert config.checkpoint is not None
    assert config.eps is not None
    network = load_network(config.checkpoint)
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_fits(
        network,
        class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
        reference=config.checkpoint,
    )
    threat = threat_model(config.norm, config.eps)
    check_eps(config.norm, dataset.input_shape, eps=config.eps)
    named: Any = config.attack
    if config.pgd_options():
        named = {"pgd": advfeat.pgd(threat, **config.pgd_options())}
    suite = resolve(named, threat, num_classes=dataset.num_classes)  # raises on unsupported attacks
    test = data.subset(
        dataset.test, 20 if config.dry_run else config.num_examples, seed=config.seed
    )
    images = data.unit(test.image)
    logits = advfeat.predict(network.model_fn(), images, batch_size=config.batch_size)
    check_logits(logits, name=f"checkpoint {config.checkpoint}")
    known = checksum([network.variables, images, test.label, test.id])
    if not config.overwrite:
        try:
            check_same_problem(config.workdir, known)
        except ValueError as error:
            raise ValueError(
                f"workdir {error} (--overwrite does); now is what --checkpoint and --dataset hold"
            ) from error
    return Plan(
        network=network,
        images=images,
        labels=test.label,
        ids=test.id,
        class_names=tuple(dataset.class_names),
        threat=threat,
        suite=shortened(suite) if config.dry_run else suite,
        fingerprint=known,
    )
