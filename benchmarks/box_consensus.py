"""One set of labels from several people's, against a truth that is known; prints JSON.

    python benchmarks/box_consensus.py               # BCCD, as the requirement has it
    python benchmarks/box_consensus.py --matching    # ways to find what is the same object
    python benchmarks/box_consensus.py --people      # crowds of unequal people, weighed or not
    python benchmarks/box_consensus.py --ties        # ways to decide a class when votes are level
    python benchmarks/box_consensus.py --fusion      # ways to fuse boxes and polygons
    python benchmarks/box_consensus.py --speed       # 1,000 images, 15 boxes, 3 people

Simulated people look at BCCD's 364 images: each edge of each box off by a normal error of 3
pixels, 8 % of the boxes missed, 5 % drawn around nothing, 5 % given another class. Each image is
answered by three of four people, in turn. Polygons are those of COCO's val2014 that come with the
test data, redrawn by hand-like people.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.consensus.agreement import pooled_f1
from annotation_platform.consensus.classes import decide_classes
from annotation_platform.consensus.conflicts import SURE
from annotation_platform.consensus.fusion import fuse
from annotation_platform.consensus.matching import group_labels
from annotation_platform.consensus.objects import read_tasks, sort_out
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.formats.voc import read_voc
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes, clip_boxes, iou_matrix
from annotation_platform.schema.shapes import Label, area_of, boxes_of, near_mean
from annotation_platform.schema.shapes.overlap import overlap_matrix

DATA = Path(
    os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)


@dataclass(frozen=True)
class Noise:
    """How one person errs; rates are shares of the objects there are."""

    jitter: float = 3.0
    missed: float = 0.08
    extra: float = 0.05
    wrong_class: float = 0.05


FOUR = (Noise(),) * 4


def bccd(images=None):
    """Return BCCD, or its first images, with image ids of the tables' kind."""
    folder = DATA / "bccd" / "BCCD"
    if not folder.is_dir():
        sys.exit(f"BCCD is not at {DATA}; set ANNOTATION_TEST_DATA.")
    dataset = read_voc(folder / "Annotations", folder / "JPEGImages").dataset
    ids = {name: hashlib.sha256(name.encode()).hexdigest() for name in dataset.images["image_id"]}
    kept = dataset.images["image_id"].sort_values().head(images or len(ids))
    return replace(
        dataset,
        **{
            name: table[table["image_id"].isin(kept)].assign(
                image_id=lambda rows: rows["image_id"].map(ids)
            )
            for name, table in (("images", dataset.images), ("labels", dataset.labels))
        },
    )


def simulate_annotation(boxes, names, classes, noise, rng, size):
    """Return the boxes and classes that somebody gives an image with these true ones."""
    seen = rng.random(len(boxes)) >= noise.missed
    drawn = (boxes + rng.normal(size=boxes.shape) * noise.jitter)[seen].reshape(-1, 2, 2)
    drawn = np.hstack([drawn.min(axis=1), drawn.max(axis=1)])
    said = [
        rng.choice([other for other in classes if other != name])
        if rng.random() < noise.wrong_class
        else name
        for name in names[seen]
    ]
    extra = rng.binomial(len(boxes), noise.extra)
    like = boxes[rng.integers(len(boxes), size=extra)] if len(boxes) else boxes
    sides = like[:, 2:] - like[:, :2]
    corner = rng.random((extra, 2)) * (np.array(size) - sides)
    drawn = np.vstack([drawn, np.hstack([corner, corner + sides])])
    said += list(rng.choice(classes, size=extra))
    return clip_boxes(drawn, width=size[0], height=size[1]), said


def simulate(dataset, people, seed, *, per_image=3):
    """Return every person's answers to every image, and those that were asked for, as tables.

    A table has the columns of ``human_labels`` that ``resolve_consensus`` reads.
    """
    rng = np.random.default_rng(seed)
    rows = []
    truth = dict(iter(dataset.labels.groupby("image_id")))
    for number, image in enumerate(dataset.images.itertuples(index=False)):
        real = truth.get(image.image_id, dataset.labels.head(0))
        boxes, names = as_boxes(real[BOX_COLUMNS]), real["class_name"].to_numpy(dtype=object)
        left_out = {(number + skipped) % len(people) for skipped in range(len(people) - per_image)}
        same = {
            "round_id": "round-0001",
            "task_id": f"round-0001/boxes/{image.image_id}",
            "image_id": image.image_id,
            "geometry": "",
        }
        size = (image.width, image.height)
        for at, noise in enumerate(people):
            own = {**same, "annotator": f"person-{at}", "asked": at not in left_out}
            drawn, said = simulate_annotation(
                boxes, names, dataset.ontology.names, noise, rng, size
            )
            for box, name in zip(drawn, said, strict=True):
                place = dict(zip(BOX_COLUMNS, box, strict=True))
                rows.append({**own, "shape": "box", "class_name": name, **place})
            if not said:
                blank = dict.fromkeys(["class_name", *BOX_COLUMNS])
                rows.append({**own, "shape": "none", **blank})
    every = pd.DataFrame(rows)
    return every, every[every["asked"]].reset_index(drop=True)


def greedy(labels, owners, overlap, *, threshold=0.5):
    """Join pairs from the largest overlap down, as long as nobody stands in a group twice."""
    group_of = list(range(len(labels)))
    members = {at: [at] for at in group_of}
    one, other = np.triu_indices(len(labels), k=1)
    for pair in np.argsort(-overlap[one, other], kind="stable"):
        if overlap[one[pair], other[pair]] < threshold:
            break
        a, b = group_of[one[pair]], group_of[other[pair]]
        if a == b or {owners[at] for at in members[a]} & {owners[at] for at in members[b]}:
            continue
        members[a] += members.pop(b)
        for at in members[a]:
            group_of[at] = a
    return list(members.values())


def plain_majority(asked, *, group=greedy):
    """Return what half of the people saw, edges averaged, class by majority, ties to the first."""
    rows = []
    for image_id, annotations in asked.groupby("image_id"):
        drawn = annotations[annotations["shape"] == "box"]
        people = annotations["annotator"].nunique()
        boxes, names = as_boxes(drawn[BOX_COLUMNS]), drawn["class_name"].tolist()
        labels = [Label.box(name, *box) for name, box in zip(names, boxes, strict=True)]
        for members in group(labels, drawn["annotator"].tolist(), iou_matrix(boxes, boxes)):
            if 2 * len(members) >= people:
                name = Counter(names[at] for at in sorted(members)).most_common(1)[0][0]
                place = dict(zip(BOX_COLUMNS, boxes[members].mean(axis=0), strict=True))
                rows.append({"image_id": image_id, "class_name": name, **place})
    return pd.DataFrame(rows, columns=["image_id", "class_name", *BOX_COLUMNS])


def compare(dataset, people, seed, *, per_image=3):
    """Return the F1 at IoU 0.5, class included, of the consensus and of what it is held against."""
    every, asked = simulate(dataset, people, seed, per_image=per_image)
    consensus = resolve_consensus(asked, ontology=dataset.ontology, images=dataset.images)
    alone = every[every["shape"] == "box"].groupby("annotator")
    unsettled = consensus.conflicts[~consensus.conflicts["settled"]]
    return {
        "consensus": score(consensus.labels, dataset),
        "each_person": [pooled_f1(own, dataset.labels) for _, own in alone],
        "plain_majority": pooled_f1(plain_majority(asked), dataset.labels),
        "unsettled": unsettled["kind"].value_counts().to_dict(),
        "images_to_review": unsettled["image_id"].nunique(),
    }


def score(labels, dataset):
    """Return the F1 of the boxes of a consensus."""
    return pooled_f1(labels[labels["shape"] == "box"], dataset.labels)


def matching(dataset, seeds):
    """Return the F1 of plain majority, only the grouping differing."""

    def assigned(labels, owners, overlap):
        return group_labels(labels, owners, overlap, iou_threshold=0.5)

    def without_class(labels, owners, overlap):
        blank = [replace(label, class_name=f"{at}") for at, label in enumerate(labels)]
        return group_labels(blank, owners, overlap, iou_threshold=0.5)

    ways = {"greedy": greedy, "assigned": without_class, "assigned, with class": assigned}
    worlds = {"BCCD": dataset, "crowded": crowded(dataset)}
    found = {}
    for name, world in worlds.items():
        for jitter in (3.0, 5.0, 8.0):
            people = (Noise(jitter=jitter),) * 5
            for asked_of in (3, 5):
                tables = [
                    simulate(world, people, seed, per_image=asked_of)[1] for seed in range(seeds)
                ]
                found[f"{name}, {jitter:g} pixels, {asked_of} answers"] = {
                    way: mean(
                        pooled_f1(plain_majority(asked, group=group), world.labels)
                        for asked in tables
                    )
                    for way, group in ways.items()
                }
    return found


def crowded(dataset, *, objects=40, image_count=40):
    """Return images full of small boxes, no two of which overlap by more than 0.6."""
    rng = np.random.default_rng(5)
    images = dataset.images.head(image_count)
    rows = []
    for image in images.itertuples(index=False):
        boxes = np.zeros((0, 4))
        while len(boxes) < objects:
            sides = rng.uniform(25, 60, 2)
            corner = rng.random(2) * (np.array([image.width, image.height]) - sides)
            box = np.concatenate([corner, corner + sides])[None]
            if not len(boxes) or iou_matrix(box, boxes).max() <= 0.6:
                boxes = np.vstack([boxes, box])
        for box in boxes:
            name = rng.choice(dataset.ontology.names)
            place = dict(zip(BOX_COLUMNS, box, strict=True))
            rows.append({"image_id": image.image_id, "class_name": name, **place})
    return replace(dataset, images=images, labels=pd.DataFrame(rows))


CROWDS = {
    "equal": FOUR,
    "from careful to careless": (
        Noise(1.5, 0.02, 0.01, 0.01),
        Noise(3.0, 0.08, 0.05, 0.05),
        Noise(5.0, 0.2, 0.15, 0.12),
        Noise(6.0, 0.35, 0.3, 0.25),
    ),
    "two careless": (Noise(2, 0.03, 0.02, 0.02),) * 2 + (Noise(6, 0.4, 0.4, 0.3),) * 2,
    "two spammers": (Noise(3, 0.05, 0.03, 0.05),) * 2 + (Noise(50, 0.6, 0.6, 0.6),) * 2,
}


def crowds(dataset, seeds):
    """Return F1 and mean IoU with the truth, people weighed by each other and all alike."""
    found = {}
    for name, people in CROWDS.items():
        rows = {"weighed": [], "all alike": [], "plain majority": []}
        for seed in range(seeds):
            _, asked = simulate(dataset, people, seed)
            who = asked["annotator"].unique()
            alike = pd.DataFrame({"annotator": who, "quality": 0.9})
            for way, quality in (("weighed", None), ("all alike", alike)):
                labels = resolve_consensus(
                    asked, ontology=dataset.ontology, images=dataset.images, quality=quality
                ).labels
                rows[way].append([score(labels, dataset), nearness(labels, dataset)])
            plain = plain_majority(asked)
            rows["plain majority"].append(
                [pooled_f1(plain, dataset.labels), nearness(plain, dataset)]
            )
        found[name] = {
            way: dict(zip(["f1", "iou"], np.mean(each, axis=0).round(4).tolist(), strict=True))
            for way, each in rows.items()
        }
    return found


def nearness(labels, dataset):
    """Return the mean overlap with the truth of the boxes that are of something true."""
    truth = dict(iter(dataset.labels.groupby("image_id")))
    best = [
        iou_matrix(as_boxes(rows[BOX_COLUMNS]), as_boxes(truth[image][BOX_COLUMNS])).max(axis=1)
        for image, rows in labels.dropna(subset=["x1"]).groupby("image_id")
        if image in truth
    ]
    near = np.concatenate(best)
    return float(near[near >= 0.5].mean())


def ties(dataset, seeds):
    """Return how often the class is right of objects whose votes are level."""
    found = {}
    for name in ("equal", "from careful to careless"):
        right = {"by weight": [], "by weight and size": []}
        sure = []
        for seed in range(seeds):
            _, asked = simulate(dataset, CROWDS[name], seed)
            votes, boxes, real = level_votes(dataset, asked)
            for way, sizes in (("by weight", None), ("by weight and size", boxes)):
                verdicts = decide_classes(votes, sizes).verdicts
                level = {task: each for task, each in verdicts.items() if each.level}
                right[way] += [each.class_name == real[task] for task, each in level.items()]
            sure += [
                each.class_name == real[task]
                for task, each in level.items()
                if each.posterior >= SURE
            ]
        found[name] = {
            "level": len(right["by weight"]),
            **{way: mean(each) for way, each in right.items()},
            "settled": len(sure),
            "right where settled": mean(sure),
        }
    return found


def level_votes(dataset, asked):
    """Return votes, boxes and true classes of the objects that are there and two or more saw."""
    truth = dict(iter(dataset.labels.groupby("image_id")))
    votes, boxes, real = {}, {}, {}
    for task in read_tasks(asked, dataset.images):
        if task.image_id not in truth:
            continue
        there = truth[task.image_id]
        for number, each in enumerate(sort_out(task, iou_threshold=0.5, choose_one=True).regions):
            box = np.median(boxes_of(each.labels), axis=0)
            overlap = iou_matrix(box[None], as_boxes(there[BOX_COLUMNS]))[0]
            if len(each.owners) > 1 and overlap.max() >= 0.5:
                key = f"{task.image_id}:{number}"
                votes[key] = [
                    (who, label.class_name)
                    for who, label in zip(each.owners, each.labels, strict=True)
                ]
                boxes[key], real[key] = box, there["class_name"].iloc[int(overlap.argmax())]
    return votes, boxes, real


def fusion(seeds):
    """Return the mean IoU with the truth of several rules, for boxes and for polygons."""
    return {"boxes": fused_boxes(seeds), "polygons": fused_polygons()}


def fused_boxes(seeds, *, objects=4000):
    """A box of 60 × 50 pixels, drawn by people of known deviations."""
    truth = np.array([[0.0, 0.0, 60.0, 50.0]])
    crowd = {
        "equal": ([3, 3, 3], 0.0),
        "equal, one edge in forty slips": ([3, 3, 3], 0.025),
        "unequal": ([1.5, 3, 6], 0.0),
        "unequal, one edge in forty slips": ([1.5, 3, 6], 0.025),
    }
    found = {}
    for name, (deviations, slips) in crowd.items():
        rng = np.random.default_rng(seeds)
        sigma = np.array(deviations, dtype=float)
        values = truth + rng.normal(size=(objects, len(sigma), 4)) * sigma[:, None]
        slipped = rng.random(values.shape) < slips
        values += slipped * rng.choice([-1, 1], values.shape) * rng.uniform(12, 25, values.shape)
        weight = np.clip((sigma**2).mean() / sigma**2, 0.25, 4).tolist()
        one, other = np.triu_indices(len(sigma), k=1)
        spread = np.median(np.abs(values[:, one] - values[:, other]), axis=(0, 1)) / 0.954
        ways = {
            "median": np.median(values, axis=1),
            "mean": values.mean(axis=1),
            "weighted mean": np.average(values, axis=1, weights=weight),
            "near mean": np.array([near_mean(each, weight, spread) for each in values]),
        }
        found[name] = {
            way: round(float(iou_matrix(boxes, truth).mean()), 4) for way, boxes in ways.items()
        }
    return found


def fused_polygons(*, outlines=150):
    """COCO's outlines, redrawn with points of each person's own, off by 3 pixels."""
    with (DATA / "cocoeval" / "instances_val2014_100.json").open() as file:
        annotations = json.load(file)["annotations"]
    real = [each for each in annotations if not each["iscrowd"] and each["area"] > 400]
    found = {}
    for people in (2, 3, 5):
        rng = np.random.default_rng(people)
        rows = []
        for each in real[:outlines]:
            truth = Label.polygon("it", [max(each["segmentation"], key=len)])
            area = area_of(truth)
            if area.geom_type != "Polygon":
                continue
            drawn = [redrawn(area.exterior, rng) for _ in range(people)]
            overlap = overlap_matrix(drawn, drawn, image_size=(640, 480))
            medoid = drawn[int(np.argmax(overlap.sum(axis=1)))]
            fused = fuse(drawn, [1.0] * people, overlap, class_name="it")
            covers = overlap_matrix([*drawn, medoid, fused], [truth], image_size=(640, 480))
            rows.append([covers[:people].mean(), covers[people, 0], covers[people + 1, 0]])
        names = ["one person", "the one nearest to the others", "what half of them hold"]
        found[f"{people} people"] = dict(
            zip(names, np.mean(rows, axis=0).round(4).tolist(), strict=True)
        )
    return found


def redrawn(outline, rng):
    """Return an outline drawn anew: a point every eight pixels or so, each 3 pixels off."""
    count = int(np.clip(outline.length / 8, 8, 40))
    places = np.sort((np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count) % 1
    points = np.array([outline.interpolate(at, normalized=True).coords[0] for at in places])
    return Label.polygon("it", [(points + rng.normal(size=points.shape) * 3).ravel().tolist()])


def speed():
    """Return seconds for 1,000 images of 15 boxes, answered by three people each."""
    rng = np.random.default_rng(1)
    images = pd.DataFrame(
        {"image_id": [f"{n:064x}" for n in range(1000)], "width": 1280, "height": 960}
    )
    corner = rng.uniform(0, 800, (15_000, 2))
    boxes = np.hstack([corner, corner + rng.uniform(30, 160, (15_000, 2))])
    labels = pd.DataFrame(boxes, columns=BOX_COLUMNS).assign(
        image_id=images["image_id"].repeat(15).to_numpy(),
        class_name=rng.choice(list("abc"), 15_000),
    )
    dataset = replace(bccd(1), images=images, labels=labels)
    ontology = type(dataset.ontology).from_names(list("abc"))
    _, asked = simulate(replace(dataset, ontology=ontology), FOUR, 1)
    wall, cpu = time.perf_counter(), time.process_time()
    consensus = resolve_consensus(asked, ontology=ontology, images=images)
    return {
        "rows": len(asked),
        "labels": len(consensus.labels),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "wall_seconds": round(time.perf_counter() - wall, 2),
    }


def mean(values):
    """Return the mean to four digits."""
    return round(float(np.mean(list(values))), 4)


def main():
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("matching", "people", "ties", "fusion", "speed"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    if asked.speed:
        found = speed()
    elif asked.fusion:
        found = fusion(asked.seeds)
    elif asked.matching:
        found = matching(bccd(), asked.seeds)
    elif asked.ties:
        found = ties(bccd(), asked.seeds)
    elif asked.people:
        found = crowds(bccd(), asked.seeds)
    else:
        dataset = bccd()
        runs = [compare(dataset, FOUR, seed) for seed in range(asked.seeds)]
        least = min(run["consensus"] for run in runs)
        beaten = all(
            run["consensus"] > max(run["plain_majority"], *run["each_person"]) for run in runs
        )
        found = {"least_consensus": least, "above_everybody": beaten, "runs": runs}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
