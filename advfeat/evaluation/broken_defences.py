"""Broken defences, which a sound evaluation must see through.

Each wraps an undefended network in a few lines, (nearly) preserves its clean accuracy and makes
weak attacks fail. They serve tests, teaching and the calibration of
`advfeat.evaluation.diagnostics`; none makes a network robust. Athalye, Carlini and Wagner (2018),
"Obfuscated Gradients Give a False Sense of Security", https://arxiv.org/abs/1802.00420, found most
of them in published defences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from advfeat.edges import THREEFRY
from advfeat.images.filters import cosine_matrix
from advfeat.types import Array, Key, ModelFn, Randomised, as_model_fn, pytree, randomised

BLOCK = 8  # block size of JPEG
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


@pytree
class Halves:
    """A network split in two, for defences that act in between; itself a `ModelFn`.

    Attributes:
      features: `[H, W, C]` -> representation `[D]`, a pytree.
      head: representation -> logits `[K]`, a pytree.
    """

    features: ModelFn
    head: ModelFn

    def __call__(self, x: Array) -> Array:
        """Returns the logits of the unmodified network."""
        return self.head(self.features(x))


@dataclasses.dataclass(frozen=True, eq=False)
class Honest:
    """Ingredients of the defences.

    Attributes:
      network: the network to defend.
      members: networks with the same classes, for ensembles.
      images: `[N, H, W, C]`, the evaluation images, for the defences that cheat by lookup.
      levels: number of grey levels of clean images minus one: 255, or 16 for scikit-learn's digits.
    """

    network: Halves
    members: Sequence[ModelFn]
    images: np.ndarray
    levels: int = 255


def scaled_logits(model_fn: ModelFn, *, factor: float = 1000.0) -> ModelFn:
    """Scales the logits until the softmax is one-hot and the cross-entropy gradient vanishes.

    The effect of defensive distillation, as analysed by Carlini and Wagner (2017),
    https://arxiv.org/abs/1608.04644.

    >>> scaled_logits(lambda x: x, factor=10.0)(jnp.array([1.0, -2.0])).tolist()
    [10.0, -20.0]
    """
    return Partial(lambda fn, x: factor * fn(x), as_model_fn(model_fn))


def probabilities(model_fn: ModelFn) -> ModelFn:
    """Returns probabilities in place of logits, so that attacks apply a second softmax."""
    return Partial(lambda fn, x: jax.nn.softmax(fn(x)), as_model_fn(model_fn))


def clipped_log(model_fn: ModelFn, *, low: float = 0.01, high: float = 0.9) -> ModelFn:
    """Clips probabilities "for numerical stability", which removes the gradient when confident.

    At most one class exceeds `high`, so clipping does not change a prediction there.
    """

    def fn(inner: ModelFn, x: Array) -> Array:
        shares = jax.nn.softmax(inner(x))
        return jnp.log(jnp.clip(shares, low, high))

    return Partial(fn, as_model_fn(model_fn))


def hard_labels(model_fn: ModelFn, *, confidence: float = 5.0) -> ModelFn:
    """Returns only the predicted class, which leaves no score to ascend."""

    def fn(inner: ModelFn, x: Array) -> Array:
        logits = inner(x)
        return confidence * jax.nn.one_hot(jnp.argmax(logits), logits.shape[-1])

    return Partial(fn, as_model_fn(model_fn))


def stopped_gradient(model_fn: ModelFn) -> ModelFn:
    """Stops the gradient at the input, like any preprocessing outside autodiff."""
    return Partial(lambda fn, x: fn(jax.lax.stop_gradient(x)), as_model_fn(model_fn))


def quantised(model_fn: ModelFn, *, levels: int = 4) -> ModelFn:
    """Rounds pixels to `levels` steps (bit-depth reduction, Guo et al. 2018)."""
    return Partial(lambda fn, x: fn(jnp.round(x * levels) / levels), as_model_fn(model_fn))


def thermometer(model_fn: ModelFn, *, levels: int = 6) -> ModelFn:
    """Encodes pixels as thermometer codes (Buckman et al. 2018) and decodes them by counting."""

    def fn(inner: ModelFn, x: Array) -> Array:
        thresholds = (jnp.arange(levels, dtype=x.dtype) + 0.5) / levels
        code = x[..., None] > thresholds.reshape((1,) * x.ndim + (-1,))
        return inner(jnp.mean(code, axis=-1, dtype=x.dtype))

    return Partial(fn, as_model_fn(model_fn))


def jpeg(model_fn: ModelFn, *, quality: int = 50) -> ModelFn:
    """Applies the lossy part of JPEG before the network: quantised DCT of 8 × 8 blocks.

    Every channel uses the luminance table, without chroma subsampling or entropy coding (which is
    lossless). Sides not divisible by 8 are padded by repeating the last row or column.
    """
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = np.clip(np.floor((LUMINANCE * scale + 50) / 100), 1, 255).astype(np.float32)

    def fn(inner: ModelFn, x: Array) -> Array:
        basis = jnp.asarray(cosine_matrix(BLOCK), jnp.float32)
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
    """Shatters the gradient with a fine ripple on every pixel.

    The ripple `-height * sin(2 pi waves levels x)` is zero on the grid of clean images. There it
    changes only the gradient, whose sign it flips.
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
    """Hashes an image; the integer sum is exact in any order."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return jnp.sum((bits ^ (bits >> 13)) * jnp.uint32(2654435761), dtype=jnp.uint32) >> 3


def noisy_gradient(model_fn: ModelFn) -> ModelFn:
    """Replaces the gradient by noise that differs at every input; the forward pass is exact."""
    return Partial(lambda fn, x: fn(_noisy(x)), as_model_fn(model_fn))


def switching(members: Sequence[ModelFn]) -> ModelFn:
    """Switches between ensemble members; a hash of the input selects one at every evaluation."""

    def fn(parts: tuple[ModelFn, ...], x: Array) -> Array:
        logits = jnp.stack([part(x) for part in parts])
        return jnp.take(logits, _fingerprint(x) % len(parts), axis=0)

    return Partial(fn, tuple(as_model_fn(member) for member in members))


def k_winners(halves: Halves, *, share: float = 0.1, sharpness: float = 20.0) -> ModelFn:
    """Passes only the largest activations, and only their pattern (k-WTA, Xiao et al. 2020).

    The set of winners changes constantly with the input, and the gradient between two changes
    nearly vanishes: `sharpness` pushes all winners towards the same value.
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
    """Memorises the evaluation images; within `radius` (L-infinity) it answers as on the image.

    Args:
      model_fn: the network.
      images: `[N, H, W, C]`, the memorised images.
      radius: lookup radius.
      plausible: whether to report the gradient of the original network, although the output is
        constant.
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
    """Stops the gradient wherever a pixel is off the grid of clean images.

    Inspecting the gradient on clean images reveals nothing, yet from a random start no attack
    moves.
    """

    def fn(inner: ModelFn, x: Array) -> Array:
        grey = x * levels
        clean = jnp.all(jnp.abs(grey - jnp.round(grey)) < 1e-3)
        return inner(jnp.where(clean, x, jax.lax.stop_gradient(x)))

    return Partial(fn, as_model_fn(model_fn))


def gamma_corrected(model_fn: ModelFn, *, exponent: float = 0.6) -> ModelFn:
    """Applies `x ** exponent` and its inverse: infinite slope, hence NaN, at black pixels."""
    return Partial(lambda fn, x: fn((x**exponent) ** (1.0 / exponent)), as_model_fn(model_fn))


def random_view(
    model_fn: ModelFn, *, zoom: float = 0.05, shift: float = 0.5, noise: float = 0.05
) -> ModelFn:
    """Applies a random resize, shift and noise before the network (Xie et al. 2018).

    Args:
      model_fn: the network.
      zoom: the scale factor lies in 1 ± zoom.
      shift: maximum shift in pixels.
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
    """Keeps dropout before the last layer active at test time."""

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
"""Defences by name, with strengths chosen for 8 × 8 digits at L-infinity eps 0.15."""


@pytree
class _Chosen:
    """Selects one of several functions by a traced index; see `one_of`."""

    functions: tuple[Callable[..., Array], ...]
    index: Array

    def __call__(self, *arguments: Array) -> Array:
        return jax.lax.switch(self.index, self.functions, *arguments)


def one_of(networks: Sequence[ModelFn]) -> list[ModelFn]:
    """Wraps networks as members of one family, so that an attack compiles once for all of them.

    For tiny networks, compilation dominates the cost of a suite of attacks. `Randomised` networks
    form a family of their own; all members of a family return logits of one shape.

    Args:
      networks: the networks.

    Returns:
      As many networks in the same order, each with a traced member index.

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
