import numpy as np
import pytest
from scipy.stats import binom

from annotation_platform.curation.certificates import (
    BETS,
    CertificatePlan,
    CertificateStage,
    Units,
    accepted,
    certify,
    log_wealth,
    plan_certificate,
)
from annotation_platform.curation.exchangeability import compare_samples
from benchmarks.auto_accept import MODELS, drift, simulate

ALPHA, DELTA = 0.05, 0.1


def one_threshold(*, cap=1.0, alpha=ALPHA, delta=DELTA, thresholds=(0.5,)):
    """Return a stage of one class whose gambler expects most of the largest bet."""
    count = len(thresholds)
    leads = np.tile(np.arange(len(BETS))[::-1] / 1e6, (1, count, 1))
    cells = np.array([alpha]), np.array([cap]), np.array(thresholds), np.linspace(0.5, 1, count)
    return CertificateStage((0,), delta, *cells, leads, np.ones(1))


def choices(right, wrong, confidence=0.9):
    count = right + wrong
    errors = np.zeros((count, 1))
    errors[:wrong] = 1.0
    return Units(np.full(count, confidence), np.ones((count, 1)), errors)


@pytest.mark.parametrize(
    ("right", "wrong", "granted"),
    [
        # 0.95 ** 44 is above 0.1 and 0.95 ** 45 is not.
        pytest.param(44, 0, False, id="too few"),
        pytest.param(45, 0, True, id="just enough"),
        # Of 77, at most one wrong: 0.95**77 + 77 * 0.05 * 0.95**76 = 0.0973; of 76, 0.1011.
        pytest.param(75, 1, False, id="one wrong of 76"),
        pytest.param(76, 1, True, id="one wrong of 77"),
    ],
)
def test_choices_are_certified_by_the_exact_binomial_tail(right, wrong, granted):
    found = certify(CertificatePlan((one_threshold(),), (), single=True), choices(right, wrong))
    assert (found.threshold is not None) == granted
    assert (found.labels, found.errors) == (right + wrong, wrong)
    if granted:
        # The bound is Clopper and Pearson's upper end.
        assert binom.cdf(wrong, right + wrong, found.bounds[0]) == pytest.approx(DELTA, abs=1e-4)


def test_flawless_images_are_worth_what_the_largest_bet_says():
    # Ten labels each and at most ten errors: an image multiplies the wealth by 1 + 0.99 * 0.05.
    needed = int(np.ceil(np.log(1 / DELTA) / np.log1p(BETS[0] * ALPHA)))
    plan = CertificatePlan((one_threshold(cap=10.0),), (), single=False)
    for count, granted in ((needed - 1, False), (needed, True)):
        audit = Units(np.ones(count), np.full((count, 1), 10.0), np.zeros((count, 1)))
        assert (certify(plan, audit).threshold is not None) == granted


def test_a_later_threshold_is_not_asked_once_one_failed():
    stage = one_threshold(thresholds=(0.9, 0.8, 0.7))
    sure, middle, rest = choices(100, 0, 0.95), choices(0, 30, 0.85), choices(2000, 0, 0.75)
    parts = [sure, middle, rest]
    audit = Units(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(sure)))
    # At 0.7 the error is 30 of 2,130, which would do, but at 0.8 it is 30 of 130.
    assert certify(CertificatePlan((stage,), (), single=True), audit).threshold == 0.9


@pytest.mark.parametrize("kind", ["rare and large", "mixed sizes", "common and small"])
def test_the_gambler_gets_rich_by_chance_no_more_often_than_delta(kind):
    """Errors of exactly alpha, the hardest case that must not be certified."""
    rng = np.random.default_rng(5)
    rounds, images, cap = 4000, 300, 10.0
    labels = np.full((images, rounds), 10.0)
    if kind == "mixed sizes":
        labels = rng.integers(1, 11, labels.shape).astype(float)
    if kind == "common and small":
        errors = rng.binomial(labels.astype(int), ALPHA).astype(float)
    else:
        errors = labels * (rng.random(labels.shape) < ALPHA)
    leads = np.tile(-BETS / 1e6, (rounds, 1))
    wealth = log_wealth(ALPHA * labels - errors, leads, worst=cap).max(axis=0)
    violations = int((wealth >= np.log(1 / DELTA)).sum())
    # More violations than this have a chance of one in a thousand if delta is kept.
    assert violations <= binom.ppf(0.999, rounds, DELTA)


def test_what_was_never_drawn_and_nan_and_other_classes_are_not_accepted():
    stage = one_threshold(cap=3.0)
    units = Units(
        np.array([0.9, np.nan, 0.9, 0.9, 0.4]),
        np.array([[2.0, 0], [2, 0], [2, 1], [4, 0], [1, 0]]),
        np.zeros((5, 2)),
    )
    assert accepted(stage, 0.5, units).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("pool", [0, 3])
def test_without_anything_to_plan_on_nothing_is_certified(pool):
    nothing = Units(np.full(pool, np.nan), np.zeros((pool, 2)), np.zeros((pool, 2)))
    rng = np.random.default_rng(0)
    plan = plan_certificate(nothing, alpha=ALPHA, delta=DELTA, audit_size=100, rng=rng)
    assert certify(plan, nothing).threshold is None


def test_a_class_that_is_bad_is_left_out_and_the_others_are_accepted():
    rng = np.random.default_rng(3)

    def images(count):
        # One class an image; the third has the scores of the others and more errors.
        labels = np.zeros((count, 3))
        labels[np.arange(count), rng.choice(3, count, p=[0.45, 0.45, 0.1])] = 4.0
        expected = labels * 0.01
        wrong = rng.binomial(labels.astype(int), [0.005, 0.005, 0.5]).astype(float)
        confidence = np.full(count, 0.99) + rng.normal(0, 1e-3, count)
        return Units(confidence, labels, expected), Units(confidence, labels, wrong)

    pool, _ = images(2000)
    plan = plan_certificate(
        pool, alpha=ALPHA, delta=DELTA, audit_size=1500, rng=rng, class_alpha=0.15
    )
    found = certify(plan, images(1500)[1])
    assert set(found.stage.classes) < {0, 1, 2}
    assert 2 not in found.stage.classes
    assert (found.bounds <= found.stage.alphas).all()


@pytest.mark.parametrize("class_alpha", [None, 0.15])
@pytest.mark.parametrize("name", ["calibrated", "over-confident, 1.2", "scores say nothing"])
def test_untrue_certificates_are_rarer_than_delta(name, class_alpha):
    result = simulate(MODELS[name], rounds=30, audit=500, class_alpha=class_alpha, plans=3)
    assert result.violations <= binom.ppf(0.999, 30, DELTA)
    if name == "calibrated":
        assert result.automated >= 0.6 * result.oracle


@pytest.mark.long
@pytest.mark.parametrize("class_alpha", [None, 0.15])
@pytest.mark.parametrize("name", list(MODELS))
def test_over_a_thousand_rounds_untrue_certificates_are_rarer_than_delta(name, class_alpha):
    result = simulate(MODELS[name], rounds=1000, audit=500, class_alpha=class_alpha)
    assert result.violations <= binom.ppf(0.999, 1000, DELTA)
    if name == "calibrated":
        assert result.automated >= 0.6 * result.oracle


def test_a_batch_of_another_kind_is_told_and_one_of_the_same_is_not():
    assert drift(rounds=12, audit=500, harder=1.0) == 1.0
    # At a level of 0.01, three of 40 or more have a chance of 0.7 %.
    assert drift(rounds=40, audit=200, harder=0.0) <= 2 / 40


def test_the_reason_names_what_differs():
    rng = np.random.default_rng(2)
    audit = {"brightness": rng.normal(100, 10, 200), "width": np.full(200, 640.0)}
    batch = {"brightness": rng.normal(60, 10, 300), "width": np.full(300, 640.0)}
    found = compare_samples(audit, batch, level=0.01, rng=rng)
    assert "brightness" in found.reason
    assert "width" not in found.reason
    # A value that is missing in one of them alone is a difference too.
    lost = audit | {"brightness": np.full(200, np.nan)}
    assert compare_samples(audit, lost, level=0.01, rng=rng).reason
