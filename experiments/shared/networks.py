"""Networks of a run: trained once, with a progress bar and checkpoints, then loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from advfeat import models, training
from advfeat.data import Split, Stream, subset, unit
from advfeat.devices import check_divides, data_mesh, home
from advfeat.models.network import Network, NetworkSpec
from advfeat.runs import checkpoints, processes, signals
from advfeat.runs.config import UsageError
from advfeat.runs.directory import RunDirectory
from advfeat.runs.selection import Watch

from .images import AnyDataset
from .progress import Follower, Progress
from .recipes import Recipe

ADAPTED = 5000  # images from which a fresh network takes statistics


def spec_for(
    dataset: AnyDataset,
    model: str,
    *,
    width: int | None = None,
    bfloat16: bool = False,
    **options: Any,
) -> NetworkSpec:
    """Specifies a network for a data set's classes, image shape and pixel statistics.

    Args:
      dataset: the data set.
      model: name of the architecture.
      width: of the architecture; None means its default.
      bfloat16: whether it computes in bfloat16.
      **options: the architecture's own, such as `stem="imagenet"`.
    """
    spec = NetworkSpec(
        model=model,
        class_names=tuple(dataset.class_names),
        input_shape=dataset.input_shape,
        mean=tuple(float(value) for value in dataset.mean),
        std=tuple(max(float(value), 1e-3) for value in dataset.std),
        width=width,
        bfloat16=bfloat16,
        options=options,
    )
    # A misfit (e.g. images too small for the strides) must show before any work.
    built = spec.build()
    jax.eval_shape(lambda: models.init(jax.random.key(0), built, spec.input_shape))
    return spec


def train(
    run: RunDirectory,
    name: str,
    key: jax.Array,
    recipe: Recipe,
    split: Split | Stream,
    *,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    keep: bool = True,
    advance: Callable[[int], Any] | None = None,
) -> Network:
    """Trains a network in a run, or resumes the training of a killed process.

    Args:
      run: the open run directory.
      name: the network's name in the run.
      key: a typed key; initial weights, data order and attacks follow from it.
      recipe: architecture and training.
      split: the training examples, in memory or as an endless stream.
      held_out: images in [0, 1] and labels whose accuracy is logged after every epoch.
      keep: whether the run stores the network itself (`networks/NAME`).
      advance: called with the number of epochs finished since the last call (a bar's `update`); by
        default the training has its own bar.

    Returns:
      The trained network.
    """
    kept_at = run.path / "networks" / name
    watch = None
    if recipe.selection is not None and recipe.threat is not None and held_out is not None:
        place = run.checkpoints / f"{name}.watch"
        watch = Watch(place, recipe.selection, recipe.spec, recipe.threat, held_out)
    done = keep and checkpoints.is_saved(kept_at)
    # An earlier process may have ended the training early and then been killed.
    ended = watch is not None and watch.ended is not None
    if not processes.alone():
        processes.tell_all(done or ended)
    if done:
        # A kill may have come before obsolete states were deleted.
        shutil.rmtree(run.checkpoints / name, ignore_errors=True)
        if watch is not None:
            watch.close()
        network = checkpoints.load_network(str(kept_at))
        signals.leave()
        return network
    key_init, key_fit = jax.random.split(key)
    variables, procedure = initial(key_init, recipe, split), recipe.procedure()
    progress = Progress(run, name, recipe, held_out, advance, watch)
    weights: Any = None
    try:
        with signals.held():
            if not ended:
                earlier = progress.earlier(variables, count(split))
                state = _fit(key_fit, recipe, variables, split, progress, earlier)
                weights = home(procedure.variables(state))
            record = recipe.record()
            if watch is not None:
                weights, record["selection"] = watch.chosen(weights), watch.summary()
            network = Network(recipe.spec, weights, record)
            if keep:
                checkpoints.save_network(kept_at, network)
            signals.leave()  # not earlier: orbax needs the other processes even for local work
    except training.NotFinite as error:
        kept = progress.good_until(error.step)
        progress.close(finished=False)
        raise training.NotFinite(f"{name}: {error}; {kept}", error.step) from None
    except BaseException:
        progress.close(finished=False)
        raise
    progress.close(finished=True)
    if watch is not None:
        watch.close()
    return network


def follow(key: jax.Array, recipe: Recipe, split: Split | Stream) -> None:
    """Trains along with the first process, which is in `train` with the same arguments."""
    if processes.tell_all(None):
        signals.leave()
        return
    key_init, key_fit = jax.random.split(key)
    with signals.held():
        _fit(key_fit, recipe, initial(key_init, recipe, split), split, Follower(), None)
        signals.leave()


def initial(key: jax.Array, recipe: Recipe, split: Split | Stream) -> dict[str, Any]:
    """Returns initial variables, with what a fresh network takes from images in memory."""
    variables = recipe.variables(key)
    if recipe.start is not None or isinstance(split, Stream):
        return variables
    some = unit(subset(split, ADAPTED, seed=0).image)
    return dict(recipe.spec.build().adapted(variables, some))


def count(split: Split | Stream) -> int:
    """Returns the number of training examples."""
    return split.num_examples if isinstance(split, Stream) else len(split)


def check_shared(config: training.TrainConfig, examples: int) -> None:
    """Checks that the devices of all processes divide the batches evenly.

    Raises:
      UsageError: naming both numbers.
    """
    if not processes.alone():
        try:
            check_divides(min(config.batch_size, examples), data_mesh())
        except ValueError as error:
            raise UsageError(str(error)) from None


def _fit(
    key: jax.Array,
    recipe: Recipe,
    variables: Any,
    split: Split | Stream,
    progress: Progress | Follower,
    resume: training.Saved | None,
) -> training.TrainState:
    """Runs the training itself, over all devices of all processes."""
    check_shared(recipe.config, count(split))
    procedure = recipe.procedure()
    if not processes.alone() and processes.tell_all(resume is not None):
        shape = (count(split), *recipe.spec.input_shape)
        blank = training.initial_state(variables, recipe.config, procedure, shape=shape)
        shared = processes.share_state(blank if resume is None else resume.state)
        resume = training.Saved(shared, resume.seen if resume else {})
    options: Any = {
        "procedure": procedure,
        "mesh": None if processes.alone() else data_mesh(),
        "resume": resume,
        "hooks": training.Hooks(
            stop=progress.stop, on_chunk=progress.chunk, on_epoch=progress.epoch
        ),
    }
    given = key, recipe.loss_fn(), variables
    if isinstance(split, Stream):
        state = training.fit_stream(*given, split, recipe.config, **options)
    else:
        state = training.fit(
            *given,
            split.image,
            split.label,
            recipe.config,
            num_classes=len(recipe.spec.class_names),
            ids=split.id,
            **options,
        )
    return state if processes.alone() else home(state)
