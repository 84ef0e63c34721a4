"""The catalogue in a mode of JAX's own: `python precisions.py [PART …]` says which cases fail.

Modes are decided as a process begins, by JAX_ENABLE_X64 and JAX_NUMPY_DTYPE_PROMOTION, so tests run
this file in a process of its own. Shapes and types are all that is looked at: everything is traced,
nothing compiled.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import advfeat
from advfeat import models, saliency, training
from advfeat.attacks import ATTACKS, nes_gradient, norms_of, step_rules
from advfeat.evaluation import broken_defences
from advfeat.features import generation, mislabeled
from advfeat.images import augmentation, filters, parametrisations
from advfeat.objectives import features, losses

SHAPE, CLASSES, EPS = (8, 8, 3), 4, {"linf": 0.1, "l2": 0.3, "l1": 0.5}
KEY, RNG = jax.random.key(0), np.random.default_rng(0)
X, WEIGHTS = RNG.uniform(0.2, 0.8, SHAPE), RNG.normal(size=(CLASSES, 8 * 8 * 3))
PRECISIONS = ["float32", "bfloat16"]
if jax.config.jax_enable_x64:
    PRECISIONS.append("float64")
ALL = ["attacks", "maps", "pictures", "networks", "lossy", "trainings"]
PARTS = (sys.argv[1:] if __name__ == "__main__" else []) or ALL
FEW = {"steps": 2, "binary_search_steps": 2, "targets": 2, "restarts": 2}
done = failed = 0


def trial(name, call, wanted=None):
    """Traces a case; its floating-point results must have the precision wanted."""
    global done, failed
    done += 1
    try:
        found = jax.eval_shape(call)
        kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(found)}
        assert wanted is None or wanted in kinds, f"{kinds} without {wanted}"
        assert wanted in kinds or not kinds & {"bfloat16", "float16"}, kinds
    except Exception as error:
        failed += 1
        lines = str(error).strip().splitlines()
        print(f"FAILED {name}: {type(error).__name__} {' '.join(lines[:3])[:300]}")


def network(dtype):
    """Linear, with weights of the image's precision, or of float32 for a lower one."""
    weights = jnp.asarray(WEIGHTS, dtype if dtype == "float64" else "float32")
    return jax.tree_util.Partial(lambda w, x: w @ x.ravel(), weights)


def made(name, threat):
    """An attack in short."""
    options = dict(FEW)
    while True:
        try:
            return ATTACKS[name](threat, **options)
        except TypeError as error:
            options.pop(next(option for option in options if option in str(error)))


def attacks(everywhere=False):
    """Every attack in one norm, now in this one, now in that, or in all of them."""
    for place, name in enumerate(ATTACKS):
        of = norms_of(name)
        for norm in of if everywhere else (of[place % len(of)],):
            attack = made(name, advfeat.threat_model(norm, EPS[norm]))
            for dtype in PRECISIONS:
                call = jax.tree_util.Partial(
                    attack, KEY, network(dtype), jnp.asarray(X, dtype), np.uint8(1)
                )
                trial(f"{name} {norm} {dtype}", call, "float64" if dtype == "float64" else None)


def everywhere():
    PRECISIONS.append("float16")
    attacks(everywhere=True)


def maps():
    methods = {
        **{
            name: make()
            for name, make in saliency.METHODS.items()
            if "expected" not in name and not make.on_host
        },
        "expected": saliency.expected_gradients(np.stack([X, X])),
        "layer": saliency.layer_gradient(),
    }
    layered = saliency.split(lambda x: jnp.tanh(2.0 * x), lambda a: a.mean((0, 1)))
    for name, method in methods.items():
        for dtype in PRECISIONS:
            wanted = "float64" if dtype == "float64" else "float32"
            at = layered if name in ("grad_cam", "layer") else network(dtype)
            call = jax.tree_util.Partial(method, KEY, at, jnp.asarray(X, dtype), jnp.int32(1))
            trial(f"{name} {dtype}", call, wanted)


def pictures():
    x, threat = jnp.asarray(X, jnp.float32), advfeat.l2(1.0)
    natural = filters.natural_spectrum(X[None].astype(np.float32))
    tasks = {
        "maximise": (generation.maximise(steps=2, step_size=0.1), 1),
        "invert": (generation.invert(steps=2, step_size=0.1), jnp.ones(CLASSES, jnp.float32)),
        "fourier": (
            advfeat.pgd(
                threat,
                steps=2,
                objective=features.class_score(),
                rule=step_rules.within(advfeat.from_optax(optax.adam), parametrisations.fourier()),
            ),
            1,
        ),
        "annealed": (
            advfeat.pgd(threat, steps=2, rule=step_rules.annealed(step_rules.steepest, 2)),
            1,
        ),
        "chroma": (mislabeled.targeted_pgd(threat, steps=2, gradient_filter=filters.chroma420), 1),
        "natural": (mislabeled.targeted_pgd(threat, steps=2, gradient_filter=natural), 1),
        **{
            f"through {name}": (mislabeled.targeted_pgd(threat, steps=2, transform=transform), 1)
            for name, transform in augmentation.TRANSFORMS.items()
        },
        "looks": (
            mislabeled.targeted_pgd(threat, steps=2, transform=augmentation.random_affine()),
            1,
        ),
    }
    for name, (attack, aim) in tasks.items():
        trial(name, jax.tree_util.Partial(attack, KEY, network("float32"), x, aim), "float32")


def networks():
    """What stands between an attack and a network, with weights of another precision than x."""
    x = jnp.asarray(X, jnp.float32)
    attack = advfeat.pgd(advfeat.l2(1.0), steps=2)
    for dtype in PRECISIONS[:1] + PRECISIONS[2:]:
        inner = network(dtype)
        halves = broken_defences.Halves(jax.tree_util.Partial(jnp.ravel), inner)
        honest = broken_defences.Honest(halves, (inner, inner), X[None].astype(np.float32))
        for name, defend in broken_defences.DEFENCES.items():
            try:
                defended = defend(honest)
            except Exception as error:
                defended = error
            trial(f"{name} {dtype}", jax.tree_util.Partial(attack, KEY, defended, x, 1))
        guess = nes_gradient.with_nes_gradient(inner, sigma=0.1, pairs=2)
        trial(f"estimated {dtype}", jax.tree_util.Partial(attack, KEY, guess, x, 1))


def lossy():
    for dtype in PRECISIONS:
        z, y, t = jnp.arange(4).astype(dtype), jnp.uint8(1), jnp.int32(2)
        for name in ("cross_entropy", "margin", "dlr", "boosted_cross_entropy"):
            trial(f"{name} {dtype}", jax.tree_util.Partial(getattr(losses, name), z, y), dtype)
        for name in ("dlr_targeted", "margin_targeted", "cross_entropy_targeted"):
            call = jax.tree_util.Partial(getattr(losses, name), z, y, t)
            trial(f"{name} {dtype}", call, dtype)


def trainings():
    ce, threat = advfeat.cross_entropy, advfeat.linf(0.03)
    attack = advfeat.pgd(threat, steps=2, keep=None)
    model = models.create("cnn", num_classes=CLASSES, width=4)
    variables = jax.eval_shape(lambda key: models.init(key, model, SHAPE), KEY)
    objectives = {
        "standard": training.standard(model, advfeat.label_smoothing(0.1)),
        "adversarial": training.adversarial(model, ce, attack),
        "trades": training.trades(model, ce, attack, beta=6.0),
        "mart": training.mart(model, ce, attack, beta=6.0),
        "mixed": training.mixed(model, ce, attack),
        "fast": training.fast(model, ce, threat, grad_align=0.2),
    }
    procedures = {
        "plain": training.plain(),
        "awp": training.awp(gamma=0.01, accumulate=2),
        "ema": training.ema(training.plain(), decay=0.9),
        "swa": training.swa(training.plain()),
    }
    cases = [(objective, "plain") for objective in objectives]
    cases += [("adversarial", procedure) for procedure in procedures]
    data = jnp.zeros((8, *SHAPE), jnp.uint8), jnp.zeros(8, jnp.int32), jnp.arange(8)
    hyper = {"learning_rate": jnp.float32(0.1), "steps": jnp.float32(4)}
    for objective, procedure in cases:

        def one(objective=objective, procedure=procedure):
            how = procedures[procedure]
            optimiser = training.sgd(training.schedule("cosine", learning_rate=0.1, steps=4))
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
            state = training.initial(zeros, optimiser, how, shape=(4, *SHAPE))
            after, metrics = training.train_update(
                KEY,
                state,
                objectives[objective],
                data,
                jnp.arange(4),
                hyper,
                how,
                make_optimiser=lambda hyper: optimiser,
                augment=augmentation.flip_shift4,
            )
            same = jax.tree.map(lambda a, b: a.dtype == b.dtype, state, after)
            assert all(jax.tree.leaves(same)), same
            return metrics

        trial(f"{objective} {procedure}", one)


if __name__ == "__main__":
    for part in PARTS:
        globals()[part]()
    print(f"{done} cases, {failed} failed")
    sys.exit(failed > 0)
