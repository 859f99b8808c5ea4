"""Promotion and intervals on models whose true quality is known."""

import numpy as np
import pytest

from annotation_platform.errors import DataError
from annotation_platform.models.evaluation.evaluation import figure_intervals
from annotation_platform.models.evaluation.promotion import best_of, compare, decide_promotion
from tests.core.models.simulated_models import SimulatedImages, true_map

WORSE = -0.23


def images(seed, number=100):
    return SimulatedImages(np.random.default_rng(seed), number)


def test_the_first_model_is_promoted():
    decision = decide_promotion(images(0).evaluation(0), {})
    assert decision.promoted
    assert decision.reason.startswith("Promoted: the first model, mAP 0.")
    assert decision.comparison is None


def test_a_model_compared_with_itself_is_promoted():
    model = images(0).evaluation(0)
    decision = decide_promotion(model, {"the promoted model": model})
    assert decision.promoted
    assert decision.comparison.map.low == decision.comparison.map.high == 0


def test_a_truly_worse_model_is_refused_with_the_reason():
    assert true_map(0) - true_map(WORSE) == pytest.approx(0.05, abs=0.006)
    decisions = []
    for seed in range(20):
        drawn = images(seed)
        before = {"the promoted model": drawn.evaluation(0)}
        decisions.append(decide_promotion(drawn.evaluation(WORSE), before))
    assert sum(not one.promoted for one in decisions) >= 19
    reasons = [one.reason for one in decisions if not one.promoted]
    assert all(text.startswith("Kept the promoted model: the new one is worse") for text in reasons)
    assert all("on the same 100 test images (difference -0." in text for text in reasons)


def test_a_truly_better_model_is_promoted():
    drawn = [images(seed) for seed in range(10)]
    decisions = [
        decide_promotion(one.evaluation(0), {"the promoted model": one.evaluation(WORSE)})
        for one in drawn
    ]
    assert sum(one.promoted for one in decisions) >= 9


def test_the_model_of_a_later_round_is_replaced_only_by_a_better_one():
    equal, better = 0, 0
    for seed in range(20):
        drawn = images(seed)
        last = {"the last": drawn.evaluation(0)}
        equal += decide_promotion(drawn.evaluation(0), last, later="the last").promoted
        better += decide_promotion(drawn.evaluation(-3 * WORSE), last, later="the last").promoted
    # The interval holds 95 %, so of 20 equal ones about half of one is promoted as better.
    assert equal <= 2
    assert better == 20


@pytest.mark.long
def test_small_losses_in_every_round_are_detected():
    """Each model is a little worse than the one it continues from: about 0.006 mAP a round."""
    drawn = images(3, 150)
    skill, best, last = 0.0, drawn.evaluation(0), drawn.evaluation(0)
    alone = 0.0
    last_alone = last
    for _ in range(14):
        new = drawn.evaluation(skill - 0.03)
        decision = decide_promotion(
            new, {"the best model so far": best, "the promoted model": last}
        )
        if decision.promoted:
            skill, last = skill - 0.03, new
            best = {"best": best, "new": new}[best_of({"best": best, "new": new})]
        # Compared with the last model alone, by the interval alone, hardly any model is refused.
        other = drawn.evaluation(alone - 0.03)
        if compare(other, last_alone).map.high >= 0:
            alone, last_alone = alone - 0.03, other
    assert true_map(0) - true_map(alone) > 0.07
    assert true_map(0) - true_map(skill) < 0.03


@pytest.mark.long
def test_over_many_rounds_of_equal_models_the_promoted_one_does_not_get_worse():
    """Models of equal training differ by chance, by 0.1 of skill, 0.02 mAP, and in the test."""
    ends = []
    for seed in range(20):
        rng = np.random.default_rng(1000 + seed)
        drawn = images(seed, 60)
        skill = 0.1 * rng.normal()
        best = last = drawn.evaluation(skill)
        for _ in range(25):
            candidate = 0.1 * rng.normal()
            new = drawn.evaluation(candidate)
            before = {"the best model so far": best, "the promoted model": last}
            if decide_promotion(new, before).promoted:
                skill, last = candidate, new
                best = max(best, new, key=lambda one: one.map)
        ends.append(skill)
    # The mean of 20 candidates has a standard error of 0.022 of skill.
    assert np.mean(ends) > -0.045


@pytest.mark.long
@pytest.mark.parametrize(("number", "nominal"), [(20, 0.89), (100, 0.91)])
def test_intervals_cover_the_true_figure(number, nominal):
    """At 0.95, less three standard errors and the loss of coverage on few images."""
    expected = true_map(0)
    covered = 0
    for seed in range(300):
        figures = images(seed, number).evaluation(0).coco
        found = figure_intervals(figures, seed=1000 + seed).overall["ap"]
        covered += found.low <= expected <= found.high
    assert covered / 300 >= nominal


def test_the_best_is_the_highest_and_the_last_of_equals():
    drawn = images(0)
    good, poor = drawn.evaluation(1), drawn.evaluation(-1)
    assert best_of({"a": poor, "b": good}) == "b"
    assert best_of({"a": good, "b": poor, "c": good}) == "c"


def test_models_tested_on_different_images_are_not_compared():
    with pytest.raises(DataError, match="on 30 images, the promoted one on 25"):
        decide_promotion(
            images(0, 30).evaluation(0), {"the promoted model": images(0, 25).evaluation(0)}
        )
