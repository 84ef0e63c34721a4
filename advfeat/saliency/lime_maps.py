"""Computes LIME explanations with the authors' library, as maps comparable to other methods.

Ribeiro et al. (2016), https://arxiv.org/abs/1602.04938, where snow turned a husky into a wolf.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from skimage.segmentation import slic

import advfeat
from advfeat.types import ModelFn

SEGMENTS = 50  # per image; the library's default suits photographs, not 32 pixels


def _segments(image: np.ndarray) -> np.ndarray:
    """Segments an image into patches of similar colour and size, `[H, W]` int."""
    grey = image.shape[-1] == 1
    return slic(
        image[..., 0] if grey else image,
        n_segments=SEGMENTS,
        compactness=0.1 if grey else 10.0,
        channel_axis=None if grey else -1,
        start_label=0,
    )


def lime_maps(
    fn: ModelFn, images: np.ndarray, labels: np.ndarray, *, samples: int = 500, seed: int = 0
) -> np.ndarray:
    """Explains each image by the weight of its patches in a local linear model, `[N, H, W]`.

    Args:
      fn: the network, for ONE example.
      images: `[N, H, W, C]` in [0, 1], grey or colour.
      labels: `[N]`, the classes whose probability is explained.
      samples: number of images with covered patches, per explanation.
      seed: of the random draws.
    """
    from lime import lime_image

    channels = images.shape[-1]
    predict_fn = advfeat.numpy_predict(fn)

    def on_colour(batch: np.ndarray) -> np.ndarray:
        # The library converts grey images to colour.
        batch = np.asarray(batch, np.float32)
        return predict_fn(batch.mean(axis=-1, keepdims=True) if channels == 1 else batch)

    found = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        explainer = lime_image.LimeImageExplainer(random_state=seed + index)
        shown = image[..., 0] if channels == 1 else image
        with contextlib.redirect_stderr(io.StringIO()):  # hides a progress bar per image
            explained = explainer.explain_instance(
                shown.astype(np.float64),
                on_colour,
                labels=(int(label),),
                top_labels=None,
                # By default a patch is covered with its own mean, which leaves uniform patches
                # unchanged.
                hide_color=float(image.mean()),
                num_samples=samples,
                batch_size=100,
                segmentation_fn=lambda _, kept=image: _segments(kept),
            )
        weights = dict(explained.local_exp[int(label)])
        found.append(np.vectorize(lambda s, kept=weights: kept.get(s, 0.0))(explained.segments))
    return np.array(found, np.float32)
