"""Seconds that proposals spare people, by how the model learned and how thoroughly it looks.

    python benchmarks/saving.py                       # two models of 120 CPU seconds each
    python benchmarks/saving.py --cpu-seconds 45

Drawn harbours land in three batches, as in the demonstration. A first detector learns from the
first batch from scratch, a second one from both, starting from the first (fine-tuned) and from
scratch; all propose on the third. Four simulated people answer its images, three of them each,
with and without the proposals. Drawing a box takes them 7 seconds, moving or renaming a proposal 4,
and one that is left as it is, or deleted, 1.5 (``demo/annotators.py``).

Told of each: AP at IoU 0.5 and its mean from 0.5 to 0.95, how many objects have a proposal of their
class that overlaps by half, people's minutes, what share is spared, the processor seconds that
proposing took, and what a perfect model would spare.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from annotation_platform.demo.annotators import annotation_rng, make_people, simulate_annotation
from annotation_platform.demo.material import drawn_material
from annotation_platform.models.detection.calibration import fit_calibration
from annotation_platform.models.detection.detector import NetworkDetector, detect_files
from annotation_platform.models.detection.profiles import ProfiledDetector
from annotation_platform.models.detection.training import train_detector
from annotation_platform.models.evaluation.evaluation import evaluate
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.network_inputs import TrainingExample
from annotation_platform.policy import LabelingPolicy, ProfilePolicy, TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes, iou_matrix
from annotation_platform.schema.shapes import Label

HELD_OUT = 4  # every fourth image calibrates
SHOWN = LabelingPolicy().minimum_score


class World:
    """Three batches of images on disk, their truth, and people."""

    def __init__(self, place, images, seed):
        material = drawn_material(3, images, seed=seed)
        self.truth, self.seed, self.paths, self.batches = material.truth, seed, {}, []
        known = set(self.truth.images["image_id"])
        for files in material.batches:
            ids = {hashlib.sha256(data).hexdigest(): data for data in files.values()}
            new = [each for each in ids if each in known and each not in self.paths]
            for each in new:
                self.paths[each] = place / each
                self.paths[each].write_bytes(ids[each])
            self.batches.append(new)
        self.people = make_people(4, seed)
        rows = self.truth.images[["image_id", "width", "height"]]
        self.sizes = {key: (width, height) for key, width, height in rows.itertuples(index=False)}

    def boxes(self, images):
        """Return the truth of these images."""
        return self.truth.labels[self.truth.labels["image_id"].isin(images)]

    def learn(self, images, start_from, place, seconds, threads):
        """Write the weights of a detector that learned from these images, and return the file."""
        examples = []
        for each in images:
            rows = self.boxes([each])
            edges = as_boxes(rows[BOX_COLUMNS].to_numpy(dtype=float))
            examples.append(
                TrainingExample(each, self.paths[each], edges, tuple(rows["class_name"]))
            )
        trained = train_detector(
            examples,
            class_names=self.truth.ontology.names,
            policy=TrainingPolicy(cpu_seconds=seconds, threads=threads),
            seed=self.seed,
            options=TrainingOptions(start_from),
        )
        place.write_bytes(trained.state)
        return place

    def minutes(self, proposals):
        """Return people's minutes on the last batch beside proposals, by image."""
        seconds = 0.0
        for number, image in enumerate(self.batches[2]):
            width, height = self.sizes[image]
            for person in np.delete(np.array(self.people, dtype=object), number % 4):
                said = simulate_annotation(
                    person, self.boxes([image]), width=width, height=height,
                    ontology=self.truth.ontology, pre_annotations=proposals.get(image, []),
                    rng=annotation_rng(person, image, seed=self.seed),
                )  # fmt: skip
                seconds += said.lead_time_seconds
        return seconds / 60


def look(world, files, held_out, policy):
    """Return what models together see in the last batch, calibrated too, and its CPU seconds."""
    members = [
        NetworkDetector.from_bytes(each.read_bytes(), where=str(each), device="cpu")
        for each in files
    ]
    detector = ProfiledDetector(members, name="saving", policy=policy)
    known = detect_files(detector, {each: world.paths[each] for each in held_out}).boxes
    calibration = fit_calibration(known, world.boxes(held_out), images=held_out)
    start = time.process_time()
    found = detect_files(detector, {each: world.paths[each] for each in world.batches[2]}).boxes
    seconds = (time.process_time() - start) / len(world.batches[2])
    scores = calibration.apply(found["class_name"].tolist(), found["score"].to_numpy())
    return found, found.assign(score=scores), seconds


def by_image(boxes):
    """Return the proposals that people are shown, the surest first."""
    shown = boxes[boxes["score"] >= SHOWN].sort_values("score", ascending=False)
    return {
        image: [
            Label.box(row.class_name, row.x1, row.y1, row.x2, row.y2)
            for row in rows.itertuples(index=False)
        ]
        for image, rows in shown.groupby("image_id")
    }


def recall(world, boxes):
    """Return the share of objects with a shown proposal of their class that overlaps by half."""
    shown, hits, objects = boxes[boxes["score"] >= SHOWN], 0, 0
    for (image, name), rows in world.boxes(world.batches[2]).groupby(["image_id", "class_name"]):
        own = shown[(shown["image_id"] == image) & (shown["class_name"] == name)]
        overlap = iou_matrix(*(as_boxes(each[BOX_COLUMNS].to_numpy(float)) for each in (rows, own)))
        hits += int((overlap >= 0.5).any(axis=1).sum()) if len(own) else 0
        objects += len(rows)
    return hits / objects


def main():
    """Print what the command line asks for."""
    options = argparse.ArgumentParser()
    options.add_argument("--cpu-seconds", type=float, default=120.0)
    options.add_argument("--images", type=int, default=40, help="of a batch")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    table = Table()
    for head in ("model", "AP50", "AP", "recall", "minutes", "spared", "CPU s an image"):
        table.add_column(head, justify="left" if head == "model" else "right")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        world = World(place, given.images, given.seed)
        first, both = world.batches[0], [*world.batches[0], *world.batches[1]]
        held_out = both[::HELD_OUT]
        taught = [[each for each in part if each not in held_out] for part in (first, both)]
        budget = (given.cpu_seconds, given.threads)
        base = world.learn(taught[0], None, place / "base", *budget)
        tuned = world.learn(taught[1], base, place / "tuned", *budget)
        scratch = world.learn(taught[1], None, place / "scratch", *budget)
        test = Dataset(
            world.truth.images[world.truth.images["image_id"].isin(world.batches[2])],
            world.boxes(world.batches[2]),
            world.truth.ontology,
        )
        without = world.minutes({})
        table.add_row("none", "", "", "", f"{without:.1f}", "0 %", "")
        flips = ProfilePolicy(flips=True)
        both_looks = ProfilePolicy(flips=True, ensemble=2)
        for name, files, policy in (
            ("first batch, serving", [base], ProfilePolicy()),
            ("both from scratch, serving", [scratch], ProfilePolicy()),
            ("both, fine-tuned, serving", [tuned], ProfilePolicy()),
            ("both, fine-tuned, labelling", [tuned], flips),
            ("tuned and scratch together, labelling", [tuned, scratch], both_looks),
        ):
            raw, boxes, seconds = look(world, files, held_out, policy)
            figures = evaluate(test, raw)
            minutes = world.minutes(by_image(boxes))
            table.add_row(
                name, f"{figures.map50:.3f}", f"{figures.map:.3f}", f"{recall(world, boxes):.2f}",
                f"{minutes:.1f}", f"{1 - minutes / without:.0%}", f"{seconds:.3f}",
            )  # fmt: skip
        truth = by_image(test.labels.assign(score=1.0))
        perfect = world.minutes(truth)
        table.add_row(
            "perfect", "1", "1", "1", f"{perfect:.1f}", f"{1 - perfect / without:.0%}", ""
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
