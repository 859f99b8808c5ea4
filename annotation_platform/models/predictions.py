"""What is proposed for images that people will look at, and how sure that is.

Boxes here, choices in ``choice_proposals.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.models.classification.predictions import PROFILE, proposing_classifier
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
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, PredictionPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.tables import Frame, ModelPredictions, PredictedImages, records


@dataclass(frozen=True)
class ImagePredictions:
    """What the model proposes, what that took, and two sentences on it."""

    predictions: Frame[ModelPredictions]
    images: Frame[PredictedImages]
    model: str  # which weights
    scores: str  # what the scores mean


@dataclass(frozen=True)
class Meaning:
    """What the scores of a model mean under a profile."""

    profile: str
    calibration: Calibration

    @property
    def digest(self) -> str:
        """Digest of the calibration; empty where it leaves scores as they are."""
        return "" if self.calibration.pooled.kind == "identity" else self.calibration.digest


def propose(
    registry: ModelRegistry,
    pool: pd.DataFrame,
    image_path: ImagePath,
    *,
    round_id: str,
    policy: Policy,
    weights: Sequence[str] = (),
) -> ImagePredictions:
    """Return what is proposed for a pool of images; without a promoted model, nothing.

    The detector is that of ``proposing_detector``, the classifier that of
    ``proposing_classifier``; either may be missing. Proposals of classes that neither the ontology
    nor ``masking.classes`` names are left out: they are of a model from before it changed.

    Args:
        registry: where the promoted model is.
        pool: rows with ``image_id`` and ``extension``.
        image_path: gives the file of an image for its id and extension.
        round_id: written beside each prediction.
        policy: its profile and ontology.
        weights: of the detector that is asked instead, if the registry has it; see there.
    """
    detector = proposing_detector(registry, policy, weights)
    classifier = proposing_classifier(registry, policy.ontology)
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
    looks: list[pd.DataFrame] = []
    said: list[str] = []
    if detector is not None:
        meaning = stored_calibration(registry, detector)
        looked_at = detect_files(detector, paths)
        made = {"profile": detector.profile, "calibration": meaning.digest}
        wanted = {*policy.ontology.names, *policy.masking.classes}
        boxes = looked_at.boxes[looked_at.boxes["class_name"].isin(wanted)]
        rows += _boxes(boxes, detector.digest, meaning.calibration, made)
        looks.append(_counted(looked_at.images, boxes).assign(**made))
        said.append(_said(meaning))
    if classifier is not None:
        choices, seen = classifier.look_at(paths, ontology=policy.ontology)
        rows += records(choices)
        made = {"profile": PROFILE, "calibration": classifier.temperature.meaning}
        looks.append(seen.assign(**made))
        said.append(classifier.said)
    images = _together(looks).assign(round_id=round_id, weights=",".join(models))
    return ImagePredictions(
        predictions=ModelPredictions.from_rows([{**r, "round_id": round_id} for r in rows]),
        images=PredictedImages.from_rows(records(images)),
        model=", ".join(models),
        scores="; ".join(said),
    )


def proposing_detector(
    registry: ModelRegistry, policy: Policy, weights: Sequence[str] = ()
) -> ProfiledDetector | None:
    """Return what makes the proposals: the promoted model, or several; None before the first.

    It looks as the chosen profile says, together with the models promoted before it where the
    profile asks for an ensemble. A detector that the policy names takes the place of them all.
    Where ``weights``, newest first, begin with a model of the registry, it is those of them that
    are there: what proposed once, and perhaps proposes no more.
    """
    if weights and registry.has(weights[0]):
        known = [registry.load(each) for each in weights if registry.has(each)]
        return _profiled(known, policy.prediction)
    if policy.prediction.weights or policy.prediction.architecture:
        masked = policy.masking.classes
        detector = open_detector(policy.prediction, policy.ontology, masked=masked)
        return _profiled([detector], policy.prediction)
    wanted = policy.prediction.chosen.ensemble
    members: list[Detector] = [registry.load(weights) for weights in registry.promoted_last(wanted)]
    return _profiled(members, policy.prediction) if members else None


def stored_calibration(registry: ModelRegistry, detector: ProfiledDetector) -> Meaning:
    """Return what is known of the detector's scores; the identity where that is nothing."""
    known = registry.calibration(detector.weights, detector.profile)
    return Meaning(detector.profile, known or identity_calibration())


def calibrate_new(
    registry: ModelRegistry,
    state: bytes,
    held_out: Dataset,
    paths: Mapping[str, Path],
    *,
    policy: Policy,
) -> Meaning:
    """Learn and keep what the scores of new weights mean; return it.

    They are looked at as they would propose if promoted: with the chosen profile, in an ensemble
    with the models promoted last. What the promoted model's own scores mean is learned again from
    the same images, for the case that it stays.

    Args:
        registry: keeps what is learned.
        state: the file of weights.
        held_out: images that no model learns from, with their labels.
        paths: their files by image id.
        policy: its profile.
    """
    new = NetworkDetector.from_bytes(state, where="the new weights")
    others = policy.prediction.chosen.ensemble - 1
    before = [registry.load(weights) for weights in registry.promoted_last(others)]
    detector = _profiled([new, *before], policy.prediction)
    promoted = proposing_detector(registry, policy)
    if promoted is not None:
        _keep(registry, promoted, held_out, paths)
    return _keep(registry, detector, held_out, paths)


def calibrate_detector(
    detector: Detector, held_out: Dataset, paths: Mapping[str, Path]
) -> Calibration:
    """Return what a detector's scores mean, from labelled images that it did not learn from."""
    found = predict_files(detector, paths)
    return fit_calibration(found, held_out.labels, images=held_out.images["image_id"].tolist())


def _keep(
    registry: ModelRegistry,
    detector: ProfiledDetector,
    held_out: Dataset,
    paths: Mapping[str, Path],
) -> Meaning:
    meaning = Meaning(detector.profile, calibrate_detector(detector, held_out, paths))
    # Too few images teach nothing: they are no reason to forget what more of them taught.
    if meaning.digest or registry.calibration(detector.weights, detector.profile) is None:
        registry.calibrate(detector.weights, detector.profile, meaning.calibration)
    return meaning


def _profiled(members: Sequence[Detector], policy: PredictionPolicy) -> ProfiledDetector:
    return ProfiledDetector(members, name=policy.profile, policy=policy.chosen)


def _boxes(
    boxes: pd.DataFrame, weights: str, calibration: Calibration, made: dict[str, str]
) -> list[dict[str, object]]:
    raw = boxes["score"].to_numpy(dtype=float)
    number = boxes.groupby("image_id").cumcount().astype(str).str.zfill(4)
    found = boxes.assign(
        prediction_id=boxes["image_id"] + ":" + number,
        shape="box",
        raw_score=raw,
        score=calibration.apply(boxes["class_name"].tolist(), raw),
        weights_sha256=weights,
        **made,
    )
    return records(found)


def _counted(images: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    proposals = images["image_id"].map(boxes["image_id"].value_counts()).fillna(0)
    return images.assign(proposals=proposals.astype("int64"))


def _together(looks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return a row for each image: numbers added up, the rest as the first look has it."""
    first, *others = looks
    summed = ["passes", "proposals", "dropped", "seconds"]
    for other in others:
        first = first.assign(**{name: first[name].to_numpy() + other[name] for name in summed})
    return first


def _said(meaning: Meaning) -> str:
    calibration = meaning.calibration
    if not meaning.digest:
        return (
            "the model's own: no calibration is known for this profile. train_model learns one "
            f"from the val split, once it has enough; it had {calibration.images} images."
        )
    kinds = [one.kind for one in calibration.classes.values()]
    error = calibration.error_after
    told = "" if error is None else f", expected error {error:.3f} on images held out"
    return (
        f"probabilities, from {calibration.images} images of the val split: "
        f"{kinds.count('own')} classes by their own curve, {kinds.count('pooled')} by the "
        f"common one{told}"
    )
