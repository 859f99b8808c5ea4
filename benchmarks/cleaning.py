"""The cleaning pass beside a bare loop and beside cleanvision 0.3.7 with imagededup 0.3.3.

    python benchmarks/cleaning.py --peer-python /tmp/peers/bin/python
    python benchmarks/cleaning.py --one-round 10000          # what is not looking at images
    python benchmarks/cleaning.py --one-round 100000 --small # peak memory

The bare loop reads, decodes and measures the same files with the same functions in two processes
that are there already, and does nothing else: no tables, no search, nothing stored. Both take
turns; of each pair the ratio is taken, and of the ratios the median, so that other work on the
machine disturbs little. Of the peers CPU seconds count, imports left out: cleanvision tells dark,
bright, blurred, uninformative and odd images and exact copies, imagededup near duplicates.

The peers do not share our dependencies, so they run in their own environment; torch, which their
work here does not need, may be left out of it:

    uv venv /tmp/peers && uv pip install --python /tmp/peers cleanvision==0.3.7
    uv pip install --python /tmp/peers --no-deps imagededup==0.3.3
    uv pip install --python /tmp/peers PyWavelets scikit-learn scipy matplotlib tqdm

Images are made from the 364 of BCCD, in ``../shared/data`` or where ANNOTATION_TEST_DATA says.
"""

import argparse
import gc
import hashlib
import io
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from annotation_platform.images import cleaning
from annotation_platform.images.decoding import decode, pixel_sha256
from annotation_platform.images.quality import measure
from annotation_platform.images.reduced import reduced
from annotation_platform.images.signature import signature
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.keys import raw_key
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.storage.objects import LocalObjectStore

DATA = Path(
    os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
PEER = """
import json, resource, sys, types
# Its neural networks would need torch, and fetch weights; hashes do not.
sys.modules["imagededup.methods.cnn"] = types.SimpleNamespace(CNN=None)
sys.modules["imagededup.utils.models"] = types.SimpleNamespace(CustomModel=None)
from cleanvision import Imagelab
from imagededup.methods import PHash

def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

if __name__ == "__main__":
    start = cpu()
    lab = Imagelab(data_path=sys.argv[1], verbose=False)
    kinds = ("dark", "light", "blurry", "low_information", "odd_size", "odd_aspect_ratio",
             "exact_duplicates")
    lab.find_issues({kind: {} for kind in kinds}, verbose=False)
    quality = cpu() - start
    found = PHash(verbose=False).find_duplicates(image_dir=sys.argv[1], max_distance_threshold=6)
    json.dump({"quality": quality, "all": cpu() - start, "files": len(found)},
              open(sys.argv[2], "w"))
"""


def blood_cells(count, seed):
    """Yield JPEGs: BCCD's own, then windows of them, mirrored now and then, of the same size."""
    rng = np.random.default_rng(seed)
    sources = sorted((DATA / "bccd" / "BCCD" / "JPEGImages").glob("*.jpg"))
    if not sources:
        sys.exit(f"The images of BCCD are not at {DATA}; set ANNOTATION_TEST_DATA.")
    for number in range(count):
        data = sources[number % len(sources)].read_bytes()
        if number >= len(sources):
            image = Image.open(io.BytesIO(data)).convert("RGB")
            width, height = image.size
            share = rng.uniform(0.5, 0.75)
            left, top = rng.uniform(0, 1 - share, 2) * (width, height)
            box = (left, top, left + share * width, top + share * height)
            image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            sink = io.BytesIO()
            image.save(sink, "JPEG", quality=85)
            data = sink.getvalue()
        yield data


def small_images(count, seed):
    """Yield JPEGs of 96 × 96 pixels, none like another."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=90)
        yield sink.getvalue()


def landed(images, folder):
    """Put images into a lake; return its store and the ``raw_images`` of a round of them."""
    store = LocalObjectStore(folder)
    rows = []
    for number, data in enumerate(images):
        image_id = hashlib.sha256(data).hexdigest()
        path = store.local_path(raw_key(image_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        facts = {"source_key": f"{number:06d}.jpg", "arrival_version": "1-1", "image_id": image_id}
        rest = {"byte_size": len(data), "problem": "", "other_metadata": ""}
        rows.append({"round_id": "round-0001", **facts, **rest})
    return store, RawImages.from_rows(rows)


def our_pass(store, raw):
    """Return wall and CPU seconds of cleaning a round, and its table; what it stored is removed."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    cleaned = cleaning.clean_round(raw, CleanedImages.empty(), store, CleaningPolicy())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for key in [*store.list("images"), *store.list("signatures")]:
        store.local_path(key).unlink()
    return wall, cpu, cleaned


def bare(paths):
    """Read, decode and measure files; return the CPU seconds it took."""
    start = time.process_time()
    for path in paths:
        data = Path(path).read_bytes()
        hashlib.sha256(data).hexdigest()
        hashlib.md5(data, usedforsecurity=False).hexdigest()
        pixels = decode(data)
        pixel_sha256(pixels)
        small = reduced(pixels)
        measure(small)
        signature(small)
    return time.process_time() - start


def bare_pass(pool, paths):
    """Return wall and CPU seconds of the bare loop over both processes."""
    start = time.perf_counter()
    cpu = sum(pool.map(bare, [paths[place : place + 50] for place in range(0, len(paths), 50)], 1))
    return time.perf_counter() - start, cpu


def compare(chosen):
    """Print ours beside the bare loop and the peers."""
    with tempfile.TemporaryDirectory() as folder:
        store, raw = landed(blood_cells(chosen.images, chosen.seed), Path(folder))
        paths = [str(store.local_path(raw_key(image_id))) for image_id in raw["image_id"]]
        ours, bares = [], []
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            bare_pass(pool, paths[:200])
            for _ in range(chosen.pairs):
                wall, cpu, cleaned = our_pass(store, raw)
                ours.append((wall, cpu))
                bares.append(bare_pass(pool, paths))
        counts = cleaned["outcome"].value_counts().to_dict()
        print(f"{len(raw):,} images, {chosen.pairs} pairs of runs; outcomes {counts}")
        names = ("wall", "CPU")
        for name, mine, others in zip(
            names, zip(*ours, strict=True), zip(*bares, strict=True), strict=True
        ):
            ratio = statistics.median(b / a for a, b in zip(mine, others, strict=True))
            print(
                f"{name}: ours {statistics.median(mine):.2f} s, bare "
                f"{statistics.median(others):.2f} s; throughput {ratio:.2f} of the bare loop's"
            )
        cpu = statistics.median(cpu for _, cpu in ours)
        print(f"ours: {cpu / len(raw) * 1000:.2f} ms of CPU an image")
        if not chosen.peer_python:
            print("the peers were not run: name their python with --peer-python")
            return
        images = Path(folder, "images")
        images.mkdir()
        for path, name in zip(paths, raw["source_key"], strict=True):
            Path(images, name).hardlink_to(path)
        script, answer_file = Path(folder, "peer.py"), Path(folder, "answer.json")
        script.write_text(PEER)
        ratios = []
        for _ in range(chosen.peer_pairs):
            _, cpu, _ = our_pass(store, raw)
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run([chosen.peer_python, script, images, answer_file], check=True, **quiet)
            peers = json.loads(answer_file.read_text())
            ratios.append(peers["all"] / cpu)
            print(
                f"peers: {peers['all']:.1f} s of CPU (cleanvision {peers['quality']:.1f}), "
                f"{ratios[-1]:.1f} × ours ({cpu:.1f} s)"
            )
        print(f"peers: {statistics.median(ratios):.1f} × our CPU seconds")


@contextmanager
def passes_timed():
    """Have the two passes over images timed; yields the seconds, wall and CPU, of each."""
    spent = []
    map_each = cleaning.map_each

    def timed(function, items, **options):
        wall, cpu = time.perf_counter(), time.process_time()
        yield from map_each(function, items, **options)
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))

    cleaning.map_each = timed
    try:
        yield spent
    finally:
        cleaning.map_each = map_each


def one_round(chosen):
    """Print peak memory of one round, and the share that is not work on single images."""
    make = small_images if chosen.small else blood_cells
    with tempfile.TemporaryDirectory() as folder:
        store, raw = landed(make(chosen.one_round, chosen.seed), Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with passes_timed() as spent:
            wall, cpu, cleaned = our_pass(store, raw)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        groups = cleaned["group_id"].nunique()
        print(f"{len(raw):,} images: {cleaned['outcome'].value_counts().to_dict()}")
        print(f"{groups:,} groups; peak {peak:.0f} MiB, {before:.0f} MiB before")
        (look_wall, look_cpu), (keep_wall, keep_cpu) = spent
        print(f"looking: {look_wall:.1f} s, {look_cpu:.1f} s of CPU")
        print(f"storing: {keep_wall:.1f} s, {keep_cpu:.1f} s of CPU")
        rest_wall, rest_cpu = wall - look_wall - keep_wall, cpu - look_cpu - keep_cpu
        print(
            f"the rest: {rest_wall:.1f} s, {rest_cpu:.1f} s of CPU; "
            f"{rest_wall / wall:.1%} of the time, {rest_cpu / cpu:.1%} of the CPU"
        )


def main():
    """Compare, or clean one round of so many images."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--peer-python", help="python of an environment with the peers")
    options.add_argument("--peer-pairs", type=int, default=1)
    options.add_argument(
        "--one-round", type=int, default=0, help="clean one round of this many images"
    )
    options.add_argument("--small", action="store_true", help="of 96 × 96 pixels")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    if chosen.one_round:
        one_round(chosen)
    else:
        compare(chosen)


if __name__ == "__main__":
    main()
