"""What training reaches on BCCD from scratch, in how long, and what its scores are worth.

    python benchmarks/bccd.py --threads 2            # an idle machine with two cores
    python benchmarks/bccd.py --images 20          # from 20 images

The published split: 205 images to learn from, 87 on which scores are calibrated, 72 to test on.
Of each seed it prints seconds of the clock and of the processor for training alone, AP at IoU 0.5
and over 0.5 to 0.95 on the test images, and the expected calibration error there before and
after; then the medians. Seeds choose the 20 images, too. At the end the first model looks once,
mirrored too, and together with those of the other seeds: what the labelling profile is worth, with
recall at precision 0.8 and what an image costs.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from annotation_platform.formats.voc import read_voc
from annotation_platform.models.detection.calibration import (
    calibration_error,
    fit_calibration,
    mark_right,
)
from annotation_platform.models.detection.detector import (
    NetworkDetector,
    detect_files,
    predict_files,
)
from annotation_platform.models.detection.profiles import ProfiledDetector
from annotation_platform.models.detection.training import examples_of, train_detector
from annotation_platform.models.evaluation.evaluation import evaluate
from annotation_platform.policy import ProfilePolicy, TrainingPolicy
from annotation_platform.schema.dataset import Dataset

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
FOLDER = DATA / "bccd" / "BCCD"


def part(dataset, chosen):
    """Return the images whose id is among ``chosen``, with their boxes."""
    images = dataset.images[dataset.images["image_id"].isin(chosen)]
    labels = dataset.labels[dataset.labels["image_id"].isin(chosen)]
    return Dataset(images, labels, dataset.ontology).boxes()


def split(dataset, name):
    """Return the image ids of a published split."""
    wanted = set((FOLDER / "ImageSets" / "Main" / f"{name}.txt").read_text().split())
    stems = dataset.images["file_name"].map(lambda each: Path(each).stem)
    return sorted(dataset.images.loc[stems.isin(wanted), "image_id"])


def files(dataset):
    """Return the file of each image."""
    names = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
    return {image: FOLDER / "JPEGImages" / Path(name).name for image, name in names}


def run(seed, sets, policy, images):
    """Return the figures of one seed, and its detector."""
    train, val, test = sets
    if images:
        ids = sorted(train.images["image_id"])
        train = part(train, np.random.default_rng(seed).choice(ids, images, replace=False))
    started = time.perf_counter()
    trained = train_detector(
        examples_of(train, files(train)),
        class_names=tuple(train.ontology.names),
        policy=policy,
        seed=seed,
    )
    wall = time.perf_counter() - started
    detector = NetworkDetector.from_bytes(trained.state, where="trained")
    held_out = predict_files(detector, files(val))
    curves = fit_calibration(held_out, val.labels, images=val.images["image_id"].tolist())
    few = sorted(val.images["image_id"])[:30]
    thirty = fit_calibration(held_out, val.labels, images=few)
    found = predict_files(detector, files(test))
    right = mark_right(found, test.labels)
    raw, names = found["score"].to_numpy(), found["class_name"].tolist()
    scored = evaluate(test, found)
    figures = {
        "wall s": wall,
        "cpu s": trained.cpu_seconds,
        "steps": trained.steps,
        "AP50": scored.map50,
        "AP": scored.map,
        "ECE raw": calibration_error(raw, right).error,
        "ECE 30": calibration_error(thirty.apply(names, raw), right).error,
        "ECE 87": calibration_error(curves.apply(names, raw), right).error,
        "by chance": calibration_error(curves.apply(names, raw), right).by_chance,
    }
    return figures, detector


def profiles(detectors, test):
    """Print what the first model reaches alone, mirrored, and with the others."""
    looks = {
        "once": ProfilePolicy(),
        "mirrored": ProfilePolicy(flips=True),
        f"{len(detectors)} models": ProfilePolicy(ensemble=len(detectors)),
        f"{len(detectors)} models, mirrored": ProfilePolicy(ensemble=len(detectors), flips=True),
    }
    for name, policy in looks.items():
        looked_at = detect_files(
            ProfiledDetector(detectors, name="labelling", policy=policy), files(test)
        )
        found = looked_at.boxes.sort_values("score", ascending=False, kind="stable")
        right = mark_right(found, test.labels)
        enough = np.flatnonzero(np.cumsum(right) / np.arange(1, len(right) + 1) >= 0.8)
        recall = right[: enough[-1] + 1].sum() / len(test.labels) if len(enough) else 0.0
        scored = evaluate(test, looked_at.boxes)
        cost = looked_at.images[["passes", "seconds"]].mean()
        print(f"{name}: AP50 {scored.map50:.3f} AP {scored.map:.3f} recall {recall:.3f} | "
              f"{cost['passes']:.0f} passes, {cost['seconds']:.3f} s an image")  # fmt: skip


def main():
    """Train once for each seed and print what came of it."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--images", type=int, default=0, help="images to train on; 0: all")
    options.add_argument("--cpu-seconds", type=float, default=0.0, help="0: 110 for each thread")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--learning-rate", type=float, default=4e-3)
    options.add_argument("--image-width", type=int, default=320)
    chosen = options.parse_args()
    if not FOLDER.is_dir():
        sys.exit(f"BCCD is not at {DATA}; set ANNOTATION_TEST_DATA.")
    dataset = read_voc(FOLDER / "Annotations", FOLDER / "JPEGImages").dataset
    sets = [part(dataset, split(dataset, name)) for name in ("train", "val", "test")]
    policy = TrainingPolicy(
        cpu_seconds=chosen.cpu_seconds or 110.0 * chosen.threads,
        threads=chosen.threads,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        image_width=chosen.image_width,
    )
    counts = ", ".join(str(len(one.images)) for one in sets)
    print(f"images {counts}; {chosen.threads} threads, load {os.getloadavg()[0]:.1f} at the start")
    found, detectors = [], []
    for seed in range(chosen.seeds):
        figures, detector = run(seed, sets, policy, chosen.images)
        found.append(figures)
        detectors.append(detector)
        print(
            f"seed {seed}", *(f"{k} {v:.3f}" for k, v in found[-1].items()), sep=" | ", flush=True
        )
    medians = {key: statistics.median(one[key] for one in found) for key in found[0]}
    print("median", *(f"{key} {value:.3f}" for key, value in medians.items()), sep=" | ")
    profiles(detectors, sets[2])


if __name__ == "__main__":
    main()
