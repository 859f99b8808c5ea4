"""Choosing 1,000 of 100,000 images by vectors of 256 numbers, beside a bare numpy loop.

    python benchmarks/selection.py
    python benchmarks/selection.py --images 20000 --wanted 300 --repeats 3

The loop keeps squared norms and the distance of each row to its nearest centre, and multiplies all
rows with each new centre: the least that an exact farthest-first traversal does without bounds.
Both choose in turns from the same matrix, in this process; medians of wall and CPU seconds, and of
the paired ratios: on a busy machine only CPU seconds compare. `select_batch` as a whole, tables
included, runs in a process of its own, whose peak of memory is told.

Three kinds of vectors: without any structure, where distances are all alike; in 300 clusters of
different width, as images lie; and the clusters with one in three repeated.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import pandas as pd

from annotation_platform.policy import SelectionPolicy
from annotation_platform.selection.batch import select_batch
from annotation_platform.selection.diversity import farthest_first
from annotation_platform.selection.pool import SelectionInputs

KINDS = ("noise", "clusters", "repeats")
WIDTH = 256


def draw(kind, images, seed=0):
    """Return ``(images, 256)`` rows of unit length."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((images, WIDTH), dtype=np.float32)
    if kind != "noise":
        middles = rng.normal(size=(300, WIDTH)) * rng.uniform(0.3, 3, size=(300, 1))
        rows += middles.astype(np.float32)[rng.integers(0, 300, images)]
    if kind == "repeats":
        rows[: images // 3] = rows[-(images // 3) :]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def bare_loop(rows, wanted):
    """Return the positions that a loop over all distances chooses."""
    squares = np.einsum("ij,ij->i", rows, rows)
    mean = rows.mean(axis=0)
    chosen = [int(np.argmin(squares - 2 * (rows @ mean)))]
    near = np.full(len(rows), np.inf, dtype=rows.dtype)
    while True:
        centre = chosen[-1]
        np.minimum(near, squares + squares[centre] - 2 * (rows @ rows[centre]), out=near)
        near[chosen[-1]] = -1
        if len(chosen) == wanted:
            return chosen
        chosen.append(int(np.argmax(near)))


def timed(choose, *given):
    """Return what was chosen, and wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = choose(*given)
    return found, (time.perf_counter() - wall, time.process_time() - cpu)


def beside_the_loop(kind, images, wanted, repeats):
    """Print the ratio to the loop; return whether both chose the same rows."""
    rows = draw(kind, images)
    ours, bare = [], []
    for _ in range(repeats):
        found, seconds = timed(farthest_first, rows, wanted)
        ours.append(seconds)
        expected, seconds = timed(bare_loop, rows, wanted)
        bare.append(seconds)
    same = found == expected
    if not same:
        # Single precision cannot tell rows that are almost equally far; double precision can.
        expected = bare_loop(rows.astype(np.float64), wanted)
    verdict = "the same rows"
    if not same:
        verdict += " as in double precision" if found == expected else ": NO, OTHER ROWS"
    for place, clock in enumerate(("wall", "CPU")):
        own, theirs = [one[place] for one in ours], [one[place] for one in bare]
        ratio = statistics.median(b / o for b, o in zip(theirs, own, strict=True))
        print(
            f"{kind}: {statistics.median(own):.2f} s {clock}, bare loop "
            f"{statistics.median(theirs):.2f} s, {ratio:.1f} × its speed "
            f"(medians of {repeats} pairs), {verdict}",
            flush=True,
        )
    return found == expected


def whole_selection(kind, images, wanted, strategy):
    """Print as JSON the seconds and the peak memory of one `select_batch`, in this process."""
    rng = np.random.default_rng(1)
    ids = [f"{number:064x}" for number in range(images)]
    vectors = pd.DataFrame({"image_id": ids, "embedder": kind, "vector": list(draw(kind, images))})
    boxes = rng.integers(0, 12, images)
    predictions = pd.DataFrame(
        {
            "image_id": np.repeat(ids, boxes),
            "shape": "box",
            "class_name": rng.choice(["boat", "buoy", "lorry"], boxes.sum(), p=[0.8, 0.17, 0.03]),
            "score": rng.beta(0.5, 0.5, boxes.sum()),
        }
    )
    labels = pd.DataFrame({"class_name": ["boat"] * 800 + ["buoy"] * 170 + ["lorry"] * 30})
    pool = pd.DataFrame({"image_id": ids})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found, seconds = timed(
        lambda: select_batch(
            SelectionInputs(pool, vectors, predictions, labels),
            policy=SelectionPolicy(budget=wanted, strategy=strategy),
            round_id="round-0001",
        )
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([*seconds, before / 1024, peak / 1024, len(found.images)]))


def main():
    """Print seconds, ratios and memory; exit with 1 if the loop chooses other rows."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=100_000)
    options.add_argument("--wanted", type=int, default=1000)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--whole", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.whole:
        whole_selection(chosen.whole[0], chosen.images, chosen.wanted, chosen.whole[1])
        return 0
    numbers = ["--images", str(chosen.images), "--wanted", str(chosen.wanted)]
    agreed = [beside_the_loop(kind, chosen.images, chosen.wanted, chosen.repeats) for kind in KINDS]
    for kind in KINDS:
        for strategy in ("diversity", "combined"):
            command = [sys.executable, __file__, *numbers, "--whole", kind, strategy]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            wall, cpu, before, peak, images = json.loads(done.stdout)
            print(
                f"select_batch, {strategy}, {kind}: {images:,} images in {wall:.2f} s, "
                f"{cpu:.2f} s CPU, peak {peak:.0f} MiB, "
                f"of which {before:.0f} MiB with the tables alone",
                flush=True,
            )
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
