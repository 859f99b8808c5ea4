"""Predictions for a pool of images, with calibrated scores.

Boxes here, classifications in ``classification/predictions.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.models.classification.predictions import PROFILE, promoted_classifier
from annotation_platform.models.detection.calibration import (
    Calibration,
    fit_calibration,
    identity_calibration,
)
from annotation_platform.models.detection.custom import open_detector
from annotation_platform.models.detection.detector import (
    NetworkDetector,
    detect_files,
    predict_files,
)
from annotation_platform.models.detection.profiles import ProfiledDetector
from annotation_platform.models.network_inputs import ImagePath, image_paths
from annotation_platform.models.protocols import Detector
from annotation_platform.models.registry import ModelRegistry, ProfileCalibration
from annotation_platform.policy import Policy, PredictionPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.tables import Frame, ModelPredictions, PredictedImages, records


@dataclass(frozen=True)
class ImagePredictions:
    """The predictions for a pool of images, their cost, and two descriptions for people."""

    predictions: Frame[ModelPredictions]
    images: Frame[PredictedImages]
    model: str  # the weights
    scores: str  # the meaning of the scores


def predict_pool(
    registry: ModelRegistry,
    pool: pd.DataFrame,
    image_path: ImagePath,
    *,
    round_id: str,
    policy: Policy,
    weights: Sequence[str] = (),
) -> ImagePredictions:
    """Return the predictions for a pool of images; none without a promoted model.

    The detector is that of ``prediction_detector``, the classifier that of
    ``promoted_classifier``; either may be missing. Predictions of classes that are neither in the
    ontology nor in ``masking.classes`` are left out: the model is older than the ontology.

    Args:
        registry: holds the promoted models.
        pool: rows with ``image_id`` and ``extension``.
        image_path: returns the file of an image, given its id and extension.
        round_id: written in each prediction.
        policy: its profile and ontology.
        weights: see ``prediction_detector``.
    """
    detector = prediction_detector(registry, policy, weights)
    classifier = promoted_classifier(registry, policy.ontology)
    models = [*(detector.weights if detector else ())]
    models += [classifier.classifier.digest] if classifier else []
    if not models or pool.empty:
        return ImagePredictions(
            ModelPredictions.empty(),
            PredictedImages.empty(),
            ", ".join(models) or "none yet: the first round is labelled from scratch",
            "none",
        )
    paths = image_paths(pool, image_path)
    rows: list[dict[str, object]] = []
    costs: list[pd.DataFrame] = []
    descriptions: list[str] = []
    if detector is not None:
        stored = stored_calibration(registry, detector)
        detected = detect_files(detector, paths)
        origin = {"profile": detector.profile, "calibration": stored.digest}
        wanted = {*policy.ontology.names, *policy.masking.classes}
        boxes = detected.boxes[detected.boxes["class_name"].isin(wanted)]
        rows += _box_rows(boxes, detector.digest, stored.calibration, origin)
        costs.append(_with_counts(detected.images, boxes).assign(**origin))
        descriptions.append(_score_description(stored))
    if classifier is not None:
        classifications, images = classifier.predict_files(paths, ontology=policy.ontology)
        rows += records(classifications)
        digest = classifier.temperature.effective_digest
        costs.append(images.assign(profile=PROFILE, calibration=digest))
        descriptions.append(classifier.score_description)
    images = _summed(costs).assign(round_id=round_id, weights=",".join(models))
    return ImagePredictions(
        predictions=ModelPredictions.from_rows([{**r, "round_id": round_id} for r in rows]),
        images=PredictedImages.from_rows(records(images)),
        model=", ".join(models),
        scores="; ".join(descriptions),
    )


def prediction_detector(
    registry: ModelRegistry, policy: Policy, weights: Sequence[str] = ()
) -> ProfiledDetector | None:
    """Return the detector for predictions, an ensemble if the profile asks for one; None: none yet.

    It has the chosen profile. Its members are the promoted model and, for an ensemble, those
    promoted before it, or the custom detector if the policy names one. If ``weights``, newest
    first, begin with a model of the registry, the members are those of them that the registry has:
    earlier predictions can be repeated after another model was promoted.
    """
    if weights and registry.has(weights[0]):
        known = [registry.load(each) for each in weights if registry.has(each)]
        return _with_profile(known, policy.prediction)
    if policy.prediction.weights or policy.prediction.architecture:
        masked = policy.masking.classes
        detector = open_detector(policy.prediction, policy.ontology, masked=masked)
        return _with_profile([detector], policy.prediction)
    wanted = policy.prediction.chosen.ensemble
    members: list[Detector] = [registry.load(weights) for weights in registry.promoted_last(wanted)]
    return _with_profile(members, policy.prediction) if members else None


def stored_calibration(
    registry: ModelRegistry, detector: ProfiledDetector
) -> ProfileCalibration[Calibration]:
    """Return the stored calibration of a detector; the identity if there is none."""
    known = registry.calibration(detector.weights, detector.profile)
    return ProfileCalibration(detector.profile, known or identity_calibration())


def calibrate_new(
    registry: ModelRegistry,
    state: bytes,
    held_out: Dataset,
    paths: Mapping[str, Path],
    *,
    policy: Policy,
) -> ProfileCalibration[Calibration]:
    """Fit and store the calibration of new weights; return it.

    They are calibrated as they would predict if promoted: with the chosen profile, in an ensemble
    with the models promoted last. The promoted model is calibrated again on the same images, in
    case it stays promoted.

    Args:
        registry: receives the calibrations.
        state: the file of weights.
        held_out: labelled images that no model is trained on.
        paths: their files by image id.
        policy: its profile.
    """
    new = NetworkDetector.from_bytes(state, where="the new weights")
    others = policy.prediction.chosen.ensemble - 1
    before = [registry.load(weights) for weights in registry.promoted_last(others)]
    detector = _with_profile([new, *before], policy.prediction)
    promoted = prediction_detector(registry, policy)
    if promoted is not None:
        _calibrate(registry, promoted, held_out, paths)
    return _calibrate(registry, detector, held_out, paths)


def calibrate_detector(
    detector: Detector, held_out: Dataset, paths: Mapping[str, Path]
) -> Calibration:
    """Return the calibration of a detector, from labelled images that it was not trained on."""
    found = predict_files(detector, paths)
    return fit_calibration(found, held_out.labels, images=held_out.images["image_id"].tolist())


def _calibrate(
    registry: ModelRegistry,
    detector: ProfiledDetector,
    held_out: Dataset,
    paths: Mapping[str, Path],
) -> ProfileCalibration[Calibration]:
    found = calibrate_detector(detector, held_out, paths)
    return registry.calibrate_better(detector.weights, detector.profile, found)


def _with_profile(members: Sequence[Detector], policy: PredictionPolicy) -> ProfiledDetector:
    return ProfiledDetector(members, name=policy.profile, policy=policy.chosen)


def _box_rows(
    boxes: pd.DataFrame, weights: str, calibration: Calibration, origin: dict[str, str]
) -> list[dict[str, object]]:
    raw = boxes["score"].to_numpy(dtype=float)
    number = boxes.groupby("image_id").cumcount().astype(str).str.zfill(4)
    found = boxes.assign(
        prediction_id=boxes["image_id"] + ":" + number,
        shape="box",
        raw_score=raw,
        score=calibration.apply(boxes["class_name"].tolist(), raw),
        weights_sha256=weights,
        **origin,
    )
    return records(found)


def _with_counts(images: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    counts = images["image_id"].map(boxes["image_id"].value_counts()).fillna(0)
    return images.assign(predictions=counts.astype("int64"))


def _summed(costs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return a row for each image: numbers added up, other columns those of the first table."""
    first, *others = costs
    summed = ["passes", "predictions", "dropped", "seconds"]
    for other in others:
        first = first.assign(**{name: first[name].to_numpy() + other[name] for name in summed})
    return first


def _score_description(stored: ProfileCalibration[Calibration]) -> str:
    calibration = stored.calibration
    if not stored.digest:
        return (
            "the model's own: no calibration is known for this profile. train_model fits one to "
            f"the val split as soon as it is large enough; it had {calibration.images} images."
        )
    kinds = [one.kind for one in calibration.classes.values()]
    error = calibration.error_after
    accuracy = "" if error is None else f", expected error {error:.3f} on images held out"
    return (
        f"probabilities, from {calibration.images} images of the val split: "
        f"{kinds.count('own')} classes by their own curve, {kinds.count('pooled')} by the "
        f"common one{accuracy}"
    )
