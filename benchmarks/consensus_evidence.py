"""What known answers gain and lose against plain majority, on real and simulated crowds.

    python benchmarks/consensus_evidence.py
    python benchmarks/consensus_evidence.py --crowds 150 --first 1000 --out cells.csv

A cell is a crowd and a number of answers a task: 1, 2, 3, 5, all, or collected until one class
leads by two votes, seven at most. For each of 20 draws the answers of a cell are drawn anew (but
for "all"), resolved without evidence, 20 tasks are asked about, the truth answers, and the answers
are resolved again. Accuracies are means over the draws, in points.

- **The baseline is plain majority, a tie worth its expected value** if broken at random.
- Without evidence a cell fails if it is more than 0.5 points below the baseline, and with evidence
  if more than 1 point, both on 300 known tasks or more. Where the better of the models gains 5
  points or more over the baseline, less than 80 % of that gain with evidence is a failure.
- **The labels scored are those of the chosen method. The expert's answers are not copied into
  them**, though ``labels`` has them: 20 known answers would be worth up to 6 points of 300 tasks.

Simulated crowds are drawn at random: their size, skills, how people take classes for each other,
spammers, adversaries, frequencies of classes, and tasks on which most fall for the same wrong
class. Some are hopeless on purpose; their majority is wrong more often than right.

The real ones are in ``../shared/data``, or where ANNOTATION_TEST_DATA says.
"""

import argparse
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.consensus.evidence import resolve_classes

DATA = Path(
    os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
REAL = ["CF", "SP", "ZenCrowd_in", "barzan", "bluebirds"]
SIZES = ["1", "2", "3", "5", "all", "adaptive"]
MODELS = ["dawid-skene", "one-coin"]


@dataclass(frozen=True)
class Crowd:
    """Answers, and the truth by task: not of every task, and maybe a class that nobody gave."""

    annotations: pd.DataFrame
    truth: pd.Series


@dataclass(frozen=True)
class Draw:
    """Accuracies of one draw of a cell."""

    known: int
    majority: float  # plain, a tie worth its expected value
    without: float  # ours without evidence
    given: float  # ours with evidence
    models: tuple[float, ...]
    method: str


def real_crowd(name, folder=DATA / "crowd" / "canonical"):
    """Return one of the public crowds."""
    annotations = pd.read_csv(folder / f"{name}.labels.csv", dtype=str)
    truth = pd.read_csv(folder / f"{name}.truth.csv", dtype=str)
    return Crowd(
        annotations.drop_duplicates(["task", "worker"], keep="last").reset_index(drop=True),
        truth.set_index("task")["label"],
    )


def random_crowd(seed):
    """Return a simulated crowd, everything about it drawn at random."""
    rng = np.random.default_rng(seed)
    tasks = int(rng.choice([300, 400, 600, 1000, 1500]))
    classes = int(rng.choice([2, 2, 2, 3, 4, 5, 8, 10]))
    workers = int(rng.choice([8, 15, 25, 40, 80, 150]))
    on_each = int(min(workers, rng.choice([5, 7, 10, 15])))
    frequencies = rng.dirichlet(np.full(classes, rng.choice([100.0, 3.0, 1.0])))
    truth = rng.choice(classes, tasks, p=frequencies)
    liked = rng.dirichlet(np.full(classes, 0.5))
    confusions, honest = _confusions(rng, classes, workers, liked)
    hard = rng.random(tasks) < rng.uniform(0, 0.4) * (rng.random() < 0.6)
    decoy, pull = rng.choice(classes, tasks, p=liked), rng.uniform(0.2, 0.8)
    # The busiest do most: workers are drawn by their activity, without repetition.
    activity = np.log(rng.pareto(rng.choice([1.0, 3.0]), workers) + 0.1)
    keys = activity + rng.gumbel(size=(tasks, workers))
    worker = np.argsort(-keys, axis=1)[:, :on_each].ravel()
    task = np.repeat(np.arange(tasks), on_each)
    chance = rng.random(len(task))[:, None]
    label = (confusions[worker, truth[task]].cumsum(axis=1) < chance).sum(axis=1)
    fooled = hard[task] & honest[worker] & (rng.random(len(task)) < pull)
    label = np.where(fooled, decoy[task], np.minimum(label, classes - 1))
    annotations = pd.DataFrame({"task": task, "worker": worker, "label": label}).astype(str)
    return Crowd(annotations, pd.Series(truth.astype(str), index=np.arange(tasks).astype(str)))


def _confusions(rng, classes, workers, liked):
    """Return ``(workers, classes, classes)`` chances of labels, and who is honest."""
    mean, alike = rng.uniform(0.45, 0.9), rng.choice([4.0, 10.0, 30.0])
    skill = rng.beta(mean * alike, (1 - mean) * alike, workers)
    if rng.random() < 0.5:
        skill = 1 / classes + (1 - 1 / classes) * skill
    spammers = rng.uniform(0, 0.4) * (rng.random() < 0.5)
    adversaries = rng.uniform(0, 0.15) * (rng.random() < 0.3)
    uneven = rng.uniform(0, 0.25) * (rng.random() < 0.6)
    common = rng.dirichlet(np.full(classes, 0.7), classes)
    kind = rng.random(workers)
    table = np.zeros((workers, classes, classes))
    for number in range(workers):
        off = common.copy() if rng.random() < 0.5 else np.ones((classes, classes))
        np.fill_diagonal(off, 0.0)
        off /= off.sum(axis=1, keepdims=True) + 1e-9
        right = np.clip(skill[number] + rng.normal(0, 1, classes) * uneven, 0.02, 0.99)
        table[number] = off * (1 - right[:, None]) + np.diag(right)
        if kind[number] < spammers:
            table[number] = np.eye(classes)[rng.choice(classes, p=liked)]
        elif kind[number] < 1.5 * spammers:
            table[number] = liked
        elif kind[number] < 1.5 * spammers + adversaries:
            table[number] = np.roll(table[number], 1, axis=1)
    return table / table.sum(axis=2, keepdims=True), kind >= 1.5 * spammers


def draw_annotations(annotations, size, rng):
    """Return some of the answers: a number a task, ``all`` or ``adaptive``."""
    if size == "all":
        return annotations
    shuffled = annotations.iloc[rng.permutation(len(annotations))]
    place = shuffled.groupby("task").cumcount()
    if size != "adaptive":
        return shuffled[place < int(size)]
    task, label = (pd.factorize(shuffled[name])[0] for name in ("task", "label"))
    votes = np.zeros((task.max() + 1, max(label.max() + 1, 2)), dtype=int)
    kept = np.zeros(len(task), dtype=bool)
    for turn in range(7):
        most = np.partition(votes, -2, axis=1)[:, -2:]
        now = np.flatnonzero((place.to_numpy() == turn) & (np.diff(most, axis=1)[:, 0] < 2)[task])
        kept[now] = True
        votes[task[now], label[now]] += 1
    return shuffled[kept]


def plain_majority(annotations, truth):
    """Return by task of ``truth`` the chance that majority is right, ties broken at random."""
    votes = annotations.groupby(["task", "label"]).size()
    top = votes[votes == votes.groupby("task").transform("max")].reset_index()
    top["right"] = (top["label"] == top["task"].map(truth)).astype(float)
    return top.groupby("task")["right"].mean().reindex(truth.index)


def one_draw(crowd, size, number, *, ask=20):
    """Return the accuracies of a draw; a tied label is worth what majority's tie is."""
    annotations = draw_annotations(crowd.annotations, size, np.random.default_rng(number))
    truth = crowd.truth[crowd.truth.index.isin(set(annotations["task"]))]
    base = plain_majority(annotations, truth)
    before = resolve_classes(annotations, seed=number)
    said = before.by_method.set_index("task").reindex(truth.index)

    def accuracy(method):
        labels = said[method] if method in said else said["majority"]
        return float(np.where(labels.isna(), base, labels == truth).mean())

    asked = [task for task in before.ask(ask) if task in truth.index]
    gold = pd.DataFrame({"task": asked, "label": truth[asked].to_numpy()})
    after = resolve_classes(annotations, gold=gold, seed=number)
    return Draw(
        known=len(truth),
        majority=float(base.mean()),
        without=accuracy("majority"),
        given=accuracy(after.method),
        models=tuple(accuracy(name) for name in MODELS),
        method=after.method,
    )


def cell(name, crowd, size, draws):
    """Return a row of the means over draws."""
    all_draws = [one_draw(crowd, size, number) for number in range(draws)]
    base = np.mean([each.majority for each in all_draws])
    models = np.mean([each.models for each in all_draws], axis=0)
    return {
        "crowd": name,
        "annotations": size,
        "known": all_draws[0].known,
        "majority": 100 * base,
        "without": 100 * (np.mean([each.without for each in all_draws]) - base),
        "with": 100 * (np.mean([each.given for each in all_draws]) - base),
        **{each: 100 * (gain - base) for each, gain in zip(MODELS, models, strict=True)},
        "best": 100 * (models.max() - base),
        "moved": np.mean([each.method != "majority" for each in all_draws]),
    }


def cells_of(job):
    """Return the rows of a crowd."""
    name, draws = job
    simulated = isinstance(name, int)
    crowd = random_crowd(name) if simulated else real_crowd(name)
    label = f"simulated {name}" if simulated else name
    return [cell(label, crowd, size, draws) for size in SIZES]


def failures(cells):
    """Return the cells that fail, by what they fail."""
    large = cells["known"] >= 300
    gains = cells["best"] >= 5
    return {
        "without evidence more than 0.5 below": cells[large & (cells["without"] < -0.5)],
        "with evidence more than 1 below": cells[large & (cells["with"] < -1)],
        "less than 80 % of a gain of 5": cells[gains & (cells["with"] < 0.8 * cells["best"])],
    }


def report(title, cells):
    """Print the means of some cells and those that fail."""
    gains = cells[cells["best"] >= 5]
    print(
        f"\n{title}: {len(cells)} cells. Mean against plain majority: without evidence "
        f"{cells['without'].mean():+.2f}, with {cells['with'].mean():+.2f}, best model "
        f"{cells['best'].clip(lower=0).mean():+.2f}; worst cell {cells['without'].min():+.2f} "
        f"without, {cells['with'].min():+.2f} with."
    )
    if len(gains):
        share = gains["with"].sum() / gains["best"].sum()
        print(f"A model gains 5 points or more in {len(gains)} cells: {share:.0%} of it is had.")
    for what, failed in failures(cells).items():
        print(f"  {what}: {len(failed)} cells")
        if len(failed):
            print(failed.round(1).to_string(index=False))


def main():
    """Measure every cell and print where it fails."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--crowds", type=int, default=60, help="simulated ones")
    options.add_argument("--first", type=int, default=0, help="seed of the first of them")
    options.add_argument("--draws", type=int, default=20)
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--out", type=Path, help="a CSV of all cells")
    chosen = options.parse_args()
    numbers = range(chosen.first, chosen.first + chosen.crowds)
    jobs = [(name, chosen.draws) for name in [*REAL, *numbers]]
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        found = pd.DataFrame([row for rows in pool.map(cells_of, jobs, 1) for row in rows])
    if chosen.out:
        found.round(3).to_csv(chosen.out, index=False)
    real = found["crowd"].isin(REAL)
    print(found[real].round(1).to_string(index=False))
    report("Real crowds", found[real])
    if chosen.crowds:
        report("Simulated crowds", found[~real])
        sound = found[~real & (found["majority"] >= 55)]
        report("Simulated crowds, majority right at least 55 times in 100", sound)


if __name__ == "__main__":
    main()
