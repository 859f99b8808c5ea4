"""Predictions that become labels without a person, under a certificate.

``certificates.py`` has the statistics, ``units.py`` turns predictions into units. Here an audit
becomes a certificate, or a reason why there is none, and the accepted predictions become labels of
the origin ``auto``. These are at most trained on: they never validate or test.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.units import need_columns
from annotation_platform.curation.certificates import (
    BoolArray,
    CertificatePlan,
    Certified,
    Units,
    accepted,
    certify,
    plan_certificate,
)
from annotation_platform.curation.exchangeability import SampleComparison, compare_samples
from annotation_platform.curation.units import Audit, audited_units, expected_units
from annotation_platform.errors import TableError
from annotation_platform.policy import AutoAcceptPolicy
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import AutoLabels, Certificates, Frame, ModelPredictions

AUTO = "auto"
"""The origin of labels that no person gave or checked."""

_MODEL = [ModelPredictions.weights_sha256, ModelPredictions.profile, ModelPredictions.calibration]


@dataclass(frozen=True)
class AcceptanceCandidates:
    """The images of a round that can be accepted, and the audit that judges them.

    Attributes:
        predictions: ``model_predictions`` of the pool and of the audited images, by one model.
        pool: images that may be accepted. Pool and audited images together are the population
            from which the audit was drawn.
        audit: of this model.
        features: by name, what is compared between audit and pool: numbers or vectors, indexed by
            image. The confidence and the number of labels are always compared.
    """

    predictions: pd.DataFrame
    pool: Sequence[str]
    audit: Audit
    features: Mapping[str, pd.Series]


@dataclass(frozen=True)
class AutoAccepted:
    """The accepted labels, their certificate, and the other images with the reason."""

    labels: Frame[AutoLabels]
    certificates: Frame[Certificates]
    held: dict[str, str]  # image -> why annotators have to label it
    seen_again: list[str]  # accepted images to annotate without predictions, sorted
    seconds_saved: float  # time of annotators, without that of ``seen_again``
    p_values: dict[str, float]  # of the comparison of the audit and the batch, by name

    @property
    def granted(self) -> bool:
        """Whether a certificate was granted."""
        overall = self.certificates[self.certificates[Certificates.class_name] == ""]
        return bool(overall[Certificates.granted].any())


@dataclass(frozen=True)
class _Outcome:
    """The certificate of a round before it is written; ``reason`` is empty if it is granted."""

    round_id: str
    classes: Sequence[str]
    plan: CertificatePlan
    certified: Certified
    audited: int
    model: Mapping[str, str]
    reason: str
    seconds_saved: float


def accept_labels(
    candidates: AcceptanceCandidates,
    *,
    round_id: str,
    policy: AutoAcceptPolicy,
    seconds_per_image: float,
    rng: np.random.Generator,
    refusal: str = "",
) -> AutoAccepted:
    """Return the labels of a round that need no person, and their certificate.

    Labels are accepted only if the audit certifies them, the batch resembles the audit, and all
    predictions come from the one calibrated model that was audited. Audited images are never
    accepted: annotators have labelled them.

    Args:
        candidates: the predictions, the pool and its audit.
        round_id: written into every row.
        policy: the policy of the round.
        seconds_per_image: time that annotators need for an image: the median of this round.
        rng: rehearses audits, permutes, and draws the images that are annotated later.
        refusal: why nothing may be accepted, whatever the audit shows; empty if it may.

    Raises:
        TableError: a column is missing, or the predictions are of several models.
    """
    predictions, audit = candidates.predictions, candidates.audit
    model = _one_model(predictions)
    audited = list(dict.fromkeys(audit.images))
    images = [image for image in dict.fromkeys(candidates.pool) if image not in set(audited)]
    classes = sorted(predictions[ModelPredictions.class_name].unique())
    least = policy.minimum_probability
    batch = expected_units(predictions, images, classes, minimum_probability=least)
    plan = _plan(batch, policy, audit_size=len(audited), rng=rng)
    found = audited_units(predictions, audit, classes, minimum_probability=least)
    certified = certify(plan, found)
    expected = expected_units(predictions, audited, classes, minimum_probability=least)
    compared = _compare(
        candidates.features, (audited, expected), (images, batch), level=policy.drift_level, rng=rng
    )
    reason = refusal or _refusal(policy, certified, len(audited), len(images), compared.reason)
    inside = _accepted(certified, batch, reason)
    taken = [image for image, is_accepted in zip(images, inside, strict=True) if is_accepted]
    again = rng.permutation(taken)[: math.ceil(policy.recheck_share * len(taken) - 1e-9)].tolist()
    saved = seconds_per_image * (len(taken) - len(again)) if taken else 0.0
    outcome = _Outcome(
        round_id, classes, plan, certified, len(audited), model, reason, seconds_saved=saved
    )
    confidence = dict(zip(images, batch.confidence.tolist(), strict=True))
    return AutoAccepted(
        labels=_labels(predictions, taken, set(again), confidence, least, round_id),
        certificates=_certificates(outcome, policy),
        held=_held(images, inside, batch, reason),
        seen_again=sorted(again),
        seconds_saved=saved,
        p_values=compared.p_values,
    )


def _one_model(predictions: pd.DataFrame) -> dict[str, str]:
    """Return the model of the predictions, with empty values if there are none."""
    need_columns(predictions, ["image_id", "class_name", *BOX_COLUMNS, "score", *_MODEL])
    if len(predictions[_MODEL].drop_duplicates()) > 1:
        raise TableError("the predictions are of several models. Accept those of one at a time.")
    return {key: "" if predictions.empty else str(predictions[key].iloc[0]) for key in _MODEL}


def _plan(
    batch: Units, policy: AutoAcceptPolicy, *, audit_size: int, rng: np.random.Generator
) -> CertificatePlan:
    return plan_certificate(
        batch,
        alpha=policy.alpha,
        delta=policy.delta,
        audit_size=audit_size,
        rng=rng,
        class_alpha=policy.class_alpha or None,
    )


def _compare(
    features: Mapping[str, pd.Series],
    audit: tuple[Sequence[str], Units],
    batch: tuple[Sequence[str], Units],
    *,
    level: float,
    rng: np.random.Generator,
) -> SampleComparison:
    """Return how the audited images and the batch differ; each side is its images and units."""
    samples = [
        {"confidence": units.confidence, "labels": units.labels.sum(axis=1)}
        | {name: _values(values, images) for name, values in features.items()}
        for images, units in (audit, batch)
    ]
    return compare_samples(samples[0], samples[1], level=level, rng=rng)


def _accepted(certified: Certified, batch: Units, reason: str) -> BoolArray:
    """Return which units of the batch are accepted; none if there is a reason against it."""
    if reason or certified.stage is None or certified.threshold is None:
        return np.zeros(len(batch), dtype=bool)
    return accepted(certified.stage, certified.threshold, batch)


def _values(values: pd.Series, images: Sequence[str]) -> FloatArray:
    """Return ``(N,)`` numbers or ``(N, D)`` vectors; NaN where an image has none."""
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
    """Return why no image is accepted, as a sentence; empty if some are."""
    if not policy.enabled:
        return "Auto-accept is off: set auto_accept.enabled in params.yaml."
    if not left:
        return "Every image was given to annotators: none is left. Set selection.budget."
    if not audited:
        return "No image was audited. Set selection.calibration_share, and collect the annotations."
    if certified.threshold is None:
        return (
            f"The audit gives no certificate: {certified.units} of {audited} audited images pass "
            f"the first threshold, with {certified.errors} errors in {certified.labels} labels; "
            f"that is not enough for {policy.alpha:.1%} with confidence "
            f"{1 - policy.delta:.0%}. Audit more images, or wait for a better model."
        )
    return f"Drift: {drift}. Audit images of this batch." if drift else ""


def _certificates(outcome: _Outcome, policy: AutoAcceptPolicy) -> Frame[Certificates]:
    """Return the certificate for all classes together, and a row for each class."""
    certified, stage = outcome.certified, outcome.certified.stage
    same: dict[str, object] = {
        "round_id": outcome.round_id,
        "delta": policy.delta,
        "threshold": certified.threshold,
        "most_labels": None if stage is None else float(stage.caps[-1]),
        "sampled_images": outcome.audited,
        "accepted_images": certified.units,
        "accepted_labels": certified.labels,
        "errors": certified.errors,
        "share": certified.share,
        "seconds_saved": outcome.seconds_saved,
        **outcome.model,
    }
    rows = [
        {
            **same,
            "class_name": "",
            "granted": not outcome.reason,
            "reason": outcome.reason,
            "alpha": policy.alpha,
            "bound": None if stage is None else float(certified.bounds[-1]),
        }
    ]
    for number, name in enumerate(outcome.classes):
        inside = stage is not None and number in stage.classes
        own = inside and stage is not None and len(stage.caps) > 1
        row = stage.classes.index(number) if own and stage is not None else 0
        reason = "" if inside else f"The audit does not certify {name} alone."
        if number in outcome.plan.weak:
            reason = f"The audit holds too few images of {name} to certify it."
        rows.append(
            {
                **same,
                "class_name": name,
                "granted": inside and not outcome.reason,
                "reason": outcome.reason or reason,
                "alpha": policy.class_alpha or policy.alpha,
                "bound": float(certified.bounds[row]) if own else None,
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
) -> Frame[AutoLabels]:
    """Return the predictions of the accepted images as labels."""
    likely = predictions[ModelPredictions.score] >= minimum_probability
    rows = predictions[predictions[ModelPredictions.image_id].isin(set(taken)) & likely]
    rows = rows.sort_values(["image_id", "score", *BOX_COLUMNS])
    if rows.empty:
        return AutoLabels.empty()
    numbers = rows.groupby(ModelPredictions.image_id).cumcount()
    labels: list[dict[str, object]] = []
    for number, row in zip(numbers.tolist(), rows.to_dict("records"), strict=True):
        corners = (float(row[side]) for side in BOX_COLUMNS)
        labels.append(
            {
                "round_id": round_id,
                "image_id": row["image_id"],
                "label_id": f"{row['image_id']}:auto:{number:04d}",
                **vars(Label.box(str(row["class_name"]), *corners)),
                "score": row["score"],
                "confidence": confidence[row["image_id"]],
                "recheck_sample": row["image_id"] in again,
                "weights_sha256": row["weights_sha256"],
            }
        )
    return AutoLabels.from_rows(labels)


def _held(images: Sequence[str], inside: BoolArray, batch: Units, refusal: str) -> dict[str, str]:
    """Return the images that were not accepted, each with the reason."""
    held: dict[str, str] = {}
    for image, is_accepted, sure in zip(images, inside, batch.confidence.tolist(), strict=True):
        if is_accepted:
            continue
        reason = f"The certificate does not cover it: confidence {sure:.3f}, or its labels."
        held[image] = refusal or (
            "The model predicts nothing for it." if np.isnan(sure) else reason
        )
    return held
