"""Majority decides until gold labels show that a model does better, and not before."""

import math
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.consensus.evidence import MAJORITY, TOLERANCE, resolve_classes
from benchmarks.consensus_evidence import cell, random_crowd, real_crowd

annotation_tables = st.lists(
    st.tuples(st.sampled_from("pqrstu"), st.sampled_from("abcde"), st.sampled_from("xyz")),
    max_size=40,
).map(lambda rows: table(*rows))


def table(*rows):
    return pd.DataFrame(rows, columns=["task", "worker", "label"], dtype="str")


def known(labels):
    return pd.DataFrame({"task": list(labels), "label": list(labels.values())}, dtype="str")


def blind_majority(tasks=200, seed=0):
    """Return annotations and truth of a crowd whose errors a model corrects and majority does not.

    Two are good; three of five call everything common, but for a few, and so outvote them.
    """
    rng = np.random.default_rng(seed)
    rows, truth = [], {}
    for number in range(tasks):
        task = f"{number:03d}"
        truth[task] = right = "rare" if rng.random() < 0.4 else "common"
        for worker in ("good 1", "good 2", "good 3"):
            label = right if rng.random() < 0.95 else {"rare": "common", "common": "rare"}[right]
            rows.append((task, worker, label))
        for worker in ("idle 1", "idle 2", "idle 3", "idle 4"):
            rows.append((task, worker, "common" if rng.random() < 0.9 else "rare"))
    return table(*rows), truth


def of(found, model):
    return next(each for each in found.evidence if each.model == model)


def test_without_known_annotations_the_majority_decides_and_the_reason_counts_the_doubtful():
    annotations, _ = blind_majority()
    found = resolve_classes(annotations)
    assert found.method == MAJORITY
    votes = annotations.groupby("task")["label"].agg(
        lambda each: Counter(each).most_common(1)[0][0]
    )
    assert found.labels.set_index("task")["label"].to_dict() == votes.to_dict()
    changed = of(found, "dawid-skene").changed
    assert changed > 40
    assert f"would change {changed} tasks" in found.reason


def test_an_expert_who_sides_with_a_model_moves_the_labels_to_it():
    annotations, truth = blind_majority()
    asked = resolve_classes(annotations).ask(8)
    found = resolve_classes(annotations, gold=known({task: truth[task] for task in asked}))
    assert found.method == "dawid-skene"
    assert "Moved to dawid-skene" in found.reason
    right = found.labels["label"] == found.labels["task"].map(truth)
    assert right.mean() > 0.9 > (found.by_method["majority"] == list(truth.values())).mean()


def test_an_expert_who_sides_with_the_majority_keeps_it():
    annotations, _ = blind_majority()
    before = resolve_classes(annotations)
    majority = before.by_method.set_index("task")["majority"]
    gold = known({task: majority[task] for task in before.ask(20)})
    found = resolve_classes(annotations, gold=gold)
    assert found.method == MAJORITY
    assert of(found, "dawid-skene").losses == of(found, "dawid-skene").asked > 0


def test_the_numbers_of_the_test_are_worked_out_by_hand():
    annotations, _ = blind_majority()
    before = resolve_classes(annotations)
    labels = before.by_method.set_index("task")
    differing = labels.index[labels["dawid-skene"] != labels["majority"]]
    sides = ["dawid-skene"] * 5 + ["majority"] * 3
    gold = {task: labels.loc[task, side] for task, side in zip(differing, sides, strict=False)}
    gold[differing[8]] = "neither"
    agreed = labels.index[labels["dawid-skene"] == labels["majority"]]
    gold[agreed[0]] = "rare"
    got = of(resolve_classes(annotations, gold=known(gold)), "dawid-skene")
    assert (got.changed, got.asked, got.wins, got.losses) == (len(differing), 9, 5, 3)
    assert got.lead == pytest.approx(2)
    assert got.gain == pytest.approx(2 / 9 * len(differing) / 200)
    # Of the changed tasks 8 in 9 tell anything; the lead needed grows with the share at stake.
    stake = len(differing) / 200 * 8 / 9
    assert got.needed == pytest.approx(max(1, stake / (2 * math.e * 0.02)))


def test_whatever_the_truth_and_whenever_one_looks_moving_costs_less_than_the_tolerance():
    worse = np.linspace(0.001, 0.499, 500)
    for share in np.linspace(0.01, 1.0, 100):
        needed = max(1.0, share / (2 * math.e * TOLERANCE))
        # A walk that steps up with probability p < 1/2 ever reaches c with (p / (1 - p)) ** c.
        ever = (worse / (1 - worse)) ** math.ceil(needed - 1e-9)
        cost = share * (1 - 2 * worse) * ever
        # Below 11 points at stake one win is enough, and costs at most a sixth of these.
        assert cost.max() < TOLERANCE


def test_of_two_better_models_the_one_that_gains_more_is_taken():
    annotations, truth = blind_majority()
    found = resolve_classes(annotations, gold=known(truth))
    assert len(found.evidence) == 2
    best = max(found.evidence, key=lambda each: each.wins - each.losses)
    assert found.method == best.model
    # Everything is known, so nothing is estimated.
    labels = found.by_method.set_index("task")
    right = {name: (labels[name] == pd.Series(truth)).mean() for name in labels}
    assert best.gain == pytest.approx(right[best.model] - right["majority"])


def test_the_experts_annotation_is_the_label_of_its_task_even_if_nobody_gave_it():
    annotations = table(("p", "a", "x"), ("p", "b", "x"), ("q", "a", "y"), ("q", "b", "x"))
    labels = resolve_classes(annotations, gold=known({"p": "z", "elsewhere": "x"})).labels
    row = labels.set_index("task").loc["p"]
    assert row[["label", "posterior", "agreed", "method"]].tolist() == ["z", 1.0, 0, "expert"]
    assert labels["task"].tolist() == ["p", "q"]


def test_what_stays_tied_has_no_label_and_is_asked_first_among_the_undisputed():
    annotations = table(
        *[("p", "a", "x"), ("p", "b", "x"), ("q", "a", "x"), ("q", "b", "y")],
        *[("r", "a", "y"), ("r", "b", "y")],
    )
    found = resolve_classes(annotations)
    row = found.labels.set_index("task").loc["q"]
    assert pd.isna(row["label"])
    assert (row["method"], row["tied"], row["agreed"]) == ("tied", True, 0)
    assert found.ask(1) == ["q"]


def test_single_annotations_are_returned_and_no_model_is_consulted():
    annotations = table(("p", "a", "x"), ("q", "b", "y"))
    found = resolve_classes(annotations, gold=known({"p": "x"}))
    assert found.labels["label"].tolist() == ["x", "y"]
    assert found.evidence == ()
    assert "No task has two annotations" in found.reason


def test_tasks_are_asked_once_in_an_order_that_goes_on_where_it_ended():
    annotations, truth = blind_majority()
    whole = resolve_classes(annotations).ask(1000)
    assert sorted(whole) == sorted(truth)
    assert resolve_classes(annotations).ask(0) == []
    gold = known({task: truth[task] for task in whole[:5]})
    assert resolve_classes(annotations, gold=gold).ask(10) == whole[5:15]
    assert resolve_classes(annotations, seed=1).ask(10) != whole[:10]


def test_those_asked_are_a_fair_sample_of_the_disputed():
    annotations, truth = blind_majority(tasks=120)
    found = resolve_classes(annotations)
    labels = found.by_method.set_index("task")
    disputed = labels.index[(labels["dawid-skene"] != labels["majority"])]
    wins = (labels.loc[disputed, "dawid-skene"] == pd.Series(truth)[disputed]).mean()
    samples = []
    counts = Counter()
    for seed in range(200):
        asked = resolve_classes(annotations, seed=seed).ask(10)
        counts.update(asked)
        mine = [task for task in asked if task in set(disputed)]
        samples += [labels.loc[task, "dawid-skene"] == truth[task] for task in mine]
    # Standard error of 2,000 draws of a share: at most 0.011.
    assert np.mean(samples) == pytest.approx(wins, abs=0.04)
    expected = 2000 / len(counts)
    assert all(abs(count - expected) < 5 * math.sqrt(expected) for count in counts.values())


def test_quality_has_an_interval_and_known_annotations_correct_it():
    annotations, truth = blind_majority()
    before = resolve_classes(annotations).workers.set_index("worker")
    after = resolve_classes(annotations, gold=known(truth)).workers.set_index("worker")
    assert before.loc["good 1", "quality"] < before.loc["idle 1", "quality"]
    assert after.loc["good 1", "quality"] > 0.9 > after.loc["idle 1", "quality"]
    for each in (before, after):
        assert ((each["low"] <= each["quality"]) & (each["quality"] <= each["high"])).all()
        assert (each["low"] < each["high"]).all()
    alone = resolve_classes(table(("p", "a", "x"))).workers.iloc[0]
    assert math.isnan(alone["quality"])
    assert (alone["low"], alone["high"], alone["compared"]) == (0, 1, 0)


@settings(deadline=None, max_examples=60)
@given(annotation_tables, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(annotations, random):
    counted = annotations.drop_duplicates(["task", "worker"], keep="last")
    order = list(range(len(counted)))
    random.shuffle(order)
    one, other = resolve_classes(counted), resolve_classes(counted.iloc[order])
    pd.testing.assert_frame_equal(one.labels, other.labels)
    pd.testing.assert_frame_equal(one.workers, other.workers)
    assert (one.method, one.reason, one.queue) == (other.method, other.reason, other.queue)


@settings(deadline=None, max_examples=60)
@given(annotation_tables, annotation_tables)
def test_every_task_gets_one_row_and_a_label_that_somebody_gave(annotations, gold):
    gold = gold[["task", "label"]].drop_duplicates("task")
    labels = resolve_classes(annotations, gold=gold).labels
    assert labels["task"].tolist() == sorted(set(annotations["task"]))
    given_labels = annotations.groupby("task")["label"].agg(set)
    for row in labels.to_dict("records"):
        if row["method"] == "expert":
            assert row["label"] == gold.set_index("task").loc[row["task"], "label"]
        elif row["tied"]:
            assert pd.isna(row["label"])
        else:
            assert row["label"] in given_labels[row["task"]]
        assert 0 < row["posterior"] <= 1
        assert 0 <= row["agreed"] <= row["annotations"]


def test_more_classes_and_workers_than_a_model_can_hold_leave_it_out():
    rows = [(f"t{n}", f"w{n % 3}", f"class {n}") for n in range(6000)]
    rows += [(f"t{n}", f"w{(n + 1) % 3}", f"class {n}") for n in range(6000)]
    found = resolve_classes(table(*rows))
    assert "6000 classes are too many" in found.reason
    assert [each.model for each in found.evidence] == ["one-coin"]
    assert not found.labels["tied"].any()


def test_a_few_annotations_take_a_fraction_of_the_time_of_many():
    def spent(tasks):
        rows = [(f"t{n}", f"w{w}", "xyz"[(n * w) % 3]) for n in range(tasks) for w in range(3)]
        annotations, times = table(*rows), []
        for _ in range(5):
            start = time.process_time()
            resolve_classes(annotations)
            times.append(time.process_time() - start)
        return min(times)

    spent(7)
    assert spent(7) < spent(700)


REAL_CELLS = [(name, size) for name in ("CF", "barzan", "bluebirds") for size in ("3", "all")]


@pytest.mark.parametrize(("name", "size"), [*REAL_CELLS, ("ZenCrowd_in", "2"), ("CF", "adaptive")])
def test_public_crowds_never_lose_and_evidence_brings_the_gain(public, name, size):
    crowd = real_crowd(name, public("crowd") / "canonical")
    row = cell(name, crowd, size, 6)
    if row["known"] >= 300:
        assert row["without"] > -0.5
        assert row["with"] > -1
    if row["best"] >= 5:
        assert row["with"] >= 0.8 * row["best"]


@pytest.mark.long
def test_simulated_crowds_of_random_make_gain_in_the_mean_and_lose_nowhere():
    rows = [cell(seed, random_crowd(seed), size, 4) for seed in range(12) for size in ("2", "5")]
    cells = pd.DataFrame(rows)
    assert cells["without"].min() > -0.5
    assert cells["with"].min() > -1
    assert cells["with"].mean() > cells["without"].mean() > 0
    gains = cells[cells["best"] >= 5]
    assert gains["with"].sum() > 0.8 * gains["best"].sum()


def test_a_method_that_is_asked_for_decides_whatever_the_evidence():
    annotations, truth = blind_majority()
    found = resolve_classes(annotations, method="dawid-skene")
    assert (found.method, found.reason) == ("dawid-skene", "dawid-skene was requested.")
    assert (found.labels["label"] == found.labels["task"].map(truth)).mean() > 0.9
    kept = resolve_classes(annotations, gold=known(truth), method=MAJORITY)
    assert (kept.method, kept.reason) == (MAJORITY, "majority was requested.")
    single = resolve_classes(table(("p", "a", "x"), ("q", "a", "y")), method="dawid-skene")
    assert single.method == MAJORITY
    assert "No task has two annotations" in single.reason
