"""Decodes image files to arrays with Pillow."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from advfeat.data.types import DataError

if TYPE_CHECKING:
    from PIL import Image

CENTRAL = 7 / 8
"""The share of the shorter side that a central crop keeps: 224 of 256 pixels, as is usual."""


def require_pillow() -> None:
    """Raises DataError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError("decoding images needs Pillow: pip install pillow") from error


def decode(data: bytes, *, channels: int | None = None) -> np.ndarray:
    """Decodes a PNG or JPEG file.

    Always uses Pillow, even if OpenCV is available: JPEG decoders differ by a grey level in places,
    and the same data must give the same numbers everywhere.

    Args:
      data: contents of the file.
      channels: 1 (grey) or 3 (RGB), converting if necessary; None keeps grey images grey and
        converts all others to RGB (dropping transparency).

    Returns:
      uint8 `[H, W, channels]`.

    Raises:
      DataError: if Pillow cannot read the bytes as an image.
    """
    with _opened(data, channels) as image:
        return _array(image)


def decode_cropped(
    data: bytes,
    *,
    channels: int,
    size: int,
    rng: np.random.Generator | None,
    central: float = CENTRAL,
) -> np.ndarray:
    """Decodes an image of any size and crops it to a square.

    Args:
      data: contents of the file.
      channels: 1 or 3.
      size: height and width of the result, in pixels.
      rng: draws a crop of 8 to 100 % of the area with aspect ratio 3:4 to 4:3, and mirrors half of
        the images (the usual ImageNet augmentation); None crops a square at the centre.
      central: the share of the shorter side that this square has.

    Returns:
      uint8 `[size, size, channels]`.

    Raises:
      DataError: if Pillow cannot read the bytes as an image.
    """
    from PIL import Image

    with _opened(data, channels) as image:
        box = _central(*image.size, central) if rng is None else _random(*image.size, rng)
        result = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        if rng is not None and rng.random() < 0.5:
            result = result.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return _array(result)


@contextlib.contextmanager
def _opened(data: bytes, channels: int | None) -> Iterator[Image.Image]:
    """Yields the decoded image, in mode L or RGB."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as file:
            if file.mode.startswith(("I", "F")):
                raise DataError(f"not a readable image: mode {file.mode}, not 8 bits a channel")
            if channels is None:
                channels = 1 if file.mode in ("1", "L") else 3
            mode = "L" if channels == 1 else "RGB"
            file.load()  # inside the try, because Pillow reads the pixels only here
            image = file if file.mode == mode else file.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"not a readable image: {error}") from error
    yield image


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _central(width: int, height: int, share: float = CENTRAL) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of the central square: a share of the shorter side."""
    side = min(width, height) * share
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _random(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of a random crop."""
    for _ in range(10):
        area = rng.uniform(0.08, 1.0) * width * height
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width, crop_height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if crop_width <= width and crop_height <= height:
            left = rng.uniform(0, width - crop_width)
            top = rng.uniform(0, height - crop_height)
            return left, top, left + crop_width, top + crop_height
    return _central(width, height)  # very elongated images hardly ever fit such a crop
