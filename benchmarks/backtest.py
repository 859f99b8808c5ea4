"""How often a backtest on one half of a crowd is borne out by a real run on the other half.

    python -m benchmarks.backtest
    python -m benchmarks.backtest --crowds bluebirds CF --halvings 200 --k 3

The tasks of a crowd are halved at random. One half is the record: from all its answers the share of
tasks that k = 3 answers get right is predicted. On the other half k = 3 is run for real: three of
the answers to each task are drawn, once, resolved, and held against the truth. Both halves have the
same people. Tasks without a truth, or with fewer answers than k, take no part.

- ``run``: how often the figure of the real run lies in the interval that the backtest gives for it.
- ``both``: how often the prediction lies in the interval round the real run that holds the errors
  of both halves. This is what is claimed, and what has to be 0.95.
- ``alone``: the same with the interval of the real run by itself. Two halves of one size differ by
  up to the square root of 2 times what one is off, so this is 0.83 or more, and no fault of either.

The crowds are in ``../shared/data``, or where ANNOTATION_TEST_DATA says.
"""

import argparse
import hashlib
import math
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.backtesting.backtest import backtest
from annotation_platform.backtesting.figures import share_estimate
from annotation_platform.backtesting.record import Record
from annotation_platform.backtesting.truth import COLUMNS, GOLD
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.policy import LabelingPolicy, Policy
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import LabelClass, Ontology
from benchmarks.consensus_evidence import REAL, real_crowd

ROUND = "round-0001"


@dataclass(frozen=True)
class Halving:
    """What was predicted from one half, and what the real run on the other gave."""

    predicted: float
    real: float
    run: bool  # the real figure is in the interval predicted for it
    both: bool  # the prediction is in the interval of the run, both errors counted
    alone: bool  # ... and the error of the run alone
    width: float  # of the interval predicted for the run


def choices_record(annotations, truth):
    """Return answers (``task``, ``worker``, ``label``) as a record, the truth a label by task."""
    images = {
        task: hashlib.sha256(task.encode()).hexdigest() for task in annotations["task"].unique()
    }
    image = annotations["task"].map(images).to_numpy()
    bare = dict.fromkeys(BOX_COLUMNS, math.nan) | {"geometry": "", "shape": "choice"}
    labels = pd.DataFrame(
        {
            "round_id": ROUND,
            "task_id": annotations["task"].to_numpy(),
            "image_id": image,
            "annotation_id": (annotations["task"] + "/" + annotations["worker"]).to_numpy(),
            "label_id": (annotations["task"] + "/" + annotations["worker"]).to_numpy(),
            "annotator": annotations["worker"].to_numpy(),
            "class_name": annotations["label"].to_numpy(),
            "lead_time_seconds": 10.0,
            "purpose": "label",
            "batch": 0,
            **bare,
        }
    )
    known = pd.DataFrame(
        {
            "round_id": ROUND,
            "image_id": [images[task] for task in truth.index],
            "source": GOLD,
            "weight": 1.0,
            "label_id": [images[task] for task in truth.index],
            "class_name": truth.to_numpy(),
            **bare,
        }
    )
    names = sorted({*annotations["label"], *truth})
    ontology = Ontology(
        classes=tuple(LabelClass(id=n, name=name, shape="choice") for n, name in enumerate(names))
    )
    sizes = pd.DataFrame(columns=["image_id", "width", "height"])
    return Record(labels, known[COLUMNS], sizes, ontology)


def usable(crowd, k):
    """Return the answers and the truth of the tasks that have both, k answers at least."""
    counts = crowd.annotations["task"].value_counts()
    tasks = sorted(set(counts.index[counts >= k]) & set(crowd.truth.index))
    annotations = crowd.annotations[crowd.annotations["task"].isin(tasks)].reset_index(drop=True)
    return annotations, crowd.truth[tasks]


def real_run(record, k, rng):
    """Return by task whether k answers that were drawn once give the true class."""
    labels = record.labels.iloc[rng.permutation(len(record.labels))]
    labels = labels[labels.groupby("task_id").cumcount() < k]
    found = resolve_consensus(labels, ontology=record.ontology).labels.set_index("image_id")
    true = record.truth.set_index("image_id")["class_name"]
    return (found["class_name"].reindex(true.index) == true).to_numpy(dtype=bool)


def halve(annotations, truth, k, rng, *, draws):
    """Return what one random halving of the tasks gives."""
    order = rng.permutation(len(truth))
    halves = [truth.iloc[np.sort(part)] for part in np.array_split(order, 2)]
    record, other = (
        choices_record(annotations[annotations["task"].isin(half.index)], half) for half in halves
    )
    today = Policy(ontology=record.ontology)
    asked = Policy(ontology=record.ontology, labeling=LabelingPolicy(annotations_per_task=k))
    seed = int(rng.integers(2**31))
    figure = backtest(record, today, asked, draws=draws, seed=seed).figures["choices_right"]
    right = real_run(other, k, rng)
    error = right.std(ddof=1) / math.sqrt(len(right))
    each = np.ones(len(right))
    both = share_estimate(right.mean(), math.hypot(error, figure.policy.error), each)
    alone = share_estimate(right.mean(), error, each)
    predicted = figure.policy.value
    return Halving(
        predicted=predicted,
        real=right.mean(),
        run=figure.rerun.low <= right.mean() <= figure.rerun.high,
        both=both.low <= predicted <= both.high,
        alone=alone.low <= predicted <= alone.high,
        width=figure.rerun.high - figure.rerun.low,
    )


def halvings(name, k, *, count, draws, seed=0):
    """Return a row for each of so many random halvings of a public crowd."""
    annotations, truth = usable(real_crowd(name), k)
    rng = np.random.default_rng(seed)
    return pd.DataFrame([halve(annotations, truth, k, rng, draws=draws) for _ in range(count)])


def main():
    """Print a row for each crowd."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crowds", nargs="*", default=REAL)
    parser.add_argument("--halvings", type=int, default=200)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| crowd | tasks a half | predicted | real | width | run | both | alone | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.crowds:
        began = time.process_time()
        found = halvings(
            name, options.k, count=options.halvings, draws=options.draws, seed=options.seed
        )
        mean = found.astype(float).mean()
        tasks = len(usable(real_crowd(name), options.k)[1]) // 2
        spent = time.process_time() - began
        print(
            f"| {name} | {tasks} | {mean['predicted']:.3f} | {mean['real']:.3f} |"
            f" {mean['width']:.3f} | {mean['run']:.3f} | {mean['both']:.3f} |"
            f" {mean['alone']:.3f} | {spent:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
