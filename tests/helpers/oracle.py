"""References in NumPy float64, written from the definitions and sharing no code with advfeat."""

from __future__ import annotations

import numpy as np

NORMS = ("linf", "l2", "l1")
ULP = 2.0**-23  # of float32, at 1


def length(norm: str, d: np.ndarray) -> float:
    d = np.abs(np.asarray(d, np.float64)).ravel()
    return float({"linf": d.max(), "l2": np.sqrt((d**2).sum()), "l1": d.sum()}[norm])


def dual_length(norm: str, g: np.ndarray) -> float:
    return length({"linf": "l1", "l2": "l2", "l1": "linf"}[norm], g)


def project(norm: str, eps: float, x0: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The nearest point (Euclidean) of ball and box, by bisection on the ball's multiplier."""
    x0, x = np.asarray(x0, np.float64), np.asarray(x, np.float64)
    d = x - x0

    def candidate(t: float) -> np.ndarray:
        # t in [0, 1], growing: the multiplier from infinity to 0.
        if norm == "linf":
            moved = np.clip(d, -t * np.abs(d).max(), t * np.abs(d).max())
        elif norm == "l2":
            moved = t * d
        else:
            moved = np.sign(d) * np.maximum(np.abs(d) - (1 - t) * np.abs(d).max(), 0)
        return np.clip(x0 + moved, 0, 1)

    if length(norm, candidate(1.0) - x0) <= eps:
        return candidate(1.0)
    low, high = 0.0, 1.0
    for _ in range(120):
        middle = 0.5 * (low + high)
        inside = length(norm, candidate(middle) - x0) <= eps
        low, high = (middle, high) if inside else (low, middle)
    return candidate(low)


def tolerance(norm: str, eps: float, size: int) -> float:
    """How far outside a float32 point may lie: a few ulp of eps, half an ulp of each pixel."""
    per_pixel = length(norm, np.full(size, ULP / 2))
    return 4 * ULP * min(eps, size) + per_pixel


def direction(norm: str, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The steepest unit move; for L1 the sparse, box-aware one of one per cent of the pixels."""
    g = np.asarray(g, np.float64)
    if norm == "linf":
        return np.sign(g)
    if norm == "l2":
        return g / np.sqrt((g**2).sum())
    gain = np.where(np.where(g > 0, 1 - x, x) > 0.5 / 255, np.abs(g), 0).ravel()
    chosen = np.argsort(-gain, kind="stable")[: max(1, round(0.01 * gain.size))]
    chosen = chosen[gain[chosen] > 0]
    d = np.zeros(gain.size)
    d[chosen] = 1 / len(chosen)
    return d.reshape(g.shape) * np.sign(g)


class Steepest:
    """PGD's step."""

    def __init__(self, norm: str, step_size: float) -> None:
        self.norm, self.step_size = norm, step_size

    def __call__(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return self.step_size * direction(self.norm, x, gradient)


class Momentum(Steepest):
    """MI-FGSM, equations 6 and 7."""

    memory: np.ndarray | float = 0.0
    decay = 0.75

    def __call__(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        self.memory = self.decay * self.memory + gradient / np.abs(gradient).sum()
        return super().__call__(x, self.memory)


class Annealed(Steepest):
    """PGD's step, shorter from step to step as (1 + cos) / 2 of the share done."""

    count, steps = 0, 6

    def __call__(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        share = (1 + np.cos(np.pi * self.count / self.steps)) / 2
        self.count += 1
        return share * super().__call__(x, gradient)


class Adam(Steepest):
    """Adam, algorithm 1, ascending."""

    count, first, second = 0, 0.0, 0.0

    def __call__(self, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        return self.step_size * first / (np.sqrt(second) + 1e-8)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class TanhNet:
    """logits = V tanh(U x): small, smooth, with its input gradient by hand."""

    def __init__(self, seed: int, shape: tuple[int, ...], hidden: int = 5, classes: int = 3):
        rng = np.random.default_rng(seed)
        self.u = rng.normal(size=(hidden, int(np.prod(shape))))
        self.v = rng.normal(size=(classes, hidden))

    def logits(self, x: np.ndarray) -> np.ndarray:
        return self.v @ np.tanh(self.u @ np.asarray(x, np.float64).ravel())

    def loss(self, x: np.ndarray, y: int) -> float:
        return float(-np.log(softmax(self.logits(x))[y]))

    def gradient(self, x: np.ndarray, y: int) -> np.ndarray:
        h = np.tanh(self.u @ np.asarray(x, np.float64).ravel())
        error = softmax(self.v @ h) - np.eye(len(self.v))[y]
        return (self.u.T @ ((self.v.T @ error) * (1 - h**2))).reshape(np.shape(x))


def ascent(net, norm, eps, x0, y, rule, *, steps):
    """Every iterate of projected gradient ascent on the cross-entropy, the start included."""
    x = np.asarray(x0, np.float64)
    trail = [x]
    for _ in range(steps):
        x = project(norm, eps, x0, x + rule(x, net.gradient(x, y)))
        trail.append(x)
    return trail
