"""The import of the labels that images landed with."""

from dataclasses import dataclass

from annotation_platform.curation import imported
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import BarChart, Counts, Result, TableRows, Thumbnails
from annotation_platform.schema.shapes import UPRIGHT_BOXES
from annotation_platform.schema.tables import CleanedImages, Frame, ImportedLabels, RawImages
from annotation_platform.schema.tables.shared import Outcome


@dataclass(frozen=True, kw_only=True)
class LabelsImported(Result):
    """The imported labels of a round."""

    imported_labels: Frame[ImportedLabels]


def import_labels(
    context: RoundContext, raw_images: Frame[RawImages], cleaned_images: Frame[CleanedImages]
) -> LabelsImported:
    """Return the labels that the round's images landed with, and why some are refused."""
    ontology = context.policy.ontology
    found = imported.imported_labels(cleaned_images, raw_images, context.lake.store, ontology)
    labels = found.labels
    is_usable = labels[ImportedLabels.problem] == ""
    usable, refused = labels[is_usable], labels[~is_usable]
    is_shown = cleaned_images[CleanedImages.image_id].isin(usable[ImportedLabels.image_id])
    shown = cleaned_images[is_shown]
    shown = shown[shown[CleanedImages.outcome] == Outcome.ACCEPTED]
    return LabelsImported(
        imported_labels=labels,
        figures={
            "images": usable[ImportedLabels.image_id].nunique(),
            "boxes": int(usable[ImportedLabels.shape].isin(UPRIGHT_BOXES).sum()),
            "refused_images": refused[ImportedLabels.image_id].nunique(),
            "unused_images": found.unused,
            "origins": Counts(usable.drop_duplicates(ImportedLabels.image_id)["origin"]),
            "classes": BarChart(usable[ImportedLabels.class_name].dropna()),
            "refused": TableRows(refused, ["image_id", "class_name", "origin", "problem"]),
            "preview": Thumbnails(shown, usable, ontology),
        },
    )
