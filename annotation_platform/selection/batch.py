"""Selection of the images of a round.

The order of the steps:

1. Images on the include list are selected regardless of the budget; images on the exclude list are
   not. Automatically accepted images that were drawn for annotation are selected.
2. The review sample: ``calibration_share`` of the remaining budget, at least one image, is a simple
   random sample without replacement of the whole pool except the images of step 1, drawn before any
   other choice and independent of all data: outliers and near-duplicates take part. Error bars and
   certificates depend on it; ``audit`` marks it, also if the whole pool is selected.
3. With ``outliers: mine`` flagged images, up to a fifth of the rest; with ``drop`` they are
   excluded from here on.
4. The rest by ``strategy``, see `SelectionPolicy` and ``strategies.py``. Budget that a strategy
   leaves goes to diversity; what diversity cannot use, because images have no vector, goes to the
   first images by id.

Steps 3 and 4 take a second member of a group of near-duplicates only when every remaining group has
its first, in this round or before.
"""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from annotation_platform.policy import SelectionPolicy
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.tables import Frame, SelectedImages
from annotation_platform.selection import rules
from annotation_platform.selection.outliers import FLAGGED, outlier_scores
from annotation_platform.selection.overrides import SelectionOverride
from annotation_platform.selection.pool import Candidates, SelectionInputs, gather
from annotation_platform.selection.rules import Pick, SelectionState
from annotation_platform.selection.strategies import STRATEGIES

_MINED = 0.2
"""Share of the budget that goes to outliers if the policy mines them."""
_AUDITED = "drawn at random from the whole pool, to measure the quality of labels"
_ASKED_AGAIN = "drawn at random from the automatically accepted images, to verify their labels"


@dataclass(frozen=True)
class Selection:
    """The selected images, and figures about the others."""

    images: Frame[SelectedImages]
    outliers: dict[str, float]  # image id of every flagged image of the pool: its deviations
    excluded: dict[str, str]  # image id of each excluded image: who excluded it and why
    overridden_elsewhere: tuple[str, ...]  # on the include list, but not in the pool
    without_vector: tuple[str, ...]  # no finite vector: not ranked by diversity, still selectable
    unscored_predictions: int  # predictions whose score is no number: they add no uncertainty
    unusable: dict[str, int]  # rows of the pool that cannot be selected, by reason


def select_batch(
    inputs: SelectionInputs,
    *,
    policy: SelectionPolicy,
    round_id: str,
    seed: int = 0,
    overrides: Mapping[str, SelectionOverride] | None = None,
    again: Collection[str] = (),
    choose: Literal["one", "many"] = "one",
) -> Selection:
    """Return the ``selected_images`` of a round: ``policy.budget`` images, or the whole pool.

    The docstring of this module has the order of the steps. The same tables and seed give the same
    choice for any order of their rows; ties go by image id.

    Args:
        inputs: the tables.
        policy: budget (0: everything), strategy and shares.
        round_id: the round of the selection.
        seed: seed of all draws, together with the round.
        overrides: overrides for single images.
        again: automatically accepted images that were drawn for annotation.
        choose: whether an image has one class or any number of classes.

    Raises:
        DataError: the vectors are of two embedders.
    """
    overrides = overrides or {}
    sound, unusable = _sound(inputs.pool)
    candidates = gather(replace(inputs, pool=sound), choose=choose)
    scores = _outliers(candidates, _draws(seed, round_id, "outliers"))
    images = candidates.image_ids
    out = [
        row
        for row, image in enumerate(images)
        if image in overrides and not overrides[image].wanted
    ]
    state = SelectionState(candidates, np.array(out, dtype=np.int64))
    included = [
        row for row, image in enumerate(images) if image in overrides and overrides[image].wanted
    ]
    state.take([Pick(row, "included", overrides[images[row]].sentence) for row in included])
    rechecked = set(again) - set(overrides)
    drawn = [row for row, image in enumerate(images) if image in rechecked]
    state.take([Pick(row, "recheck", _ASKED_AGAIN) for row in drawn])
    audit = _choose(state, policy, scores, seed, round_id)
    excluded = {images[row]: overrides[images[row]] for row in out}
    missing = {image for image, override in overrides.items() if override.wanted} - set(images)
    return Selection(
        images=_table(state, audit, scores, round_id),
        outliers={images[row]: float(scores[row]) for row in np.flatnonzero(scores >= FLAGGED)},
        excluded={
            image: f"{override.by}: {override.reason}" for image, override in excluded.items()
        },
        overridden_elsewhere=tuple(sorted(missing)),
        without_vector=tuple(images[row] for row in np.flatnonzero(~candidates.usable)),
        unscored_predictions=int((~np.isfinite(candidates.scores)).sum()),
        unusable=unusable,
    )


def _sound(pool: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    unusable: dict[str, int] = {}
    if "outcome" in pool:
        accepted = pool["outcome"] == "accepted"
        unusable = {
            str(k): int(n) for k, n in pool.loc[~accepted, "outcome"].value_counts().items()
        }
        pool = pool[accepted]
    repeated = pool["image_id"].duplicated()
    if repeated.any():
        unusable["repeated"] = int(repeated.sum())
    return pool[~repeated], unusable


def _outliers(candidates: Candidates, rng: np.random.Generator) -> FloatArray:
    """Return the outlier score of each candidate; NaN for one without a vector."""
    scores = np.full(len(candidates), np.nan)
    usable = candidates.usable
    vectors = candidates.vectors if usable.all() else candidates.vectors[usable]
    scores[usable] = outlier_scores(vectors, rng)
    return scores


def _choose(
    state: SelectionState, policy: SelectionPolicy, scores: FloatArray, seed: int, round_id: str
) -> set[int]:
    """Choose at random and by rule; return the rows of the review sample."""
    population = state.free()
    whole = policy.budget == 0
    left = len(population) if whole else max(0, policy.budget - len(state.picks))
    left = min(left, len(population))
    # A small tolerance keeps 0.1 × 30 at 3.
    drawn = math.ceil(policy.calibration_share * left - 1e-9)
    rng = _draws(seed, round_id, "audit")
    audit = sorted(rng.choice(population, size=drawn, replace=False).tolist())
    left -= state.take([Pick(row, "calibration", _AUDITED) for row in audit])
    if policy.outliers == "drop":
        state.close(np.flatnonzero(scores >= FLAGGED))
    free = state.free()
    if left >= len(free):
        reason = "all images of the round"
        state.take([Pick(int(row), "all", reason) for row in free])
        return set(audit)
    if policy.outliers == "mine":
        left -= _mine(state, math.ceil(_MINED * left), scores)
    rng = _draws(seed, round_id, "lots")
    while left > 0:
        left -= _turn(state, policy, min(left, state.room()), rng)
    return set(audit)


def _mine(state: SelectionState, wanted: int, scores: FloatArray) -> int:
    taken = 0
    while taken < wanted:
        picks = rules.outlying(state, wanted - taken, scores)
        if not picks:
            break
        taken += state.take(picks)
    return taken


def _turn(
    state: SelectionState, policy: SelectionPolicy, wanted: int, rng: np.random.Generator
) -> int:
    """Choose ``wanted`` images, no two of a group; return their number."""
    left = wanted - STRATEGIES[policy.strategy](state, wanted, policy, rng)
    if left:
        left -= state.take(rules.diverse(state, left))
    if left:
        state.take(rules.remaining(state, left))
    return wanted


def _table(
    state: SelectionState, audit: set[int], scores: FloatArray, round_id: str
) -> pd.DataFrame:
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "image_id": state.candidates.image_ids[pick.row],
            "rank": rank,
            "rule": pick.rule,
            "reason": pick.reason,
            "score": pick.score,
            "calibration_sample": pick.row in audit,
            "outlier_score": scores[pick.row],
        }
        for rank, pick in enumerate(state.picks)
    ]
    return SelectedImages.from_rows(rows)


def _draws(seed: int, round_id: str, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose; draws of one purpose do not affect another."""
    digest = hashlib.sha256(f"{seed} {round_id} {purpose}".encode()).digest()
    return np.random.default_rng(list(digest))
