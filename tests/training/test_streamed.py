"""Training from a stream: the steps of `fit`, padding that counts for nothing, exact resume."""

import jax
import numpy as np
import pytest
import sharded

from advfeat.training import Hooks, Saved, loop


def equal(one, two):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def copy(tree):
    return jax.tree.map(np.array, tree)


@pytest.mark.slow
def test_a_resumed_training_reads_on_and_ends_as_the_unbroken_one(monkeypatch):
    monkeypatch.setattr(loop, "CHUNK", 3)
    stream, kept, told = sharded.Shares(16), [], []
    unbroken = copy(
        sharded.trained(
            16,
            None,
            stream,
            hooks=Hooks(
                on_chunk=lambda s, seen: kept.append((copy(s), seen)),
                on_epoch=lambda epoch, s, means: told.append(means),
            ),
        )
    )
    assert [int(state.step) for state, _ in kept] == [3, 4, 7, 8, 11, 12]  # 4 an epoch
    again = []
    resumed = sharded.trained(
        16,
        None,
        stream,
        resume=Saved(*kept[2]),
        hooks=Hooks(on_epoch=lambda epoch, s, means: again.append(means)),
    )
    assert equal(resumed, unbroken)
    assert again == told[1:]


@pytest.mark.slow
def test_padding_counts_for_nothing():
    class Rubbish(sharded.Shares):
        def after(self, steps):
            for batch in super().after(steps):
                real = batch["weight"] > 0
                image = np.where(real[:, None, None, None], batch["image"], np.nan)
                label = np.where(real, batch["label"], 99).astype(np.int32)
                yield {**batch, "image": image.astype(np.float32), "label": label}

    one, two = (sharded.trained(16, None, kind(16)) for kind in (sharded.Shares, Rubbish))
    assert equal((one.params, one.model_state), (two.params, two.model_state))


def test_a_stream_that_ends_early_says_where():
    class Short(sharded.Shares):
        def after(self, steps):
            for batch, _ in zip(super().after(steps), range(5), strict=False):
                yield batch

    with pytest.raises(ValueError, match="ended at step 5 of 12"):
        sharded.trained(16, None, Short(16))
