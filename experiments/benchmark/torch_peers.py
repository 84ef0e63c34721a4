"""Peers on PyTorch, each called as its documentation does; imported only where PyTorch is."""

from __future__ import annotations

import contextlib
import copy
import io
import pathlib
import sys
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

import advfeat

from . import ours, torch_attacks
from .check import Outcome
from .flags import Config
from .limits import best_seconds
from .plan import COPIES_AT_A_TIME, SIGMA, Plan, Work
from .timing import Contender
from .torch_mirror import Mirror, from_torch, to_torch
from .torch_suites import authors_suite, torchattacks_suite

Parts = tuple[Callable[[], Any], Callable[[Any], Outcome]]


def device() -> str:
    """Returns where PyTorch computes: on the platform that JAX uses, else on the CPU."""
    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def _points(found: Tensor) -> Outcome:
    return Outcome(points=from_torch(found))


class Bench:
    """Everything that PyTorch's peers share for one work: network, images, labels, settings."""

    def __init__(self, work: Work, plan: Plan, config: Config, threads: int):
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
        torch.manual_seed(config.seed)
        self.work, self.config, self.device = work, config, device()
        self.network, self.threat = plan.networks[work.network], plan.threats.get(work.norm)
        self.images, self.labels = plan.points(work.count)
        model = Mirror(self.network).eval().requires_grad_(False)
        if config.precision == "bfloat16":
            model = model.in_bfloat16()
        channels_last: Any = {"memory_format": torch.channels_last}
        self.model = model.to(self.device, **channels_last)
        self.x = to_torch(self.images).to(self.device, **channels_last)
        self.y = torch.from_numpy(self.labels.astype(np.int64)).to(self.device)

    def logits(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns our logits and the mirror's, of at most 64 images."""
        some = self.images[-64:]
        with torch.no_grad():
            theirs = self.model(self.x[-64:]).cpu().numpy()
        return advfeat.predict(self.network.model_fn(), some), theirs

    @cached_property
    def plain_model(self) -> Mirror:
        """The network in PyTorch's default layout: some attacks cannot take channels_last."""
        return copy.deepcopy(self.model).to(memory_format=torch.contiguous_format)

    @cached_property
    def plain_x(self) -> Tensor:
        """The images in PyTorch's default layout."""
        return self.x.contiguous()

    @property
    def attack(self) -> dict[str, Any]:
        """Keywords of a hand-written attack."""
        assert self.threat is not None
        return {
            "norm": self.work.norm,
            "eps": float(self.threat.eps),
            "step_size": ours.step_size(self.work, self.threat),
            "steps": self.work.steps,
        }

    def contender(self, name: str) -> Contender:
        """Returns a peer as a contender for the work."""
        if name == "torch_compile":
            torch._dynamo.reset()
        makers: dict[str, Callable[[str], Parts]] = {
            "pgd": self._pgd,
            "apgd": self._apgd,
            "quick": self._suite,
            "standard": self._suite,
            "train": self._train,
            "d_det": self._d_det,
            "smoothgrad": self._smoothgrad,
        }
        call, found = makers[self.work.family](name)
        if self.device == "cpu":
            return Contender(name, call, found)

        def awaited() -> Any:
            result = call()
            torch.cuda.synchronize()
            return result

        return Contender(name, awaited, found)

    def _pgd(self, name: str) -> Parts:
        if name.startswith("torch_") or name == "torch":
            run = torch_attacks.pgd(self.model, **self.attack, compiled=name == "torch_compile")
            return lambda: run(self.x, self.y), _points
        if name == "torchattacks":
            attack, x = self._torchattacks_pgd(), self.plain_x
            return lambda: attack(x, self.y), _points
        if name == "foolbox":
            return self._foolbox()
        return self._art()

    def _torchattacks_pgd(self) -> Any:
        import torchattacks

        kinds = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}
        return kinds[self.work.norm](
            self.plain_model,
            eps=self.attack["eps"],
            alpha=self.attack["step_size"],
            steps=self.work.steps,
            random_start=False,
        )

    def _foolbox(self) -> Parts:
        import foolbox

        model = foolbox.PyTorchModel(self.model, bounds=(0, 1), device=self.device)
        kinds = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}
        attack = kinds[self.work.norm](
            abs_stepsize=self.attack["step_size"], steps=self.work.steps, random_start=False
        )
        wanted, eps = foolbox.criteria.Misclassification(self.y), self.attack["eps"]
        return lambda: attack.run(model, self.x, wanted, epsilon=eps), _points

    def _art(self) -> Parts:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.estimators.classification import PyTorchClassifier

        height, width, channels = self.network.spec.input_shape
        classes = len(self.network.spec.class_names)
        classifier = PyTorchClassifier(
            copy.deepcopy(self.model),
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=(channels, height, width),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if self.device == "cpu" else "gpu",
        )
        attack = ProjectedGradientDescent(
            classifier,
            norm={"linf": np.inf, "l2": 2}[self.work.norm],
            eps=self.attack["eps"],
            eps_step=self.attack["step_size"],
            max_iter=self.work.steps,
            num_random_init=0,
            batch_size=self.work.batch,
            verbose=False,
        )
        x, y = self.x.cpu().contiguous().numpy(), np.eye(classes, dtype=np.float32)[self.labels]
        return (
            lambda: attack.generate(x, y),
            lambda found: Outcome(points=np.moveaxis(found, 1, -1)),
        )

    def _apgd(self, name: str) -> Parts:
        norm = {"linf": "Linf", "l2": "L2"}[self.work.norm]
        if name == "torchattacks":
            import torchattacks

            attack = torchattacks.APGD(
                self.plain_model,
                norm=norm,
                eps=self.attack["eps"],
                steps=self.work.steps,
                n_restarts=1,
                loss="ce",
            )
            return lambda: attack(self.plain_x, self.y), _points
        assert self.config.autoattack is not None
        sys.path.insert(0, self.config.autoattack)
        from autoattack.autopgd_base import APGDAttack

        theirs = APGDAttack(
            self.plain_model,
            n_iter=self.work.steps,
            norm=norm,
            eps=self.attack["eps"],
            n_restarts=1,
            loss="ce",
            device=self.device,
        )

        def call() -> Tensor:
            with contextlib.redirect_stdout(io.StringIO()):
                return theirs.perturb(self.plain_x, self.y)

        return call, _points

    def _suite(self, name: str) -> Parts:
        assert self.threat is not None
        if name == "torchattacks":  # whose own default is 10 steps where AutoAttack has 100
            run: Any = partial(torchattacks_suite, steps=100)
        else:
            assert self.config.autoattack is not None
            run = partial(authors_suite, self.config.autoattack)
        call = partial(
            run,
            self.plain_model,
            len(self.network.spec.class_names),
            self.threat,
            self.plain_x,
            self.y,
            batch_size=self.work.batch,
            seed=self.config.seed,
        )
        return call, _points

    def _train(self, name: str) -> Parts:
        model, compiled = copy.deepcopy(self.model), name == "torch_compile"
        before = copy.deepcopy(model.state_dict())
        attack = torch_attacks.pgd(model, **self.attack, compiled=compiled)

        def call() -> float:
            model.load_state_dict(before)
            return torch_attacks.epoch(
                model,
                attack,
                self.x,
                self.y,
                batch=self.work.batch,
                rate=ours.RATE,
                seed=self.config.seed,
                compiled=compiled,
            )

        return call, lambda loss: Outcome(loss=loss)

    def _d_det(self, name: str) -> Parts:
        targets = (self.y + 1) % len(self.network.spec.class_names)
        x = self.x
        if name == "torchattacks":
            attack, x = self._torchattacks_pgd(), self.plain_x
            attack.set_mode_targeted_by_label(quiet=True)
        else:
            attack = torch_attacks.pgd(
                self.model, **self.attack, targeted=True, compiled=name == "torch_compile"
            )

        def call() -> tuple[Tensor, Tensor]:
            made = torch_attacks.in_batches(attack, x, targets, self.work.batch)
            with torch.no_grad():  # ours also says which images the network was fooled by
                return made, self.model(made).argmax(1) == targets

        return call, lambda pair: _points(pair[0])

    def _smoothgrad(self, name: str) -> Parts:
        batch, chunk = self.work.batch, COPIES_AT_A_TIME

        def hand_written() -> Tensor:
            return torch_attacks.smoothgrad(
                self.model,
                self.x,
                self.y,
                samples=self.work.steps,
                sigma=SIGMA,
                batch=batch,
                chunk=chunk,
            )

        def captum() -> Tensor:
            maps = []
            for i in range(0, len(self.x), batch):
                part = self.x[i : i + batch].clone().requires_grad_()
                maps.append(
                    tunnel.attribute(
                        part,
                        nt_type="smoothgrad",
                        nt_samples=self.work.steps,
                        nt_samples_batch_size=chunk,
                        stdevs=SIGMA,
                        target=self.y[i : i + batch],
                        abs=False,
                    ).detach()
                )
            return torch.cat(maps)

        if name == "captum":
            from captum.attr import NoiseTunnel, Saliency

            tunnel = NoiseTunnel(Saliency(self.model))
        return (
            captum if name == "captum" else hand_written,
            lambda maps: Outcome(maps=from_torch(maps)),
        )


def save_mirror(network: Any, precision: str, path: pathlib.Path) -> None:
    """Saves a network's mirror, for a process of PyTorch alone."""
    model = Mirror(network).eval().requires_grad_(False)
    if precision == "bfloat16":
        model = model.in_bfloat16()
    torch.save(model.to(memory_format=torch.channels_last), path)


def matmul(size: int, precision: str, threads: int, *, seconds: float) -> float:
    """Returns the floating-point operations per second of a square matrix product in PyTorch."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(size, size, device=device()).to(kind) for _ in range(2))

    def call() -> None:
        left @ right
        if left.is_cuda:
            torch.cuda.synchronize()

    return 2.0 * size**3 / best_seconds(call, seconds=seconds)
