"""Proposals that become labels without a person: under a certificate, marked, and seen again.

``certificates.py`` has the statistics. Here predictions become units, an audit becomes a
certificate with a reason where there is none, and what it allows becomes labels of the origin
``auto``, which train at most: they never validate or test.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.matching import match_boxes
from annotation_platform.consensus.units import need_columns
from annotation_platform.curation.certificates import (
    BETS,
    BoolArray,
    Certified,
    Plan,
    Units,
    accepted,
    certify,
    log_wealth,
    plan_certificate,
)
from annotation_platform.curation.exchangeability import compare_samples
from annotation_platform.errors import TableError
from annotation_platform.policy import AutoAcceptPolicy
from annotation_platform.schema.geometry import BOX_COLUMNS, Boxes, FloatArray, as_boxes
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import AutoLabels, Certificates, Frame, Reaudits

AUTO = "auto"
"""The origin of labels that no person gave or saw."""

_SAME = 0.5
_FIRST_CONTRADICTION = np.tile(-BETS / 1e6, (1, 1))
_MODEL = ["weights_sha256", "profile", "calibration"]


@dataclass(frozen=True)
class Audit:
    """Images drawn at random from the pool, in that order, and what people said of them, blind.

    ``labels`` has ``image_id``, ``class_name`` and a box; an image in which nobody saw anything
    has no row, or one without a class.
    """

    images: Sequence[str]
    labels: pd.DataFrame


@dataclass(frozen=True)
class Reaudit:
    """What people said since, blind, of images that were accepted under one certificate.

    ``alpha``, ``most_labels`` and ``level`` (its delta) are of the certificate. ``audit`` holds the
    images in the order in which they were drawn, by lot alone.
    """

    round_id: str  # of the certificate
    accepted: Frame[AutoLabels]  # of that round
    audit: Audit
    alpha: float
    most_labels: float
    level: float


@dataclass(frozen=True)
class AutoAccepted:
    """What was accepted, under which certificate, and what was not, with the reason."""

    labels: Frame[AutoLabels]
    certificates: Frame[Certificates]
    held: dict[str, str]  # image -> why people have to label it
    seen_again: list[str]  # accepted images that people label blind all the same, sorted
    seconds_saved: float  # of people's time, those of ``seen_again`` not counted
    p_values: dict[str, float]  # of the comparison of the audit and the batch, by name

    @property
    def granted(self) -> bool:
        """Whether anything could be accepted."""
        overall = self.certificates[self.certificates["class_name"] == ""]
        return bool(overall["granted"].any())


def accept_labels(
    predictions: pd.DataFrame,
    pool: Sequence[str],
    audit: Audit,
    features: Mapping[str, pd.Series],
    *,
    round_id: str,
    policy: AutoAcceptPolicy,
    seconds_per_image: float,
    rng: np.random.Generator,
    refusal: str = "",
) -> AutoAccepted:
    """Return the labels of a round that need no person, and the certificate they rest on.

    Nothing is accepted unless the audit certifies it, the batch looks like the audit, and the
    labels that were accepted have the one calibrated model that the audit judged. Audited images
    are never accepted: people have labelled them.

    Args:
        predictions: ``model_predictions`` of the pool and of the audited images, by one model.
        pool: images that may be accepted; with the audited ones, all that the audit was drawn
            from.
        audit: of this model.
        features: by name, what is compared between audit and pool: numbers or vectors, indexed by
            image. The confidence and the number of labels always are.
        round_id: written beside everything.
        policy: of the moment.
        seconds_per_image: what a person takes for one: the median of this round's answers.
        rng: rehearses audits, permutes, and draws the images that are seen again.
        refusal: why nothing may be accepted, whatever the audit shows; empty: it may.

    Raises:
        TableError: a column is missing, or the predictions are of several models.
    """
    need_columns(predictions, ["image_id", "class_name", *BOX_COLUMNS, "score", *_MODEL])
    if len(predictions[_MODEL].drop_duplicates()) > 1:
        raise TableError("the predictions are of several models. Accept those of one at a time.")
    audited = list(dict.fromkeys(audit.images))
    images = [image for image in dict.fromkeys(pool) if image not in set(audited)]
    classes = sorted(predictions["class_name"].unique())
    least = policy.minimum_probability
    batch = expected_units(predictions, images, classes, minimum_probability=least)
    expected = expected_units(predictions, audited, classes, minimum_probability=least)
    found = audited_units(predictions, audit, classes, minimum_probability=least)
    plan = plan_certificate(
        batch,
        alpha=policy.alpha,
        delta=policy.delta,
        audit_size=len(audited),
        rng=rng,
        class_alpha=policy.class_alpha or None,
    )
    certified = certify(plan, found)
    compared = compare_samples(
        {"confidence": expected.confidence, "labels": expected.labels.sum(axis=1)}
        | {name: _values(values, audited) for name, values in features.items()},
        {"confidence": batch.confidence, "labels": batch.labels.sum(axis=1)}
        | {name: _values(values, images) for name, values in features.items()},
        level=policy.drift_level,
        rng=rng,
    )
    reason = refusal or _refusal(policy, certified, len(audited), len(images), compared.reason)
    inside: BoolArray = np.zeros(len(images), dtype=bool)
    if not reason and certified.stage is not None and certified.threshold is not None:
        inside = accepted(certified.stage, certified.threshold, batch)
    taken = [image for image, kept in zip(images, inside, strict=True) if kept]
    again = rng.permutation(taken)[: math.ceil(policy.reaudit_share * len(taken) - 1e-9)].tolist()
    saved = seconds_per_image * (len(taken) - len(again)) if taken else 0.0
    table = _certificates(
        round_id, classes, plan, certified, len(audited), predictions, policy, reason, saved
    )
    confidence = dict(zip(images, batch.confidence.tolist(), strict=True))
    return AutoAccepted(
        labels=_labels(predictions, taken, set(again), confidence, least, round_id),
        certificates=table,
        held=_held(images, inside, batch, reason),
        seen_again=sorted(again),
        seconds_saved=saved,
        p_values=compared.p_values,
    )


def expected_units(
    predictions: pd.DataFrame,
    images: Sequence[str],
    classes: Sequence[str],
    *,
    minimum_probability: float,
) -> Units:
    """Return images as units, with the errors that the probabilities of their proposals expect.

    A proposal of at least ``minimum_probability`` would be a label, wrong with one minus its
    probability; one below it is an object that is missed, with its probability. The confidence is
    one minus the expected errors by labels: of all orders, that one lets most labels pass at a
    given share of errors. An image without a label, or with a probability that is no number, has
    none and is never accepted.
    """
    here = predictions[predictions["image_id"].isin(set(images))]
    chance = here["score"].to_numpy(dtype=np.float64)
    taken = chance >= minimum_probability
    labels = _counted(here, taken.astype(np.float64), images, classes)
    errors = _counted(here, np.where(taken, 1.0 - chance, chance), images, classes)
    size = labels.sum(axis=1)
    with np.errstate(invalid="ignore"):
        confidence = 1.0 - errors.sum(axis=1) / np.where(size > 0, size, np.nan)
    return Units(confidence, labels, errors)


def audited_units(
    predictions: pd.DataFrame, audit: Audit, classes: Sequence[str], *, minimum_probability: float
) -> Units:
    """Return the audited images as units, with the errors that people's blind labels show.

    A label is right if a person drew its class there, IoU 0.5 or more, one label an object. What
    people drew and no label matches is missed; an object of another class or place is both, a
    wrong label and a missed object. Missed objects of a class that is never proposed count with
    the first class: they are errors all the same.
    """
    images = list(dict.fromkeys(audit.images))
    units = expected_units(predictions, images, classes, minimum_probability=minimum_probability)
    taken = predictions[predictions["score"] >= minimum_probability]
    said = audit.labels[audit.labels["class_name"].notna()]
    proposed, seen = _boxes_by_class(taken), _boxes_by_class(said)
    row = {image: number for number, image in enumerate(images)}
    column = {name: number for number, name in enumerate(classes)}
    errors = np.zeros((len(images), len(classes)))
    for image, name in sorted({*proposed, *seen}):
        if image not in row or not classes:
            continue
        mine, theirs = (each.get((image, name), as_boxes([])) for each in (proposed, seen))
        right = len(match_boxes(mine, theirs, iou_threshold=_SAME))
        errors[row[image], column.get(name, 0)] += len(mine) + len(theirs) - 2 * right
    return Units(units.confidence, units.labels, errors)


def contradicted(
    labels: FloatArray, errors: FloatArray, *, alpha: float, most_labels: float, level: float
) -> bool:
    """Return whether accepted images that people saw again show an error above ``alpha``.

    A gambler bets that it is; where it is not, the wealth ever reaches ``1 / level`` with that
    probability at most, so one may ask after every image. Then the certificate holds no more.

    Args:
        labels: ``(N,)`` of the images seen again, in the order in which they were.
        errors: ``(N,)`` in them.
        alpha: of the certificate.
        most_labels: of the certificate: no image has more, nor counts more errors.
        level: in ``(0, 1)``.
    """
    gains = np.minimum(errors, most_labels) - alpha * labels
    wealth = log_wealth(gains[:, None], _FIRST_CONTRADICTION, worst=alpha * most_labels)
    return bool(wealth.max(initial=0.0) >= -np.log(level))


def judge_certificates(reaudits: Sequence[Reaudit], *, round_id: str) -> pd.DataFrame:
    """Return the ``reaudits`` table: of each certificate, what was seen since, and if it holds."""
    rows: list[dict[str, object]] = []
    for each in reaudits:
        classes = sorted(each.accepted["class_name"].unique())
        seen = audited_units(each.accepted, each.audit, classes, minimum_probability=0.0)
        labels, errors = seen.labels.sum(axis=1), seen.errors.sum(axis=1)
        rows.append(
            {
                "round_id": round_id,
                "certified_round": each.round_id,
                "images": len(labels),
                "labels": round(float(labels.sum())),
                "errors": round(float(errors.sum())),
                "alpha": each.alpha,
                "contradicted": contradicted(
                    labels,
                    errors,
                    alpha=each.alpha,
                    most_labels=each.most_labels,
                    level=each.level,
                ),
            }
        )
    return Reaudits.from_rows(rows)


def _boxes_by_class(rows: pd.DataFrame) -> dict[tuple[str, str], Boxes]:
    groups = rows.groupby(["image_id", "class_name"])
    return {(str(key[0]), str(key[1])): as_boxes(its[BOX_COLUMNS]) for key, its in groups}


def _counted(
    rows: pd.DataFrame, weights: FloatArray, images: Sequence[str], classes: Sequence[str]
) -> FloatArray:
    table = np.zeros((len(images), len(classes)))
    at = pd.Index(images).get_indexer(pd.Index(rows["image_id"]))
    which = pd.Index(classes).get_indexer(pd.Index(rows["class_name"]))
    np.add.at(table, (at, which), weights)
    return table


def _values(values: pd.Series, images: Sequence[str]) -> FloatArray:
    """Return ``(N,)`` numbers or ``(N, D)`` vectors; what is not known of an image is missing."""
    found = values.reindex(list(images))
    vectors = [one for one in found if isinstance(one, np.ndarray | list | tuple)]
    if not vectors:
        return found.to_numpy(dtype=np.float64)
    unknown = np.full(len(vectors[0]), np.nan)
    known = [one if isinstance(one, np.ndarray | list | tuple) else unknown for one in found]
    return np.asarray(known, dtype=np.float64)


def _refusal(
    policy: AutoAcceptPolicy, certified: Certified, audited: int, left: int, drift: str
) -> str:
    """Return why nothing is accepted, as a sentence; empty if something is."""
    if not policy.enabled:
        return "Auto-accept is off: set auto_accept.enabled in params.yaml."
    if not left:
        return "People were asked about every image: none is left. Set selection.budget."
    if not audited:
        return "No image was audited. Set selection.audit_share, and let people answer."
    if certified.threshold is None:
        return (
            f"The audit does not show it: of {audited} audited images {certified.units} would be "
            f"accepted at the first threshold, with {certified.errors} errors by "
            f"{certified.labels} labels; that is not enough for {policy.alpha:.1%} with confidence "
            f"{1 - policy.delta:.0%}. Audit more images, or wait for a better model."
        )
    return f"Drift: {drift}. Audit images of this batch." if drift else ""


def _certificates(
    round_id: str,
    classes: Sequence[str],
    plan: Plan,
    certified: Certified,
    audited: int,
    predictions: pd.DataFrame,
    policy: AutoAcceptPolicy,
    refusal: str,
    seconds_saved: float,
) -> pd.DataFrame:
    stage = certified.stage
    same: dict[str, object] = {
        "round_id": round_id,
        "delta": policy.delta,
        "threshold": certified.threshold,
        "most_labels": None if stage is None else float(stage.caps[-1]),
        "audited_images": audited,
        "accepted_images": certified.units,
        "accepted_labels": certified.labels,
        "errors": certified.errors,
        "share": certified.share,
        "seconds_saved": seconds_saved,
    }
    same |= {name: "" if predictions.empty else str(predictions[name].iloc[0]) for name in _MODEL}
    overall = None if stage is None else float(certified.bounds[-1])
    rows = [
        {
            **same,
            "class_name": "",
            "granted": not refusal,
            "reason": refusal,
            "alpha": policy.alpha,
            "bound": overall,
        }
    ]
    for number, name in enumerate(classes):
        inside = stage is not None and number in stage.classes
        own = inside and stage is not None and len(stage.caps) > 1
        at = stage.classes.index(number) if own and stage is not None else 0
        why = "" if inside else f"The audit does not certify {name} alone."
        if number in plan.weak:
            why = f"The audit holds too few images of {name} to certify it."
        rows.append(
            {
                **same,
                "class_name": name,
                "granted": inside and not refusal,
                "reason": refusal or why,
                "alpha": policy.class_alpha or policy.alpha,
                "bound": float(certified.bounds[at]) if own else None,
            }
        )
    return Certificates.from_rows(rows)


def _labels(
    predictions: pd.DataFrame,
    taken: Sequence[str],
    again: Collection[str],
    confidence: Mapping[str, float],
    minimum_probability: float,
    round_id: str,
) -> pd.DataFrame:
    mine = predictions["image_id"].isin(set(taken)) & (predictions["score"] >= minimum_probability)
    kept = predictions[mine].sort_values(["image_id", "score", *BOX_COLUMNS])
    if kept.empty:
        return AutoLabels.empty()
    number = kept.groupby("image_id").cumcount()
    rows: list[dict[str, object]] = []
    for at, row in zip(number.tolist(), kept.to_dict("records"), strict=True):
        corners = (float(row[side]) for side in BOX_COLUMNS)
        rows.append(
            {
                "round_id": round_id,
                "image_id": row["image_id"],
                "label_id": f"{row['image_id']}:auto:{at:04d}",
                **vars(Label.box(str(row["class_name"]), *corners)),
                "score": row["score"],
                "confidence": confidence[row["image_id"]],
                "seen_again": row["image_id"] in again,
                "weights_sha256": row["weights_sha256"],
            }
        )
    return AutoLabels.from_rows(rows)


def _held(images: Sequence[str], inside: BoolArray, batch: Units, refusal: str) -> dict[str, str]:
    held: dict[str, str] = {}
    for image, kept, sure in zip(images, inside, batch.confidence.tolist(), strict=True):
        if kept:
            continue
        why = f"The certificate does not reach it: confidence {sure:.3f}, or its labels."
        held[image] = refusal or ("Nothing is proposed for it." if np.isnan(sure) else why)
    return held
