"""The record holds merged rounds; its ground truth is not the consensus of its own annotations."""

from datetime import UTC, datetime

import pytest

from annotation_platform.backtesting.backtest import backtest
from annotation_platform.backtesting.reading import read_record
from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.labeling.assignment_plan import Assignment, AssignmentPlan
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.policy import LabelingPolicy, Policy
from tests.core.backtesting.past import CAT, DOG, ONE, ONTOLOGY, TWO, begin, image_of

TODAY = Policy(
    ontology=ONTOLOGY, labeling=LabelingPolicy(annotations_per_task=2, gold_origins=("expert",))
)
BOTH_CAT = {"ann": [CAT], "ben": [CAT]}


@pytest.fixture
def past(tmp_path):
    return begin(tmp_path)


def truths(record):
    """Return ``{(round, image): (source, class, weight)}``."""
    rows = record.truth[["round_id", "image_id", "source", "class_name", "weight"]]
    return {(row[0], row[1]): tuple(row[2:]) for row in rows.itertuples(index=False, name=None)}


def test_what_the_annotations_came_to_is_no_truth(past):
    past.merge(ONE, {"a": BOTH_CAT, "b": BOTH_CAT})
    past.review(ONE, {"a": ("undisputed", [CAT]), "b": ("undisputed", [CAT])})
    record = read_record(past.lake, TODAY)
    assert record.truth.empty
    with pytest.raises(DataError, match=r"labeling\.gold_share.*review\.sample_share"):
        backtest(record, TODAY, TODAY)


def test_labels_that_landed_from_a_known_origin_are_gold(past):
    past.merge(ONE, {"a": BOTH_CAT, "b": BOTH_CAT})
    past.land_known(ONE, {"a": [DOG]})
    assert truths(read_record(past.lake, TODAY)) == {(ONE, image_of("a")): ("gold", "dog", 1.0)}
    no_gold = TODAY.model_copy(update={"labeling": LabelingPolicy()})
    assert read_record(past.lake, no_gold).truth.empty


def test_a_review_in_another_round_is_gold_and_a_later_round_is_truth(past):
    past.merge(ONE, {"a": BOTH_CAT, "b": BOTH_CAT})
    past.review(ONE, {"a": ("fixed", [DOG]), "b": ("rejected", [CAT])})
    past.merge(TWO, {"b": BOTH_CAT}, gold={"a": BOTH_CAT})
    past.review(TWO, {"b": ("undisputed", [DOG])})
    assert truths(read_record(past.lake, TODAY)) == {
        (ONE, image_of("b")): ("later", "dog", 1.0),
        (TWO, image_of("a")): ("gold", "dog", 1.0),
    }
    only = read_record(past.lake, TODAY, sources=["gold"])
    assert set(truths(only)) == {(TWO, image_of("a"))}


def test_reviews_of_disputes_alone_are_no_truth_and_the_reason_is_told(past):
    past.merge(ONE, {"a": {"ann": [CAT], "ben": [DOG]}, "b": BOTH_CAT})
    past.review(ONE, {"a": ("fixed", [DOG]), "b": ("undisputed", [CAT])})
    record = read_record(past.lake, TODAY)
    assert record.truth.empty
    with pytest.raises(DataError, match="Reviewers of round-0001 saw only disputed images"):
        backtest(record, TODAY, TODAY)


def test_a_sampled_image_stands_for_all_that_were_not_in_dispute(past):
    from annotation_platform.labeling.review_sampling import review_sample

    agreed = [f"i{number}" for number in range(8)]
    merged = past.merge(ONE, {"a": {"ann": [CAT], "ben": [DOG]}, **dict.fromkeys(agreed, BOTH_CAT)})
    unsettled = set(merged.conflicts.loc[~merged.conflicts["settled"], "image_id"])
    plan = review_sample(ONE, merged.labels, unsettled, TODAY, size=2)
    drawn = {name for name in agreed if image_of(name) in set(plan.sample["item"])}
    decided = {name: ("accepted" if name in drawn else "undisputed", [CAT]) for name in agreed}
    past.review(ONE, {"a": ("fixed", [DOG]), **decided}, sampled=drawn)
    found = truths(read_record(past.lake, TODAY))
    assert found == {
        (ONE, image_of("a")): ("review", "dog", 1.0),
        **{(ONE, image_of(name)): ("review", "cat", 4.0) for name in drawn},
    }
    other = TODAY.model_copy(update={"seed": 9})
    record = read_record(past.lake, other)
    assert record.truth.empty
    assert "seed of the review sample" in record.notes[0]


def test_annotations_that_were_asked_for_since_are_of_later_waves(past):
    past.merge(ONE, {"a": {"ann": [CAT], "ben": [DOG], "cem": [CAT]}, "b": BOTH_CAT})
    past.land_known(ONE, {"a": [CAT], "b": [CAT]})
    plan = AssignmentPlan(past.lake.store, ONE)
    now = datetime.now(UTC)

    def places(name, *numbers, fills_assignment=None):
        return [
            Assignment(image_of(name), number, "", "label", "", False, fills_assignment or number)
            for number in numbers
        ]

    known = plan.add(plan.read(), [*places("a", 1), *places("b", 1)], guideline="", now=now)
    # The second of b replaces its first, the others are asked for because those did not margin.
    further = [*places("a", 2), *places("b", 2, fills_assignment=1)]
    known = plan.add(known, further, guideline="", now=now)
    plan.add(known, places("a", 3), guideline="", now=now)
    labels = read_record(past.lake, TODAY).labels
    batches = dict(zip(labels["annotation_id"], labels["batch"], strict=True))
    assert batches == {
        "round-0001/a/ann": 0,
        "round-0001/a/ben": 1,
        "round-0001/a/cem": 2,
        "round-0001/b/ann": 0,
        "round-0001/b/ben": 0,
    }


def test_rounds_are_named_or_all_that_are_merged(past):
    past.merge(ONE, {"a": BOTH_CAT})
    past.merge(TWO, {"b": BOTH_CAT})
    assert read_record(past.lake, TODAY).rounds == [ONE, TWO]
    assert read_record(past.lake, TODAY, rounds=[TWO]).rounds == [TWO]
    with pytest.raises(DataError, match=r"round-0007\. Existing rounds: round-0001, round-0002\."):
        read_record(past.lake, TODAY, rounds=["round-0007"])


def test_a_round_that_is_not_merged_or_was_cancelled_is_refused_by_name(past):
    with pytest.raises(NotReadyError, match="No round exists yet"):
        read_record(past.lake, TODAY)
    past.merge(ONE, {"a": BOTH_CAT})
    past.merge(TWO, {"b": BOTH_CAT})
    past.lake.store.create("manifests/round-0003.json", b"[]")
    with pytest.raises(NotReadyError, match=r"round-0003 is not merged yet.*Merged rounds"):
        read_record(past.lake, TODAY, rounds=[ONE, "round-0003"])
    now = datetime.now(UTC)
    RoundRecord(past.lake.store, TWO).write(
        "cancelled", reason="a mistake", by="ann", now=now, entries=0
    )
    with pytest.raises(DataError, match="round-0002 was cancelled by ann: a mistake"):
        read_record(past.lake, TODAY, rounds=[TWO])
    assert read_record(past.lake, TODAY).rounds == [ONE]
