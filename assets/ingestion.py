"""Arrivals, cleaned images and imported labels."""

from annotation_platform.pipeline.clean import clean
from annotation_platform.pipeline.import_labels import import_labels
from annotation_platform.pipeline.ingest import ingest
from assets.making import tables_made

raw_images = tables_made(
    "raw_images",
    about="Every arrival of the round, named by the SHA-256 of its bytes.",
    group="ingestion",
    kinds={"file"},
    code_version="2",
)(ingest)

cleaned_images = tables_made(
    "cleaned_images",
    about="Accepted images, stripped of metadata; quarantined ones with the reason; duplicates.",
    group="ingestion",
    kinds={"pillow"},
    code_version="2",
)(clean)

imported_labels = tables_made(
    "imported_labels",
    about="The labels that images landed with, their origin, and the reason if they are refused.",
    group="ingestion",
    kinds={"pandas"},
    code_version="1",
)(import_labels)
