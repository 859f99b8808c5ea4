"""The labels that were there before anybody was asked."""

import dagster as dg
import pandas as pd

from annotation_platform.curation import imported
from annotation_platform.params import Params
from annotation_platform.storage.lake import Lake
from assets.metadata import counts, histogram, pictures, table
from assets.partitions import rounds


@dg.asset(partitions_def=rounds, group_name="ingestion", kinds={"pandas"}, code_version="1")
def imported_labels(
    raw_images: pd.DataFrame,
    cleaned_images: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The labels that images landed with, where they are from, and why some are refused."""
    found = imported.imported_labels(cleaned_images, raw_images, lake.store, policy.ontology)
    labels = found.labels
    usable, refused = labels[labels["problem"] == ""], labels[labels["problem"] != ""]
    shown = cleaned_images[cleaned_images["image_id"].isin(usable["image_id"])]
    shown = shown[shown["outcome"] == "accepted"]
    return dg.MaterializeResult(
        value=labels,
        metadata={
            "images": usable["image_id"].nunique(),
            "boxes": int((usable["shape"] == "box").sum()),
            "refused_images": refused["image_id"].nunique(),
            "unused_images": found.unused,
            "origins": counts(usable.drop_duplicates("image_id")["origin"]),
            "classes": histogram(usable["class_name"].dropna()),
            "refused": table(refused, ["image_id", "class_name", "origin", "problem"]),
            "preview": pictures(shown, lake, usable, policy.ontology),
        },
    )
