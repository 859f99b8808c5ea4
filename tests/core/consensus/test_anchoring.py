import numpy as np
import pandas as pd
import pytest

from annotation_platform.consensus.anchoring import (
    anchoring_by_person,
    crowd_anchoring,
    pre_annotation_decisions,
)
from annotation_platform.consensus.intervals import (
    ClusteredShare,
    clustered_share,
    ratio_interval,
    share_interval,
)

BOX = ["x1", "y1", "x2", "y2"]


def decisions(anchoring, *, images, without_predictions_share, rng, people=6):
    """Return decisions of people who take a proposal as it is with a known probability.

    People differ in skill, images in difficulty: on a hard one everybody parts from the model.
    """
    skill = rng.uniform(0.4, 0.9, people)
    difficulty = rng.normal(0.0, 1.0, images)
    person, image = (each.ravel() for each in np.indices((people, images)))
    shown = rng.random(len(person)) >= without_predictions_share
    objects = 1 + rng.poisson(3.0, images)[image]
    person, image, shown = (np.repeat(each, objects) for each in (person, image, shown))
    logit = np.log(skill / (1 - skill))[person] + difficulty[image]
    own = rng.random(len(person)) < 1 / (1 + np.exp(-logit))
    taken = shown & (rng.random(len(person)) < anchoring)
    return pd.DataFrame(
        {"annotator": person, "image_id": image, "shown": shown, "agreed": own | taken}
    )


@pytest.mark.parametrize("anchoring", [0.0, 0.3, 0.6])
@pytest.mark.parametrize(("images", "without_predictions_share"), [(25, 0.2), (100, 0.1)])
def test_a_known_anchoring_lies_in_the_interval(anchoring, images, without_predictions_share):
    inside, of_people, estimates = [], [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        made = decisions(
            anchoring, images=images, without_predictions_share=without_predictions_share, rng=rng
        )
        crowd = crowd_anchoring(made)
        inside.append(crowd.low <= anchoring <= crowd.high)
        estimates.append(crowd.anchoring)
        if seed < 40:
            people = anchoring_by_person(made)
            people = people[people["note"] == ""]
            of_people += ((people["low"] <= anchoring) & (anchoring <= people["high"])).tolist()
    assert np.mean(inside) >= 0.93
    assert np.mean(of_people) >= 0.93
    # At 0 what falls below is cut off, so the mean is a little above.
    assert np.mean(estimates) == pytest.approx(anchoring, abs=0.08 if anchoring == 0 else 0.03)


def test_unequal_blind_shares_do_not_pass_for_anchoring():
    """The skilled see every second image without predictions, the others every tenth; a is 0."""
    rng = np.random.default_rng(5)
    parts = []
    for number, (agrees, blind) in enumerate([(0.9, 0.5), (0.3, 0.1)] * 3):
        shown = rng.random(4000) >= blind
        part = {"annotator": number, "shown": shown, "agreed": rng.random(4000) < agrees}
        parts.append(pd.DataFrame(part))
    made = pd.concat(parts)
    crowd = crowd_anchoring(made)
    assert crowd.low == 0.0
    assert crowd.high < 0.1
    # Without regard to the annotator, the predictions seem to repel people.
    rates = made.groupby("shown")["agreed"].mean()
    assert rates[False] - rates[True] > 0.2


def test_one_persons_estimate_is_the_ratio_of_disagreements():
    # 40 of 100 shown and 80 of 100 hidden decisions differ from the prediction: 1 - 0.4 / 0.8.
    shown = np.repeat([True, False], 100)
    agreed = np.concatenate([np.arange(100) >= 40, np.arange(100) >= 80])
    made = pd.DataFrame({"annotator": "ada", "shown": shown, "agreed": agreed})
    row = anchoring_by_person(made).iloc[0]
    assert (row["shown"], row["hidden"]) == (100, 100)
    assert row["anchoring"] == pytest.approx(0.5)
    assert row["low"] < 0.5 < row["high"]
    assert crowd_anchoring(made).anchoring == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        pytest.param(
            [], "no decisions with predictions and no decisions without", id="no decisions"
        ),
        pytest.param(
            [("ada", True, True)] * 9, "measured: no decisions without", id="nothing blind"
        ),
        pytest.param(
            [("ada", False, True)] * 9,
            "measured: no decisions with predictions$",
            id="nothing shown",
        ),
        pytest.param(
            [("ada", True, True), ("ben", False, True)] * 9,
            "no annotator has decisions both",
            id="apart",
        ),
        pytest.param(
            [("ada", True, True), ("ada", False, True)] * 9,
            "agrees .* even without seeing",
            id="always agreed",
        ),
    ],
)
def test_what_cannot_be_measured_is_missing_and_says_why(rows, note):
    made = pd.DataFrame(rows, columns=["annotator", "shown", "agreed"])
    crowd = crowd_anchoring(made)
    assert np.isnan([crowd.anchoring, crowd.low, crowd.high]).all()
    pd.testing.assert_series_equal(
        pd.Series([crowd.note]).str.contains(note), pd.Series([True]), check_names=False
    )
    people = anchoring_by_person(made)
    assert people["anchoring"].isna().all()
    assert (people["note"] != "").all()


def annotation(image, person, *labels, blind=False):
    rows = []
    for shape, name, box in labels or [("none", None, [np.nan] * 4)]:
        rows.append(
            {
                "task_id": image,
                "image_id": image,
                "annotation_id": f"{image}-{person}",
                "annotator": person,
                "shape": shape,
                "class_name": name,
                "without_predictions": blind,
                **dict(zip(BOX, map(float, box), strict=True)),
            }
        )
    return rows


def test_only_what_was_left_as_it_was_agrees_with_a_proposal():
    proposals = pd.DataFrame(
        [
            ("one", "cat", 0, 0, 100, 100),
            ("one", "cat", 200, 0, 300, 100),
            ("one", "dog", 400, 0, 500, 100),
            ("two", "cat", *[np.nan] * 4),
        ],
        columns=["image_id", "class_name", *BOX],
    )
    labels = pd.DataFrame(
        [
            # Left; moved by ten pixels; renamed.
            *annotation(
                "one",
                "ada",
                ("box", "cat", (0, 0, 100, 100)),
                ("box", "cat", (210, 0, 310, 100)),
                ("box", "cat", (400, 0, 500, 100)),
            ),
            # All deleted, before proposals and without.
            *annotation("one", "ben"),
            *annotation("one", "cam", blind=True),
            # A pixel on each side is within five per cent; a polygon goes by its box.
            *annotation("one", "dee", ("polygon", "dog", (401, 0, 500, 99)), blind=True),
            *annotation("one", "eve", ("unsure", None, [np.nan] * 4)),
            *annotation("two", "ada", ("choice", "cat", [np.nan] * 4)),
            *annotation("two", "ben", ("choice", "dog", [np.nan] * 4), blind=True),
            *annotation("no proposals", "ada", ("box", "cat", (0, 0, 9, 9))),
        ]
    )
    made = pre_annotation_decisions(labels, proposals)
    assert {
        annotation_id: (bool(rows["shown"].all()), rows["agreed"].tolist())
        for annotation_id, rows in made.groupby("annotation_id")
    } == {
        "one-ada": (True, [True, False, False]),
        "one-ben": (True, [False, False, False]),
        "one-cam": (False, [False, False, False]),
        "one-dee": (False, [False, False, True]),
        "two-ada": (True, [True]),
        "two-ben": (False, [False]),
    }
    looser = pre_annotation_decisions(labels, proposals, agreement_iou=0.5)
    assert looser.loc[looser["annotation_id"] == "one-ada", "agreed"].tolist() == [
        True,
        True,
        False,
    ]


def drawn_with_proposals(anchoring, *, images, rng):
    """Return annotations of four people and predictions: true boxes, shifted, and false ones."""
    proposals, labels = [], []
    for image in range(images):
        places = rng.permutation(16)[: 2 + rng.poisson(2)]
        truth = np.stack([places % 4, places // 4], axis=1) * 150.0 + 20
        offered = truth + rng.normal(0, 6, truth.shape)
        false = rng.random(len(truth)) < 0.25  # there is nothing there
        proposals += [(f"{image}", "cat", *at, *(at + 90)) for at in offered]
        for person in "abcd":
            blind = rng.random() < 0.25
            boxes = []
            for at, real, nothing in zip(offered, truth, false, strict=True):
                if not blind and rng.random() < anchoring:
                    boxes.append(at)
                elif not nothing and rng.random() < 0.9:
                    boxes.append(real + rng.normal(0, 2, 2))
            shapes = [("box", "cat", (*at, *(at + 90))) for at in boxes]
            labels += annotation(f"{image}", person, *shapes, blind=blind)
    columns = ["image_id", "class_name", *BOX]
    return pd.DataFrame(labels), pd.DataFrame(proposals, columns=columns)


@pytest.mark.parametrize("agreement_iou", [0.5, 0.95])
@pytest.mark.parametrize("anchoring", [0.0, 0.3, 0.6])
def test_anchoring_is_recovered_from_boxes(anchoring, agreement_iou):
    inside = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        labels, proposals = drawn_with_proposals(anchoring, images=100, rng=rng)
        made = pre_annotation_decisions(labels, proposals, agreement_iou=agreement_iou)
        crowd = crowd_anchoring(made)
        inside.append(crowd.low <= anchoring <= crowd.high)
        assert crowd.high - crowd.low < 0.45
    assert np.mean(inside) >= 0.9


def test_the_ratio_interval_is_koopmans():
    # His own example (1984): 36 of 40 against 16 of 80 gives 2.94 to 7.15.
    interval = ratio_interval(ClusteredShare(36 / 40, 40), ClusteredShare(16 / 80, 80))
    assert (round(interval.low, 2), round(interval.high, 2)) == (2.94, 7.15)
    none_above = ratio_interval(ClusteredShare(0.0, 40), ClusteredShare(0.2, 80))
    assert none_above.low == 0.0
    assert 0 < none_above.high < 1
    none_below = ratio_interval(ClusteredShare(0.2, 80), ClusteredShare(0.0, 40))
    assert none_below.high == np.inf
    assert none_below.low > 1


def test_no_error_in_59_leaves_up_to_six_per_cent():
    # The most that chance lets pass: (1 - p)^59 = 0.025.
    interval = share_interval(ClusteredShare(0.0, 59))
    assert (interval.low, interval.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 59)))
    assert share_interval(ClusteredShare(float("nan"), 0.0)).high == 1.0


def test_decisions_that_all_come_from_one_image_say_nothing_of_others():
    measured = clustered_share(np.ones(500), np.zeros(500))
    assert measured == ClusteredShare(1.0, 0.0)
    interval = share_interval(measured)
    assert (interval.low, interval.high) == (0.0, 1.0)


@pytest.mark.parametrize(("images", "mean"), [(15, 0.9), (40, 0.9), (40, 0.6), (150, 0.97)])
def test_intervals_of_decisions_that_hang_together_cover_what_they_claim(images, mean):
    rng = np.random.default_rng(2)
    inside, naive = [], []
    for _ in range(400):
        objects = 1 + rng.poisson(5, images)
        image = np.repeat(np.arange(images), objects)
        # Images differ: on a hard one most objects are missed.
        easy = rng.beta(3 * mean, 3 * (1 - mean), images)
        hits = rng.random(len(image)) < easy[image]
        interval = share_interval(clustered_share(hits, image))
        inside.append(interval.low <= mean <= interval.high)
        as_if = share_interval(ClusteredShare(float(hits.mean()), float(len(hits))))
        naive.append(as_if.low <= mean <= as_if.high)
    assert np.mean(inside) >= 0.93
    assert np.mean(naive) < np.mean(inside)
