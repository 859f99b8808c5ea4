"""The figures of another policy come with an interval, or the backtest is refused."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from annotation_platform.backtesting.backtest import backtest, with_cost
from annotation_platform.backtesting.record import Record
from annotation_platform.backtesting.truth import COLUMNS
from annotation_platform.errors import DataError
from annotation_platform.policy import ConsensusPolicy, LabelingPolicy, Policy, ReviewPolicy
from annotation_platform.schema.shapes import NOTHING, Label
from benchmarks.backtest import choices_record, halvings
from tests.core.backtesting.past import CAT, DOG, ONE, ONTOLOGY, human_labels, image_of

FAR = Label.box("cat", 200, 100, 260, 180)


def crowd(tasks, annotations, skill, seed=0):
    """Return a record of people who are each right with the same chance about day or night."""
    rng = np.random.default_rng(seed)
    true = rng.choice(["day", "night"], tasks)
    other = {"day": "night", "night": "day"}
    rows = [
        (f"t{task:04d}", f"p{person}", name if rng.random() < skill else other[name])
        for task, name in enumerate(true)
        for person in range(annotations)
    ]
    table = pd.DataFrame(rows, columns=["task", "worker", "label"])
    return choices_record(table, pd.Series(true, index=[f"t{task:04d}" for task in range(tasks)]))


def drawn(annotations, truth, *, gold=None):
    """Return a record of boxes: ``{image: {person: [labels]}}``, ``{image: [labels]}``."""
    labels = [human_labels(ONE, annotations)]
    labels += [human_labels(ONE, gold, purpose="gold")] if gold else []
    rows = [
        {
            "round_id": ONE,
            "image_id": image_of(name),
            "source": "gold",
            "weight": 1.0,
            "label_id": f"{image_of(name)}:{number}",
            **vars(label),
        }
        for name, known in truth.items()
        for number, label in enumerate(known or [NOTHING])
    ]
    sizes = pd.DataFrame({"image_id": [], "width": [], "height": []})
    together = pd.concat(labels, ignore_index=True).assign(batch=0)
    return Record(together, pd.DataFrame(rows, columns=COLUMNS), sizes, ONTOLOGY)


def policy(record, **labeling):
    return Policy(ontology=record.ontology, labeling=LabelingPolicy(**labeling))


def test_the_accuracy_of_three_annotations_of_independent_people_is_the_binomials():
    record = crowd(600, 5, 0.75)
    found = backtest(record, policy(record), policy(record, annotations_per_task=3), draws=10)
    figure = found.figures["choices_right"]
    three, five = (
        0.75**3 + 3 * 0.75**2 * 0.25,
        sum(math.comb(5, right) * 0.75**right * 0.25 ** (5 - right) for right in (3, 4, 5)),
    )
    assert figure.policy.low < three < figure.policy.high
    assert figure.recorded.low < five < figure.recorded.high
    assert figure.difference.low < three - five < figure.difference.high < 0
    # Of 600 tasks a real run would be off by 1.96 deviations of a share, either way, ...
    once = 1.96 * math.sqrt(three * (1 - three) / 600)
    assert figure.rerun.high - figure.rerun.low > 2 * once
    # ... and the prediction by less, as it is of many draws.
    assert figure.policy.high - figure.policy.low < 2 * once


@pytest.mark.long
def test_the_interval_of_the_prediction_covers_what_is_true_of_the_crowd():
    three = 0.7**3 + 3 * 0.7**2 * 0.3
    covered = []
    for seed in range(40):
        record = crowd(60, 5, 0.7, seed)
        found = backtest(record, policy(record), policy(record, annotations_per_task=3), draws=3)
        estimate = found.figures["choices_right"].policy
        covered.append(estimate.low <= three <= estimate.high)
    # Of 40 at 95 % fewer than 34 are one in 300.
    assert sum(covered) >= 34


def test_annotations_seconds_and_cost_are_of_all_images():
    record = crowd(50, 5, 0.8)
    asked = policy(record, annotations_per_task=3)
    found = with_cost(backtest(record, policy(record), asked, draws=3), 36.0)
    annotations, seconds, cost = (
        found.figures[name] for name in ("annotations", "seconds", "cost")
    )
    assert (annotations.recorded.value, annotations.policy.value) == (250, 150)
    assert annotations.policy.low == annotations.policy.high == 150
    assert (seconds.recorded.value, seconds.policy.value) == pytest.approx((2500, 1500))
    assert (cost.recorded.value, cost.policy.value) == pytest.approx((25, 15))
    assert cost.difference.value == pytest.approx(-10)


def test_without_a_price_no_cost_and_without_times_no_seconds_are_told():
    record = crowd(20, 3, 0.8)
    bare = Record(
        record.labels.assign(lead_time_seconds=math.nan),
        record.truth,
        record.images,
        record.ontology,
    )
    found = backtest(bare, policy(record), policy(record, annotations_per_task=2))
    found = with_cost(found, 9)
    assert not {"seconds", "cost"} & set(found.figures)
    assert found.figures["annotations"].policy.value == 40


@pytest.mark.long
def test_stopping_at_a_lead_asks_more_about_what_is_hard():
    record = crowd(200, 7, 0.7)
    asked = policy(record, vote_margin=2, maximum_annotations=7)
    found = backtest(record, policy(record), asked, draws=5).figures
    # From two on, at most seven: between them, as two of three pairs agree or fewer.
    assert 400 < found["annotations"].policy.value < 1400
    low, high = found["annotations"].policy.low, found["annotations"].policy.high
    assert low < found["annotations"].policy.value < high
    assert found["choices_right"].policy.value > 0.7


def test_the_same_seed_gives_the_same_figures_and_another_seed_others():
    record = crowd(40, 5, 0.7)
    first, again, other = (
        backtest(record, policy(record), policy(record, annotations_per_task=3), draws=3, seed=seed)
        for seed in (4, 4, 5)
    )
    assert first == again
    assert first.figures != other.figures


def test_as_many_annotations_as_there_are_give_what_was_recorded():
    record = crowd(40, 3, 0.7)
    found = backtest(record, policy(record), policy(record, annotations_per_task=3), draws=3)
    for figure in found.figures.values():
        assert figure.policy.value == pytest.approx(figure.recorded.value)
        assert (figure.difference.low, figure.difference.high) == pytest.approx((0, 0))


def test_the_word_of_the_disregarded_is_left_out():
    record = crowd(60, 4, 0.8)
    labels = record.labels
    names = {name: f"annotator-{at:010d}" for at, name in enumerate(labels["annotator"].unique())}
    spammer = names[labels["annotator"].iloc[0]]
    labels = labels.assign(annotator=labels["annotator"].map(names))
    labels["class_name"] = labels["class_name"].mask(labels["annotator"] == spammer, "day")
    spoilt = replace(record, labels=labels)
    without = Policy(
        ontology=record.ontology,
        labeling=LabelingPolicy(annotations_per_task=3),
        consensus=ConsensusPolicy(disregarded=(spammer,)),
    )
    found = backtest(spoilt, policy(record), without, method="majority", draws=2)
    alone = replace(record, labels=labels[labels["annotator"] != spammer].reset_index(drop=True))
    three = policy(record, annotations_per_task=3)
    wanted = backtest(alone, policy(record), three, method="majority", draws=2)
    assert found.figures["choices_right"].policy == wanted.figures["choices_right"].policy
    assert found.figures["annotations"].recorded.value == 240
    assert found.figures["annotations"].policy.value == 180
    with pytest.raises(DataError, match="needs more annotations than were recorded"):
        backtest(spoilt, policy(record), without.model_copy(update={
            "labeling": LabelingPolicy(annotations_per_task=4)}))  # fmt: skip


def test_objects_are_counted_by_f1_with_a_hand_computed_case():
    annotations = {
        "a": {"ann": [CAT], "ben": [CAT]},  # right
        "b": {"ann": [CAT, FAR], "ben": [CAT, FAR]},  # one too many
        "c": {"ann": [DOG], "ben": [DOG]},  # another class: one wrong, one missed
        "d": {"ann": [], "ben": []},  # nothing there, nothing found
        "e": {"ann": [CAT], "ben": [CAT]},  # no ground truth
    }
    record = drawn(annotations, {"a": [CAT], "b": [CAT], "c": [CAT], "d": []})
    found = backtest(record, policy(record), policy(record, annotations_per_task=1), draws=2)
    # 2 hits; 1 + 2 + 1 found and 3 true.
    assert found.figures["objects_f1"].recorded.value == pytest.approx(2 * 2 / 7)
    assert found.truth == {"gold": 4}
    assert found.images == 5
    assert "choices_right" not in found.figures


def test_images_weigh_by_one_by_the_chance_that_their_truth_is_known():
    annotations = {"a": {"ann": [CAT], "ben": [CAT]}, "b": {"ann": [DOG], "ben": [DOG]}}
    record = drawn(annotations, {"a": [CAT], "b": [CAT]})
    weighed = record.truth.assign(weight=[3.0, 1.0])
    record = Record(record.labels, weighed, record.images, record.ontology)
    found = backtest(record, policy(record), policy(record, annotations_per_task=1), draws=1)
    assert found.figures["objects_f1"].recorded.value == pytest.approx(0.75)


def test_known_annotations_say_how_good_labels_are_and_cost_nothing():
    annotations = {"a": {"ann": [CAT], "ben": [CAT]}}
    gold = {"g": {"ann": [DOG], "ben": [DOG]}}
    record = drawn(annotations, {"g": [DOG]}, gold=gold)
    found = backtest(record, policy(record), policy(record, annotations_per_task=1), draws=2)
    assert found.images == 1
    assert found.figures["annotations"].recorded.value == 2
    assert found.figures["objects_f1"].recorded.value == 1
    # One image shows nothing about others.
    estimate = found.figures["objects_f1"].recorded
    assert (estimate.low, estimate.high) == (0, 1)


def test_the_review_rule_says_what_is_left_out_or_seen_by_a_reviewer():
    """Two people who disagree leave their image open; the reviewer brings back the truth."""
    annotations = {
        "a": {"ann": [CAT], "ben": [CAT]},
        "b": {"ann": [CAT], "ben": [DOG]},
        "c": {"ann": [DOG], "ben": [DOG]},
        "d": {"ann": [CAT], "ben": [CAT]},
    }
    record = drawn(annotations, {name: [CAT] for name in annotations})
    manual = Policy(
        ontology=ONTOLOGY,
        labeling=LabelingPolicy(annotations_per_task=2),
        review=ReviewPolicy(gate="manual"),
    )
    found = backtest(record, policy(record), manual, draws=1).figures
    assert (found["review_rate"].recorded.value, found["review_rate"].policy.value) == (0, 0.25)
    assert (found["left_out_rate"].recorded.value, found["left_out_rate"].policy.value) == (0.25, 0)
    released = found["released_objects_f1"]
    assert released.recorded.value == pytest.approx(2 / 3)
    assert released.policy.value == pytest.approx(3 / 4)
    everything = manual.model_copy(update={"review": ReviewPolicy(gate="manual", sample_share=1)})
    found = backtest(record, policy(record), everything, draws=1).figures
    assert (found["review_rate"].policy.value, found["released_objects_f1"].policy.value) == (1, 1)


def test_another_way_to_decide_classes_can_be_asked_for():
    """Three who know lose to four who mostly say day, unless their errors are modelled."""
    rng = np.random.default_rng(0)
    true = rng.choice(["day", "night"], 200)
    rows = [
        (f"t{task:03d}", person, name)
        for task, right in enumerate(true)
        for person, name in [
            *((f"good {n}", right) for n in range(3)),
            *((f"idle {n}", "day" if rng.random() < 0.9 else "night") for n in range(4)),
        ]
    ]
    truth = pd.Series(true, index=[f"t{task:03d}" for task in range(200)])
    record = choices_record(pd.DataFrame(rows, columns=["task", "worker", "label"]), truth)
    asked = policy(record, annotations_per_task=7)
    found = backtest(record, policy(record), asked, method="dawid-skene", draws=1)
    figure = found.figures["choices_right"]
    assert figure.recorded.value < 0.9
    assert figure.policy.value > 0.95


def test_more_annotations_than_there_are_is_refused_with_what_there_is():
    record = crowd(20, 5, 0.8)
    with pytest.raises(DataError) as refused:
        backtest(record, policy(record), policy(record, annotations_per_task=7))
    assert str(refused.value) == (
        "labeling.annotations_per_task 7 needs more annotations than were recorded on"
        " 20 of 20 tasks: 20 have 5. Set it to 1 to 5."
    )


def test_to_ask_on_beyond_what_there_is_is_refused():
    record = crowd(60, 5, 0.6)
    asked = policy(record, vote_margin=3, maximum_annotations=9)
    with pytest.raises(DataError, match=r"vote_margin 3 with maximum_annotations 9 .* at most 5"):
        backtest(record, policy(record), asked, draws=5)


def test_a_few_tasks_with_too_few_annotations_are_left_out_of_both_and_told():
    record = crowd(40, 3, 0.8)
    few = record.labels["annotation_id"].isin(["t0000/p1", "t0000/p2"])
    fewer = Record(record.labels[~few], record.truth, record.images, record.ontology)
    found = backtest(fewer, policy(record), policy(record, annotations_per_task=2), draws=2)
    assert found.images == 39
    assert found.notes == ["1 of 40 tasks have too few annotations and are left out"]


def test_without_a_truth_nothing_can_be_told():
    record = crowd(10, 3, 0.8)
    blind = Record(record.labels, record.truth.head(0), record.images, record.ontology)
    with pytest.raises(DataError, match="no image has ground truth"):
        backtest(blind, policy(record), policy(record, annotations_per_task=2))


def test_settings_that_would_have_changed_what_people_said_are_named():
    record = crowd(20, 3, 0.8)
    other = policy(record, annotations_per_task=2, preannotate=False, without_predictions_share=0.5)
    found = backtest(record, policy(record), other, draws=1)
    assert found.notes == [
        "not replayed, because they would change annotations: labeling.preannotate,"
        " labeling.without_predictions_share"
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", ["bluebirds", "CF"])
def test_three_annotations_predicted_from_half_a_crowd_are_borne_out_on_the_other_half(
    public, name
):
    public("crowd")
    found = halvings(name, 3, count=25, draws=3)
    # Of 25 at 95 % fewer than 21 are less than one in 100.
    assert found["both"].sum() >= 21
    assert found["run"].sum() >= 21
    # The interval says something: it is no wider than two halves differ by chance.
    spread = (found["predicted"] - found["real"]).std()
    assert found["width"].mean() < 6 * spread
