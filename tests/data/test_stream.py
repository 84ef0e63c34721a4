"""Streams: order, padding, sharding, resuming, Restricted ImageNet, and no needless decoding."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from imagenet_like import OTHERS, WANTED, encoded, written
from PIL import Image

from advfeat import data
from advfeat.data import images, label_index, restricted_imagenet, streaming
from advfeat.runs.cache import VARIABLE as CACHE_VARIABLE

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("grain")

TRAIN = [label for pair in zip(WANTED, OTHERS * 3, strict=True) for label in pair] + [151] * 5
RUBBISH = b"these bytes are no image"


def jpeg(label, *, height=40, width=60):
    """Returns a picture of one grey level, which names its label."""
    return encoded(np.full((height, width, 3), label % 251, np.uint8), quality=95)


def blobs(labels):
    """Yields labels with pictures; images that are not wanted cannot be decoded."""
    for number, label in enumerate(labels):
        yield label, RUBBISH if label in OTHERS else jpeg(label, height=40 + number % 3)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Returns the folder of a tiny imagenet2012, written by TFDS itself."""
    folder = tmp_path_factory.mktemp("tfds")
    return written(folder, train=blobs(TRAIN), validation=blobs(WANTED), test=blobs([-1] * 4))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(imagenet, **options):
    chosen = {"split": "train", "batch_size": 4, "training": True, "image_size": 16, **options}
    return data.stream("restricted_imagenet", data_dir=imagenet, num_threads=2, **chosen)


def joined(batches, key):
    return np.concatenate([batch[key] for batch in batches])


def real(batches):
    return joined(batches, "id")[joined(batches, "weight") > 0]


# Restricted ImageNet


def test_the_groups_are_the_papers():
    table = restricted_imagenet.GROUPING.table(1000)
    assert restricted_imagenet.GROUPING.class_names == (
        "dog",
        "cat",
        "frog",
        "turtle",
        "bird",
        "monkey",
        "fish",
        "crab",
        "insect",
    )
    assert np.bincount(table[table >= 0]).tolist() == [118, 5, 3, 5, 21, 18, 9, 4, 20]
    assert [table[label] for label in WANTED] == [*range(9)] * 2
    assert (table[OTHERS] == -1).all()


def test_wanted_examples_come_once_with_their_group_and_the_others_are_never_decoded(imagenet):
    stream = opened(imagenet)
    batches = list(stream)
    assert (stream.num_classes, stream.num_examples, stream.steps_per_epoch) == (9, 23, 6)
    assert stream.input_shape == (16, 16, 3)
    undecoded = {"image": tfds.decode.SkipDecoding()}
    source = tfds.data_source(
        "imagenet2012", split="train", data_dir=imagenet, decoders=undecoded, download=False
    )
    original = np.array([example["label"] for example in source])
    ids, labels = real(batches), joined(batches, "label")[joined(batches, "weight") > 0]
    assert sorted(ids.tolist()) == np.flatnonzero(np.isin(original, WANTED)).tolist()
    np.testing.assert_array_equal(labels, restricted_imagenet.GROUPING.table(1000)[original[ids]])
    pixels = joined(batches, "image")[joined(batches, "weight") > 0].astype(int)
    assert np.abs(pixels - (original[ids] % 251)[:, None, None, None]).max() <= 2


def test_the_last_batch_is_padded(imagenet):
    *_, last = opened(imagenet, training=False)
    assert {key: value.dtype.name for key, value in last.items()} == {
        "image": "uint8",
        "label": "int32",
        "id": "int32",
        "weight": "float32",
    }
    assert last["image"].shape == (4, 16, 16, 3)
    assert last["weight"].tolist() == [1, 1, 1, 0]
    assert last["id"][-1] == -1
    assert not last["image"][-1].any()


def test_without_training_the_order_is_the_splits(imagenet):
    ids = real(opened(imagenet, training=False))
    assert (np.diff(ids) > 0).all()


def test_test_means_validation_where_the_labels_are_secret(imagenet):
    assert opened(imagenet, split="test", training=False).num_examples == len(WANTED)
    assert opened(imagenet, split="validation", training=False).num_examples == len(WANTED)


def test_seed_and_epoch_give_the_order_and_the_crops(imagenet):
    first, again, other = (list(opened(imagenet, epochs=2, seed=seed)) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])
    assert real(first).tolist() != real(other).tolist()
    epochs = real(first[:6]), real(first[6:])
    assert epochs[0].tolist() != epochs[1].tolist()
    assert sorted(epochs[0].tolist()) == sorted(epochs[1].tolist())


def test_a_stopped_stream_goes_on_where_it_stopped(imagenet):
    whole = list(opened(imagenet, epochs=3))
    begun = iter(opened(imagenet, epochs=3))
    for _ in range(8):  # into the second epoch
        next(begun)
    state = json.loads(json.dumps(begun.get_state()))
    resumed = iter(opened(imagenet, epochs=3))
    resumed.set_state(state)
    rest = list(resumed)
    assert len(rest) == 10
    for one, two in zip(rest, whole[8:], strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


def test_an_endless_stream_begins_its_next_epoch(imagenet):
    stream = opened(imagenet, epochs=None)
    taken = [batch for batch, _ in zip(stream, range(14), strict=False)]
    assert sorted(real(taken[:6]).tolist()) == sorted(real(taken[6:12]).tolist())


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_every_batch(imagenet, processes):
    whole = list(opened(imagenet))
    parts = [
        list(opened(imagenet, process_index=index, process_count=processes))
        for index in range(processes)
    ]
    for step, batch in enumerate(whole):
        for key in batch:
            np.testing.assert_array_equal(joined([part[step] for part in parts], key), batch[key])


def test_balanced_takes_as_many_of_each(imagenet):
    stream = opened(imagenet, balanced=True, epochs=4)
    batches = list(stream)
    assert stream.num_examples == 18
    seen = set()
    for epoch in range(4):
        part = batches[5 * epoch : 5 * epoch + 5]
        labels = joined(part, "label")[joined(part, "weight") > 0]
        assert np.bincount(labels).tolist() == [2] * 9
        ids = real(part)
        assert len(set(ids.tolist())) == 18
        seen |= set(ids[labels == 0].tolist())
    assert len(seen) > 2  # of the seven dogs, others in other epochs


def test_a_subset_of_the_groups(imagenet):
    batches = list(opened(imagenet, classes=("cat", "dog")))
    labels = joined(batches, "label")[joined(batches, "weight") > 0]
    assert np.bincount(labels).tolist() == [2, 7]


# any other set, and the mock that TFDS offers


def test_any_tfds_set_streams(imagenet):
    stream = data.stream(
        "imagenet2012",
        split="validation",
        batch_size=6,
        training=False,
        image_size=8,
        data_dir=imagenet,
        classes=("n02085620", "n02123045"),
    )
    (batch,) = stream
    assert sorted(batch["label"][:2].tolist()) == [0, 1]
    assert stream.num_examples == 2


def test_it_streams_what_tfds_mocks(imagenet, cache):
    """`tfds.testing.mock_data` with the true metadata, and records that no file holds."""

    class Records:
        def __init__(self, features, labels):
            self._records = [
                features.serialize_example(
                    {"image": io.BytesIO(blob), "label": label, "file_name": "x.JPEG"}
                )
                for label, blob in blobs(labels)
            ]

        def __len__(self):
            return len(self._records)

        def __getitem__(self, index):
            return self._records[index]

        def __getitems__(self, indices):
            return [self[index] for index in indices]

    def as_data_source(self, split, deserialize_method, **_):
        assert deserialize_method == tfds.decode.DeserializeMethod.RAW_BYTES
        return Records(self.info.features, TRAIN * 3)

    policy = tfds.testing.MockPolicy.USE_FILES
    with tfds.testing.mock_data(policy=policy, data_dir=imagenet, as_data_source_fn=as_data_source):
        stream = opened("/nowhere", batch_size=10)
        batches = list(stream)
    assert stream.num_examples == 3 * 23
    labels = joined(batches, "label")[joined(batches, "weight") > 0]
    assert np.bincount(labels).tolist() == [21, 6, 6, 6, 6, 6, 6, 6, 6]


def test_in_memory_such_a_set_is_refused_in_one_line(imagenet):
    with pytest.raises(data.DataError, match=r"differ in size .* use advfeat\.data\.stream"):
        data.load("imagenet2012", data_dir=imagenet, classes=("n02085620", "n02123045"))
    with pytest.raises(data.DataError, match=r"record \d+ of train: not a readable image"):
        data.load("imagenet2012", data_dir=imagenet, classes=("n01440764", "n15075141"))


def test_a_damaged_image_is_named(imagenet):
    stream = data.stream(
        "imagenet2012",
        split="train",
        batch_size=2,
        training=False,
        data_dir=imagenet,
        classes=("n01440764", "n15075141"),
    )
    with pytest.raises(data.DataError, match=r"imagenet2012: record \d+ of train: not a readable"):
        list(stream)


# the index of labels


def test_labels_are_read_once(imagenet, cache, monkeypatch):
    first = real(opened(imagenet))
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(label_index.tfds_images, "read_all", None)
    np.testing.assert_array_equal(real(opened(imagenet)), first)


def test_a_damaged_or_unwritable_cache_costs_time_only(imagenet, cache, monkeypatch):
    first = real(opened(imagenet))
    (file,) = cache.iterdir()
    for content in (b"", b"rubbish", file.read_bytes()[:-4]):
        file.write_bytes(content)
        np.testing.assert_array_equal(real(opened(imagenet)), first)
    monkeypatch.setenv(CACHE_VARIABLE, "/dev/null/x")
    np.testing.assert_array_equal(real(opened(imagenet)), first)


# places and crops, without any files


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), max_size=40).map(lambda found: [0, 1, 2, *found]),
    seed=st.integers(0, 2**31),
    local_batch=st.integers(1, 7),
    processes=st.integers(1, 4),
    balanced=st.booleans(),
    shuffle=st.booleans(),
)
def test_every_example_has_one_place_in_each_epoch(
    labels, seed, local_batch, processes, balanced, shuffle
):
    labels = np.array(labels, np.int32)
    smallest = np.bincount(labels).min()
    count = 3 * smallest if balanced else len(labels)
    common = {
        "labels": labels,
        "seed": seed,
        "shuffle": shuffle,
        "balanced": balanced,
        "batch_size": local_batch * processes,
        "process_count": processes,
        "epochs": 2,
    }
    parts = [streaming._Slots(process_index=index, **common) for index in range(processes)]
    assert parts[0].num_examples == count
    assert len({len(part) for part in parts}) == 1  # nobody waits for a batch that never comes
    places = [part[index] for part in parts for index in range(len(part))]
    for epoch in (0, 1):
        taken = [place.index for place in places if place.epoch == epoch]
        assert len(taken) == parts[0].steps_per_epoch * local_batch * processes
        found = [index for index in taken if index >= 0]
        assert len(taken) - len(found) < local_batch * processes
        assert len(set(found)) == len(found) == count
        if balanced:
            assert np.bincount(labels[found]).tolist() == [smallest] * 3


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 2**31))
def test_crops_lie_in_the_image(width, height, seed):
    for box in (
        images._central(width, height),
        images._random(width, height, np.random.default_rng(seed)),
    ):
        left, top, right, bottom = box
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= top < bottom <= height + 1e-9
        assert (right - left) * (bottom - top) <= width * height * (1 + 1e-9)


def test_the_central_crop_is_central_and_square():
    assert images._central(800, 400) == (225, 25, 575, 375)
    pixels = np.zeros((40, 80), np.uint8)
    pixels[:, 40:] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    image = images.decode_cropped(buffer.getvalue(), channels=1, size=10, rng=None)
    assert image.shape == (10, 10, 1)
    assert (image[:, :4] == 0).all()
    assert (image[:, 6:] == 255).all()


def test_half_of_the_random_crops_are_mirrored():
    pixels = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (64, 64))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    mirrored = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        image = images.decode_cropped(buffer.getvalue(), channels=1, size=8, rng=rng)[..., 0]
        mirrored += int(image[0, 0]) > int(image[0, -1])
    assert 70 < mirrored < 130


# bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0"),
        ({"image_size": 0}, r"image_size must be at least 1"),
        ({"epochs": 0}, r"epochs must be at least 1"),
        ({"seed": -1}, r"seed must not be negative"),
        ({"process_count": 3}, r"batch_size must be a multiple of process_count 3, got 4"),
        ({"process_index": 2, "process_count": 2}, r"process_index must lie in \[0, 2\), got 2"),
        ({"split": "dev"}, r"no split 'dev': "),
        ({"classes": ("dog", "cow")}, r"no class 'cow'; its classes are dog, cat"),
        ({"classes": ("dog",)}, r"at least 2 are needed"),
    ],
)
def test_bad_options(imagenet, options, message):
    with pytest.raises(ValueError, match=message):
        opened(imagenet, **options)


def test_an_unprepared_set_is_one_line(tmp_path):
    with pytest.raises(data.DataError, match=r"imagenet2012 is not prepared in .*tfds build"):
        opened(str(tmp_path))


def test_a_class_without_examples_is_named(imagenet):
    with pytest.raises(data.DataError, match=r"validation has no example of n01440764"):
        data.stream(
            "imagenet2012", split="validation", batch_size=2, training=False, data_dir=imagenet
        )


def test_a_stream_opens_after_any_step_without_reading_those_before(imagenet, monkeypatch):
    whole = list(opened(imagenet, epochs=3))
    read = []
    real = streaming._Reader.__call__

    def noted(self, slot):
        read.append(slot.index)
        return real(self, slot)

    monkeypatch.setattr(streaming._Reader, "__call__", noted)
    rest = list(opened(imagenet, epochs=3).after(8))
    assert len(rest) == len(whole) - 8
    assert len(read) == sum(len(batch["id"]) for batch in rest)
    for one, two in zip(rest, whole[8:], strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])
