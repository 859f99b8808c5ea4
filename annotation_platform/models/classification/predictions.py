"""What is proposed for images as a whole, and how sure that is."""

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
"""How a classifier looks: once, at the whole image."""


@dataclass(frozen=True)
class ProposingClassifier:
    """The promoted classifier, and what its probabilities mean."""

    classifier: ImageClassifier
    temperature: Temperature

    def look_at(
        self, paths: Mapping[str, Path], *, ontology: Ontology
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return a row for every choice of every image, and a row for every image.

        All choices are told, unlikely ones too: selection and suspicion rest on all of them, and
        they are as few as the buttons that people see. An image of which the network gives no
        numbers has no choice.

        Args:
            paths: the files by image id.
            ontology: its choices.

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
                "calibration": self.temperature.meaning,
            }
        )
        image_rows = pd.DataFrame(
            {
                "image_id": images,
                "passes": 1,
                "proposals": sound * len(names),
                "dropped": ~sound * len(names),
                "seconds": seconds,
                "device": self.classifier.device,
            }
        )
        return predictions, image_rows

    @property
    def said(self) -> str:
        """What its scores mean, as a phrase."""
        found = self.temperature
        if not found.meaning:
            return f"of choices the classifier's own: {found.images} images tell too little"
        error = found.error_after
        told = "" if error is None else f", expected error {error:.3f} on images held out"
        return (
            f"of choices probabilities, from {found.images} images of the val split, by a "
            f"temperature of {found.temperature:.2f}{told}"
        )


def proposing_classifier(registry: ModelRegistry, ontology: Ontology) -> ProposingClassifier | None:
    """Return the classifier that makes the proposals; None before the first, or without choices."""
    known = registry.classifiers
    promoted = known.promoted() if ontology.choices else None
    if promoted is None:
        return None
    temperature = known.temperature([promoted], PROFILE)
    return ProposingClassifier(
        ImageClassifier.from_registry(known, promoted),
        temperature or Temperature(choose=ontology.choose, images=0),
    )
