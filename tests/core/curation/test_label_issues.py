import numpy as np
import pandas as pd
import pytest

from annotation_platform.curation.classification_issues import class_issues, classification_issues
from annotation_platform.curation.label_issues import (
    Trust,
    box_issues,
    issues_as_conflicts,
    measure_trust,
    mistake_risk,
)
from annotation_platform.errors import TableError
from benchmarks.label_issues import (
    COLUMNS,
    NAMES,
    ROUND,
    image_id,
    is_planted,
    mnist,
    plant,
    planted_boxes,
    planted_classes,
    scenes,
)

TRUST = Trust({"cat": 0.05, "dog": 0.05}, 0.05, error_rate=0.05)
HERE = (10.0, 10.0, 50.0, 50.0)
SHIFTED = (30.0, 10.0, 70.0, 50.0)  # overlaps HERE by a third
ELSEWHERE = (100.0, 100.0, 150.0, 150.0)


def labels_of(*boxes, image=1):
    rows = [[image_id(image), f"label-{n}", name, *box] for n, (name, box) in enumerate(boxes)]
    return pd.DataFrame(rows, columns=["image_id", "label_id", *COLUMNS[1:]])


def proposals_of(*boxes, image=1):
    rows = [[image_id(image), name, *box, score] for name, box, score in boxes]
    return pd.DataFrame(rows, columns=[*COLUMNS, "score"])


def judged(labels, proposals, **options):
    options = {"minimum_probability": 0.0} | options
    return box_issues(labels, proposals, TRUST, round_id=ROUND, **options)


# The odds of one kind of error are 0.05 / 4 / 0.95 = 1 / 76; of a proposal of 0.95, 19.
@pytest.mark.parametrize(
    ("proposals", "kind", "score", "label_id"),
    [
        pytest.param([("cat", HERE, 0.95)], None, None, None, id="confirmed"),
        pytest.param([("dog", HERE, 0.95)], "swapped", 19 / 95, "label-0", id="another class"),
        pytest.param([("cat", SHIFTED, 0.95)], "badly_located", 19 / 95, "label-0", id="not there"),
        # By the chance that nothing is proposed at an object, 1 / 20: 20 / 76.
        pytest.param([], "spurious", 20 / 96, "label-0", id="nothing proposed"),
        pytest.param(
            [("cat", HERE, 0.95), ("dog", ELSEWHERE, 0.95)],
            "overlooked",
            19 / 95,
            None,
            id="no label",
        ),
        pytest.param(
            [("cat", HERE, 0.5), ("dog", HERE, 0.95)], "swapped", 19 / 190, "label-0", id="both"
        ),
        pytest.param([("cat", HERE, np.nan)], "spurious", 20 / 96, "label-0", id="no number"),
    ],
)
def test_what_is_suspected_of_a_label_and_how_much(proposals, kind, score, label_id):
    issues = judged(labels_of(("cat", HERE)), proposals_of(*proposals))
    if kind is None:
        assert issues.empty
        return
    assert issues["kind"].tolist() == [kind]
    assert issues["score"].iloc[0] == pytest.approx(score)
    found = issues["label_id"].iloc[0]
    assert found == label_id or (label_id is None and pd.isna(found))


def test_two_proposals_round_one_object_are_one_suspicion():
    twice = proposals_of(("cat", HERE, 0.9), ("dog", (12.0, 10.0, 50.0, 50.0), 0.8))
    issues = judged(labels_of(), twice)
    assert issues[["kind", "class_name"]].to_numpy().tolist() == [["overlooked", "cat"]]


def test_the_score_is_the_same_alone_and_in_a_batch_and_in_any_order():
    rng = np.random.default_rng(0)
    truth, proposals = scenes(30, rng)
    labels, _ = plant(truth, 0.2, rng)
    together = judged(labels, proposals)
    apart = [
        judged(labels[labels["image_id"] == image], proposals[proposals["image_id"] == image])
        for image in truth["image_id"].unique()
    ]
    alone = pd.concat(apart).sort_values(["score", "issue_id"], ascending=[False, True])
    pd.testing.assert_frame_equal(together, alone.reset_index(drop=True))
    mixed = judged(labels.sample(frac=1, random_state=1), proposals.sample(frac=1, random_state=1))
    columns = ["image_id", "kind", "score"]
    pd.testing.assert_frame_equal(
        together[columns].sort_values(columns, ignore_index=True),
        mixed[columns].sort_values(columns, ignore_index=True),
    )


def test_what_is_known_of_a_model_is_how_often_it_sees_nothing():
    truth = labels_of(*[("cat", HERE)], *[("dog", ELSEWHERE)])
    seen = proposals_of(("dog", HERE, 0.5))  # a cat taken for a dog is seen
    trust = measure_trust(seen, truth, error_rate=0.1)
    # One of two objects in all; ten objects of that rate are added to each class's own.
    assert trust.unseen == {"cat": pytest.approx(5 / 11), "dog": pytest.approx(6 / 11)}


def test_planted_errors_are_found_and_more_surely_than_by_self_confidence():
    found = planted_boxes(0.05, image_count=80)
    assert found["precision"] >= 0.51
    assert found["precision"] > found["self-confidence"]
    assert found["labels alone"] > found["self-confidence, labels"]
    # The risk of an image tells those with errors from those without.
    assert found["AUROC of images"] > max(0.7, found["ObjectLab"])


def test_scores_are_probabilities():
    rng = np.random.default_rng(4)
    trust = measure_trust(*reversed(scenes(100, rng)), error_rate=0.1)
    truth, proposals = scenes(150, rng)
    labels, planted = plant(truth, 0.1, rng)
    issues = box_issues(labels, proposals, trust, round_id=ROUND, minimum_probability=0.3)
    assert is_planted(issues, planted).mean() == pytest.approx(issues["score"].mean(), abs=0.2)


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_planted_flips_of_classes_are_found(rate):
    calibrated, biased = (planted_classes(rate, bias=bias) for bias in (0.0, 2.0))
    assert calibrated["precision"] >= 0.51
    assert calibrated["found"] >= 0.75
    # Doubt alone blames the class that the model is biased against.
    assert biased["precision"] > max(0.51, biased["self-confidence"])


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_of_several_choices_wrong_and_missed_ones_are_found(rate):
    rng = np.random.default_rng(0)
    truth = rng.random((2000, 3)) < [0.5, 0.3, 0.1]
    odds = np.where(truth, 3.0, -3.0) + 1.5 * rng.normal(size=truth.shape)
    flip = rng.random(truth.shape) < rate
    given = truth ^ flip
    images = [image_id(number) for number in range(len(truth))]
    chances = pd.DataFrame(1 / (1 + np.exp(-odds)), index=images, columns=NAMES)
    places = np.argwhere(given)
    labels = pd.DataFrame(
        [(images[row], f"{images[row]}:{column}", NAMES[column]) for row, column in places],
        columns=["image_id", "label_id", "class_name"],
    )
    found = classification_issues(labels, chances, round_id=ROUND)
    rows = [images.index(image) for image in found["image_id"]]
    columns = [NAMES.index(name) for name in found["class_name"]]
    right = flip[rows, columns]
    assert right.mean() >= 0.51
    assert right.sum() >= 0.6 * flip.sum()
    chosen = given[rows, columns]
    assert (found["kind"] == np.where(chosen, "spurious", "overlooked")).all()
    assert (found["label_id"].notna() == chosen).all()
    assert found["score"].is_monotonic_decreasing
    # A class that is chosen for every image or for none cannot be judged.
    everywhere = pd.DataFrame({"image_id": images, "label_id": images, "class_name": NAMES[0]})
    assert classification_issues(everywhere, chances, round_id=ROUND).empty


def test_an_error_is_seen_by_a_model_that_is_surer_of_the_class_elsewhere():
    # The wrong one is given "cat" where "dog" is all but certain, less so than of the other dogs.
    sure = np.array([[0.999, 0.001]] * 12 + [[0.0001, 0.9999]] * 11 + [[0.002, 0.998]])
    labels = pd.DataFrame({"image_id": [image_id(number) for number in range(24)]})
    labels["label_id"] = labels["image_id"]
    labels["class_name"] = ["cat"] * 12 + ["dog"] * 11 + ["cat"]
    found = class_issues(labels, sure, ["cat", "dog"], round_id=ROUND)
    assert found["image_id"].tolist() == [image_id(23)]
    assert found["class_name"].tolist() == ["dog"]


def test_a_label_of_a_class_without_a_probability_is_refused():
    labels = pd.DataFrame({"image_id": [image_id(1)], "label_id": "a", "class_name": "cow"})
    with pytest.raises(TableError, match="'cow'"):
        class_issues(labels, np.full((1, 3), 1 / 3), NAMES, round_id=ROUND)


def test_the_risk_of_a_image_is_that_of_any_error():
    issues = pd.DataFrame({"image_id": ["a", "a", "b"], "score": [0.5, 0.2, 0.0]})
    assert mistake_risk(issues).to_dict() == {"a": pytest.approx(0.6), "b": 0.0}


def test_of_the_suspected_mnist_labels_people_find_more_wrong_than_of_all_they_judged(public):
    found = mnist(public("labelerrors"))
    assert found["precision"] > 2 * found["share wrong of all judged"]
    assert found["AUROC among the judged"] > 0.6


def test_suspected_labels_go_to_review_with_the_task_they_came_from():
    labels = labels_of(("cat", HERE)).assign(image_id=image_id(1))
    issues = judged(labels, proposals_of(("dog", HERE, 0.99)))
    elsewhere = judged(labels_of(("cat", HERE), image=2), proposals_of())
    consensus = pd.DataFrame({"image_id": [image_id(1)], "task_id": ["round-0001/boxes/1"]})
    conflicts = issues_as_conflicts(pd.concat([issues, elsewhere]), consensus)
    assert conflicts[["task_id", "label_id", "settled"]].to_numpy().tolist() == [
        ["round-0001/boxes/1", "label-0", False]
    ]
    assert "dog instead of cat" in conflicts["detail"].iloc[0]
