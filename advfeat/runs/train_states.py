"""Saves training states with orbax, in the background, and checks them when read.

One process writes: the state is the same everywhere, so in distributed training the first process
saves, and the others receive what it reads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from advfeat.training import Saved, TrainState

_ASIDE = "unusable"
Metrics = Mapping[str, np.ndarray]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps orbax's logging off the terminal, which shows a progress bar."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it logs tracebacks of errors that it also raises
    try:
        yield
    finally:
        logger.setLevel(level)


def only_here() -> ocp.options.MultiprocessingOptions:
    """Tells orbax that only this process takes part.

    Orbax's own synchronisation runs on the devices, where it would interleave with the training's
    in another order; it also fails once the processes have left each other.
    """
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )


def disk_error(error: BaseException) -> OSError | None:
    """Returns the operating system's error behind an orbax error; None if there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return seen
        code = re.search(r"os_error_code='(\d+)'", str(seen))  # tensorstore's format
        if code:
            return OSError(int(code[1]), os.strerror(int(code[1])))
        seen = seen.__cause__ or seen.__context__
    return None


class TrainingCheckpoints:
    """Keeps the newest two states of one training.

    A state is copied on saving and written by a thread; a kill leaves a complete state or none. A
    failed write is only a warning: the training continues, and earlier states are kept.

    Args:
      path: a directory for these states only.
      warn: called with one line about a state that could not be written or read.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, warn: Callable[[str], None] | None = None
    ) -> None:
        self._path = pathlib.Path(path).absolute()
        self._warn = warn or (lambda text: warnings.warn(text, stacklevel=3))
        self._thread: threading.Thread | None = None
        self._failed: tuple[int, BaseException] | None = None
        self._path.mkdir(parents=True, exist_ok=True)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            create=False,
            max_to_keep=2,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
            multiprocessing_options=only_here(),
        )
        with quiet():
            return ocp.CheckpointManager(self._path, options=options)

    def steps(self) -> list[int]:
        """Returns the steps of the saved states, oldest first."""
        return sorted(self._manager.all_steps())

    def latest(self, like: TrainState) -> Saved | None:
        """Returns the newest usable state, or None; `like` gives shapes and types.

        An unusable state is set aside with a warning. If none is usable, the training starts again,
        which ends with the same weights.
        """
        unusable = []
        for step in reversed(self.steps()):
            try:
                return self._read(step, like)
            except Exception as error:  # orbax raises many kinds for a file cut short
                unusable.append(step)
                self._warn(f"{self._path / str(step)} cannot be used: {first_line(error)}")
                self._put_aside(step)
        if unusable:
            self._warn(f"no saved state in {self._path} can be used: the training begins again")
        return None

    def save(self, state: TrainState, seen: Metrics | None = None, *, wait: bool = False) -> bool:
        """Starts to write a state in the background.

        Args:
          state: the state.
          seen: metrics of the epoch's steps before the state.
          wait: whether to wait until it is written, and for a previous write.

        Returns:
          Whether it is being written (with `wait`: has been written); False while another write
          runs.
        """
        if not wait and self._thread is not None and self._thread.is_alive():
            return False
        self._join()
        step = int(state.step)
        if step in self.steps():
            return True
        # A copy: the next step donates the state's memory.
        copy = jax.tree.map(lambda leaf: np.array(leaf), state)
        metrics = {name: np.asarray(values).tolist() for name, values in (seen or {}).items()}
        self._thread = threading.Thread(
            target=self._write, args=(step, copy, metrics), name="checkpoint", daemon=True
        )
        self._thread.start()
        if wait:
            return self._join()
        return True

    def discard_from(self, step: int) -> None:
        """Sets aside the states from `step` on, from which the training must not resume."""
        self._join()
        for later in self.steps():
            if later >= step:
                self._put_aside(later)

    def close(self, *, delete: bool = False) -> None:
        """Waits for the last write; `delete` removes all states, once the network is saved."""
        self._join()
        with quiet():
            self._manager.close()
        if delete:
            shutil.rmtree(self._path, ignore_errors=True)

    def _write(self, step: int, state: TrainState, metrics: dict[str, list[float]]) -> None:
        try:
            arguments = ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                record=ocp.args.JsonSave({"seen": metrics, "check": _check(state, metrics)}),
            )
            with quiet():
                self._manager.save(step, args=arguments)
        except BaseException as error:  # reported by the training thread
            self._failed = step, error

    def _join(self) -> bool:
        """Waits for the write in progress; returns whether it succeeded."""
        if self._thread is None:
            return True
        self._thread.join()
        self._thread = None
        if self._failed is None:
            return True
        (step, error), self._failed = self._failed, None
        # A new manager: the old one counts the failed state, whose files fill the disk.
        with contextlib.suppress(Exception), quiet():
            self._manager.close()
        self._manager = self._open()
        last = f"that of step {self.steps()[-1]} is kept" if self.steps() else "none is kept"
        reason = disk_error(error)
        text = reason.strerror if reason else first_line(error)
        self._warn(f"the state of step {step} could not be saved ({text}); {last}")
        return False

    def _read(self, step: int, like: TrainState) -> Saved:
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(blank), record=ocp.args.JsonRestore()
        )
        with quiet():
            found = self._manager.restore(step, args=arguments)
        state, metrics = found["state"], found["record"]["seen"]
        for (path, a), b in zip(
            jax.tree.leaves_with_path(state), jax.tree.leaves(like), strict=True
        ):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise ValueError(f"{name} is {a.dtype}{a.shape}, not {b.dtype}{b.shape}")
        if _check(state, metrics) != found["record"]["check"]:
            raise ValueError("its arrays are not those that were saved")
        seen = {name: np.asarray(values, np.float64) for name, values in metrics.items()}
        return Saved(jax.tree.map(jnp.array, state), seen)

    def _put_aside(self, step: int) -> None:
        aside = self._path / _ASIDE
        aside.mkdir(exist_ok=True)
        target = aside / str(step)
        shutil.rmtree(target, ignore_errors=True)
        (self._path / str(step)).rename(target)
        self._manager.reload()


def first_line(error: BaseException) -> str:
    """Returns an error's message as one short line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _check(state: TrainState, metrics: dict[str, list[float]]) -> int:
    """Returns a checksum: orbax's formats detect truncated files, but not zeros inside one."""
    value = zlib.crc32(json.dumps(metrics, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        value = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, value)
    return value
