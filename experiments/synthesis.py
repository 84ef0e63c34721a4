"""What one classifier can draw: generation, translation, inpainting, super-resolution, sketches.

    python -m experiments.synthesis --workdir=runs/synthesis

One ascent, six tasks, standard network beside robust network (Santurkar et al. 2019,
https://arxiv.org/abs/1906.09453), and large-eps attacks side by side. Quality in numbers: do
independent networks, a standard and a robust one of another architecture, read the class that was
drawn; Fréchet distance and diversity in the representation of the independent robust one, beside
real images and seeds; PSNR and SSIM against bicubic and the mean where there is an original.

By default on the samples that come with the package, of which three of each class stand in for the
training images that seeds are fitted to; `--dataset=cifar10`, once prepared, is the whole set (two
CPU cores: 2 minutes 20). Numbers: docs/results/pictures.md.
"""

from __future__ import annotations

from experiments import command
from experiments.flags.synthesis import Config

if __name__ == "__main__":
    command.check(Config, __doc__)

import dataclasses
from typing import Any

import numpy as np

import advfeat
from advfeat import data, stats
from advfeat.evaluation.prediction import predict
from advfeat.images import quality
from advfeat.runs.checkpoints import Network
from advfeat.runs.directory import RunDirectory
from advfeat.stats import Estimate
from experiments import runner, synthesis_report
from experiments import synthesis_tasks as tasks
from experiments.limits import check_eps
from experiments.pairs import load_judges, load_pair
from experiments.synthesis_tasks import Task

RESTORED = ("inpainting", "superresolution")
"""Tasks with an original to be compared with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A config made whole; nothing has been written yet.

    Attributes:
      dataset: as loaded.
      networks: "standard" and "robust".
      judges: by name.
      images: `[N, H, W, C]` in [0, 1], of the test set.
      labels: `[N]`.
      shown: rows of those in the pictures.
      others: as many other test images, which the drawn ones are compared with.
      tasks: by name, what is drawn from what.
      steps: of every ascent.
    """

    dataset: data.Dataset
    networks: dict[str, Network]
    judges: dict[str, Network]
    images: np.ndarray
    labels: np.ndarray
    shown: np.ndarray
    others: np.ndarray
    tasks: dict[str, Task]
    steps: int


def prepare(config: Config) -> Plan:
    """Reads what the flags name; writes nothing."""
    dataset = data.load(config.dataset, classes=config.classes, data_dir=config.data_dir)
    check_eps("l2", dataset.input_shape, eps_grid=config.eps_grid)
    judges, networks = load_judges(config, dataset), load_pair(config, dataset)
    count = 2 * dataset.num_classes if config.dry_run else max(config.measured, config.shown)
    count = min(count, len(dataset.test) // 2)
    both = data.subset(dataset.test, 2 * count, seed=config.seed)
    first = data.draw_rows(both.label, count, seed=config.seed)
    half, others = both.take(first), both.take(np.delete(np.arange(len(both)), first))
    images, labels = data.unit(half.image), half.label
    return Plan(
        dataset=dataset,
        networks=networks,
        judges=judges,
        images=images,
        labels=labels,
        shown=data.draw_rows(labels, config.shown, seed=config.seed),
        others=data.unit(others.image),
        tasks=tasks.plan_tasks(
            config.tasks, dataset, images, labels, strength=config.strength, seed=config.seed
        ),
        steps=3 if config.dry_run else config.steps,
    )


def work(config: Config, plan: Plan, run: RunDirectory) -> dict[str, Any]:
    """Draws, measures and reports."""
    drawn = {
        task: {
            name: tasks.draw(plan.tasks[task], network, steps=plan.steps, seed=config.seed)
            for name, network in plan.networks.items()
        }
        for task in plan.tasks
    }
    for task, found in drawn.items():
        run.save_arrays(f"drawn/{task}", found, {"aims": plan.tasks[task].labels.tolist()})
    side_by_side = {
        name: tasks.attacked(
            network, plan.images[plan.shown], plan.labels[plan.shown], config.eps_grid,
            num_classes=plan.dataset.num_classes, steps=plan.steps, seed=config.seed,
        )
        for name, network in plan.networks.items()
    }  # fmt: skip
    summary = _summary(config, plan, drawn)
    synthesis_report.write(config, plan, run, drawn, side_by_side, summary)
    return summary


def _summary(
    config: Config, plan: Plan, drawn: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    read = {
        judge: {
            task: {
                name: advfeat.accuracy(network.model_fn(), images, plan.tasks[task].labels)
                for name, images in {**found, "start": plan.tasks[task].starts}.items()
            }
            for task, found in drawn.items()
        }
        for judge, network in plan.judges.items()
    }
    own = {
        task: {
            name: advfeat.accuracy(
                plan.networks[name].model_fn(), images, plan.tasks[task].labels
            )
            for name, images in found.items()
        }
        for task, found in drawn.items()
    }
    claims = []
    for judge, found in read.items():
        for task, hits in found.items():
            claims.append(
                stats.claim(
                    f"{task.capitalize()}: {judge.replace('_', ' ')} reads the class in the robust "
                    "network's pictures more often than in the standard network's.",
                    stats.rate(hits["robust"]), stats.rate(hits["standard"]),
                    paired=stats.difference(hits["robust"], hits["standard"]),
                )
            )  # fmt: skip
    return {
        "dataset": config.dataset,
        "images": len(plan.images),
        "steps": plan.steps,
        "tasks": {
            task: {"eps": plan.tasks[task].eps, "step_size": plan.tasks[task].step_size}
            for task in plan.tasks
        },
        "own": _rates(own),
        "read": {judge: _rates(found) for judge, found in read.items()},
        "judges_on_real": {
            judge: stats.rate(advfeat.accuracy(network.model_fn(), plan.images, plan.labels))
            for judge, network in plan.judges.items()
        },
        "spread": _spread(plan, drawn),
        "restored": {
            task: _restored(plan.tasks[task], found)
            for task, found in drawn.items()
            if task in RESTORED
        },
        "claims": runner.judged(claims, config),
    }


def _rates(found: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    return {
        task: {name: stats.rate(hits) for name, hits in parts.items()}
        for task, parts in found.items()
    }


def _spread(plan: Plan, drawn: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Fréchet distance to other real images, and diversity, in the last judge's representation."""
    if not plan.judges or "generation" not in drawn:
        return {}
    name, judge = list(plan.judges.items())[-1]
    fn = judge.model_fn("representation")
    real = predict(fn, plan.others)
    sets = {
        **drawn["generation"], "seeds": plan.tasks["generation"].starts, "real": plan.images
    }  # fmt: skip
    found: dict[str, Any] = {"judge": name}
    for which, images in sets.items():
        features = predict(fn, images)
        found[which] = {
            "frechet": stats.of_set(
                lambda part: quality.frechet_distance(part, real), features, limits=(0.0, np.inf)
            ),
            "diversity": stats.of_set(quality.diversity, features, limits=(0.0, np.inf)),
        }
    return found


def _restored(task: Task, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """PSNR and SSIM against the originals, of the networks' images, the start and the controls.

    An image equal to its original has no finite PSNR: such ones are counted, and left out of it.
    """
    sets = {**found, task.start_is: task.starts, **task.controls}
    return {name: _against(images, task.originals) for name, images in sets.items()}


def _against(images: np.ndarray, originals: np.ndarray) -> dict[str, Any]:
    pairs = list(zip(images, originals, strict=True))
    psnr = np.array([quality.psnr(*pair) for pair in pairs])
    differ = np.array([not np.array_equal(*pair) for pair in pairs])
    found: Estimate | None = stats.mean(psnr[differ]) if differ.any() else None
    return {
        "psnr": found,
        "equal": int((~differ).sum()),
        "ssim": stats.mean([quality.ssim(*pair) for pair in pairs], limits=stats.CORRELATION),
    }


def run(config: Config) -> dict[str, Any]:
    """Runs the experiment described by `config` and returns its summary."""
    return runner.execute(config, prepare, work, name="synthesis")


if __name__ == "__main__":
    runner.main(run, Config, __doc__)
