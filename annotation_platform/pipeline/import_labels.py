"""The labels that images landed with."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation import imported
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Counts, Histogram, Result, Rows, Thumbnails


@dataclass(frozen=True, kw_only=True)
class ImportedLabels(Result):
    """The labels of a round's images from before annotation."""

    imported_labels: pd.DataFrame


def import_labels(
    context: RoundContext, raw_images: pd.DataFrame, cleaned_images: pd.DataFrame
) -> ImportedLabels:
    """Return the labels that the round's images landed with, and why some are refused."""
    ontology = context.policy.ontology
    found = imported.imported_labels(cleaned_images, raw_images, context.lake.store, ontology)
    labels = found.labels
    usable, refused = labels[labels["problem"] == ""], labels[labels["problem"] != ""]
    shown = cleaned_images[cleaned_images["image_id"].isin(usable["image_id"])]
    shown = shown[shown["outcome"] == "accepted"]
    return ImportedLabels(
        imported_labels=labels,
        figures={
            "images": usable["image_id"].nunique(),
            "boxes": int((usable["shape"] == "box").sum()),
            "refused_images": refused["image_id"].nunique(),
            "unused_images": found.unused,
            "origins": Counts(usable.drop_duplicates("image_id")["origin"]),
            "classes": Histogram(usable["class_name"].dropna()),
            "refused": Rows(refused, ["image_id", "class_name", "origin", "problem"]),
            "preview": Thumbnails(shown, usable, ontology),
        },
    )
