"""Sets in the format of TFDS's imagenet2012, of generated pictures: tiny for tests, or larger.

`written` has TFDS itself write the files. `WANTED` are labels of Restricted ImageNet's groups; a
`picture` shows its label by a tint, so that a network can learn it.
"""

import io

import numpy as np
from PIL import Image

# Two of each group, in a mixed order; the classes between them are of no group.
WANTED = [151, 281, 30, 33, 80, 365, 389, 118, 300, 268, 285, 32, 37, 100, 382, 397, 121, 319]
OTHERS = [0, 29, 38, 150, 269, 999]


def encoded(pixels, *, quality=90):
    """The bytes of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def picture(label, number, *, sides=(36, 64), noise=8, quality=90):
    """A JPEG of smooth noise under a tint that is the label's; height and width lie in `sides`."""
    rng = np.random.default_rng([label, number])
    height, width = (int(side) for side in rng.integers(sides[0], sides[1] + 1, 2))
    tint = np.random.default_rng(label).uniform(60, 195, 3)
    coarse = rng.normal(0, 35, (8, 8, 3)) + tint
    smooth = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((width, height))
    pixels = np.asarray(smooth, np.float32) + rng.normal(0, noise, (height, width, 1))
    return encoded(pixels.clip(0, 255).astype(np.uint8), quality=quality)


def pictures(labels, **options):
    """Yields a label with its picture, for `written`."""
    for number, label in enumerate(labels):
        yield label, picture(label, number, **options)


def written(folder, *, name="imagenet2012", identity="file_name", **splits):
    """Writes a prepared set of TFDS into a folder.

    Args:
      folder: to become `--data_dir`.
      name: of the set.
      identity: its text feature: imagenet2012's is file_name, cifar10's id.
      **splits: by name, an iterable of `(label, JPEG)`; imagenet2012 has train, validation and
        test, whose labels are -1.

    Returns:
      The folder, as text.
    """
    import tensorflow_datasets as tfds

    def examples(part):
        for number, (label, blob) in enumerate(part):
            said = {"label": label, identity: f"{number}.JPEG"}
            yield number, {"image": io.BytesIO(blob), **said}

    builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
    builder._make_download_manager = lambda **_: type("None_", (), {"downloaded_size": 0})()
    builder._split_generators = lambda dl_manager: {
        split: examples(part) for split, part in splits.items()
    }
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return str(folder)


def small_cifar(folder, train=40, test=30):
    """Writes a cifar10 of noise in ten tints, lossless, of which memory and disk give the same."""

    def images(count, salt):
        for number in range(count):
            rng = np.random.default_rng([number, salt])
            tint = np.random.default_rng(number % 10).uniform(60, 195, 3)
            pixels = (tint + rng.normal(0, 30, (32, 32, 3))).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            yield number % 10, buffer.getvalue()

    return written(
        folder, name="cifar10", identity="id", train=images(train, 0), test=images(test, 1)
    )


def tiny(folder, each=4):
    """Writes a set with `each` training and two test pictures of every wanted class."""
    rng = np.random.default_rng(0)
    return written(
        folder,
        train=pictures(rng.permutation(WANTED * each).tolist()),
        validation=pictures(rng.permutation(WANTED * 2).tolist()),
        test=[(-1, picture(0, 0))],
    )
