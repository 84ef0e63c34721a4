"""Attacks with early stopping: each image of a data set leaves as soon as it is fooled.

A fixed number of slots with one image each go through jitted chunks of steps. A slot whose image is
decided takes the next one from a queue on the host. Shapes never change, so nothing recompiles, and
a decided image wastes at most the rest of its chunk.

The slots form two groups, each shared by all devices: while the host looks at one group's chunk and
refills it, the devices compute the other's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

from advfeat import devices
from advfeat.attacks.batch import check_batch
from advfeat.attacks.iterative import AttackState, IterativeAttack
from advfeat.checks import check_positive
from advfeat.edges import one_key
from advfeat.types import Array, AttackResult, Key, ModelFn, as_model_fn

Finished = Callable[[np.ndarray, AttackResult], Any]
"""Rows `[F]` of the images just decided, and their results with leading axis F."""

_FEW = 16
"""Images that make one group: two half-empty ones would cost more than the host's time."""


def _pick(flags: Array, new: Any, old: Any) -> Any:
    """Selects, leaf by leaf, the new value in flagged slots and the old one elsewhere."""

    def one(a: Array, b: Array) -> Array:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            data = one(jax.random.key_data(a), jax.random.key_data(b))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        return jnp.where(flags.reshape(flags.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(one, new, old)


@devices.shared("ids", "index", "x", "y")
def _begin(
    key: Key, attack: IterativeAttack, ids: Array, index: Array, model_fn: ModelFn, x: Array, y: Any
) -> AttackState:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, ids)
    return jax.vmap(attack.init, (0, None, 0, 0, 0))(keys, model_fn, x, y, index)


@devices.shared("flags", "new", "state")
def _resume(flags: Array, new: AttackState, state: AttackState) -> AttackState:
    return _pick(flags, new, state)


@devices.shared("state", static=("chunk",))
def _chunk(
    attack: IterativeAttack, model_fn: ModelFn, state: AttackState, chunk: int
) -> tuple[AttackState, Array, Array]:
    """Runs a chunk of steps in undecided slots; returns the state, successes and step counts."""

    def one(_: int, state: AttackState) -> AttackState:
        going = ~state.best.success & (state.search.step < attack.steps)
        moved = jax.vmap(attack.step, (None, 0))(model_fn, state)
        return _pick(going, moved, state)  # type: ignore[no-any-return]

    state = jax.lax.fori_loop(0, chunk, one, state)
    return state, state.best.success, state.search.step


@devices.shared("state", "kept", "over", "first", static=("finish",))
def _close(
    attack: IterativeAttack,
    model_fn: ModelFn,
    state: AttackState,
    kept: AttackResult | None,
    over: Array,
    first: Array,
    *,
    finish: bool,
) -> AttackResult:
    """Returns each slot's result over its rounds so far, including a round that is `over`.

    `finish` is static: usually no final iterate needs a score, and scoring costs a forward pass
    in every slot.
    """
    result = AttackResult(state.best, state.best, state.queries, state.gradients)
    if finish:
        ended = jax.vmap(attack.finish, (None, 0))(model_fn, state)
        result = _pick(state.best.success, result, ended)
    if kept is None:
        return result
    result = _pick(first, result, jax.vmap(attack.merge)(result, kept))
    return _pick(over, result, kept)  # type: ignore[no-any-return]


class _Slots:
    """A group of slots: host-side assignment of images and rounds, and the state on the devices.

    Attributes:
      rows: `[S]`, row of the image in each slot.
      index: `[S]`, its round.
      busy: `[S]` bool, whether the slot holds an undecided image.
      fresh: `[S]` bool, whether the slot starts a new round.
      state: the state of all slots.
      kept: the results over the rounds so far.
      success: `[S]` bool, of the chunk under way.
      count: `[S]`, its step counts.
    """

    def __init__(self, waiting: Iterator[int], slots: int):
        taken = list(itertools.islice(waiting, slots))
        self.rows = np.resize(np.array(taken, int), slots)
        self.index = np.zeros(slots, np.int32)
        self.busy = np.arange(slots) < len(taken)
        self.fresh = np.ones(slots, bool)
        self.state: AttackState | None = None
        self.kept: AttackResult | None = None
        self.success: Array | None = None
        self.count: Array | None = None
        self._waiting = waiting

    def turn(self, decided: np.ndarray, again: np.ndarray) -> None:
        """Gives `decided` slots the next image and `again` slots their next round."""
        self.fresh = again.copy()
        self.index[again] += 1
        for slot in np.flatnonzero(decided):
            row = next(self._waiting, None)
            self.busy[slot] = row is not None
            if row is not None:
                self.rows[slot], self.index[slot], self.fresh[slot] = row, 0, True


def slots_for(count: int, batch_size: int) -> int:
    """Returns the number of slots for `count` images, at most `batch_size`.

    Survivors all finish at the same step, so slots are chosen to fill every turn equally: slots
    left empty in the last turn would compute for nothing. The number is rounded up to one of few
    shapes, so that a new number of survivors rarely triggers a recompilation: powers of two, and
    above 32 the three evenly spaced values in between as well.

    >>> [slots_for(n, 250) for n in (1, 5, 100, 142, 250, 260, 9000)]
    [1, 8, 112, 160, 250, 160, 250]
    """
    turns = -(-count // batch_size)
    each = -(-count // turns)
    power = 1 << (each - 1).bit_length()
    step = power // 8 if power > 32 else power
    return min(batch_size, -(-each // step) * step)


def attack_survivors(
    key: Key,
    attack: IterativeAttack,
    model_fn: ModelFn,
    images: Float[np.ndarray, " N *x"],
    labels: Any,
    *,
    ids: Integer[np.ndarray, " N"] | None = None,
    batch_size: int = 250,
    chunk: int | None = None,
    finished: Finished | None = None,
) -> AttackResult:
    """Attacks a data set, each image until it is fooled or its rounds are exhausted.

    Success agrees with `attack_dataset` under the same key. The `best` of a fooled image is its
    first success rather than its best, and `queries` and `gradients` count the passes spent on it.

    Args:
      key: a typed key.
      attack: a step-by-step attack.
      model_fn: the network, for ONE example.
      images: `[N, H, W, C]` floating point in [0, 1], on the host.
      labels: `[N]`.
      ids: `[N]`, by default 0 … N-1; the draws of an image depend on the key and its id.
      batch_size: maximum number of slots; bounds device memory.
      chunk: steps between two success checks; by default 1/20 of a round, at most 25.
      finished: called with the rows just decided and their results, to save them or show progress.

    Returns:
      An `AttackResult` of NumPy arrays with a leading axis N.

    Raises:
      ValueError: for invalid images, labels or ids.
    """
    check_positive(batch_size, name="batch_size")
    images, labels, ids, _ = check_batch(model_fn, images, labels, ids, method=attack)
    chunk = usual_chunk(attack) if chunk is None else chunk
    check_positive(chunk, name="chunk")
    return survive(
        one_key(key),
        attack,
        model_fn,
        images,
        labels,
        ids,
        batch_size=batch_size,
        chunk=chunk,
        finished=finished,
    )


def usual_chunk(attack: IterativeAttack) -> int:
    """Returns the number of steps between two success checks."""
    return min(25, max(1, attack.steps // 20))


def survive(
    key: Key,
    attack: IterativeAttack,
    model_fn: ModelFn,
    images: Float[np.ndarray, " N *x"],
    labels: Any,
    ids: Integer[np.ndarray, " N"],
    *,
    batch_size: int,
    chunk: int,
    finished: Finished | None = None,
) -> AttackResult:
    """Attacks a data set as `attack_survivors` does, whose caller has checked the arguments."""
    key, attack, model_fn = devices.everywhere((key, attack, as_model_fn(model_fn)))
    collected = _Collected(len(images), finished)

    def begin(slots: _Slots) -> None:
        """Dispatches the next chunk, after the start of fresh slots."""
        if slots.fresh.any():
            # Copies: on CPU arrays may alias the buffer, which `turn` then overwrites while the
            # computation is still running.
            index, fresh = slots.index.copy(), slots.fresh.copy()
            x = images[slots.rows].astype(np.float32, copy=False)
            new = _begin(key, attack, ids[slots.rows], index, model_fn, x, labels[slots.rows])
            slots.state = new if slots.state is None else _resume(fresh, new, slots.state)
            slots.fresh[:] = False
        slots.state, slots.success, slots.count = _chunk(attack, model_fn, slots.state, chunk)

    def end(slots: _Slots) -> None:
        """Waits for the chunk and collects what it decided."""
        fooled, exhausted = np.asarray(slots.success), np.asarray(slots.count) >= attack.steps
        over = slots.busy & (fooled | exhausted)
        if not over.any():
            return
        slots.kept = _close(
            attack,
            model_fn,
            slots.state,
            slots.kept,
            over,
            slots.index == 0,
            finish=bool((over & ~fooled).any()),
        )
        decided = over & (np.asarray(slots.kept.best.success) | (slots.index == attack.rounds - 1))
        collected.add(slots.rows, decided, slots.kept)
        slots.turn(decided, over & ~decided)

    waiting = iter(range(len(images)))
    size = devices.rows_at_once(model_fn, images.shape[1:], batch_size)
    groups = [_Slots(waiting, slots) for slots in _groups(len(images), batch_size, size)]
    for slots in groups:
        begin(slots)
    while groups:
        for slots in list(groups):
            end(slots)
            if slots.busy.any():
                begin(slots)
            else:
                groups.remove(slots)
    return collected.result()


def _groups(count: int, batch_size: int, size: int) -> list[int]:
    """Returns the number of slots of each group, at most `size` in a group and `batch_size` in all.

    >>> _groups(1000, 250, 250), _groups(1000, 250, 32), _groups(10, 250, 32)
    ([125, 125], [32, 32], [16])
    """
    one = count <= min(size, _FEW) or batch_size == 1
    groups = 1 if one else 2
    each = slots_for(-(-count // groups), min(size, batch_size // groups))
    return [devices.padded(each)] * groups


class _Collected:
    """Host-side collection of results by row."""

    def __init__(self, count: int, finished: Finished | None):
        self._count, self._finished = count, finished
        self._whole: AttackResult | None = None

    def add(self, rows: np.ndarray, flags: np.ndarray, result: AttackResult) -> None:
        """Stores the results of flagged slots under their rows."""
        if not flags.any():
            return
        taken = rows[flags]
        part = jax.tree.map(lambda leaf: np.asarray(leaf)[flags], result)
        if self._whole is None:
            self._whole = jax.tree.map(
                lambda leaf: np.zeros((self._count, *leaf.shape[1:]), leaf.dtype), part
            )
        for whole, new in zip(jax.tree.leaves(self._whole), jax.tree.leaves(part), strict=True):
            whole[taken] = new
        if self._finished is not None:
            self._finished(taken, part)

    def result(self) -> AttackResult:
        """Returns the results of all rows."""
        assert self._whole is not None
        return self._whole
