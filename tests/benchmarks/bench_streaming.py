"""What streaming costs: memory against the number of images, and images per second.

    python tests/benchmarks/bench_streaming.py --images=12800

writes a set in the format of TFDS's imagenet2012 (JPEGs of 256 to 500 pixels a side, generated; 0.9
GB, which TFDS's writer, without TensorFlow, holds in memory) into a temporary folder, which is
deleted at the end, and prints one line of JSON per measurement, each made in a process of its own:

- index: the first opening, which reads every record for its label;
- memory: the peak resident size (`VmHWM`) while N, 4 N and 16 N images are streamed at 224 x 224,
  beside that of a process that has opened the stream and read one batch;
- reading: images per second that are read, decoded, cropped and batched, by 1 and 2 threads, from a
  file cache that is warm, and the same for 64 x 64 and for the central crop;
- training: images per second that a training step of resnet50 takes at 224 x 224 on this machine,
  standard and with PGD-1, and the floating-point operations of a step as XLA counts them.

`--only=memory,reading,training` chooses among them; `--data_dir=DIR` keeps the set, or uses one
that is there (imagenet2012 itself, too).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "helpers"), str(HERE.parents[1])]

BATCH = 64
CLASSES = 1000
DISTINCT = 1000  # pictures; each comes several times, under the same label


def generate(folder, images):
    """Writes the set: so many training images, and one validation image of each class."""
    from imagenet_like import picture, written

    def blobs(count, begin):
        made = {}
        for number in range(count):
            label = number % CLASSES
            if label not in made:
                made[label] = picture(label, begin, sides=(256, 500), noise=14, quality=90)
            yield label, made[label]

    begun = time.perf_counter()
    written(
        folder,
        train=blobs(images, 0),
        validation=blobs(CLASSES, 1),
        test=[(-1, picture(0, 0))],
    )
    size = sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.is_file())
    return {"what": "set", "images": images, "bytes": size, "seconds": since(begun)}


def since(begun):
    return round(time.perf_counter() - begun, 2)


def peak():
    """The peak resident size of this process, in MB (not of its parent, as ru_maxrss may be)."""
    status = pathlib.Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def opened(folder, images=0, **options):
    """The stream of a drawn part of the training images."""
    from advfeat import data

    split = data.open_split(
        "imagenet2012", "train", image_size=options.pop("size", 224), data_dir=folder
    )
    chosen = {"batch_size": BATCH, "training": True, **options}
    return data.stream_split(data.subset(split, images, seed=0), **chosen)


def index(folder):
    """Opens the set for the first time."""
    begun = time.perf_counter()
    images = opened(folder).num_examples
    return {"what": "index", "images": images, "peak_MB": peak(), "seconds": since(begun)}


def memory(folder, images):
    """Streams so many images once; 0: opens the stream and reads one batch."""
    stream = opened(folder, images or 16 * BATCH)
    begun, count = time.perf_counter(), 0
    for batch in stream:
        count += int(batch["weight"].sum())
        if not images:
            break
    return {"what": "memory", "images": count, "peak_MB": peak(), "seconds": since(begun)}


def reading(folder, threads, size=224, crops=True, seconds=15.0):
    """Images per second of one process, after the first batches."""
    stream = opened(folder, size=size, random_crops=crops, epochs=None, num_threads=threads)
    batches = iter(stream)
    for _ in range(4):
        next(batches)
    begun, count = time.perf_counter(), 0
    cpu = time.process_time()
    while time.perf_counter() - begun < seconds:
        count += len(next(batches)["label"])
    passed = time.perf_counter() - begun
    return {
        "what": "reading",
        "threads": threads,
        "size": size,
        "crop": "random" if crops else "central",
        "images_per_second": round(count / passed, 1),
        "cpu_ms_per_image": round(1000 * (time.process_time() - cpu) / count, 2),
    }


def training(steps, batch, size=224):
    """Images per second of a training step, by PGD of so many steps; 0: standard."""
    import jax
    import numpy as np

    import advfeat
    from advfeat import models, training
    from advfeat.training.loop import set_up
    from advfeat.training.steps import PLAIN
    from advfeat.training.streamed import stream_update

    model = models.create("resnet50", num_classes=CLASSES, stem="imagenet")
    variables = models.init(jax.random.key(0), model, (size, size, 3))
    loss_fn = training.standard(model, advfeat.cross_entropy)
    if steps:
        attack = advfeat.pgd(advfeat.l2(3.0), steps=steps, random_start=True, keep=None)
        loss_fn = training.adversarial(model, advfeat.cross_entropy, attack)
    config = training.TrainConfig(epochs=1, batch_size=batch)
    rng = np.random.default_rng(0)
    given = {
        "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "label": rng.integers(0, CLASSES, batch).astype(np.int32),
        "id": np.arange(batch, dtype=np.int32),
        "weight": np.ones(batch, np.float32),
    }
    state, make, hyper = set_up(loss_fn, variables, config, PLAIN, 100, (batch, size, size, 3))
    key = jax.random.key(1)
    static = {"make_optimiser": make, "augment": advfeat.images.augmentation.TRANSFORMS["none"]}
    lowered = stream_update.lower(key, state, loss_fn, given, hyper, PLAIN, **static)
    begun = time.perf_counter()
    compiled = lowered.compile()
    compiling, took = since(begun), []
    cost = compiled.cost_analysis()
    for _ in range(3):
        begun, cpu = time.perf_counter(), time.process_time()
        state, _ = jax.block_until_ready(compiled(key, state, loss_fn, given, hyper, PLAIN))
        took.append((time.perf_counter() - begun, time.process_time() - cpu))
    wall, cpu = np.min(took, axis=0)
    return {
        "what": "training",
        "pgd_steps": steps,
        "batch": batch,
        "size": size,
        "images_per_second": round(batch / wall, 3),
        "cpu_seconds_per_image": round(cpu / batch, 3),
        "GFLOP_per_image": round(cost["flops"] / batch / 1e9, 2),
        "compile_seconds": compiling,
    }


def machine():
    """What this was measured on."""
    from importlib.metadata import version

    names = ("jax", "grain", "array_record", "tensorflow-datasets", "pillow", "numpy")
    return {
        "what": "machine",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def alone(function, *arguments):
    """Calls one of these functions in a process of its own, and prints what it returns."""
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import json, bench_streaming as here; "
        f"print(json.dumps(here.{function.__name__}(*{list(arguments)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    said = done.stdout.strip().splitlines()
    print(said[-1] if said else f"{function.__name__}{arguments}: {done.returncode}", flush=True)


def main():
    """Parses the command line, and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12800)
    parser.add_argument("--only", default="memory,reading,training")
    parser.add_argument("--data_dir")
    parser.add_argument("--batch", type=int, default=8, help="of the training step")
    given = parser.parse_args()
    wanted = given.only.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.data_dir or temporary
        os.environ["ADVFEAT_CACHE_DIR"] = os.path.join(temporary, "labels")
        print(json.dumps(machine()), flush=True)
        if {"memory", "reading"} & set(wanted) and not os.path.exists(f"{folder}/imagenet2012"):
            alone(generate, folder, given.images)
        if {"memory", "reading"} & set(wanted):
            alone(index, folder)
        if "memory" in wanted:
            for images in (0, given.images // 16, given.images // 4, given.images):
                alone(memory, folder, images)
        if "reading" in wanted:
            for size, crops in ((224, True), (224, False), (64, True)):
                for threads in (1, 2):
                    alone(reading, folder, threads, size, crops)
        if "training" in wanted:
            for steps in (0, 1):
                alone(training, steps, given.batch)


if __name__ == "__main__":
    main()
