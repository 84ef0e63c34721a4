"""LIME explanations by the authors' library, as maps comparable to those of other methods.

Ribeiro et al. (2016), https://arxiv.org/abs/1602.04938, where snow turned a husky into a wolf. The
library is optional: `pip install 'advfeat[lime]'`.
"""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
from jaxtyping import Float, Integer

from advfeat.checks import check_positive
from advfeat.evaluation.prediction import numpy_predict
from advfeat.keys import numpy_seed
from advfeat.types import Key, ModelFn

SEGMENTS = 50  # per image; the library's default suits photographs, not 32 pixels


@dataclasses.dataclass(frozen=True)
class Lime:
    """LIME over a set of images, on the host; make one with `lime`.

    Attributes:
      samples: number of images with covered patches, per explanation.
    """

    samples: int

    def __call__(
        self,
        key: Key,
        model_fn: ModelFn,
        images: Float[np.ndarray, "N H W C"],
        labels: Integer[np.ndarray, " N"],
    ) -> Float[np.ndarray, "N H W"]:
        """Explains each image by the weight of its patches in a local linear model, `[N, H, W]`.

        Args:
          key: a typed key; image i is drawn with the key's last word plus i as NumPy seed.
          model_fn: the network, for ONE example.
          images: `[N, H, W, C]` in [0, 1], grey or colour.
          labels: `[N]`, the classes whose probability is explained.

        Raises:
          ImportError: if the library is not installed.
        """
        from lime import lime_image  # optional, and slow

        seed, channels = numpy_seed(key)[-1], images.shape[-1]
        predict_fn = numpy_predict(model_fn)

        def on_colour(batch: np.ndarray) -> np.ndarray:
            # The library converts grey images to colour.
            batch = np.asarray(batch, np.float32)
            return predict_fn(batch.mean(axis=-1, keepdims=True) if channels == 1 else batch)

        found = []
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            explainer = lime_image.LimeImageExplainer(random_state=seed + index)
            shown = image[..., 0] if channels == 1 else image
            # Hides a progress bar per image.
            with contextlib.redirect_stderr(_Nowhere()):  # type: ignore[type-var]
                explained = explainer.explain_instance(
                    shown.astype(np.float64),
                    on_colour,
                    labels=(int(label),),
                    top_labels=None,
                    # By default a patch is covered with its own mean, which leaves uniform patches
                    # unchanged.
                    hide_color=float(image.mean()),
                    num_samples=self.samples,
                    batch_size=100,
                    segmentation_fn=lambda _, kept=image: _segments(kept),
                )
            weights = dict(explained.local_exp[int(label)])
            found.append(np.vectorize(lambda s, kept=weights: kept.get(s, 0.0))(explained.segments))
        return np.array(found, np.float32)


def lime(*, samples: int = 500) -> Lime:
    """Returns LIME: the weights of patches of similar colour in a local linear model.

    Args:
      samples: number of images with covered patches, per explanation.

    Raises:
      ValueError: if `samples` is below 1.
    """
    check_positive(samples, name="samples")
    return Lime(samples)


def _segments(image: np.ndarray) -> np.ndarray:
    """Segments an image into patches of similar colour and size, `[H, W]` int."""
    from skimage.segmentation import slic

    grey = image.shape[-1] == 1
    return slic(
        image[..., 0] if grey else image,
        n_segments=SEGMENTS,
        compactness=0.1 if grey else 10.0,
        channel_axis=None if grey else -1,
        start_label=0,
    )


class _Nowhere:
    """A stream that drops what is written to it."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
