import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import ModelError
from annotation_platform.models.classification.calibration import Temperature
from annotation_platform.models.detection.calibration import (
    IDENTITY,
    Calibration,
    Curve,
    calibration_error,
    fit_calibration,
    identity_calibration,
    mark_right,
)
from annotation_platform.models.registry import ModelRegistry

COLUMNS = ["image_id", "class_name", "x1", "y1", "x2", "y2"]


def boxes(*rows):
    """Rows of image, class, left edge and, for predictions, a score; boxes of 10 pixels."""
    names = COLUMNS if all(len(row) == 3 for row in rows) else [*COLUMNS, "score"]
    return pd.DataFrame(
        [[image, name, x, 0.0, x + 10.0, 10.0, *score] for image, name, x, *score in rows],
        columns=names,
    )


def simulated(rng, counts, *, images, distort=lambda p: p):
    """Predictions whose box is right with probability p and whose score is ``distort(p)``."""
    found, truth = [], []
    for name, count in counts.items():
        for number, p in enumerate(rng.beta(0.6, 0.9, count)):
            image, x = f"image-{rng.integers(images):03d}", 20.0 * number
            found.append((image, name, x, float(distort(p))))
            if rng.random() < p:
                truth.append((image, name, x))
    return boxes(*found), boxes(*truth), [f"image-{n:03d}" for n in range(images)]


def overconfident(p):
    return p**0.4


def test_the_best_score_takes_the_box_and_others_on_it_are_wrong():
    found = boxes(
        ("a", "red", 1, 0.6), ("a", "red", 0, 0.9), ("a", "blue", 0, 0.8), ("b", "red", 0, 1)
    )
    truth = boxes(("a", "red", 0), ("a", "red", 50))
    assert mark_right(found, truth).tolist() == [False, True, False, False]


def test_a_box_that_covers_two_takes_the_better_and_leaves_the_other():
    # IoU of boxes 10 wide shifted by 3: 7 / 13 = .54; by 1: 9 / 11 = .82.
    found = boxes(("a", "red", 3, 0.9), ("a", "red", 0, 0.4))
    truth = boxes(("a", "red", 0), ("a", "red", 4))
    assert mark_right(found, truth).tolist() == [True, True]


def test_calibration_error_of_a_case_worked_out_by_hand():
    # 20 boxes make two bins of ten: .2 of which half are right, .9 of which all are.
    probabilities = np.repeat([0.2, 0.9], 10)
    right = np.array([True, False] * 5 + [True] * 10)
    error = calibration_error(probabilities, right)
    assert error.error == pytest.approx((0.3 + 0.1) / 2)
    # By chance: sqrt(2/pi) * (sqrt(10 * .16) + sqrt(10 * .09)) / 20.
    assert error.by_chance == pytest.approx(0.797885 * (1.264911 + 0.948683) / 20, abs=1e-5)
    assert (error.boxes, error.bins) == (20, 2)
    assert calibration_error(np.array([]), np.array([], dtype=bool)) is None


def test_the_order_of_equal_probabilities_does_not_matter():
    rng = np.random.default_rng(2)
    probabilities = rng.choice([0.1, 0.5, 0.8], 87)
    right = rng.random(87) < 0.5
    turned = calibration_error(probabilities[::-1], right[::-1])
    assert calibration_error(probabilities, right).error == pytest.approx(turned.error)


def test_the_error_by_chance_is_that_of_exact_probabilities():
    rng = np.random.default_rng(0)
    shown, expected = [], []
    for _ in range(200):
        p = rng.uniform(0.02, 0.98, 300)
        error = calibration_error(p, rng.random(300) < p)
        shown.append(error.error)
        expected.append(error.by_chance)
    assert np.mean(shown) == pytest.approx(np.mean(expected), rel=0.05)


def test_a_distorted_detector_is_calibrated_on_new_images():
    rng = np.random.default_rng(1)
    counts = {"red": 1200, "blue": 600}
    fitted = fit_calibration(*simulated(rng, counts, images=60, distort=overconfident)[:2],
                             images=[f"image-{n:03d}" for n in range(60)])  # fmt: skip
    found, truth, _ = simulated(rng, counts, images=60, distort=overconfident)
    right = mark_right(found, truth)
    before = calibration_error(found["score"].to_numpy(), right)
    score = fitted.apply(found["class_name"].tolist(), found["score"].to_numpy())
    after = calibration_error(score, right)
    assert before.error > 0.15
    assert after.error < 0.03
    assert fitted.error_before == pytest.approx(before.error, abs=0.03)
    assert fitted.error_after == pytest.approx(after.error, abs=0.02)
    # p = s ** 2.5 itself: the curve is near it wherever scores are.
    s = np.array([0.4, 0.6, 0.8, 0.95])
    assert fitted.apply(["red"] * 4, s) == pytest.approx(s**2.5, abs=0.06)


def test_different_classes_get_own_curves_and_a_rare_one_stays_close_to_the_rest():
    rng = np.random.default_rng(4)
    red = simulated(rng, {"red": 900}, images=40, distort=overconfident)
    blue = simulated(rng, {"blue": 900}, images=40)
    rare = simulated(rng, {"rare": 40}, images=40)
    fitted = fit_calibration(
        pd.concat([red[0], blue[0], rare[0]]),
        pd.concat([red[1], blue[1], rare[1]]),
        images=red[2],
    )
    at = {name: float(fitted.apply([name], np.array([0.6]))[0]) for name in ("red", "blue", "rare")}
    assert at["red"] == pytest.approx(0.6**2.5, abs=0.08)
    assert at["blue"] == pytest.approx(0.6, abs=0.08)
    assert {name: one.kind for name, one in fitted.classes.items()} == {
        "red": "own", "blue": "own", "rare": "own",
    }  # fmt: skip
    pooled = float(fitted.pooled.curve.at(np.array([0.6]))[0])
    assert abs(at["rare"] - pooled) < abs(at["blue"] - pooled)


def test_too_few_boxes_use_the_pooled_curve_and_too_few_images_none():
    rng = np.random.default_rng(5)
    found, truth, images = simulated(
        rng, {"red": 400, "rare": 12}, images=20, distort=overconfident
    )
    fitted = fit_calibration(found, truth, images=images)
    assert fitted.classes["rare"].kind == "pooled"
    assert fitted.classes["rare"].curve == fitted.pooled.curve
    assert (fitted.classes["rare"].boxes, fitted.images) == (12, 20)
    score = np.array([0.5])
    assert fitted.apply(["unheard of"], score) == pytest.approx(fitted.pooled.curve.at(score))

    few = fit_calibration(found, truth, images=images[:4])
    assert (few.pooled.kind, few.classes["red"].kind) == ("identity", "identity")
    assert few.apply(["red"], score) == pytest.approx(score)
    assert (few.error_before, few.error_after) == (None, None)


def test_nothing_found_leaves_scores_as_they_are():
    nothing = boxes(("a", "red", 0, 0.5)).iloc[:0]
    fitted = fit_calibration(nothing, boxes(("a", "red", 0)), images=["a"] * 9)
    assert fitted.pooled.kind == "identity"
    assert fitted.apply([], np.array([])).tolist() == []
    assert identity_calibration().apply(["red"], np.array([0.25])).tolist() == [0.25]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=40, max_size=80),
    st.integers(0, 2**32 - 1),
)
def test_any_annotations_give_a_rising_curve_between_0_and_1(annotations, seed):
    rng = np.random.default_rng(seed)
    found = boxes(
        *((f"p{rng.integers(8)}", "red", 20 * n, s) for n, (s, _) in enumerate(annotations))
    )
    truth = found[[yes for _, yes in annotations]].drop(columns="score")
    fitted = fit_calibration(found, truth, images=[f"p{n}" for n in range(8)])
    scores = np.linspace(0, 1, 101)
    probabilities = fitted.apply(["red"] * 101, scores)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities) >= 0).all()


def test_the_order_of_rows_does_not_matter_and_the_digest_names_the_content():
    rng = np.random.default_rng(6)
    found, truth, images = simulated(rng, {"red": 200, "blue": 90}, images=12)
    first = fit_calibration(found, truth, images=images)
    again = fit_calibration(found[::-1], truth[::-1], images=images[::-1])
    assert again.digest == first.digest
    read = Calibration.from_json(first.to_json(), where="c.json")
    assert (read, read.digest) == (first, first.digest)
    assert first.model_copy(update={"images": 13}).digest != first.digest
    with pytest.raises(ModelError, match=r"c\.json: not a calibration"):
        Calibration.from_json("{}", where="c.json")


def test_the_identity_curve_changes_nothing():
    scores = np.array([0.0, 1e-9, 0.3, 1.0])
    assert IDENTITY.at(scores).tolist() == scores.tolist()
    assert Curve(rise=1.0, fall=1.0, offset=1.0).at(np.array([0.5])) == pytest.approx(0.731059)


# Written by version 0.1.0 (a file of tests/data/v0.1.0/home.tar.xz), under its SHA-256.
OLD_CALIBRATION = """{
  "classes": {},
  "error_after": null,
  "error_before": null,
  "error_by_chance": null,
  "pictures": 1,
  "pooled": {
    "boxes": 0,
    "curve": {
      "fall": 1.0,
      "offset": 0.0,
      "rise": 1.0
    },
    "kind": "identity",
    "right": 0
  }
}
"""
OLD_DIGEST = "bbf920784100e530d444de2c377444e7d7fc2108cbc091120760006012abe6bb"
OLD_TEMPERATURE = """{
  "choose": "one",
  "error_after": 0.02,
  "error_before": 0.11,
  "error_by_chance": 0.01,
  "pictures": 12,
  "temperature": 1.5
}
"""


def test_a_calibration_of_version_0_1_0_is_read_and_keeps_its_digest():
    old = Calibration.from_json(OLD_CALIBRATION, where="c.json")
    assert (old.images, old.pooled.kind, old.digest) == (1, "identity", OLD_DIGEST)
    assert '"images": 1' in old.to_json()
    assert "pictures" not in old.to_json()
    assert Calibration.from_json(old.to_json(), where="c.json").images == 1

    temperature = Temperature.from_json(OLD_TEMPERATURE.encode(), where="t.json")
    assert (temperature.images, temperature.temperature) == (12, 1.5)
    assert temperature.digest == hashlib.sha256(OLD_TEMPERATURE.encode()).hexdigest()


def test_the_registry_finds_a_calibration_of_version_0_1_0(tmp_path):
    registry = ModelRegistry(tmp_path)
    registry.calibrate(["a" * 64], "labelling@1", identity_calibration())
    folder = tmp_path / "calibrations"
    (folder / f"{OLD_DIGEST}.json").write_text(OLD_CALIBRATION)
    (pointer,) = folder.glob("*.txt")
    pointer.write_text(OLD_DIGEST)
    found = registry.calibration(["a" * 64], "labelling@1")
    assert (found.images, found.digest) == (1, OLD_DIGEST)
    (folder / f"{OLD_DIGEST}.json").write_text(OLD_CALIBRATION.replace("1,", "2,"))
    with pytest.raises(ModelError, match="changed or damaged"):
        registry.calibration(["a" * 64], "labelling@1")
