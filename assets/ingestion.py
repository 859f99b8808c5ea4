"""Arrivals, cleaned images and imported labels."""

from annotation_platform.pipeline.clean import clean
from annotation_platform.pipeline.import_labels import import_labels
from annotation_platform.pipeline.ingest import ingest
from assets.making import step

raw_images = step(
    ingest,
    about="Every arrival of the round, named by the SHA-256 of its bytes.",
    group="ingestion",
    kinds={"file"},
    code_version="2",
)

cleaned_images = step(
    clean,
    about="Accepted images, stripped of metadata; quarantined ones with the reason; duplicates.",
    group="ingestion",
    kinds={"pillow"},
    code_version="2",
)

imported_labels = step(
    import_labels,
    about="The labels that images landed with, their origin, and the reason if they are refused.",
    group="ingestion",
    kinds={"pandas"},
    code_version="1",
)
