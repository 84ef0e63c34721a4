"""SmoothGrad, integrated gradients and feature visualisation beside captum and torch-lucent.

    pip install -e ".[peers]" captum torch-lucent
    PYTHONPATH=. python tests/benchmarks/bench_pictures.py [--checkpoint=zoo:cifar10_standard]

The same weights, images and cores, in turns in one process, compilation apart; prints one JSON
object per line: images per second of each at its best number of copies at a time (of `--chunks`),
the ratio of the medians and that of every turn, how well the maps agree (cosine; SmoothGrad's noise
is drawn anew, so that it cannot be 1), and the bytes that XLA sets aside for growing N.
`--size=224` makes networks with an ImageNet stem at that size (untrained): speed and
memory there. Not a test: nothing is asserted.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

import advfeat
from advfeat import data, models, saliency
from advfeat.attacks.step_rules import from_optax, within
from advfeat.features import generation
from advfeat.images import parametrisations
from advfeat.models.network import Network, NetworkSpec
from advfeat.objectives import features
from advfeat.runs.checkpoints import load_network

KEY = jax.random.key(0)


def timed(run, repeats):
    """Seconds of the fastest of some runs, after one that compiles, and the last result."""
    result, best = run(), np.inf
    for _ in range(repeats):
        best = min(best, once(run))
    return best, result


def once(run):
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def in_turns(ours, theirs, repeats):
    """Seconds of each, turn by turn: `[repeats]` twice, of the quickest variant of either."""
    best = [min(variants, key=lambda run: timed(run, 1)[0]) for variants in (ours, theirs)]
    took = np.array([[once(run) for run in best] for _ in range(repeats)])
    return took[:, 0], took[:, 1], best[0](), best[1]()


def cosine(one, other):
    one, other = (np.asarray(a).reshape(len(a), -1).astype(np.float64) for a in (one, other))
    size = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean(np.sum(one * other, axis=1) / np.maximum(size, 1e-30)))


def say(**facts):
    print(
        json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}),
        flush=True,
    )


def beside_captum(network, images, labels, *, samples, steps, repeats, chunks):
    from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

    from experiments.benchmark.torch_mirror import Mirror, from_torch, to_torch

    mirror, fn = Mirror(network).eval(), network.model_fn()
    x, y = to_torch(images), torch.from_numpy(labels.astype(np.int64))
    tunnel, plain = NoiseTunnel(Saliency(mirror)), Saliency(mirror)
    paths = IntegratedGradients(mirror)

    def theirs(what, chunk):
        def run():
            found = []
            for i in range(0, len(x), 16):
                part, label = x[i : i + 16].clone().requires_grad_(), y[i : i + 16]
                if what == "gradient":
                    found.append(plain.attribute(part, target=label, abs=False))
                elif what == "smoothgrad":
                    found.append(
                        tunnel.attribute(
                            part,
                            nt_type="smoothgrad",
                            nt_samples=samples,
                            stdevs=0.1,
                            target=label,
                            abs=False,
                            nt_samples_batch_size=chunk,
                        )
                    )
                else:
                    found.append(
                        paths.attribute(
                            part, target=label, n_steps=steps, internal_batch_size=16 * chunk
                        )
                    )
            return from_torch(torch.cat(found).detach())

        return run

    def ours(method):
        return lambda: advfeat.attack_dataset(KEY, method, fn, images, labels, batch_size=16)

    methods = {
        "gradient": lambda chunk: saliency.gradient(),
        "smoothgrad": lambda chunk: saliency.smoothgrad(samples=samples, sigma=0.1, chunk=chunk),
        "integrated_gradients": lambda chunk: saliency.integrated_gradients(
            steps=steps, chunk=chunk
        ),
    }
    for name, make in methods.items():
        tried = chunks[:1] if name == "gradient" else chunks
        mine, other, found, wanted = in_turns(
            [ours(make(chunk)) for chunk in tried],
            [theirs(name, chunk) for chunk in tried],
            repeats,
        )
        say(
            what=name,
            samples=samples,
            steps=steps,
            ours=len(images) / np.median(mine),
            captum=len(images) / np.median(other),
            faster=np.median(other) / np.median(mine),
            turns=np.round(other / mine, 2).tolist(),
            cosine=cosine(found, wanted),
        )


def beside_lucent(network, *, units, steps, repeats):
    from lucent.optvis import param, render

    from experiments.benchmark.torch_mirror import Mirror

    size = network.spec.input_shape[0]
    fn = network.model_fn()
    attack = advfeat.pgd(
        advfeat.l2(),
        steps=steps,
        step_size=0.05,
        random_start=False,
        objective=features.class_score(),
        rule=within(from_optax(optax.adam), parametrisations.fourier()),
        keep=None,
    )
    start = jnp.full((len(units), *network.spec.input_shape), 0.5)

    def ours():
        found = advfeat.attack_batch(
            KEY, attack, fn, start, jnp.asarray(units), ids=jnp.arange(len(units))
        )
        return jax.block_until_ready(found.last.x)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Mirror(network)

        def forward(self, x):
            return self.net(x)

    model = Logits().eval()

    def theirs():
        # lucent draws one objective for a batch; as many images of one unit are as much work
        return render.render_vis(
            model,
            "net:0",
            param_f=lambda: param.image(size, batch=len(units)),
            transforms=[],
            preprocess=False,
            thresholds=(steps,),
            progress=False,
            show_image=False,
            fixed_image_size=size,
        )[0]

    mine, other, found, drawn = in_turns([ours], [theirs], repeats)
    logit = np.asarray(jax.vmap(fn)(found))[np.arange(len(units)), units].mean()
    theirs_logit = np.asarray(jax.vmap(fn)(jnp.asarray(drawn, jnp.float32)))[:, 0].mean()
    say(
        what="visualisation",
        steps=steps,
        ours=len(units) / np.median(mine),
        lucent=len(units) / np.median(other),
        faster=np.median(other) / np.median(mine),
        turns=np.round(other / mine, 2).tolist(),
        logit_ours=float(logit),
        logit_lucent=float(theirs_logit),
    )


def memory(network, images, labels):
    """Bytes of temporaries that XLA sets aside for one batch, for growing N."""
    rows = data.draw_rows(labels, 16, seed=0)
    fn, x, y = network.model_fn(), jnp.asarray(images[rows]), jnp.asarray(labels[rows])
    for name, make in (
        ("smoothgrad", lambda n: saliency.smoothgrad(samples=n)),
        ("integrated_gradients", lambda n: saliency.integrated_gradients(steps=n)),
    ):
        for n in (10, 100, 1000):
            run = jax.jit(lambda m, fn, x, y: jax.vmap(lambda a, b: m(KEY, fn, a, b))(x, y))
            plan = run.lower(make(n), fn, x, y).compile().memory_analysis()
            say(what=f"memory of {name}", n=n, mebibytes=plan.temp_size_in_bytes / 2**20)


def at_size(size, *, images=4):
    """Every picture at a photograph's size, with a network that has the stem for it."""
    spec = NetworkSpec(
        model="resnet18",
        class_names=tuple("0123456789"),
        input_shape=(size, size, 3),
        options={"stem": "imagenet"},
    )
    network = Network(spec, models.init(KEY, spec.build(), spec.input_shape), {})
    rng = np.random.default_rng(0)
    x, y = rng.random((images, size, size, 3)).astype(np.float32), np.arange(images)
    fn = network.model_fn()
    mask = np.zeros((images, size, size), np.float32)
    mask[:, : size // 3, : size // 3] = 1
    # Translation, super-resolution and sketches are generation from another start.
    tasks = {
        "generation": (generation.generate(eps=40.0, steps=10), y),
        "inpainting": (generation.inpaint(eps=21.0, steps=10), (y, x, mask)),
        "inversion": (generation.invert(steps=10, step_size=1.0), None),
        "visualisation": (
            generation.maximise(
                steps=10,
                step_size=1.0,
                space=parametrisations.fourier(),
                objective=features.class_score(),
            ),
            y,
        ),
    }
    for name, (attack, aim) in tasks.items():
        layer = network.model_fn("representation") if aim is None else fn
        aim = jax.vmap(layer)(jnp.asarray(x)) if aim is None else jax.tree.map(jnp.asarray, aim)

        def run(attack=attack, aim=aim, layer=layer):
            found = advfeat.attack_batch(
                KEY, attack, layer, jnp.asarray(x), aim, ids=jnp.arange(images)
            )
            return jax.block_until_ready(found.best.x)

        seconds, _ = timed(run, 1)
        plan = (
            jax.jit(lambda a, x, y, fn=layer: jax.vmap(lambda u, v: a(KEY, fn, u, v).best.x)(x, y))
            .lower(attack, jnp.asarray(x), aim)
            .compile()
        )
        say(
            what=f"{name} at {size}",
            image_steps_per_second=images * 10 / seconds,
            mebibytes_per_image=plan.memory_analysis().temp_size_in_bytes / images / 2**20,
        )
    for name, method in (("smoothgrad", saliency.smoothgrad(samples=10)),):
        seconds, _ = timed(
            lambda m=method: advfeat.attack_dataset(KEY, m, fn, x, y, batch_size=images), 1
        )
        say(what=f"{name} at {size}, 10 samples", images_per_second=images / seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="zoo:cifar10_standard")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--chunks",
        type=int,
        nargs="+",
        default=(2, 5, 10),
        help="copies at a time, of 16 images; each takes its best",
    )
    parser.add_argument("--size", type=int)
    given = parser.parse_args()
    if given.size:
        at_size(given.size)
        return
    network = load_network(given.checkpoint)
    samples = data.samples("cifar10")
    rows = data.draw_rows(samples.label, given.images, seed=0)
    images, labels = data.unit(samples.image[rows]), samples.label[rows]
    memory(network, images, labels)
    beside_captum(
        network,
        images,
        labels,
        samples=given.samples,
        steps=given.steps,
        repeats=given.repeats,
        chunks=given.chunks,
    )
    beside_lucent(network, units=np.arange(8), steps=128, repeats=given.repeats)


if __name__ == "__main__":
    main()
