"""The per-image pass on Daft beside bare pools, in one run: the same function, the same images.

    python benchmarks/engine.py
    python benchmarks/engine.py --images 12000 --pairs 3

Each round runs all of them, forwards and backwards in turn; the ratio is the median over rounds of
a run's time to that of the process pool in the same round, so that a busy machine troubles both
sides. Images are 640 × 480 JPEGs; after the first 3,000 the files repeat. The function is less
than the cleaning pass does: a heavier one hides more of what an engine costs.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from annotation_platform.images.signature import signature
from annotation_platform.storage.engine import map_each

FILES = 3_000
CHUNK = 16


@dataclass(frozen=True)
class Examine:
    """Read an image, decode it strictly, and say what identifies it."""

    folder: Path

    def __call__(self, name):
        """Return the facts of one image."""
        data = (self.folder / name).read_bytes()
        pixels = simplejpeg.decode_jpeg(data, strict=True)
        height, width = pixels.shape[:2]
        return {
            "width": width,
            "height": height,
            "sha256": hashlib.sha256(data).hexdigest(),
            "perceptual_hash": signature(pixels).perceptual_hash,
        }


def draw(folder, count, rng):
    """Return the names of ``count`` noisy images of about 60 kB, drawn into ``folder``."""
    names = [f"{number:05}.jpg" for number in range(count)]
    for name in names:
        patches = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        smooth = np.asarray(patches.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = smooth + rng.integers(-8, 9, (480, 640, 1), dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name, quality=85)
    return names


def pooled(pool: Executor, function, items, chunk):
    """Return how many results a pool of ``concurrent.futures`` gives."""
    with pool:
        return sum(1 for _ in pool.map(function, items, chunksize=chunk))


def cpu_seconds():
    """Return what this process and its finished children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main():
    """Measure and print one JSON object per contestant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=FILES)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        drawn = draw(Path(folder), min(arguments.images, FILES), np.random.default_rng(0))
        items = [drawn[number % len(drawn)] for number in range(arguments.images)]
        function = Examine(Path(folder))
        workers = arguments.workers
        contestants = {
            "process pool": lambda: pooled(ProcessPoolExecutor(workers), function, items, CHUNK),
            "thread pool": lambda: pooled(ThreadPoolExecutor(workers), function, items, 1),
            "Daft": lambda: sum(1 for _ in map_each(function, items)),
            "Daft, threads": lambda: sum(1 for _ in map_each(function, items, processes=False)),
            "Daft, processes": lambda: sum(1 for _ in map_each(function, items, processes=True)),
        }
        wall = {name: [] for name in contestants}
        cpu = {name: [] for name in contestants}
        # The first reads the files into memory; the second imports Daft.
        for name in ("process pool", "Daft"):
            contestants[name]()
        for number in range(arguments.pairs):
            order = list(contestants)
            for name in order if number % 2 == 0 else reversed(order):
                start, used = time.perf_counter(), cpu_seconds()
                assert contestants[name]() == len(items)
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(cpu_seconds() - used)

    for name in contestants:
        pairs = zip(wall[name], wall["process pool"], strict=True)
        print(
            json.dumps(
                {
                    "contestant": name,
                    "images": len(items),
                    "seconds": round(statistics.median(wall[name]), 2),
                    "best_seconds": round(min(wall[name]), 2),
                    "cpu_seconds": round(statistics.median(cpu[name]), 2),
                    "ratio": round(statistics.median(own / pool for own, pool in pairs), 3),
                }
            )
        )
    print(json.dumps({"load": [round(each, 1) for each in os.getloadavg()], "workers": workers}))


if __name__ == "__main__":
    main()
