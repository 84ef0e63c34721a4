"""Defences that look strong and are not: what every evaluation should see through.

Each wraps an honest network in a few lines and leaves its accuracy on clean images (nearly) alone,
while weak attacks fail. They are for tests, courses and the calibration of
`advfeat.evaluation.diagnostics`; none of them makes a network robust. Athalye, Carlini and Wagner
(2018), "Obfuscated Gradients Give a False Sense of Security", https://arxiv.org/abs/1802.00420, met
most of them in the wild.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from advfeat.edges import THREEFRY
from advfeat.types import Array, Key, ModelFn, Randomised, as_model_fn, randomised

BLOCK = 8  # JPEG's
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
"""Quantisation table K.1 of the JPEG standard (ITU-T T.81, annex K), quality 50."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Halves:
    """A network in two halves, for defences that work between them; a `ModelFn` itself.

    Attributes:
      features: `[H, W, C]` -> representation `[D]`, a pytree.
      head: representation -> logits `[K]`, a pytree.
    """

    features: ModelFn
    head: ModelFn

    def __call__(self, x: Array) -> Array:
        """The network as it was."""
        return self.head(self.features(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Honest:
    """What defences are made of.

    Attributes:
      network: the network to defend.
      members: networks of the same classes, for ensembles.
      images: `[N, H, W, C]`, the images an evaluation will use, for the defence that cheats.
      levels: grey levels of clean images less one: 255, or 16 for scikit-learn's digits.
    """

    network: Halves
    members: Sequence[ModelFn]
    images: np.ndarray
    levels: int = 255


def scaled_logits(model_fn: ModelFn, *, factor: float = 1000.0) -> ModelFn:
    """Logits so large that the softmax is one-hot and the cross-entropy has no gradient.

    Defensive distillation, as Carlini and Wagner (2017), https://arxiv.org/abs/1608.04644, saw it.

    >>> scaled_logits(lambda x: x, factor=10.0)(jnp.array([1.0, -2.0])).tolist()
    [10.0, -20.0]
    """
    return Partial(lambda fn, x: factor * fn(x), as_model_fn(model_fn))


def probabilities(model_fn: ModelFn) -> ModelFn:
    """A softmax where the logits should be: attacks apply another one."""
    return Partial(lambda fn, x: jax.nn.softmax(fn(x)), as_model_fn(model_fn))


def clipped_log(model_fn: ModelFn, *, low: float = 0.01, high: float = 0.9) -> ModelFn:
    """Log probabilities, clipped "for numerical stability": a sure network has no gradient.

    The bounds leave one class above `high`, so that no prediction changes there.
    """

    def fn(inner: ModelFn, x: Array) -> Array:
        shares = jax.nn.softmax(inner(x))
        return jnp.log(jnp.clip(shares, low, high))

    return Partial(fn, as_model_fn(model_fn))


def hard_labels(model_fn: ModelFn, *, confidence: float = 5.0) -> ModelFn:
    """Only the predicted class is told: there is nothing to ascend."""

    def fn(inner: ModelFn, x: Array) -> Array:
        logits = inner(x)
        return confidence * jax.nn.one_hot(jnp.argmax(logits), logits.shape[-1])

    return Partial(fn, as_model_fn(model_fn))


def stopped_gradient(model_fn: ModelFn) -> ModelFn:
    """The honest network behind `lax.stop_gradient`: any preprocessing outside of autodiff."""
    return Partial(lambda fn, x: fn(jax.lax.stop_gradient(x)), as_model_fn(model_fn))


def quantised(model_fn: ModelFn, *, levels: int = 4) -> ModelFn:
    """Pixels rounded to `levels` steps (bit-depth reduction, Guo et al. 2018)."""
    return Partial(lambda fn, x: fn(jnp.round(x * levels) / levels), as_model_fn(model_fn))


def thermometer(model_fn: ModelFn, *, levels: int = 6) -> ModelFn:
    """Pixels as a code of comparisons (Buckman et al. 2018), read back by counting them."""

    def fn(inner: ModelFn, x: Array) -> Array:
        thresholds = (jnp.arange(levels, dtype=x.dtype) + 0.5) / levels
        code = x[..., None] > thresholds.reshape((1,) * x.ndim + (-1,))
        return inner(jnp.mean(code, axis=-1, dtype=x.dtype))

    return Partial(fn, as_model_fn(model_fn))


def _cosines() -> np.ndarray:
    """The orthonormal DCT-II of a block's side."""
    place = np.arange(BLOCK)
    basis = np.cos(np.pi * (2 * place[None] + 1) * place[:, None] / (2 * BLOCK))
    basis *= np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def jpeg(model_fn: ModelFn, *, quality: int = 50) -> ModelFn:
    """JPEG's lossy part before the network: the DCT of 8 × 8 blocks, quantised.

    Every channel with the luminance table, no chroma subsampling, no entropy code (it loses
    nothing). Sides that 8 does not divide are padded with their last row or column.
    """
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = np.clip(np.floor((LUMINANCE * scale + 50) / 100), 1, 255).astype(np.float32)

    def fn(inner: ModelFn, x: Array) -> Array:
        basis = jnp.asarray(_cosines())
        height, width, channels = x.shape
        padding = ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0))
        padded = jnp.pad(255.0 * x - 128.0, padding, mode="edge")
        shape = (padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK, channels)
        blocks = padded.reshape(shape)
        waves = jnp.einsum("ui,hiwjc,vj->huwvc", basis, blocks, basis)
        steps = jnp.asarray(table).reshape(1, BLOCK, 1, BLOCK, 1)
        waves = steps * jnp.round(waves / steps)
        blocks = jnp.einsum("ui,huwvc,vj->hiwjc", basis, waves, basis)
        pixels = jnp.round(blocks.reshape(padded.shape)[:height, :width] + 128.0) / 255.0
        return inner(jnp.clip(pixels, 0.0, 1.0))

    return Partial(fn, as_model_fn(model_fn))


def shattered(
    model_fn: ModelFn, *, levels: int = 255, height: float = 0.04, waves: int = 12
) -> ModelFn:
    """A fine ripple on every pixel whose slope hides that of the network.

    The ripple `-height * sin(2 pi waves levels x)` is zero on the grid of clean images, so that
    nothing changes there but the gradient: it points the other way.
    """
    speed = 2 * np.pi * waves * levels

    def fn(inner: ModelFn, x: Array) -> Array:
        return inner(x - height * jnp.sin(speed * x))

    return Partial(fn, as_model_fn(model_fn))


@jax.custom_vjp
def _noisy(x: Array) -> Array:
    return x


def _noisy_forward(x: Array) -> tuple[Array, Array]:
    return x, _fingerprint(x)


def _noisy_backward(seed: Array, cotangent: Array) -> tuple[Array]:
    key = jax.random.key(seed, impl=THREEFRY)
    return (jax.random.normal(key, cotangent.shape, cotangent.dtype),)


_noisy.defvjp(_noisy_forward, _noisy_backward)


def _fingerprint(x: Array) -> Array:
    """A hash of an image: the sum of its bits is exact in any order."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return jnp.sum((bits ^ (bits >> 13)) * jnp.uint32(2654435761), dtype=jnp.uint32) >> 3


def noisy_gradient(model_fn: ModelFn) -> ModelFn:
    """An honest forward pass whose gradient is noise, another one at every input."""
    return Partial(lambda fn, x: fn(_noisy(x)), as_model_fn(model_fn))


def switching(members: Sequence[ModelFn]) -> ModelFn:
    """An ensemble of which a hash of the input chooses one member, anew at every step."""

    def fn(parts: tuple[ModelFn, ...], x: Array) -> Array:
        logits = jnp.stack([part(x) for part in parts])
        return jnp.take(logits, _fingerprint(x) % len(parts), axis=0)

    return Partial(fn, tuple(as_model_fn(member) for member in members))


def k_winners(halves: Halves, *, share: float = 0.1, sharpness: float = 20.0) -> ModelFn:
    """Only the largest activations pass, and only their pattern counts (Xiao et al. 2020).

    Which ones win changes with the input all the time, and between two such changes there is
    hardly a slope: `sharpness` pushes the winners towards one value.
    """

    def fn(parts: Halves, x: Array) -> Array:
        features = parts.features(x)
        count = max(1, round(share * features.size))
        least = jax.lax.top_k(features, count)[0][-1]
        winners = jnp.where(features >= least, features, 0.0)
        number = jnp.sum(winners > 0, dtype=features.dtype)
        level = jax.lax.stop_gradient(jnp.sum(features) / jnp.maximum(number, 1))
        return parts.head(level * jnp.tanh(sharpness * winners / jnp.maximum(level, 1e-6)))

    return Partial(fn, halves)


def lookup(
    model_fn: ModelFn, images: np.ndarray, *, radius: float, plausible: bool = False
) -> ModelFn:
    """Knows the evaluation's images: within `radius` (L-infinity) it answers as on the image.

    Args:
      model_fn: the network.
      images: `[N, H, W, C]` that it knows.
      radius: how far it looks.
      plausible: with the gradient that the network would have had, though the answer is constant.
    """

    def fn(inner: ModelFn, known: Array, x: Array) -> Array:
        far = jnp.max(jnp.abs(known - x[None]), axis=(1, 2, 3))
        nearest = known[jnp.argmin(far)]
        seen = jnp.min(far) <= radius
        if plausible:
            logits = inner(x)
            held = logits + jax.lax.stop_gradient(inner(nearest) - logits)
            return jnp.where(seen, held, logits)
        return inner(jnp.where(seen, nearest, x))

    return Partial(fn, as_model_fn(model_fn), jnp.asarray(images, jnp.float32))


def masked_off_grid(model_fn: ModelFn, *, levels: int = 255) -> ModelFn:
    """The gradient is stopped wherever a pixel has none of the values that clean images have.

    A look at the gradient of clean images finds nothing; from a random start no step is made.
    """

    def fn(inner: ModelFn, x: Array) -> Array:
        grey = x * levels
        clean = jnp.all(jnp.abs(grey - jnp.round(grey)) < 1e-3)
        return inner(jnp.where(clean, x, jax.lax.stop_gradient(x)))

    return Partial(fn, as_model_fn(model_fn))


def gamma_corrected(model_fn: ModelFn, *, exponent: float = 0.6) -> ModelFn:
    """`x ** exponent` before the network: at a black pixel its slope is infinite, and then NaN."""
    return Partial(
        lambda fn, x: fn((x**exponent) ** (1.0 / exponent)), as_model_fn(model_fn)
    )


def random_view(
    model_fn: ModelFn, *, zoom: float = 0.05, shift: float = 0.5, noise: float = 0.05
) -> ModelFn:
    """A random resize, shift and noise before the network (Xie et al. 2018).

    Args:
      model_fn: the network.
      zoom: the image is scaled by a factor in 1 ± zoom.
      shift: and moved by up to so many pixels.
      noise: standard deviation of the noise.
    """

    def fn(inner: ModelFn, key: Key, x: Array) -> Array:
        key_zoom, key_shift, key_noise = jax.random.split(key, 3)
        scale = 1 + zoom * jax.random.uniform(key_zoom, (2,), minval=-1.0)
        middle = 0.5 * (1 - scale) * jnp.array(x.shape[:2], jnp.float32)
        moved = middle + shift * jax.random.uniform(key_shift, (2,), minval=-1.0)
        seen = jax.image.scale_and_translate(x, x.shape, (0, 1), scale, moved, "linear")
        seen = seen + noise * jax.random.normal(key_noise, x.shape)
        return inner(jnp.clip(seen, 0.0, 1.0))

    return randomised(Partial(fn, as_model_fn(model_fn)))


def dropout_left_on(halves: Halves, *, drop: float = 0.2) -> ModelFn:
    """Dropout before the last layer, as in training."""

    def fn(parts: Halves, key: Key, x: Array) -> Array:
        features = parts.features(x)
        kept = jax.random.bernoulli(key, 1 - drop, features.shape)
        return parts.head(jnp.where(kept, features / (1 - drop), 0.0))

    return randomised(Partial(fn, halves))


DEFENCES: dict[str, Callable[[Honest], ModelFn]] = {
    "scaled_logits": lambda honest: scaled_logits(honest.network),
    "probabilities": lambda honest: probabilities(honest.network),
    "clipped_log": lambda honest: clipped_log(honest.network),
    "hard_labels": lambda honest: hard_labels(honest.network),
    "stopped_gradient": lambda honest: stopped_gradient(honest.network),
    "quantised": lambda honest: quantised(honest.network),
    "thermometer": lambda honest: thermometer(honest.network),
    "jpeg": lambda honest: jpeg(honest.network),
    "shattered": lambda honest: shattered(honest.network, levels=honest.levels),
    "noisy_gradient": lambda honest: noisy_gradient(honest.network),
    "switching": lambda honest: switching(honest.members),
    "k_winners": lambda honest: k_winners(honest.network),
    "lookup": lambda honest: lookup(honest.network, honest.images, radius=0.3),
    "plausible_lookup": lambda honest: lookup(
        honest.network, honest.images, radius=0.3, plausible=True
    ),
    "masked_off_grid": lambda honest: masked_off_grid(honest.network, levels=honest.levels),
    "gamma_corrected": lambda honest: gamma_corrected(honest.network),
    "random_view": lambda honest: random_view(honest.network),
    "dropout_left_on": lambda honest: dropout_left_on(honest.network),
}
"""Every defence by name, with the strength that suits 8 × 8 digits at L-infinity eps 0.15."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    """`arguments -> ` what one of several functions returns; see `one_of`."""

    functions: tuple[Callable[..., Array], ...]
    index: Array

    def __call__(self, *arguments: Array) -> Array:
        return jax.lax.switch(self.index, self.functions, *arguments)


def one_of(networks: Sequence[ModelFn]) -> list[ModelFn]:
    """The same networks as members of one family, so that an attack compiles once for all of them.

    Compiling is what a suite of attacks on a tiny network costs. Networks that are `Randomised`
    make a family of their own; all of a family return logits of one shape.

    Args:
      networks: the networks.

    Returns:
      As many, in their order: which member it is is a traced number.

    >>> double, square = one_of([lambda x: 2 * x, lambda x: x * x])
    >>> float(double(jnp.float32(3.0))), float(square(jnp.float32(3.0)))
    (6.0, 9.0)
    """
    fns = [as_model_fn(network) for network in networks]
    random = [isinstance(fn, Randomised) for fn in fns]
    families: dict[bool, tuple[Callable[..., Array], ...]] = {
        True: tuple(fn.fn for fn in fns if isinstance(fn, Randomised)),
        False: tuple(fn for fn in fns if not isinstance(fn, Randomised)),
    }
    placed: list[ModelFn] = []
    for place, is_random in enumerate(random):
        index = jnp.asarray(random[:place].count(is_random), jnp.int32)
        member = _Chosen(families[is_random], index)
        placed.append(randomised(member) if is_random else member)
    return placed
