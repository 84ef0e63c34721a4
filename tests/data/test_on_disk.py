"""Sets that stay on disk: drawn from like those in memory, read where they are asked for."""

import numpy as np
import pytest
from imagenet_like import WANTED, small_cifar, tiny

from advfeat import data
from advfeat.data import images
from advfeat.runs.cache import VARIABLE as CACHE_VARIABLE

pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    small_cifar(path)
    return tiny(path, each=3)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def same(one, two):
    for field in ("image", "label", "id"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


def test_it_is_what_is_loaded_into_memory(folder):
    memory = data.load("cifar10", data_dir=folder)
    disk = data.open_dataset("cifar10", data_dir=folder)
    same(disk.train.read(), memory.train)
    same(disk.test.read(), memory.test)
    assert (disk.input_shape, disk.class_names) == (memory.input_shape, memory.class_names)
    assert (*disk.mean, *disk.std) == pytest.approx((*memory.mean, *memory.std))
    assert disk.one_size


def test_samples_and_held_out_images_are_those_of_the_set_in_memory(folder):
    memory = data.load("cifar10", data_dir=folder).train
    disk = data.open_dataset("cifar10", data_dir=folder).train
    same(data.subset(disk, 13, seed=3).read(), data.subset(memory, 13, seed=3))
    pairs = zip(
        data.held_out(disk, fraction=0.25, seed=1),
        data.held_out(memory, fraction=0.25, seed=1),
        strict=True,
    )
    for ours, theirs in pairs:
        same(ours.read(), theirs)
    parts = list(disk.batches(15))
    assert [len(part) for part in parts] == [15, 15, 10]
    np.testing.assert_array_equal(np.concatenate([part.image for part in parts]), memory.image)


def test_classes_are_kept_in_the_order_given(folder):
    kept = ("9", "3")
    same(
        data.open_dataset("cifar10", data_dir=folder, classes=kept).test.read(),
        data.load("cifar10", data_dir=folder, classes=kept).test,
    )


def test_images_of_many_sizes_are_cropped_at_their_centre(folder):
    found = data.open_dataset("restricted_imagenet", data_dir=folder, image_size=24)
    assert not found.one_size
    assert (found.input_shape, found.num_classes) == ((24, 24, 3), 9)
    assert (len(found.train), len(found.test)) == (3 * len(WANTED), 2 * len(WANTED))
    assert found.mean == (0.4717, 0.4499, 0.3837)  # the paper's
    assert data.open_dataset("restricted_imagenet", data_dir=folder).input_shape == (224, 224, 3)
    few = data.subset(found.test, 5, seed=0)
    records = few.source.records(few.name)
    for image, position in zip(few.read().image, few.id, strict=True):
        _, blob = few.source.label_and_image(records[int(position)])
        wanted = images.decode_cropped(blob, channels=3, size=24, rng=None)
        np.testing.assert_array_equal(image, wanted)


def test_a_drawn_part_streams_without_the_rest(folder):
    found = data.open_dataset("restricted_imagenet", data_dir=folder, image_size=16)
    kept, held = data.held_out(found.train, fraction=0.3, seed=0)
    stream = data.stream_split(kept, batch_size=4, training=True)
    batches = list(stream)
    ids = np.concatenate([batch["id"] for batch in batches])
    assert sorted(ids[ids >= 0].tolist()) == sorted(kept.id.tolist())
    assert not set(ids.tolist()) & set(held.id.tolist())


def test_random_crops_may_be_left_out(folder):
    found = data.open_dataset("cifar10", data_dir=folder)
    whole = found.train.read().image[np.argsort(found.train.id)]
    stream = data.stream_split(found.train, batch_size=8, training=True, random_crops=False)
    for batch in stream:
        np.testing.assert_array_equal(batch["image"], whole[batch["id"]])


def test_bad_sizes_and_names(folder):
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        data.open_dataset("cifar10", data_dir=folder, image_size=0)
    with pytest.raises(data.DataError, match="is not prepared in"):
        data.open_dataset("cifar10", data_dir=folder + "/nowhere")
    with pytest.raises(data.DataError, match="has no split 'dev'"):
        data.open_split("cifar10", "dev", data_dir=folder)
