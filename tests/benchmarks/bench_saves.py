"""How long the steps around a save take.

`python tests/benchmarks/bench_saves.py` prints milliseconds.

A save must not hold a training up for more than a step beyond the copy. One training of a residual
network of some 50 MB (weights and momentum), every step timed with its result awaited; a save every
tenth step.
"""

import json
import tempfile
import time

import jax
import numpy as np

import advfeat
from advfeat import models, training
from advfeat.runs.train_states import TrainingCheckpoints


def main(width=40, steps=60, batch=16):
    model = models.create("resnet18", num_classes=10, width=width)
    shape = (16, 16, 3)
    variables = models.init(jax.random.key(0), model, shape)
    images = np.random.default_rng(0).integers(0, 256, (steps * batch, *shape), np.uint8)
    labels = np.arange(len(images)) % 10
    attack = advfeat.pgd(advfeat.l2(0.5), steps=1, keep=None)
    config = training.TrainConfig(epochs=1, batch_size=batch)
    took, copies, clock = {"plain": [], "begins": [], "beside": []}, [], time.perf_counter
    with tempfile.TemporaryDirectory() as place:
        store = TrainingCheckpoints(place)
        last = clock()

        def chunk(state, seen):
            nonlocal last
            jax.block_until_ready(state)
            busy = store._thread is not None and store._thread.is_alive()
            step, now = int(state.step), clock()
            begun = step % 10 == 1 and step > 1
            took["begins" if begun else "beside" if busy else "plain"].append(now - last)
            last = clock()
            if step % 10 == 0:
                jax.tree.map(np.array, state)
                copies.append(clock() - last)
                last = clock()
                assert store.save(state, seen)

        training.fit(
            jax.random.key(1),
            training.adversarial(model, advfeat.cross_entropy, attack),
            variables,
            images,
            labels,
            config,
            num_classes=10,
            hooks=training.Hooks(stop=lambda: True, on_chunk=chunk),
        )
        store.close()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables["params"])) * 2 / 1e6
    out = {name: round(1e3 * float(np.median(times[1:])), 1) for name, times in took.items()}
    out["begins, worst"] = round(1e3 * max(took["begins"]), 1)
    out |= {"copy": round(1e3 * float(np.median(copies)), 1), "state MB": round(size, 1)}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
