"""Objectives of training: closed forms, gradients against NumPy, padding, what compiles again."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import advfeat
from advfeat import models, training
from advfeat.objectives import losses
from advfeat.training.losses import base
from advfeat.training.warmup import check_scalable, scaled

SHAPE, COUNT, CLASSES = (2, 3, 1), 8, 3
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LINEAR = models.create("linear", num_classes=CLASSES)
BATCH = {
    "image": jnp.float32(RNG.uniform(0.3, 0.7, (COUNT, *SHAPE))),
    "label": jnp.int32(np.arange(COUNT) % CLASSES),
    "id": jnp.arange(COUNT, dtype=jnp.int32) + 3,
    "weight": jnp.float32(RNG.uniform(0.5, 1.5, COUNT)),
}
PARAMS = {
    "classifier": {
        "kernel": jnp.float32(RNG.normal(size=(6, CLASSES))),
        "bias": jnp.float32(RNG.normal(size=CLASSES)),
    }
}


class Smooth(nn.Module):
    """Convolution, batch statistics, no kinks."""

    @nn.compact
    def __call__(self, x, train=False):
        x = jnp.tanh(models.Conv(2, use_bias=True)(x)).reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(5)(x))
        return nn.Dense(CLASSES)(jnp.tanh(x))


def make(name, eps=0.2, model=LINEAR, number=None, **options):
    """An objective of the registry; `number` is its alpha, beta or grad_align."""
    threat = advfeat.linf(eps)
    attack = advfeat.pgd(threat, steps=2, keep=None)
    loss = advfeat.cross_entropy
    numbers = {"mixed": "alpha", "trades": "beta", "mart": "beta", "fast": "grad_align"}
    if name in numbers:
        options[numbers[name]] = 0.3 if number is None else number
    if name == "standard":
        return training.standard(model, loss)
    if name == "fast":
        return training.fast(model, loss, threat, **options)
    if name == "mart":
        return training.mart(model, attack=attack, **options)
    return training.OBJECTIVES[name](model, loss, attack, **options)


# What has a procedure of its own has a loss of the others.
NAMES = tuple(name for name, entry in training.OBJECTIVES.items() if entry.procedure is None)
each = pytest.mark.parametrize("name", NAMES)


@jax.jit
def value_and_gradient(objective, params, model_state, batch):
    call = jax.value_and_grad(objective, argnums=1, has_aux=True)
    (loss, (model_state, metrics)), gradient = call(KEY, params, model_state, batch)
    return loss, gradient, model_state, metrics


@jax.jit
def prepared(objective, params, model_state, batch):
    return objective.prepare(KEY, params, model_state, batch)


@jax.jit
def descent(objective, params, model_state, batch):
    call = jax.value_and_grad(objective.descend, argnums=1, has_aux=True)
    return call(KEY, params, model_state, batch)


# --- Formulas in NumPy, float64. ------------------------------------------------------------------


class Formulas:
    """Every objective of a linear network as its paper writes it, of a prepared batch."""

    def __init__(self, flat, batch):
        self.kernel, self.bias = flat[:-CLASSES].reshape(-1, CLASSES), flat[-CLASSES:]
        self.batch = {k: np.asarray(v, np.float64) for k, v in batch.items()}
        self.label = np.asarray(batch["label"])
        self.share = self.batch["weight"] / self.batch["weight"].sum()

    def p(self, images):
        x = self.batch[images].reshape(COUNT, -1)
        return oracle.softmax(x @ self.kernel + self.bias)

    def of_label(self, p):
        return p[np.arange(COUNT), self.label]

    def cross_entropy(self, images):
        return -np.log(self.of_label(self.p(images)))

    def kl(self):
        p, q = self.p("image"), self.p("attacked")
        return (p * np.log(p / q)).sum(1)

    def standard(self):
        return self.cross_entropy("image")

    def adversarial(self):
        return self.cross_entropy("attacked")

    def mixed(self):
        return 0.3 * self.cross_entropy("image") + 0.7 * self.cross_entropy("attacked")

    def trades(self):
        return self.cross_entropy("image") + 0.3 * self.kl()

    def mart(self):
        p = self.p("attacked")
        others = np.where(np.arange(CLASSES) == self.label[:, None], 0, p)
        boosted = -np.log(self.of_label(p)) - np.log(1 - others.max(1))
        return boosted + 0.3 * self.kl() * (1 - self.of_label(self.p("image")))

    def fast(self):
        one_hot = np.eye(CLASSES)[self.label]
        g, h = ((self.p(at) - one_hot) @ self.kernel.T for at in ("image", "nearby"))
        lengths = np.sqrt((g**2).sum(1) * (h**2).sum(1))
        return self.cross_entropy("attacked") + 0.3 * (1 - (g * h).sum(1) / lengths)

    def value(self, name):
        return float(self.share @ getattr(self, name)())


@pytest.mark.slow_for("fast", "trades")
@each
def test_loss_and_gradient_are_the_papers(name):
    objective = make(name)
    batch = prepared(objective, PARAMS, {}, BATCH)
    (loss, _), gradient = descent(objective, PARAMS, {}, batch)
    leaves = PARAMS["classifier"]
    flat = np.concatenate([np.ravel(leaves["kernel"]), leaves["bias"]]).astype(np.float64)
    assert float(loss) == pytest.approx(Formulas(flat, batch).value(name), rel=1e-5)
    found = gradient["classifier"]
    found = np.concatenate([np.ravel(found["kernel"]), found["bias"]])
    for index in range(len(flat)):
        step = np.zeros_like(flat)
        step[index] = 1e-5
        up, down = (Formulas(flat + s * step, batch).value(name) for s in (1, -1))
        assert found[index] == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=2e-5), index


@pytest.mark.slow_for("adversarial", "fast", "mart", "mixed", "trades")
@each
def test_called_as_a_loss_it_prepares_and_descends(name):
    objective = make(name)
    loss, gradient, _, metrics = value_and_gradient(objective, PARAMS, {}, BATCH)
    key_prepare, key_descend = jax.random.split(KEY)
    # Not compiled: op by op, as a foreign train loop may call it.
    batch = objective.prepare(key_prepare, PARAMS, {}, BATCH)
    again, (_, by_hand) = objective.descend(key_descend, PARAMS, {}, batch)
    assert float(loss) == pytest.approx(float(again), rel=1e-5)
    assert float(metrics["loss"]) == float(loss)
    assert set(metrics) == set(by_hand)
    assert float(metrics["accuracy"]) == pytest.approx(float(by_hand["accuracy"]))
    assert sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient)) > 0.1


def test_fgsm_is_the_worst_case_of_logistic_regression():
    """Goodfellow et al. (2015), section 5: `E softplus(eps |w|_1 - y (w x + b))`."""
    model, eps = models.create("linear", num_classes=2), 0.1
    kernel, bias = RNG.normal(size=(6, 2)), RNG.normal(size=2)
    label = np.arange(COUNT) % 2
    batch = {**BATCH, "label": jnp.int32(label)}
    params = {"classifier": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}}
    attack = advfeat.fgsm(advfeat.linf(eps), keep=None)
    objective = training.adversarial(model, advfeat.cross_entropy, attack)
    loss = value_and_gradient(objective, params, {}, batch)[0]
    w, b = kernel[:, 1] - kernel[:, 0], bias[1] - bias[0]
    x = np.asarray(BATCH["image"], np.float64).reshape(COUNT, -1)
    worst = np.log1p(np.exp(eps * np.abs(w).sum() - (2 * label - 1) * (x @ w + b)))
    weight = np.asarray(BATCH["weight"], np.float64)
    assert float(loss) == pytest.approx(weight @ worst / weight.sum(), rel=1e-5)


@pytest.mark.slow_for("trades-0.0-standard")
@pytest.mark.parametrize(
    ("name", "number", "same"),
    [("trades", 0.0, "standard"), ("mixed", 1.0, "standard"), ("mixed", 0.0, "adversarial")],
)
def test_at_the_ends_it_is_another_objective(name, number, same):
    first = value_and_gradient(make(name, number=number), PARAMS, {}, BATCH)
    second = value_and_gradient(make(same), PARAMS, {}, BATCH)
    chex.assert_trees_all_close(first[:2], second[:2], rtol=1e-5, atol=1e-6)


def test_fast_without_its_regulariser_is_adversarial_training():
    objective = make("fast", number=0.0)
    assert type(objective) is type(make("adversarial"))
    assert float(objective.attack.step_size) == pytest.approx(0.25)
    assert objective.attack.random_start
    assert objective.attack.steps == 1


def test_the_attack_of_trades_diverges_from_the_prediction_whatever_the_label():
    found = prepared(make("trades"), PARAMS, {}, BATCH)["attacked"]
    relabelled = {**BATCH, "label": (BATCH["label"] + 1) % CLASSES}
    np.testing.assert_array_equal(
        found, prepared(make("trades"), PARAMS, {}, relabelled)["attacked"]
    )
    assert float(jnp.abs(found - BATCH["image"]).max()) == pytest.approx(0.2, abs=1e-6)

    assert float(value_and_gradient(make("trades"), PARAMS, {}, BATCH)[3]["divergence"]) > 0.01


@pytest.mark.slow
def test_the_attack_of_trades_begins_beside_the_example():
    attack, x = make("trades", spread=0.02).attack, jnp.full((40, 40, 1), 0.5)
    start, aim = attack.start(KEY, None, x, 7, 0)
    assert float(jnp.std(start - x)) == pytest.approx(0.02, rel=0.05)
    assert aim == 7
    # At the example itself the divergence is flat: the noise shows the way.
    score = advfeat.objectives.classification.kl_from_prediction()
    slope = jax.grad(lambda z: score(KEY, lambda z: z, z, aim)[0])(aim := jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    assert float(make("trades").attack.spread) == pytest.approx(1e-3)
    inside = make("trades", eps=0.01, spread=5.0).attack.start(KEY, None, x, 7, 0)[0]
    assert float(jnp.abs(inside - x).max()) == pytest.approx(0.01, abs=1e-6)


# --- Padding, draws, batch statistics, compiling. -------------------------------------------------


@pytest.mark.slow_for("fast", "mart", "trades")
@each
def test_rows_of_weight_zero_change_nothing(name):
    garbage = {
        "image": jnp.ones((4, *SHAPE)),
        "label": jnp.zeros(4, jnp.int32),
        "id": jnp.arange(4, dtype=jnp.int32),
        "weight": jnp.zeros(4),
    }
    padded = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), BATCH, garbage)
    first = value_and_gradient(make(name), PARAMS, {}, BATCH)
    second = value_and_gradient(make(name), PARAMS, {}, padded)
    chex.assert_trees_all_close(first, second, rtol=1e-5, atol=1e-6)
    empty = {**BATCH, "weight": jnp.zeros(COUNT)}
    assert all(
        np.isfinite(leaf).all()
        for leaf in jax.tree.leaves(value_and_gradient(make(name), PARAMS, {}, empty))
    )


@pytest.mark.slow_for("adversarial", "fast", "mart", "standard", "trades")
@each
def test_with_batch_statistics(name):
    model = Smooth()
    variables = jax.jit(model.init)(KEY, jnp.zeros((1, *SHAPE)))
    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}
    objective = make(name, model=model)
    # In evaluation mode, with draws that belong to the example: the others do not matter.
    whole = prepared(objective, params, rest, BATCH)
    part = prepared(objective, params, rest, jax.tree.map(lambda leaf: leaf[2:6], BATCH))
    for key in whole:
        np.testing.assert_allclose(whole[key][2:6], part[key], atol=1e-6)
    (loss, (after, _)), gradient = descent(objective, params, rest, whole)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after, rest)
    assert min(jax.tree.leaves(moved)) > 1e-4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(after))
    assert np.isfinite(float(loss))


@pytest.mark.slow
def test_second_derivatives_flow_through_gradient_alignment():
    model = Smooth()
    variables = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, *SHAPE)))
    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}
    objective = make("fast", eps=0.5, model=model, number=1.0)
    batch = prepared(objective, params, rest, BATCH)

    @jax.jit
    def regulariser(params):
        return objective.descend(KEY, params, rest, batch)[1][1]["misaligned"]

    gradient = jax.grad(regulariser)(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        if leaf.ndim < 2:
            continue
        way = leaf / jnp.linalg.norm(leaf)

        def along(h, path=path, way=way):
            def move(at, weight):
                return weight + h * way if at == path else weight

            return float(regulariser(jax.tree_util.tree_map_with_path(move, params)))

        slope = (along(5e-3) - along(-5e-3)) / 1e-2
        # Steepest along the gradient, with the gradient's length for a slope.
        assert slope == pytest.approx(float(jnp.linalg.norm(leaf)), rel=0.02), path
        assert slope > 1e-3


@pytest.mark.slow_for("fast")
@each
def test_new_numbers_do_not_compile_again(name):
    value_and_gradient(make(name, eps=0.2, number=0.3), PARAMS, {}, BATCH)
    size = value_and_gradient._cache_size()
    for objective in (make(name, eps=0.05, number=0.7), scaled(make(name), 0.5)):
        value_and_gradient(objective, PARAMS, {}, BATCH)
    assert value_and_gradient._cache_size() == size


@each
@pytest.mark.parametrize("scale", [0.0, 1e4, 1e30])
def test_nothing_is_nan(name, scale):
    """Zero gradients, probabilities of 0 and 1, a divergence of 0."""
    params = jax.tree.map(lambda leaf: scale * leaf, PARAMS)
    loss, gradient, _, _ = value_and_gradient(make(name), params, {}, BATCH)
    assert np.isfinite(float(loss))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@each
def test_a_warm_up_scales_the_attack(name):
    objective = make(name)
    found = prepared(scaled(objective, 0.0), PARAMS, {}, BATCH)
    np.testing.assert_array_equal(found.get("attacked", BATCH["image"]), BATCH["image"])
    if hasattr(objective, "attack"):
        half, whole = (scaled(objective, share).attack for share in (0.5, 1.0))
        assert float(half.threat.eps) == pytest.approx(0.1)
        assert float(half.step_size) == pytest.approx(float(objective.attack.step_size) / 2)
        assert float(whole.threat.eps) == float(objective.attack.threat.eps)


def test_what_cannot_be_scaled():
    endless = training.adversarial(
        LINEAR,
        advfeat.cross_entropy,
        advfeat.pgd(advfeat.l2(), steps=1, step_size=0.1, keep=None),
    )
    assert float(scaled(endless, 0.0).attack.threat.eps) == 0.0
    objective = training.adversarial(LINEAR, advfeat.cross_entropy, lambda key, model, x, y: x)
    with pytest.raises(ValueError, match="needs an attack with a threat model, got function"):
        check_scalable(objective)


# --- Losses, the registry, bad input. -------------------------------------------------------------


def test_label_smoothing_is_a_loss():
    smooth = losses.label_smoothing(0.2)
    assert smooth == losses.label_smoothing(0.2)
    assert hash(smooth) == hash(losses.label_smoothing(0.2))
    assert smooth != losses.label_smoothing(0.1)
    objective = dataclasses.replace(make("adversarial"), loss=smooth)
    batch = prepared(objective, PARAMS, {}, BATCH)
    (loss, _), _ = descent(objective, PARAMS, {}, batch)
    leaves = PARAMS["classifier"]
    flat = np.concatenate([np.ravel(leaves["kernel"]), leaves["bias"]]).astype(np.float64)
    found = Formulas(flat, batch)
    wanted = -(
        0.8 * np.log(found.of_label(found.p("attacked")))
        + 0.2 * np.log(found.p("attacked")).mean(1)
    )
    assert float(loss) == pytest.approx(float(found.share @ wanted), rel=1e-5)


@pytest.mark.slow
def test_divergence_and_boosted_loss_at_the_edges():
    far = jnp.array([0.0, 1e4, -1e4])
    assert float(losses.kl_divergence(far, far)) == 0.0
    assert float(losses.kl_divergence(far, -far)) == pytest.approx(2e4)
    assert float(losses.boosted_cross_entropy(far, 1)) == 0.0
    # Sure of another class: both halves are the gap to it.
    assert float(losses.boosted_cross_entropy(far, 0)) == pytest.approx(2e4)


def test_equal_objectives_share_a_compiled_step():
    trees = [jax.tree.structure(make(name)) for name in NAMES for _ in range(2)]
    assert trees[::2] == trees[1::2]
    assert len(set(trees)) == len(NAMES)


BAD = {
    "alpha must lie in [0, 1], got 1.5": lambda: make("mixed", number=1.5),
    "alpha must lie in [0, 1], got -0.1": lambda: make("mixed", number=-0.1),
    "alpha must lie in [0, 1], got nan": lambda: make("mixed", number=float("nan")),
    "alpha must be a number in [0, 1], got 'a'": lambda: make("mixed", number="a"),
    "beta must be >= 0, got -1": lambda: make("trades", number=-1.0),
    "beta must be >= 0, got NaN": lambda: make("mart", number=float("nan")),
    "beta must be finite, got inf": lambda: make("mart", number=float("inf")),
    "spread must be >= 0, got -1": lambda: make("trades", spread=-1.0),
    "grad_align must be >= 0, got -1": lambda: make("fast", number=-1.0),
    "step_size must be >= 0, got -1": lambda: make("fast", step_size=-1.0),
    "attack must be an attack such as pgd(threat), got None": lambda: training.mart(LINEAR),
    "attack must be a pgd for trades, got function": lambda: training.trades(
        LINEAR, advfeat.cross_entropy, lambda: None
    ),
    "attack must have one round for trades, got 2": lambda: training.trades(
        LINEAR, advfeat.cross_entropy, advfeat.pgd(advfeat.linf(0.1), restarts=2)
    ),
    "smoothing must lie in [0, 1), got 1": lambda: losses.label_smoothing(1),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        BAD[message]()
    assert str(error.value).startswith(message)


def test_base_is_abstract():
    with pytest.raises(NotImplementedError):
        base.TrainingObjective(LINEAR, advfeat.cross_entropy)(KEY, PARAMS, {}, BATCH)
