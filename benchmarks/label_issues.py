"""How many of the suspected labels are wrong, beside self-confidence and cleanlab's ObjectLab.

    python benchmarks/label_issues.py

**Boxes**: simulated images of six objects of three classes, a model that finds 93 % of them with
calibrated scores and makes things up too, and labels with planted errors: of each label with the
given rate, in equal parts left out, moved, given another class, or joined by one on nothing.
``precision`` is the share of flagged places with a planted error; ``found`` the share of planted
errors among the flagged. *Self-confidence* ranks labels by one minus the score of the best
proposal of their class on them, and is given as many flags; it cannot see what was left out, so it
is also judged on the planted errors of labels alone. *ObjectLab* is cleanlab's, which scores whole
images: the areas under the curve (AUROC) are those of images with any error, or without.

**Classes**: simulated probabilities with planted flips, of a model that is calibrated, and of one
that is biased against a class (self-confidence is hard to beat with the former), and
``../shared/data/labelerrors`` (MNIST, 10,000 given labels and predicted probabilities; of 100 of
them five people each said whether the label is right, and 15 are wrong by their verdict), or where
ANNOTATION_TEST_DATA says.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.curation.classification_issues import class_issues
from annotation_platform.curation.label_issues import (
    SAME,
    box_issues,
    measure_trust,
    mistake_risk,
)
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes, iou_matrix

DATA = Path(
    os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
NAMES = ["cat", "dog", "owl"]
ROUND = "round-0001"
COLUMNS = ["image_id", "class_name", *BOX_COLUMNS]


def image_id(number):
    """Return an id like that of a real image."""
    return f"{number:064x}"


def scenes(image_count, rng):
    """Return the true objects of images of 640 × 480, and what a model proposes there."""
    truth, proposals = [], []
    for number in range(image_count):
        boxes = as_boxes([random_box(rng) for _ in range(1 + rng.poisson(5))])
        names = rng.choice(NAMES, len(boxes), p=[0.5, 0.3, 0.2])
        odds = 3.5 + 2.0 * rng.normal(size=len(boxes))
        for box, name, sure in zip(boxes, names, 1 / (1 + np.exp(-odds)), strict=True):
            truth.append([image_id(number), name, *box])
            if rng.random() > 0.07:
                proposals.append(proposal(number, name, box, sure, rng))
        for _ in range(rng.poisson(1.0)):
            sure = 1 / (1 + np.exp(-(-2.0 + 1.5 * rng.normal())))
            box = random_box(rng)
            proposals.append([image_id(number), rng.choice(NAMES), *box, sure])
    return (
        pd.DataFrame(truth, columns=COLUMNS),
        pd.DataFrame(proposals, columns=[*COLUMNS, "score"]),
    )


def random_box(rng):
    """Return a box inside the image."""
    x, y = rng.uniform(0, 540), rng.uniform(0, 380)
    return [x, y, x + rng.uniform(30, 100), y + rng.uniform(30, 100)]


def proposal(number, name, box, sure, rng):
    """Return what the model says of an object: right with probability ``sure``."""
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    if rng.random() > sure:
        if rng.random() < 0.5:
            name = rng.choice([other for other in NAMES if other != name])
        else:
            box = box + 0.5 * sides * rng.choice([-1, 1])
    return [image_id(number), name, *(box + 0.04 * sides * rng.normal(size=4)), sure]


def plant(truth, rate, rng):
    """Return labels with errors, and those by image: the place and the label, if there is one."""
    labels, planted = [], []
    for number, row in enumerate(truth.itertuples(index=False)):
        box, name, label_id = np.array(row[2:], dtype=float), row.class_name, f"label-{number:05d}"
        kind = (
            rng.choice(["overlooked", "badly_located", "swapped", "spurious"])
            if rng.random() < rate
            else ""
        )
        if kind:
            planted.append([row.image_id, kind, None if kind == "overlooked" else label_id, *box])
        if kind == "overlooked":
            continue
        if kind == "spurious":
            # The object keeps a label of its own.
            labels.append([row.image_id, f"{label_id}-own", name, *box])
            box = np.array(random_box(rng))
            name = rng.choice(NAMES)
        if kind == "badly_located":
            sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
            box = box + rng.uniform(0.35, 0.6) * sides * np.array([1, 0, 1, 0])
        if kind == "swapped":
            name = rng.choice([other for other in NAMES if other != name])
        labels.append([row.image_id, label_id, name, *box])
    columns = ["image_id", "label_id", "class_name", *BOX_COLUMNS]
    return (
        pd.DataFrame(labels, columns=columns),
        pd.DataFrame(planted, columns=["image_id", "kind", "label_id", *BOX_COLUMNS]),
    )


def is_planted(issues, planted):
    """Return for each issue whether it names a planted error: its label, or its place."""
    named = issues["label_id"].isin(planted["label_id"].dropna()).to_numpy().copy()
    missed = dict(iter(planted[planted["kind"] == "overlooked"].groupby("image_id")))
    for at, issue in enumerate(issues.itertuples()):
        gone = missed.get(issue.image_id)
        if issue.kind == "overlooked" and gone is not None:
            place = as_boxes([issue.x1, issue.y1, issue.x2, issue.y2])
            named[at] = iou_matrix(place, as_boxes(gone[BOX_COLUMNS])).max() >= SAME
    return named


def self_confidence(labels, proposals):
    """Return for each label one minus the best score of its class on it."""
    by_image = dict(iter(proposals.groupby("image_id")))
    doubt = np.ones(len(labels))
    for at, label in enumerate(labels.itertuples()):
        here = by_image.get(label.image_id)
        if here is None:
            continue
        overlap = iou_matrix(
            as_boxes([label.x1, label.y1, label.x2, label.y2]), as_boxes(here[BOX_COLUMNS])
        )[0]
        on_it = (overlap >= SAME) & (here["class_name"] == label.class_name).to_numpy()
        doubt[at] = 1 - here["score"].to_numpy()[on_it].max(initial=0.0)
    return doubt


def auroc(scores, positive):
    """Return the area under the curve; ties count half."""
    ranks = pd.Series(scores).rank().to_numpy()
    ones = int(positive.sum())
    zeros = len(positive) - ones
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def objectlab(labels, proposals, images):
    """Return cleanlab's score of each image, turned so that the suspected come first."""
    from cleanlab.object_detection.rank import get_label_quality_scores

    given, said = [], []
    for image in images:
        own = labels[labels["image_id"] == image]
        given.append(
            {
                "bboxes": as_boxes(own[BOX_COLUMNS]),
                "labels": np.array([NAMES.index(name) for name in own["class_name"]], dtype=int),
            }
        )
        here = proposals[proposals["image_id"] == image]
        said.append(
            np.array(
                [
                    here.loc[here["class_name"] == n, [*BOX_COLUMNS, "score"]].to_numpy()
                    for n in NAMES
                ],
                dtype=object,
            )
        )
    return 1 - get_label_quality_scores(given, said, verbose=False)


def planted_boxes(rate, *, image_count=400, seed=0):
    """Return the figures of one rate of planted errors."""
    rng = np.random.default_rng(seed)
    trust = measure_trust(*reversed(scenes(200, rng)), error_rate=0.05)
    truth, proposals = scenes(image_count, rng)
    labels, planted = plant(truth, rate, rng)
    every = box_issues(labels, proposals, trust, round_id=ROUND, minimum_probability=0.0)
    flagged = every[every["score"] >= 0.3]
    right = is_planted(flagged, planted)
    doubt = self_confidence(labels, proposals)
    wrong = labels["label_id"].isin(planted["label_id"].dropna()).to_numpy()
    first = np.argsort(-doubt, kind="stable")[: len(flagged)]
    of_labels = flagged[flagged["kind"] != "overlooked"]
    same_number = np.argsort(-doubt, kind="stable")[: len(of_labels)]
    images = sorted(truth["image_id"].unique())
    bad = np.isin(images, planted["image_id"])
    risk = mistake_risk(every).reindex(images).fillna(0.0).to_numpy()
    lab = objectlab(labels, proposals, images)
    alone = [objectlab(labels, proposals, [image])[0] for image in images[:10]]
    return {
        "planted": len(planted),
        "flagged": len(flagged),
        "precision": right.mean(),
        "found": right.sum() / len(planted),
        "self-confidence": wrong[first].mean(),
        "labels alone": is_planted(of_labels, planted).mean(),
        "self-confidence, labels": wrong[same_number].mean(),
        "AUROC of images": auroc(risk, bad),
        "ObjectLab": auroc(lab, bad),
        "ObjectLab, alone and in batch": float(np.abs(alone - lab[:10]).max()),
    }


def planted_classes(rate, *, bias=0.0, seed=0):
    """Return the precision of what is flagged among planted flips, and of self-confidence.

    ``bias`` is by how much the model's log odds of one class are too low.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, 4000)
    odds = 1.5 * rng.normal(size=(4000, 5))
    odds[np.arange(4000), truth] += 4.0
    odds[:, 0] -= bias
    chance = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    flip = rng.random(4000) < rate
    given = np.where(flip, (truth + rng.integers(1, 5, 4000)) % 5, truth)
    names = [f"class {number}" for number in range(5)]
    labels = pd.DataFrame({"image_id": [image_id(n) for n in range(4000)]})
    labels["label_id"] = labels["image_id"] + ":0"
    labels["class_name"] = [names[number] for number in given]
    found = class_issues(labels, chance, names, round_id=ROUND)
    doubtful = np.argsort(chance[np.arange(4000), given], kind="stable")[: len(found)]
    right = labels["label_id"].isin(found["label_id"]).to_numpy() & flip
    return {
        "planted": int(flip.sum()),
        "flagged": len(found),
        "precision": right.sum() / len(found),
        "found": right.sum() / flip.sum(),
        "self-confidence": flip[doubtful].mean(),
    }


def mnist(folder=DATA / "labelerrors"):
    """Return how the flagged and the order of MNIST compare with people's verdicts."""
    chance = np.load(folder / "mnist_test_set_pyx.npy").astype(float)
    given = np.load(folder / "mnist_test_set_original_labels.npy").astype(int)
    verdicts = pd.read_csv(folder / "TRUTH_mnist.csv").set_index("id")["is_error"].astype(bool)
    names = [str(number) for number in range(10)]
    labels = pd.DataFrame({"image_id": [image_id(n) for n in range(len(given))]})
    labels["label_id"] = [str(n) for n in range(len(given))]
    labels["class_name"] = [names[number] for number in given]
    found = class_issues(labels, chance, names, round_id=ROUND)
    flagged = found["label_id"].astype(int)
    judged = flagged[flagged.isin(verdicts.index)]
    own = chance[np.arange(len(given)), given][verdicts.index]
    return {
        "labels": len(given),
        "flagged": len(flagged),
        "of them judged": len(judged),
        "judged wrong": int(verdicts[judged].sum()),
        "wrong in all": int(verdicts.sum()),
        "precision": verdicts[judged].mean(),
        "share wrong of all judged": verdicts.mean(),
        "AUROC among the judged": auroc(1 - own, verdicts.to_numpy()),
    }


def main():
    """Print what was measured."""
    for rate in (0.05, 0.1):
        runs = pd.DataFrame([planted_boxes(rate, seed=seed) for seed in range(5)])
        print(f"boxes, {rate:.0%} planted, means of 5 seeds")
        print(runs.mean().round(3).to_string(), "\n", flush=True)
        for bias in (0.0, 2.0):
            runs = pd.DataFrame([planted_classes(rate, bias=bias, seed=s) for s in range(5)])
            print(f"classes, {rate:.0%} planted, one class {bias:g} too low, means of 5 seeds")
            print(runs.mean().round(3).to_string(), "\n", flush=True)
    print("MNIST against verdicts")
    print(pd.Series(mnist()).round(3).to_string())


if __name__ == "__main__":
    main()
