"""Weak slices: injected ones are ranked first, chance is not reported; and learning curves."""

import numpy as np
import pandas as pd
import pytest

from annotation_platform.errors import DataError
from annotation_platform.models.evaluation.coco_metrics import CocoFigures
from annotation_platform.models.evaluation.learning_curves import (
    fit_learning_curve,
    learning_history,
    rank_by_gain,
)
from annotation_platform.models.evaluation.slices import slice_figures, slice_members
from tests.core.models.simulated_models import SimulatedImages

CLASSES = {1: "gull", 2: "boat", 3: "buoy"}


def figures_and_facts(seed, *, images=120, dark=0.0):
    """Return figures and facts of images; a fifth of them is dark and this much harder."""
    rng = np.random.default_rng(seed)
    drawn = SimulatedImages(rng, images)
    night = np.arange(images) < images // 5
    drawn.ease = drawn.ease - dark * night[drawn.image]
    ids = [f"{number:064x}" for number in range(images)]
    facts = pd.DataFrame(
        {
            "image_id": ids,
            "brightness": np.where(
                night, rng.uniform(10, 40, images), rng.uniform(80, 200, images)
            ),
            "sharpness": rng.uniform(10, 500, images),
            "source": rng.choice(["pier", "buoy", "mast", "drone"], images),
            "device": rng.choice([f"camera {n}" for n in range(12)], images),
            "round_id": rng.choice(["round-0001", "round-0002"], images),
        }
    )
    matches = drawn.matches(0.0)
    figures = drawn.evaluation(0.0).coco
    per_class = {number: {} for number in CLASSES}
    nothing = SimulatedImages(rng, images)
    nothing.truth = nothing.truth * 0

    def find(size):
        return matches if size in ("all", "medium") else nothing.matches(0.0)

    return CocoFigures(figures.overall, per_class, find), facts


def slices(seed, **how):
    figures, facts = figures_and_facts(seed, **how)
    members = slice_members(facts)
    ids = sorted(facts["image_id"])
    return slice_figures("round-0001", figures, image_ids=ids, class_names=CLASSES, members=members)


def test_an_injected_weak_slice_is_ranked_first():
    for seed in range(2):
        found = slices(seed, dark=1.2)
        weakest = found.iloc[0]
        assert (weakest["kind"], weakest["images"]) == ("dark", 24)
        assert weakest["weak"]
        assert weakest["map"] < weakest["others_map"]
        assert weakest["map_low"] <= weakest["map"] <= weakest["map_high"]
        assert list(found["rank"]) == list(range(len(found)))


@pytest.mark.long
def test_without_a_weak_slice_seldom_one_is_reported():
    # Every slice of images at once at 0.05: two runs of six would be rare (0.03).
    called = 0
    for seed in range(6):
        found = slices(100 + seed)
        called += found.loc[found["kind"] != "class", "weak"].any()
    assert called <= 1


def test_a_handful_of_images_is_never_the_weakest():
    figures, facts = figures_and_facts(0, dark=1.2)
    facts.loc[:2, "source"] = "a new camera at night"
    found = slice_figures(
        "round-0001",
        figures,
        image_ids=sorted(facts["image_id"]),
        class_names=CLASSES,
        members=slice_members(facts),
    ).set_index("name")
    few = found.loc["a new camera at night"]
    assert np.isnan(few["upper"])
    assert not few["weak"]
    assert few["rank"] == len(found) - 1


def test_slices_depend_on_the_known_values():
    facts = pd.DataFrame(
        {
            "image_id": list("abcdefghij"),
            "brightness": range(10),
            "source": ["pier"] * 4 + [None] * 6,
            "round_id": ["round-0001"] * 10,
        }
    )
    found = slice_members(facts)
    # All images are of one round, which defines no slice; sharpness is unknown.
    assert {kind for kind, _ in found} == {"dark", "bright", "source"}
    assert found["source", "pier"] == ["a", "b", "c", "d"]
    assert found["dark", "brightness at most 1.8"] == ["a", "b"]


LABELS = np.array([50.0, 100, 200, 400, 800])


def curve(labels, ceiling, scale, exponent):
    return ceiling - scale * np.asarray(labels, dtype=float) ** -exponent


def test_a_simulated_curve_is_recovered_and_extrapolated():
    exact = curve(LABELS, 0.8, 2.0, 0.5)
    found = fit_learning_curve(LABELS, exact, np.full(5, 0.001), np.random.default_rng(0))
    assert found.at(1600) == pytest.approx(curve(1600, 0.8, 2.0, 0.5), abs=0.002)
    assert found.ceiling == pytest.approx(0.8, abs=0.01)


def test_the_interval_of_a_gain_covers_the_later_gain():
    """Replay: fitted to five rounds, compared with the truth of the sixth."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(100):
        ceiling, scale, exponent = rng.uniform(0.6, 0.9), rng.uniform(1, 3), rng.uniform(0.3, 0.7)
        measured = curve(LABELS, ceiling, scale, exponent) + rng.normal(0, 0.01, 5)
        found = fit_learning_curve(LABELS, measured, np.full(5, 0.01), rng)
        happened = curve(1600, ceiling, scale, exponent) - curve(800, ceiling, scale, exponent)
        _, low, high = found.gain(800, 800)
        covered.append(low <= happened <= high)
    assert np.mean(covered) >= 0.9


def test_slices_with_the_largest_gain_come_first():
    rng = np.random.default_rng(2)
    planted = {"flat": (0.7, 0.2, 1.0), "steep": (0.9, 3.0, 0.35), "middle": (0.8, 1.5, 0.5)}
    rows = [
        {"slice": name, "labels": n, "value": curve(n, *how) + rng.normal(0, 0.005), "error": 0.005}
        for name, how in planted.items()
        for n in LABELS
    ]
    rows += [{"slice": "new", "labels": 10.0, "value": 0.1, "error": 0.05}]
    ranked = rank_by_gain(pd.DataFrame(rows), more=400, rng=rng)
    assert list(ranked["slice"]) == ["steep", "middle", "flat", "new"]
    assert np.isnan(ranked["gain"].iloc[-1])
    gain = curve(1200, *planted["steep"]) - curve(800, *planted["steep"])
    assert ranked["low"].iloc[0] <= gain <= ranked["high"].iloc[0]


def test_the_rounds_so_far_are_the_history_of_every_class():
    rounds = [f"round-{number:04d}" for number in (1, 2, 3)]
    row = {"kind": "class", "name": "gull", "map_low": 0.4, "map_high": 0.6}
    slices = pd.DataFrame(
        [{**row, "round_id": one, "map": 0.5} for one in rounds]
        + [{**row, "round_id": rounds[0], "map": 0.5, "kind": "dark"}]
        + [{**row, "round_id": rounds[0], "map": 0.5, "name": "boat", "map_low": np.nan}]
    )
    trained = pd.DataFrame({"round_id": rounds, "train_images": [20, 40, 80]})
    history = learning_history(slices, trained)
    assert list(history["slice"]) == ["class gull"] * 3
    assert list(history["labels"]) == [20, 40, 80]
    assert history["error"].to_numpy() == pytest.approx(0.2 / 3.92)
    assert list(rank_by_gain(history, more=40, rng=np.random.default_rng(0))["labels"]) == [80]


def test_too_few_points_are_refused():
    two = np.array([50.0, 100.0])
    with pytest.raises(DataError, match="needs three different numbers of labels, there are 2"):
        fit_learning_curve(two, two / 200, np.full(2, 0.01), np.random.default_rng(0))
