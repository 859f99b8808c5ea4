"""A round that real assets merged and released is replayed under another policy."""

import pytest

from annotation_platform.backtesting.backtest import backtest
from annotation_platform.backtesting.reading import read_record

ONE = "round-0001"


def test_a_released_round_is_replayed_against_what_reviewers_decided(platform):
    platform.land(1)
    platform.change_policy(review={"sample_share": 1.0}, labeling={"annotations_per_task": 3})
    assert platform.start_round().success
    platform.annotate(ONE)
    assert platform.merge(ONE).success
    assert platform.run("release_round", ONE, only=["reviewed_labels"]).success
    before = sorted(platform.lake.store.list("tables"))

    today = platform.policy
    record = read_record(platform.lake, today)
    once = today.labeling.model_copy(update={"annotations_per_task": 1})
    other = today.model_copy(update={"labeling": once})
    found = backtest(record, today, other, draws=4)

    images = record.labels["image_id"].nunique()
    assert found.rounds == [ONE]
    assert (found.images, found.truth) == (images, {"review": images})
    annotations, accuracy = found.figures["annotations"], found.figures["objects_f1"]
    assert (annotations.recorded.value, annotations.policy.value) == (3 * images, images)
    # The expert drew what is really there; three people find more of it than one.
    assert 0.5 < accuracy.policy.value < accuracy.recorded.value
    assert found.figures["review_rate"].recorded.value == 1
    # Each review takes the simulated expert 20 seconds.
    spent = record.labels.drop_duplicates("annotation_id")["lead_time_seconds"].sum()
    assert found.figures["seconds"].recorded.value == pytest.approx(spent + 20 * images)
    # Nothing was written.
    assert sorted(platform.lake.store.list("tables")) == before
