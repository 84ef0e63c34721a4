"""LIME's explanation of a network, by the library of its authors, as a map beside the others.

Ribeiro et al. (2016), https://arxiv.org/abs/1602.04938, whose husky was a wolf for the snow.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from skimage.segmentation import slic

import advfeat
from advfeat.types import ModelFn

SEGMENTS = 50  # of an image; the library's own choice is made for photographs, not for 32 pixels


def _segments(image: np.ndarray) -> np.ndarray:
    """`[H, W]` int: patches of like colour, of much the same size."""
    grey = image.shape[-1] == 1
    return slic(
        image[..., 0] if grey else image, n_segments=SEGMENTS, compactness=0.1 if grey else 10.0,
        channel_axis=None if grey else -1, start_label=0,
    )  # fmt: skip


def lime_maps(
    fn: ModelFn, images: np.ndarray, labels: np.ndarray, *, samples: int = 500, seed: int = 0
) -> np.ndarray:
    """`[N, H, W]`: the weight of every patch in a linear model of the network around each image.

    Args:
      fn: the network, for ONE example.
      images: `[N, H, W, C]` in [0, 1], grey or colour.
      labels: `[N]`, whose probability is explained.
      samples: images with patches covered, for each explanation.
      seed: of their draws.
    """
    from lime import lime_image

    channels = images.shape[-1]
    predict_fn = advfeat.numpy_predict(fn)

    def on_colour(batch: np.ndarray) -> np.ndarray:
        # The library makes grey images colour.
        batch = np.asarray(batch, np.float32)
        return predict_fn(batch.mean(axis=-1, keepdims=True) if channels == 1 else batch)

    found = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        explainer = lime_image.LimeImageExplainer(random_state=seed + index)
        shown = image[..., 0] if channels == 1 else image
        with contextlib.redirect_stderr(io.StringIO()):  # a bar for every image
            explained = explainer.explain_instance(
                shown.astype(np.float64), on_colour, labels=(int(label),), top_labels=None,
                # By default a patch is covered with its own mean: a plain one stays as it is.
                hide_color=float(image.mean()), num_samples=samples, batch_size=100,
                segmentation_fn=lambda _, kept=image: _segments(kept),
            )  # fmt: skip
        weights = dict(explained.local_exp[int(label)])
        found.append(np.vectorize(lambda s, kept=weights: kept.get(s, 0.0))(explained.segments))
    return np.array(found, np.float32)
