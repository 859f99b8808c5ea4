"""Predictions of classes of whole images, with calibrated probabilities."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.models.classification.calibration import Temperature
from annotation_platform.models.classification.classifier import (
    ImageClassifier,
    predict_classifications,
)
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology

PROFILE = "whole-picture"
"""Profile of every classifier: one pass over the whole image."""


@dataclass(frozen=True)
class PromotedClassifier:
    """The promoted classifier, and the calibration of its probabilities."""

    classifier: ImageClassifier
    temperature: Temperature

    def predict_files(
        self, paths: Mapping[str, Path], *, ontology: Ontology
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return a row for every class of every image, and a row for every image.

        Improbable classes are included: selection and label issues use the probabilities of all,
        and an ontology has few. An image for which the network returns no numbers has no class.

        Args:
            paths: the files by image id.
            ontology: its classifications.

        Returns:
            Columns of ``model_predictions``, and ``IMAGE_COLUMNS`` of ``detector.py``.
        """
        started = time.perf_counter()
        names, images = ontology.choices, list(paths)
        raw = predict_classifications(
            self.classifier, paths, class_names=names, choose=ontology.choose
        )
        sound = np.asarray(np.isfinite(raw).all(axis=1))
        score = self.temperature.apply(raw)
        seconds = (time.perf_counter() - started) / max(1, len(images))
        rows, columns = np.nonzero(np.repeat(sound[:, None], len(names), axis=1))
        ids = np.array(images, dtype=object)[rows]
        numbers = pd.Series(columns).astype(str).str.zfill(4)
        predictions = pd.DataFrame(
            {
                "image_id": ids,
                "prediction_id": pd.Series(ids, dtype="str") + ":choice:" + numbers,
                "shape": "choice",
                "class_name": np.array(names, dtype=object)[columns],
                **dict.fromkeys(BOX_COLUMNS, np.nan),
                "score": score[rows, columns],
                "raw_score": raw[rows, columns],
                "weights_sha256": self.classifier.digest,
                "profile": PROFILE,
                "calibration": self.temperature.effective_digest,
            }
        )
        image_rows = pd.DataFrame(
            {
                "image_id": images,
                "passes": 1,
                "predictions": sound * len(names),
                "dropped": ~sound * len(names),
                "seconds": seconds,
                "device": self.classifier.device,
            }
        )
        return predictions, image_rows

    @property
    def score_description(self) -> str:
        """What its scores are, as a phrase for people."""
        found = self.temperature
        if not found.effective_digest:
            return (
                "classifications: the classifier's own scores, since "
                f"{found.images} images are too few for a calibration"
            )
        error = found.error_after
        accuracy = "" if error is None else f", expected error {error:.3f} on images held out"
        return (
            f"classifications: probabilities, calibrated on {found.images} images of the val "
            f"split with a temperature of {found.temperature:.2f}{accuracy}"
        )


def promoted_classifier(registry: ModelRegistry, ontology: Ontology) -> PromotedClassifier | None:
    """Return the promoted classifier; None before the first, or without classifications."""
    known = registry.classifiers
    promoted = known.promoted() if ontology.choices else None
    if promoted is None:
        return None
    temperature = known.temperature([promoted], PROFILE)
    return PromotedClassifier(
        ImageClassifier.from_registry(known, promoted),
        temperature or Temperature(choose=ontology.choose, images=0),
    )
