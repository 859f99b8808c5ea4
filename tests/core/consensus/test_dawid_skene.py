"""The two models of workers' errors: right on known cases, finite on every other."""

import math
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.consensus.annotations import TIED, encode
from annotation_platform.consensus.dawid_skene import dawid_skene
from annotation_platform.consensus.one_coin import one_coin

PLAIN = {"diagonal": 0.0, "off_diagonal": 0.0, "class_prior": 0.0, "tolerance": 1e-6}


def table(rows):
    frame = pd.DataFrame(rows, columns=["task", "worker", "label"], dtype="str")
    return frame.drop_duplicates(["task", "worker"], keep="last")


annotation_tables = st.lists(
    st.tuples(st.sampled_from("pqrst"), st.sampled_from("abcd"), st.sampled_from("xyz")),
    min_size=1,
    max_size=40,
).map(table)


def simulate(confusions, *, tasks, on_each, seed=0, rates=None):
    """Return annotations and the truth; ``confusions`` is ``(workers, classes, classes)``."""
    rng = np.random.default_rng(seed)
    confusions = np.asarray(confusions)
    workers, classes, _ = confusions.shape
    truth = rng.choice(classes, tasks, p=rates)
    rows = []
    for task, right in enumerate(truth):
        for worker in rng.choice(workers, on_each, replace=False):
            label = rng.choice(classes, p=confusions[worker, right])
            rows.append((f"{task:06d}", f"w{worker:03d}", str(label)))
    return pd.DataFrame(rows, columns=["task", "worker", "label"]), truth.astype(str)


def names_of(votes, label):
    return np.where(label == TIED, None, votes.classes[np.maximum(label, 0)])


def by_the_book(annotations, *, diagonal, off_diagonal, class_prior, iterations):
    """Return the posteriors by task and class, in plain loops over probabilities."""
    classes = sorted(set(annotations["label"]))
    by_task = defaultdict(list)
    for task, worker, label in annotations.itertuples(index=False):
        by_task[task].append((worker, label))
    posterior = {
        task: {c: sum(label == c for _, label in votes) / len(votes) for c in classes}
        for task, votes in by_task.items()
    }
    other = off_diagonal / (len(classes) - 1)
    for _ in range(iterations):
        count = defaultdict(float)
        for task, votes in by_task.items():
            for worker, label in votes:
                for c in classes:
                    count[worker, c, label] += posterior[task][c]
        rate = {c: sum(p[c] for p in posterior.values()) + class_prior for c in classes}
        for task, votes in by_task.items():
            joint = {}
            for c in classes:
                joint[c] = rate[c]
                for worker, label in votes:
                    prior = {given: diagonal if given == c else other for given in classes}
                    row = {given: count[worker, c, given] + prior[given] for given in classes}
                    joint[c] *= row[label] / sum(row.values())
            posterior[task] = {c: joint[c] / sum(joint.values()) for c in classes}
    return np.array([[posterior[task][c] for c in classes] for task in sorted(by_task)])


@settings(deadline=None, max_examples=40)
@given(annotation_tables, st.integers(1, 4))
def test_dawid_skene_equals_the_formula_in_plain_loops(annotations, iterations):
    if annotations["label"].nunique() == 1:
        return
    options = {"diagonal": 3.0, "off_diagonal": 1.0, "class_prior": 1.0, "iterations": iterations}
    expected = by_the_book(annotations, **options)
    found = dawid_skene(encode(annotations), **options, tolerance=0)
    assert found.posterior == pytest.approx(expected)
    assert found.iterations == iterations


def test_one_coin_makes_its_first_step_as_worked_out_by_hand():
    annotations = table([("p", "a", "x"), ("p", "b", "x"), ("q", "a", "x"), ("q", "b", "y")])
    found = one_coin(encode(annotations), iterations=1)
    # Shares: x of p 1, of q 1/2 each, so both workers have 1.5 of 2; six annotations of the mean
    # (3 + 6 * 0.75) / (4 + 6) = 0.75 leave that as it is.
    assert found.accuracy == pytest.approx([0.75, 0.75])
    # p: odds (0.75 / 0.25)² = 9 to 1. q: 1 to 1.
    assert found.posterior == pytest.approx([0.9, 0.5])
    assert found.label.tolist() == [0, TIED]


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("CF", 0.83),
        ("SP", 0.9148),
        ("ZenCrowd_in", 0.7598),
        ("barzan", 0.712),
        ("bluebirds", 0.8981),
    ],
)
def test_without_priors_public_crowds_give_the_reference_accuracy(public, name, accuracy):
    folder = public("crowd") / "canonical"
    annotations = pd.read_csv(folder / f"{name}.labels.csv", dtype=str)
    truth = pd.read_csv(folder / f"{name}.truth.csv", dtype=str).set_index("task")["label"]
    votes = encode(annotations)
    found = pd.Series(names_of(votes, dawid_skene(votes, **PLAIN).label), index=votes.tasks)
    # Of CF it takes one task in a hundred more or less, by when EM stops.
    assert (found[truth.index] == truth).mean() == pytest.approx(accuracy, abs=0.01)


def test_the_errors_of_simulated_workers_are_recovered():
    good = [[0.9, 0.07, 0.03], [0.1, 0.8, 0.1], [0.02, 0.08, 0.9]]
    mixes = [[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.05, 0.05, 0.9]]
    confusions = [good, good, mixes, good, mixes]
    annotations, truth = simulate(confusions, tasks=2000, on_each=4, rates=[0.5, 0.3, 0.2])
    votes = encode(annotations)
    found = dawid_skene(votes)
    assert found.converged
    assert found.confusion == pytest.approx(np.array(confusions), abs=0.06)
    assert found.class_rates == pytest.approx([0.5, 0.3, 0.2], abs=0.04)
    assert (names_of(votes, found.label) == truth).mean() > 0.9


def test_one_coin_recovers_accuracies_and_turns_adversaries_round():
    rates = [0.9, 0.8, 0.7, 0.9, 0.8, 0.1]
    confusions = [[[rate, 1 - rate], [1 - rate, rate]] for rate in rates]
    annotations, truth = simulate(confusions, tasks=1500, on_each=4)
    votes = encode(annotations)
    found = one_coin(votes)
    assert found.accuracy == pytest.approx(rates, abs=0.05)
    assert (names_of(votes, found.label) == truth).mean() > 0.9


def test_classes_keep_their_names_where_most_annotations_are_right():
    flip = [[0.1, 0.9], [0.9, 0.1]]
    keep = [[0.8, 0.2], [0.2, 0.8]]
    annotations, truth = simulate([keep] * 7 + [flip] * 3, tasks=600, on_each=7, seed=2)
    votes = encode(annotations)
    for label in (dawid_skene(votes).label, one_coin(votes).label):
        assert (names_of(votes, label) == truth).mean() > 0.9


def spread(tasks, workers, label):
    return [(f"t{t}", f"w{w}", label(t, w)) for t in range(tasks) for w in range(workers)]


EDGES = {
    "one annotation": [("t", "w", "x")],
    "one worker": spread(30, 1, lambda t, _w: "xy"[t % 2]),
    "one task": spread(1, 30, lambda _t, w: "xy"[w % 3 == 0]),
    "a spammer": spread(40, 3, lambda t, w: "x" if w == 0 else "xy"[t % 2]),
    "spammers alone": spread(40, 4, lambda _t, w: "xy"[w % 2]),
    "an adversary": spread(40, 4, lambda t, w: "xy"[(t + (w == 0)) % 2]),
    "two crowds that share no task": spread(20, 3, lambda t, _w: "xy"[t % 2])
    + [
        (f"other {t}", f"other {w}", label)
        for t, w, label in spread(20, 3, lambda t, _w: "yz"[t % 2])
    ],
    "all tied": spread(40, 2, lambda t, w: "xy"[(t + w) % 2]),
    "everybody says something else": spread(10, 5, lambda _t, w: "vwxyz"[w]),
    "one class": spread(10, 3, lambda _t, _w: "x"),
    "thousands agree against one": spread(1, 3000, lambda _t, w: "xy"[w == 0]),
}


@pytest.mark.parametrize("rows", EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("options", [{}, PLAIN], ids=["priors", "no priors"])
def test_every_edge_case_stays_finite_and_says_whether_it_converged(rows, options):
    votes = encode(table(rows))
    full, coin = dawid_skene(votes, **options), one_coin(votes)
    for each in (full.posterior, full.confusion, full.class_rates, coin.posterior, coin.accuracy):
        assert np.isfinite(each).all()
        assert ((each >= 0) & (each <= 1 + 1e-12)).all()
    assert full.posterior.sum(axis=1) == pytest.approx(1)
    assert math.isfinite(full.log_likelihood)
    for model in (full, coin):
        assert isinstance(model.converged, bool)
        assert model.iterations <= 200


def test_what_is_level_is_tied_and_not_the_first_of_the_alphabet():
    votes = encode(table(EDGES["all tied"]))
    assert (dawid_skene(votes).label == TIED).all()
    assert (one_coin(votes).label == TIED).all()


def test_too_few_iterations_are_told():
    keep = [[0.7, 0.3], [0.3, 0.7]]
    votes = encode(simulate([keep] * 6, tasks=200, on_each=3)[0])
    for fit in (dawid_skene, one_coin):
        assert not fit(votes, iterations=1).converged
        assert fit(votes).converged


@settings(deadline=None, max_examples=40)
@given(annotation_tables, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_the_names_of_workers_matter(annotations, random):
    order = list(range(len(annotations)))
    random.shuffle(order)
    other = annotations.iloc[order].replace({"worker": dict(zip("abcd", "dbca", strict=True))})
    for fit in (dawid_skene, one_coin):
        first, second = fit(encode(annotations)), fit(encode(other))
        assert second.posterior == pytest.approx(first.posterior, abs=1e-6)
        assert second.label.tolist() == first.label.tolist()


def test_a_hundred_thousand_tasks():
    rng = np.random.default_rng(0)
    task, worker = np.repeat(np.arange(100_000), 3), rng.integers(0, 500, 300_000)
    right = rng.random(300_000) < 0.8
    label = (task + np.where(right, 0, rng.integers(1, 4, 300_000))) % 4
    votes = encode(pd.DataFrame({"task": task, "worker": worker, "label": label}))
    for fit in (dawid_skene, one_coin):
        found = fit(votes)
        assert found.converged
        assert np.isfinite(found.posterior).all()
