"""What is proposed for images that people will look at, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.models.calibration import (
    Calibration,
    fit_calibration,
    identity_calibration,
)
from annotation_platform.models.detector import NetworkDetector, look_at_files, predict_files
from annotation_platform.models.foreign import open_detector
from annotation_platform.models.pictures import PicturePath, picture_paths
from annotation_platform.models.port import Detector
from annotation_platform.models.profiles import ProfiledDetector
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params, PredictionPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.tables import empty_table, make_table, records


@dataclass(frozen=True)
class Proposals:
    """What the model proposes, what that took, and two sentences on it."""

    predictions: pd.DataFrame  # schema.tables.MODEL_PREDICTIONS
    pictures: pd.DataFrame  # schema.tables.PREDICTED_IMAGES
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
    picture_path: PicturePath,
    *,
    round_id: str,
    policy: Params,
) -> Proposals:
    """Return what is proposed for a pool of images; without a promoted model, nothing.

    The detector is that of ``proposing_detector``. Proposals of classes that neither the ontology
    nor ``masking.classes`` names are left out: they are of a model from before it changed.

    Args:
        registry: where the promoted model is.
        pool: rows with ``image_id`` and ``extension``.
        picture_path: gives the file of a picture for its id and extension.
        round_id: written beside each prediction.
        policy: its profile and ontology.
    """
    detector = proposing_detector(registry, policy)
    if detector is None or pool.empty:
        return Proposals(
            empty_table("model_predictions"),
            empty_table("predicted_images"),
            detector.digest if detector else "none yet: the first round is labelled from scratch",
            "none",
        )
    meaning = known_meaning(registry, detector)
    looked_at = look_at_files(detector, picture_paths(pool, picture_path))
    made = {"round_id": round_id, "profile": detector.profile, "calibration": meaning.digest}
    wanted = {*policy.ontology.names, *policy.masking.classes}
    boxes = looked_at.boxes[looked_at.boxes["class_name"].isin(wanted)]
    return Proposals(
        predictions=_predictions(boxes, detector.digest, meaning.calibration, made),
        pictures=_pictures(looked_at.pictures, boxes, ",".join(detector.weights), made),
        model=", ".join(detector.weights),
        scores=_said(meaning),
    )


def proposing_detector(registry: ModelRegistry, policy: Params) -> ProfiledDetector | None:
    """Return what makes the proposals: the promoted model, or several; None before the first.

    It looks as the chosen profile says, together with the models promoted before it where the
    profile asks for an ensemble. A detector that the policy names takes the place of them all.
    """
    if policy.prediction.weights or policy.prediction.architecture:
        masked = policy.masking.classes
        detector = open_detector(policy.prediction, policy.ontology, masked=masked)
        return _profiled([detector], policy.prediction)
    wanted = policy.prediction.chosen.ensemble
    members: list[Detector] = [registry.load(weights) for weights in registry.promoted_last(wanted)]
    return _profiled(members, policy.prediction) if members else None


def known_meaning(registry: ModelRegistry, detector: ProfiledDetector) -> Meaning:
    """Return what is known of the detector's scores; the identity where that is nothing."""
    known = registry.calibration(detector.weights, detector.profile)
    return Meaning(detector.profile, known or identity_calibration())


def calibrate_new(
    registry: ModelRegistry,
    state: bytes,
    held_out: Dataset,
    paths: Mapping[str, Path],
    *,
    policy: Params,
) -> Meaning:
    """Learn and keep what the scores of new weights mean; return it.

    They are looked at as they would propose if promoted: with the chosen profile, in an ensemble
    with the models promoted last. What the promoted model's own scores mean is learned again from
    the same pictures, for the case that it stays.

    Args:
        registry: keeps what is learned.
        state: the file of weights.
        held_out: pictures that no model learns from, with their labels.
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
    """Return what a detector's scores mean, from labelled pictures that it did not learn from."""
    found = predict_files(detector, paths)
    return fit_calibration(found, held_out.labels, pictures=held_out.images["image_id"].tolist())


def _keep(
    registry: ModelRegistry,
    detector: ProfiledDetector,
    held_out: Dataset,
    paths: Mapping[str, Path],
) -> Meaning:
    meaning = Meaning(detector.profile, calibrate_detector(detector, held_out, paths))
    # Too few pictures teach nothing: they are no reason to forget what more of them taught.
    if meaning.digest or registry.calibration(detector.weights, detector.profile) is None:
        registry.calibrate(detector.weights, detector.profile, meaning.calibration)
    return meaning


def _profiled(members: Sequence[Detector], policy: PredictionPolicy) -> ProfiledDetector:
    return ProfiledDetector(members, name=policy.profile, policy=policy.chosen)


def _predictions(
    boxes: pd.DataFrame, weights: str, calibration: Calibration, made: dict[str, str]
) -> pd.DataFrame:
    raw = boxes["score"].to_numpy(dtype=float)
    number = boxes.groupby("image_id").cumcount().astype(str).str.zfill(4)
    found = boxes.assign(
        prediction_id=boxes["image_id"] + ":" + number,
        raw_score=raw,
        score=calibration.apply(boxes["class_name"].tolist(), raw),
        weights_sha256=weights,
        **made,
    )
    return make_table("model_predictions", records(found))


def _pictures(
    pictures: pd.DataFrame, boxes: pd.DataFrame, weights: str, made: dict[str, str]
) -> pd.DataFrame:
    proposals = pictures["image_id"].map(boxes["image_id"].value_counts()).fillna(0)
    counted = pictures.assign(proposals=proposals.astype("int64"), weights=weights, **made)
    return make_table("predicted_images", records(counted))


def _said(meaning: Meaning) -> str:
    calibration = meaning.calibration
    if not meaning.digest:
        return (
            "the model's own: no calibration is known for this profile. train_model learns one "
            f"from the val split, once it has enough; it had {calibration.pictures} pictures."
        )
    kinds = [one.kind for one in calibration.classes.values()]
    error = calibration.error_after
    told = "" if error is None else f", expected error {error:.3f} on pictures held out"
    return (
        f"probabilities, from {calibration.pictures} pictures of the val split: "
        f"{kinds.count('own')} classes by their own curve, {kinds.count('pooled')} by the "
        f"common one{told}"
    )
