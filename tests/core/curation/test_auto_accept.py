import math

import numpy as np
import pandas as pd
import pytest

from annotation_platform.curation.auto_accept import AcceptanceCandidates, accept_labels
from annotation_platform.curation.rechecks import contradicted
from annotation_platform.curation.units import Audit, audited_units, expected_units
from annotation_platform.errors import TableError
from annotation_platform.policy import AutoAcceptPolicy

ROUND = "round-0001"
COLUMNS = ["image_id", "class_name", "x1", "y1", "x2", "y2"]
HERE, THERE = (10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 150.0, 150.0)
POLICY = AutoAcceptPolicy(enabled=True, class_alpha=0.15)


def image(number):
    return f"{number:064x}"


def predictions_of(*rows):
    table = pd.DataFrame(
        [[image(number), name, *box, score] for number, name, box, score in rows],
        columns=[*COLUMNS, "score"],
    )
    return table.assign(weights_sha256="a" * 64, profile="serving", calibration="c")


def labels_of(*rows):
    return pd.DataFrame([[image(n), name, *box] for n, name, box in rows], columns=COLUMNS)


def test_the_confidence_is_the_share_of_labels_that_the_probabilities_expect_to_be_right():
    predictions = predictions_of(
        (0, "cat", HERE, 0.9), (0, "dog", THERE, 0.8), (0, "cat", THERE, 0.2), (1, "cat", HERE, 0.4)
    )
    images = [image(0), image(1), image(2)]
    units = expected_units(predictions, images, ["cat", "dog"], minimum_probability=0.5)
    # Wrong: 0.1 and 0.2; missed: 0.2. The other images have no label.
    assert units.confidence.tolist() == pytest.approx([1 - 0.5 / 2, np.nan, np.nan], nan_ok=True)
    assert units.labels.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert units.errors[0].tolist() == pytest.approx([0.1 + 0.2, 0.2])


def test_a_score_that_is_no_number_keeps_its_image_from_being_accepted():
    predictions = predictions_of((0, "cat", HERE, 0.99), (0, "cat", THERE, np.nan))
    units = expected_units(predictions, [image(0)], ["cat"], minimum_probability=0.5)
    assert np.isnan(units.confidence[0])


@pytest.mark.parametrize(
    ("annotated", "errors"),
    [
        pytest.param([(0, "cat", HERE)], [0, 0], id="as predicted"),
        pytest.param([], [1, 0], id="nothing there"),
        pytest.param([(0, "dog", HERE)], [1, 1], id="another class: wrong and missed"),
        pytest.param([(0, "cat", THERE)], [2, 0], id="another location: wrong and missed"),
        pytest.param([(0, "cat", HERE), (0, "cat", THERE)], [1, 0], id="one more"),
        pytest.param([(0, "cat", HERE), (0, "owl", THERE)], [1, 0], id="never predicted"),
    ],
)
def test_wrong_and_missed_labels_are_counted_by_class(annotated, errors):
    predictions = predictions_of((0, "cat", HERE, 0.9), (1, "dog", HERE, 0.9))
    audit = Audit([image(0)], labels_of(*annotated))
    found = audited_units(predictions, audit, ["cat", "dog"], minimum_probability=0.5)
    assert found.errors.tolist() == [errors]


def a_round(rng, *, images=1400, audited=500, error=0.004, calibrated=True):
    """Return predictions, pool and audit of images with four objects each."""
    rows, annotated = [], []
    for number in range(images):
        for number_ in range(4):
            box = (60.0 * number_, 10.0, 60.0 * number_ + 40, 50.0)
            chance = 0.995 if rng.random() < 0.9 else 0.7
            rows.append((number, "cat", box, chance))
            if rng.random() < (chance if calibrated else error):
                annotated.append((number, "cat", box))
    order = rng.permutation(images)
    drawn = [image(number) for number in order[:audited]]
    audit = Audit(drawn, labels_of(*[row for row in annotated if image(row[0]) in set(drawn)]))
    return predictions_of(*rows), [image(number) for number in range(images)], audit


def accept(predictions, pool, audit, *, features=None, policy=POLICY):
    return accept_labels(
        AcceptanceCandidates(predictions, pool, audit, features or {}),
        round_id=ROUND,
        policy=policy,
        seconds_per_image=12.0,
        rng=np.random.default_rng(1),
    )


@pytest.fixture(scope="module")
def good_round():
    return a_round(np.random.default_rng(0))


def test_certified_images_become_labels_with_the_time_saved(good_round):
    predictions, pool, audit = good_round
    found = accept(predictions, pool, audit)
    assert found.granted
    taken = set(found.labels["image_id"])
    assert taken
    assert not taken & set(audit.images)
    assert taken | set(found.held) | set(audit.images) == set(pool)
    assert not taken & set(found.held)
    # Each accepted image has all four of its labels.
    assert (found.labels["image_id"].value_counts() == 4).all()
    assert set(found.seen_again) <= taken
    assert len(found.seen_again) == math.ceil(0.05 * len(taken))
    marked = found.labels.loc[found.labels["recheck_sample"], "image_id"]
    assert sorted(set(marked)) == found.seen_again
    assert found.seconds_saved == 12.0 * (len(taken) - len(found.seen_again))
    overall = found.certificates.set_index("class_name").loc[""]
    assert overall["seconds_saved"] == found.seconds_saved
    assert overall["bound"] <= overall["alpha"] == 0.05
    assert overall["weights_sha256"] == "a" * 64


def test_a_model_that_is_wrong_gets_nothing_accepted_and_the_reason_has_the_numbers():
    found = accept(*a_round(np.random.default_rng(0), calibrated=False, error=0.8))
    assert not found.granted
    assert found.labels.empty
    reason = found.certificates["reason"].iloc[0]
    assert "500 audited" in reason
    assert "5.0%" in reason
    assert set(found.held.values()) == {reason}


def test_a_batch_that_differs_from_the_audit_is_refused(good_round):
    predictions, pool, audit = good_round
    dark = pd.Series(
        np.where(np.isin(pool, audit.images), 120.0, 30.0)
        + np.random.default_rng(3).normal(size=len(pool)),
        index=pool,
    )
    found = accept(predictions, pool, audit, features={"brightness": dark})
    assert not found.granted
    assert "brightness" in found.certificates["reason"].iloc[0]
    same = pd.Series(np.random.default_rng(3).normal(size=(len(pool), 8)).tolist(), index=pool)
    assert accept(predictions, pool, audit, features={"embedding": same}).granted


@pytest.mark.parametrize(
    ("policy", "audited", "says"),
    [
        pytest.param(AutoAcceptPolicy(), 500, "is off", id="not wanted"),
        pytest.param(POLICY, 0, "No image was audited", id="no audit"),
    ],
)
def test_without_the_policy_or_an_audit_nothing_is_accepted(good_round, policy, audited, says):
    predictions, pool, audit = good_round
    found = accept(predictions, pool, Audit(audit.images[:audited], audit.labels), policy=policy)
    assert found.labels.empty
    assert says in found.certificates["reason"].iloc[0]


def test_predictions_of_two_models_are_refused(good_round):
    predictions, pool, audit = good_round
    mixed = predictions.assign(weights_sha256=["b" * 64, *predictions["weights_sha256"][1:]])
    with pytest.raises(TableError, match="several models"):
        accept(mixed, pool, audit)


def test_images_seen_again_contradict_a_certificate_that_is_untrue_and_rarely_a_true_one():
    rng = np.random.default_rng(6)

    def is_contradicted(rate):
        labels = rng.integers(1, 11, 200).astype(float)
        errors = rng.binomial(labels.astype(int), rate).astype(float)
        return contradicted(labels, errors, alpha=0.05, most_labels=10.0, level=0.05)

    assert all(is_contradicted(0.2) for _ in range(50))
    # At the edge: more than 20 of 200 have a chance of one in a thousand at a level of 0.05.
    assert sum(is_contradicted(0.05) for _ in range(200)) <= 20
