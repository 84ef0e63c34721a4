"""One short adversarial training over all devices of all processes; process 0 writes its weights.

    python tests/helpers/sharded.py OUT.npz [BATCH [stream]]

A network with batch normalisation, attacks with a key per example, augmentation. How many devices
there are says XLA_FLAGS, how many processes the environment, as for any command.
"""

import sys

import jax
import numpy as np
from flax import linen as nn

import advfeat
from advfeat import devices, training
from advfeat.runs import processes

CLASSES = 3
SHAPE = (6, 6, 1)


class Normed(nn.Module):
    """Convolution and batch statistics: a share's own would train another network."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(CLASSES)(nn.relu(x).reshape(x.shape[0], -1))


def data(count=52):
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    # Uneven brightness: each device's share has statistics of its own.
    images = rng.random((count, *SHAPE)) * (0.2 + 0.25 * labels[:, None, None, None])
    return images.astype(np.float32), labels


class Shares:
    """A stream of the same data, of which a process has its part; the last batch is padded."""

    def __init__(self, batch, index=0, count=1, examples=52):
        self.images, self.labels = data(examples)
        self.batch_size, self.input_shape = batch, SHAPE
        self.steps_per_epoch = -(-examples // batch)
        self.part = slice(index * batch // count, (index + 1) * batch // count)

    def after(self, steps):
        while True:
            epoch, step = divmod(steps, self.steps_per_epoch)
            order = np.random.default_rng(epoch).permutation(len(self.labels))
            rows = order[step * self.batch_size :][: self.batch_size]
            weight = np.zeros(self.batch_size, np.float32)
            weight[: len(rows)] = 1
            ids = np.concatenate([rows, np.full(self.batch_size - len(rows), -1, int)])
            batch = {
                "image": self.images[ids],
                "label": self.labels[ids],
                "id": ids.astype(np.int32),
                "weight": weight,
            }
            yield {name: part[self.part] for name, part in batch.items()}
            steps += 1


def trained(batch, mesh, stream=None, **options):
    model = Normed()
    attack = advfeat.pgd(advfeat.l2(0.5), steps=3, random_start=True, keep=None)
    config = training.TrainConfig(epochs=3, batch_size=batch, learning_rate=0.1, augment="shift1")
    start = dict(jax.jit(model.init)(jax.random.key(0), np.zeros((1, *SHAPE), np.float32)))
    loss_fn = training.adversarial(model, advfeat.cross_entropy, attack)
    if stream is not None:
        return training.fit_stream(
            jax.random.key(1), loss_fn, start, stream, config, mesh=mesh, **options
        )
    return training.fit(
        jax.random.key(1),
        loss_fn,
        start,
        *data(),
        config,
        num_classes=CLASSES,
        mesh=mesh,
        **options,
    )


def telling():
    """Hooks that tell every epoch's loss and accuracy, and the list that they fill."""
    told = []

    def tell(epoch, state, means):
        told.append([means["loss"], means["accuracy"]])

    return training.Hooks(on_epoch=tell), told


def flat(state):
    leaves = jax.tree.leaves_with_path((state.params, state.model_state))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def main(out, batch="16", streamed=""):
    index, batch = processes.join(), int(batch)
    shares = Shares(batch, index, jax.process_count()) if streamed else None
    hooks, told = telling()
    state = trained(batch, devices.data_mesh(), shares, hooks=hooks)
    if processes.first():
        np.savez(out, told=np.array(told), devices=jax.device_count(), **flat(state))


if __name__ == "__main__":
    main(*sys.argv[1:])
