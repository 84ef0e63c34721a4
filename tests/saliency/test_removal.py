"""Pixels are removed in the order of their ranking, and no more of them than was asked."""

import numpy as np
import pytest

from advfeat import saliency


def test_removal_takes_the_first_ranked_and_no_more():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    rankings = np.random.default_rng(0).random((2, 4, 4))
    mean = np.array([200, 201, 202], np.uint8)
    gone = saliency.removed(images, rankings, 0.25, mean)
    for image, before, ranking in zip(gone, images, rankings, strict=True):
        where = (image == mean).all(-1)
        assert where.sum() == 4
        assert ranking[where].min() > ranking[~where].max()
        np.testing.assert_array_equal(image[~where], before[~where])
    np.testing.assert_array_equal(saliency.removed(images, rankings, 0.0, mean), images)
    assert (saliency.removed(images, rankings, 1.0, mean) == mean).all()
    assert gone.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_mean_pixel_is_in_the_images_own_unit(dtype):
    top = 255 if dtype == np.uint8 else 1
    images = (np.array([0.2, 0.4])[:, None, None, None] * np.full((2, 4, 4, 3), top)).astype(dtype)
    mean = saliency.mean_pixel(images)
    assert mean.dtype == dtype
    np.testing.assert_allclose(mean, 0.3 * top, atol=1 if dtype == np.uint8 else 1e-6)


def test_the_mean_pixel_of_many_float_images():
    count = 50_000
    images = np.broadcast_to(np.float32(0.47), (count, 32, 32, 3))  # float32 sums end at 2^24
    mean = saliency.mean_pixel(images)
    np.testing.assert_allclose(mean, 0.47, atol=1e-5)
