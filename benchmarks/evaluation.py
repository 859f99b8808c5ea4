"""COCO evaluation beside pycocotools and faster-coco-eval: the same records, the same figures.

    python benchmarks/evaluation.py --peer-python /path/to/python

The peers run in a process of their own, in the environment of --peer-python, which needs
pycocotools and faster-coco-eval; without it pycocotools alone runs in this one. Each pair is one
run of each, one after another. Timed is what lies between records in memory and all figures, in
CPU seconds of the process with its threads. Two times are ours: the figures by class, which is
what the peers give, and with what the platform adds, intervals from 200 draws of images.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from annotation_platform.models.evaluation.coco_metrics import coco_figures
from annotation_platform.models.evaluation.evaluation import figure_intervals

PEER = """
import contextlib, io, json, sys, time
folder, name = sys.argv[1:]
if name == "pycocotools":
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
else:
    from faster_coco_eval import COCO, COCOeval_faster as COCOeval
truth = json.load(open(folder + "/truth.json"))
results = json.load(open(folder + "/results.json"))
with contextlib.redirect_stdout(io.StringIO()):
    start = time.process_time()
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    run = COCOeval(coco, coco.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    cpu = time.process_time() - start
json.dump({"cpu": cpu, "stats": [float(one) for one in run.stats[:12]]}, sys.stdout)
"""
PEERS = ["pycocotools", "faster-coco-eval"]


def scene(images, detections, classes, seed):
    """Return COCO records: about half the detections lie near an object of their class."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        number = rng.poisson(7)
        sides = np.exp(rng.uniform(np.log(6), np.log(300), (number, 2)))
        boxes = np.hstack([rng.uniform(0, 640 - sides), sides])
        drawn = rng.integers(1, classes + 1, number)
        annotations += [
            {
                "id": len(annotations) + n,
                "image_id": image,
                "category_id": int(drawn[n - 1]),
                "bbox": boxes[n - 1].tolist(),
                "area": float(sides[n - 1].prod()),
                "iscrowd": int(rng.random() < 0.05),
            }
            for n in range(1, number + 1)
        ]
        share = detections // images
        near = rng.random(share) < (0.5 if number else 0.0)
        side = np.exp(rng.uniform(np.log(6), np.log(300), (share, 2)))
        found = np.hstack([rng.uniform(0, 640 - side), side])
        category = rng.integers(1, classes + 1, share)
        if number:
            chosen = rng.integers(number, size=share)
            moved = boxes[chosen] * np.exp(rng.normal(0, 0.08, (share, 4)))
            found = np.where(near[:, None], moved, found)
            category = np.where(near, drawn[chosen], category)
        scores = np.where(near, rng.beta(4, 2, share), rng.beta(2, 4, share))
        rows = zip(category.tolist(), found.tolist(), scores.tolist(), strict=True)
        results += [
            {"image_id": image, "category_id": one, "bbox": box, "score": score}
            for one, box, score in rows
        ]
    return {
        "images": [{"id": n, "width": 640, "height": 640} for n in range(1, images + 1)],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, classes + 1)],
        "annotations": annotations,
    }, results


def figures_alone(truth, results):
    """Return CPU seconds of the platform's evaluation and its figures."""
    gc.collect()
    start = time.process_time()
    figures = coco_figures(truth, results)
    return time.process_time() - start, list(figures.overall.values())


def ours(truth, results):
    """Return CPU seconds of the platform's evaluation with intervals, and the figures."""
    gc.collect()
    start = time.process_time()
    figures = coco_figures(truth, results)
    figure_intervals(figures)
    return time.process_time() - start, list(figures.overall.values())


def theirs(python, folder, name):
    """Return a peer's CPU seconds and figures."""
    script = Path(folder, "peer.py")
    script.write_text(PEER)
    command = [python, script, folder, name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
    facts = json.loads(done.stdout)
    return facts["cpu"], facts["stats"]


def main():
    """Time pairs of runs and print the median ratios."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--detections", type=int, default=40_000)
    options.add_argument("--classes", type=int, default=10)
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--peer-python", default="", help="python of an environment with both")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    truth, results = scene(chosen.images, chosen.detections, chosen.classes, chosen.seed)
    print(f"{len(results):,} detections, {len(truth['annotations']):,} objects, ", end="")
    print(f"{chosen.images:,} images, {chosen.classes} classes")
    peers = PEERS if chosen.peer_python else PEERS[:1]
    bare, whole = {name: [] for name in peers}, {name: [] for name in peers}
    times, apart = [], 0.0
    figures_alone(truth, results[:1000])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "truth.json").write_text(json.dumps(truth))
        Path(folder, "results.json").write_text(json.dumps(results))
        for _ in range(chosen.pairs):
            alone, stats = figures_alone(truth, results)
            full, again = ours(truth, results)
            times.append((alone, full))
            said = f"ours {alone:.3f} s of CPU, {full:.2f} with intervals"
            for name in peers:
                cpu, expected = theirs(chosen.peer_python or sys.executable, folder, name)
                bare[name].append(cpu / alone)
                whole[name].append(cpu / full)
                apart = max(apart, np.abs(np.subtract([stats, again], expected)).max())
                said += f"; {name} {cpu:.2f} s, {bare[name][-1]:.1f} × and {whole[name][-1]:.1f} ×"
            print(said, flush=True)
    print(f"the figures differ by at most {apart:.1e}")
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    print("ours: {:.3f} s of CPU in the median, {:.2f} with intervals".format(*medians))
    for name in peers:
        print(
            f"{name}: {statistics.median(bare[name]):.1f} × our CPU seconds in the median, "
            f"{statistics.median(whole[name]):.1f} × with intervals"
        )


if __name__ == "__main__":
    main()
