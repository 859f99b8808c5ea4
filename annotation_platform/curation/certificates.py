"""Which predictions may become labels without a person, such that few of them are wrong.

A *unit* is accepted or not as a whole: an image with all its predicted labels, or one
classification. The error of a set of accepted units is E[errors] / E[labels]. An audit (units drawn
at random and labelled without predictions) certifies a threshold on their confidence: with
probability ``1 - delta`` over the audit, the error at that threshold is at most ``alpha``, whatever
the model, its calibration, and the correlation of the errors of one image.
``docs/algorithms/auto-accept.md`` has the formulas, the choices and their limits.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray

BoolArray = npt.NDArray[np.bool_]

BETS = np.array([0.99, 0.9, 0.75, 0.55, 0.35, 0.2, 0.1, 0.05])
"""Shares of the wealth that one image can lose."""

_EXPECTED_WORTH = 50.0
"""Number of audited images that the expected growth of the bets weighs as much as."""

_OVERCONFIDENCE = 1.3
"""Factor on the expected errors for which the audit is planned."""

_SHARES = np.arange(2, 21) / 20
_CAPS = (0.8, 0.9, 0.95, 1.0)
_POOL = 3000
_SIMULATIONS = 40
_LEAST_POWER = 0.5


@dataclass(frozen=True)
class Units:
    """``N`` units with their predicted labels and errors in each of ``K`` classes.

    ``errors`` are wrong labels and missed objects of the class: those that the audit found, or, for
    units that were not audited, those that the probabilities imply.
    """

    confidence: FloatArray  # (N,) the higher the better; NaN is never accepted
    labels: FloatArray  # (N, K)
    errors: FloatArray  # (N, K)

    def __len__(self) -> int:
        return len(self.confidence)

    def take(self, rows: npt.NDArray[np.intp]) -> "Units":
        """Return these units, in this order."""
        return Units(self.confidence[rows], self.labels[rows], self.errors[rows])


@dataclass(frozen=True)
class CertificateStage:
    """A set of classes that can be accepted, and the thresholds to try, strictest first.

    A unit with a label of another class, or with more labels than the cap, is not accepted. The
    hypotheses are the classes of the set, in order, and last all classes together.
    """

    classes: tuple[int, ...]
    delta: float
    alphas: FloatArray  # (H,) errors that are allowed
    caps: FloatArray  # (H,) most labels of an accepted unit, and most errors that count of one
    thresholds: FloatArray  # (T,)
    shares: FloatArray  # (T,) of the pool's labels, accepted at each threshold
    leads: FloatArray  # (H, T, J) log growth that is expected of each bet on one unit
    powers: FloatArray  # (H,) simulated power of each at the first threshold


@dataclass(frozen=True)
class CertificatePlan:
    """The hypotheses and thresholds that an audit will test, fixed before the audit is seen."""

    stages: tuple[CertificateStage, ...]
    weak: tuple[int, ...]  # classes for which the audit is too small
    single: bool  # every unit has one label, and at most one error


@dataclass(frozen=True)
class Certified:
    """The lowest threshold that the audit certifies; None if it certifies none."""

    stage: CertificateStage | None
    threshold: float | None
    share: float  # of the pool's labels, expected to be accepted
    bounds: FloatArray  # (H,) upper bound of each error at the threshold
    units: int  # of the audit, accepted at the threshold, or at the first one tried
    labels: int  # of those units
    errors: int  # in those units


def plan_certificate(
    pool: Units,
    *,
    alpha: float,
    delta: float,
    audit_size: int,
    rng: np.random.Generator,
    class_alpha: float | None = None,
) -> CertificatePlan:
    """Return the thresholds, caps and first bets for an audit, from units that are not audited.

    All choices depend on the pool's confidence and on the errors that its calibrated probabilities
    imply, times ``_OVERCONFIDENCE`` for safety. They never depend on the audit, which would void
    the certificate. Audits of the planned size are simulated to estimate what they can certify.
    The first threshold is where the evidence is expected to grow fastest; lower thresholds follow.
    The caps are those with the largest expected share of accepted labels.

    With ``class_alpha`` each class has to keep that error as well. Classes for which the audit is
    too small are in no stage, so images of them are not accepted. The first stage has all other
    classes and half of ``delta``; each further stage leaves out the class with the slowest
    evidence, and these stages share the other half. ``delta`` is not split within a stage: a stage
    holds only if *every* one of its hypotheses is rejected (Berger, "Multiparameter hypothesis
    testing and acceptance sampling", 1982).

    Args:
        pool: units like those to be accepted, none of them audited, with expected errors.
        alpha: allowed error, in ``(0, 1)``.
        delta: probability of certifying a larger error, in ``(0, 1)``.
        audit_size: number of units that will be audited.
        rng: draws the simulated audits.
        class_alpha: allowed error in each class, in ``(0, 1)``; None: no limit for single classes.
    """
    usable = np.flatnonzero(np.isfinite(pool.confidence) & (pool.labels.sum(axis=1) > 0))
    single = bool(len(usable)) and float(pool.labels.sum(axis=1).max()) <= 1.0
    if len(usable) > _POOL:
        usable = np.sort(rng.choice(usable, _POOL, replace=False))
    known = pool.take(usable)
    classes = tuple(np.flatnonzero(known.labels.sum(axis=0) > 0).tolist())
    if not classes or not audit_size:
        return CertificatePlan((), classes, single)
    audits = rng.integers(0, len(known), (_SIMULATIONS, audit_size))
    errors = rng.poisson(np.maximum(_OVERCONFIDENCE * known.errors, 0.0)).astype(np.float64)
    simulation = _Simulation(replace(known, errors=errors), audits, alpha, class_alpha)
    chain = [simulation.stage(classes, delta / 2)]
    while len(chain[-1].caps) > 1:
        growth = chain[-1].leads[:-1, 0].max(axis=1)
        weakest = chain[-1].classes[int(growth.argmin())]
        others = tuple(one for one in chain[-1].classes if one != weakest)
        chain.append(simulation.stage(others, delta / 2))
    able = [each for each in chain if each.powers.min() >= _LEAST_POWER]
    able = able or [max(chain, key=lambda each: float(each.powers.min()))]
    further = delta / 2 / max(len(able) - 1, 1)
    parts = [delta] if len(able) == 1 else [delta / 2] + [further] * (len(able) - 1)
    stages = tuple(replace(each, delta=part) for each, part in zip(able, parts, strict=True))
    return CertificatePlan(stages, tuple(sorted(set(classes) - set(stages[0].classes))), single)


def certify(plan: CertificatePlan, audit: Units) -> Certified:
    """Return the threshold that the audit certifies.

    For each threshold the hypothesis "the error of the accepted units is above alpha" is tested,
    in the order of the stage, until one cannot be rejected (fixed-sequence testing, as in
    Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test", 2021). Units with one label
    give an exact binomial test. Other units are clusters, for which a gambler bets that the error
    is lower: if it is not, the wealth is a supermartingale and ever reaches ``1 / delta`` with
    probability ``delta`` at most (Ville, 1939; Waudby-Smith and Ramdas, "Estimating means of
    bounded random variables by betting", 2024).

    Args:
        plan: made without the audit.
        audit: units drawn at random, in the order in which they were drawn.
    """
    found: list[tuple[float, int, int]] = []
    for number, stage in enumerate(plan.stages):
        rejected = _rejected(plan, stage, audit)
        last = int(np.argmin(np.append(rejected, False))) - 1
        if last >= 0:
            found.append((float(stage.shares[last]), -number, last))
    if not found:
        return _nothing(plan, audit)
    share, number, last = max(found)
    stage = plan.stages[-number]
    threshold = float(stage.thresholds[last])
    inside = accepted(stage, threshold, audit)
    return Certified(
        stage,
        threshold,
        share,
        _bounds(plan, stage, last, audit),
        int(inside.sum()),
        round(float(audit.labels[inside].sum())),
        round(float(audit.errors[inside].sum())),
    )


def accepted(stage: CertificateStage, threshold: float, units: Units) -> BoolArray:
    """Return which units a stage accepts at a threshold."""
    return np.asarray(_fits(stage, units) & (units.confidence >= threshold))


def log_wealth(gains: FloatArray, leads: FloatArray, *, worst: float) -> FloatArray:
    """Return the log wealth after each unit of a gambler who begins with 1.

    A bet of share ``f`` multiplies the wealth by ``1 + f gain / worst``. Each bet is the one that
    would have earned most so far; ``leads`` counts as ``_EXPECTED_WORTH`` units before the first.
    If the mean gain is 0 or less, the wealth is a supermartingale; for units drawn without
    replacement from a finite pool this holds at the end of the pool (Maclaurin's inequality).

    Args:
        gains: ``(N, T)``, none below ``-worst``.
        leads: ``(T, J)`` expected log growth of each of ``BETS``.
        worst: the largest loss on one unit, above 0.
    """
    growth = np.log1p(gains[:, :, None] * (BETS / worst))
    before = np.cumsum(growth, axis=0) - growth + _EXPECTED_WORTH * leads
    best = before.argmax(axis=2)[:, :, None]
    return np.asarray(np.take_along_axis(growth, best, axis=2)[:, :, 0].cumsum(axis=0))


def _hypotheses(
    stage: CertificateStage, units: Units
) -> Iterator[tuple[FloatArray, FloatArray, float]]:
    """Return labels, errors and cap of each class of the stage, and of all classes together."""
    own = len(stage.caps) - 1
    for column, cap in zip(stage.classes[:own], stage.caps[:own].tolist(), strict=True):
        yield units.labels[:, column], np.minimum(units.errors[:, column], cap), cap
    cap = float(stage.caps[-1])
    yield units.labels.sum(axis=1), np.minimum(units.errors.sum(axis=1), cap), cap


def _fits(stage: CertificateStage, units: Units) -> BoolArray:
    other_class = np.delete(units.labels, stage.classes, axis=1).sum(axis=1) > 0
    fits = np.isfinite(units.confidence) & ~other_class
    for labels, _, cap in _hypotheses(stage, units):
        fits &= labels <= cap
    return np.asarray(fits, dtype=np.bool_)


def _rejected(plan: CertificatePlan, stage: CertificateStage, audit: Units) -> BoolArray:
    """Return for each threshold whether all hypotheses of the stage are rejected."""
    rejected = np.ones(len(stage.thresholds), dtype=bool)
    for number in range(len(stage.caps)):
        evidence = _evidence(plan, stage, number, audit, stage.alphas[number])
        rejected &= evidence >= -np.log(stage.delta)
    return rejected


def _evidence(
    plan: CertificatePlan,
    stage: CertificateStage,
    number: int,
    audit: Units,
    alpha: float,
) -> FloatArray:
    """Return ``(T,)`` evidence against an error above ``alpha``; ``log(1 / delta)`` is enough."""
    labels, errors, cap = list(_hypotheses(stage, audit))[number]
    inside = _fits(stage, audit)[:, None] & (audit.confidence[:, None] >= stage.thresholds)
    if plan.single:
        return _binomial_evidence(labels, errors, inside, alpha)
    gains = np.where(inside, (alpha * labels - errors)[:, None], 0.0)
    wealth = log_wealth(gains, stage.leads[number], worst=cap)
    return np.asarray(wealth.max(axis=0, initial=0.0))


def _binomial_evidence(
    labels: FloatArray, errors: FloatArray, inside: BoolArray, alpha: float
) -> FloatArray:
    from scipy.special import bdtr

    counted = inside & (labels[:, None] > 0)
    wrong = (counted & (errors[:, None] > 0)).sum(axis=0)
    chance = bdtr(wrong, counted.sum(axis=0), alpha)
    return np.asarray(-np.log(np.maximum(chance, 1e-300)))


def _bounds(plan: CertificatePlan, stage: CertificateStage, last: int, audit: Units) -> FloatArray:
    """Return, for each hypothesis, the smallest error that the audit excludes at a threshold."""
    at = replace(
        stage, thresholds=stage.thresholds[last : last + 1], leads=stage.leads[:, last : last + 1]
    )
    bounds = stage.alphas.copy()
    for number in range(len(bounds)):
        low, high = 0.0, float(bounds[number])
        for _ in range(20):
            middle = (low + high) / 2
            evidence = _evidence(plan, at, number, audit, middle)[0]
            low, high = (low, middle) if evidence >= -np.log(stage.delta) else (middle, high)
        bounds[number] = high
    return bounds


def _nothing(plan: CertificatePlan, audit: Units) -> Certified:
    if not plan.stages:
        return Certified(None, None, 0.0, np.zeros(0), 0, 0, 0)
    first = plan.stages[0]
    inside = accepted(first, float(first.thresholds[0]), audit)
    labels, errors = audit.labels[inside].sum(), audit.errors[inside].sum()
    counts = (int(inside.sum()), round(float(labels)), round(float(errors)))
    return Certified(None, None, 0.0, np.zeros(0), *counts)


@dataclass(frozen=True)
class _Simulation:
    """Simulated audits: units of the pool with errors drawn from their probabilities."""

    pool: Units
    audits: npt.NDArray[np.int64]  # (simulations, audit size) rows of the pool
    alpha: float
    class_alpha: float | None

    def stage(self, classes: tuple[int, ...], delta: float) -> CertificateStage:
        """Return the stage of these classes with the caps that accept the largest share."""
        own = classes if self.class_alpha is not None and len(classes) > 1 else ()
        alphas = np.array([self.class_alpha] * len(own) + [self.alpha], dtype=np.float64)
        labels = self.pool.labels
        counts = [labels[:, column] for column in own] + [labels.sum(axis=1)]
        caps = {
            tuple(np.quantile(each[each > 0], quantile).round() for each in counts): None
            for quantile in _CAPS
        }
        stages = [self._with_caps(classes, delta, alphas, np.array(each)) for each in caps]
        return max(stages, key=lambda found: found[1])[0]

    def _with_caps(
        self, classes: tuple[int, ...], delta: float, alphas: FloatArray, caps: FloatArray
    ) -> tuple[CertificateStage, float]:
        """Return the stage with these caps, and the expected share of accepted labels."""
        pool, nothing = self.pool, np.zeros(0)
        bare = CertificateStage(classes, delta, alphas, caps, nothing, nothing, nothing, nothing)
        fits = _fits(bare, pool)
        if not fits.any():
            never, none = np.array([np.inf]), np.zeros(len(caps))
            leads = np.zeros((len(caps), 1, len(BETS)))
            return CertificateStage(
                classes, delta, alphas, caps, never, np.zeros(1), leads, none
            ), 0.0
        thresholds = np.unique(np.quantile(pool.confidence[fits], 1.0 - _SHARES))[::-1]
        inside = fits[:, None] & (pool.confidence[:, None] >= thresholds)
        size = pool.labels.sum(axis=1)
        shares = (size @ inside) / size.sum()
        growths: list[FloatArray] = []
        sure: list[BoolArray] = []
        for (labels, errors, cap), alpha in zip(_hypotheses(bare, pool), alphas, strict=True):
            gains = np.where(inside, (alpha * labels - errors)[:, None], 0.0)
            growth = np.stack([np.log1p(gains * (bet / cap)) for bet in BETS], axis=2)
            growths.append(growth.mean(axis=0))
            best = growths[-1].argmax(axis=1)[None, :, None]
            taken = np.take_along_axis(growth, best, axis=2)[:, :, 0]
            most = np.stack([taken[rows].cumsum(axis=0).max(axis=0) for rows in self.audits])
            sure.append(most >= -np.log(delta))
        # Where the wealth is expected to grow fastest, in the slowest of the hypotheses.
        first = int(np.stack(growths).max(axis=2).min(axis=0).argmax())
        through = np.logical_and.accumulate(np.all(sure, axis=0)[:, first:], axis=1)
        worth = np.where(through, shares[first:], 0.0).max(axis=1).mean()
        stage = replace(
            bare,
            thresholds=thresholds[first:],
            shares=np.asarray(shares[first:]),
            leads=np.stack(growths)[:, first:],
            powers=np.array([each[:, first].mean() for each in sure]),
        )
        return stage, float(worth)
