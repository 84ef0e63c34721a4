"""What adversarial training costs.

`python tests/benchmarks/bench_training.py` prints JSON, one line a case.

A PGD-k step makes k passes forward and back to the images, one forward and back to the weights:
(2k + 3) forward passes are its floor, of which `over_floor` is the multiple. Beside it, of the same
step: the share that goes into fetching, converting and augmenting the batch, and its memory as a
multiple of that of a standard step on the same batch (XLA's own account). Not a test: nothing is
asserted.
"""

import argparse
import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import advfeat
from advfeat import models, training
from advfeat.images.augmentation import TRANSFORMS
from advfeat.training import loop, steps

AUGMENT = "flip_shift4"


def seconds(function, repeats):
    """The median time of a call, result awaited; the first, which compiles, apart."""
    jax.block_until_ready(function())
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        took.append(time.perf_counter() - start)
    return float(np.median(took))


@partial(jax.jit, static_argnames="augment")
def fetched(key, images, rows, augment):
    """What a step does before it has a batch."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    return jax.vmap(augment)(keys, steps.as_unit(images[rows]))


class Case:
    """One network and batch size."""

    def __init__(self, name, width, batch, shape, repeats):
        self.model = models.create(name, num_classes=10, width=width)
        self.variables = models.init(jax.random.key(0), self.model, shape)
        rng = np.random.default_rng(0)
        self.images = jnp.asarray(rng.integers(0, 256, (4 * batch, *shape), np.uint8))
        self.labels = jnp.asarray(np.arange(4 * batch) % 10, jnp.int32)
        self.rows = jnp.asarray(rng.permutation(4 * batch)[:batch], jnp.int32)
        self.repeats, self.bytes = repeats, {}

    def forward(self):
        """Seconds of one forward pass, without gradients."""
        run = jax.jit(lambda v, x: self.model.apply(v, x, train=False))
        x = steps.as_unit(self.images[self.rows])
        return seconds(lambda: run(self.variables, x), 3 * self.repeats)

    def input(self):
        """Seconds of what comes before the attack."""
        augment = TRANSFORMS[AUGMENT]
        return seconds(
            lambda: fetched(jax.random.key(1), self.images, self.rows, augment), self.repeats
        )

    def step(self, attack_steps):
        """Seconds and temporary bytes of a whole training step; 0 steps is standard training."""
        config = training.TrainConfig(epochs=1, batch_size=len(self.rows), augment=AUGMENT)
        loss_fn = training.standard(self.model, advfeat.cross_entropy)
        if attack_steps:
            attack = advfeat.pgd(
                advfeat.linf(8 / 255),
                steps=attack_steps,
                step_size=2 / 255,
                random_start=True,
                keep=None,
            )
            loss_fn = training.adversarial(self.model, advfeat.cross_entropy, attack)
        shape = (len(self.rows), *self.images.shape[1:])
        state, make, hyper = loop.set_up(loss_fn, self.variables, config, steps.PLAIN, 1000, shape)
        data = (self.images, self.labels, jnp.arange(len(self.images), dtype=jnp.int32))
        options = {"make_optimiser": make, "augment": TRANSFORMS[AUGMENT]}
        arguments = (loss_fn, data, self.rows, hyper)
        compiled = training.train_update.lower(
            jax.random.key(2), state, *arguments, **options
        ).compile()
        found = compiled.memory_analysis()

        def once():
            nonlocal state
            state, metrics = training.train_update(jax.random.key(2), state, *arguments, **options)
            return metrics

        return seconds(once, self.repeats), found.temp_size_in_bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet9")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 32, 3))
    parser.add_argument("--attack_steps", type=int, nargs="+", default=(1, 7))
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    case = Case(given.model, given.width, given.batch_size, tuple(given.shape), given.repeats)
    forward, fetching = case.forward(), case.input()
    standard, plain_bytes = case.step(0)
    rows = [(0, standard, plain_bytes)]
    rows += [(k, *case.step(k)) for k in given.attack_steps]
    for k, took, temporary in rows:
        print(
            json.dumps(
                {
                    "model": given.model,
                    "width": given.width,
                    "batch": given.batch_size,
                    "k": k,
                    "step_ms": round(1e3 * took, 1),
                    "forward_ms": round(1e3 * forward, 1),
                    "over_floor": round(took / ((2 * k + 3) * forward), 3),
                    "input_share": round(fetching / took, 4),
                    "memory_over_standard": round(temporary / plain_bytes, 3),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
