"""Tasks for annotators, and their annotations."""

from annotation_platform.pipeline.collect_annotations import collect_annotations
from annotation_platform.pipeline.request_annotations import request_annotations
from annotation_platform.pipeline.select import select
from assets.making import step

# The check of batch_drift can hold a round back from annotators.
selected_images = step(
    select,
    about="The images selected for annotation in this round, in order.",
    group="labeling",
    kinds={"numpy"},
    code_version="2",
    reads=["batch_drift", "cleaned_images", "image_embeddings", "imported_labels"],
)

label_tasks = step(
    request_annotations,
    about="The assignments: one for each requested annotation of each selected image.",
    group="labeling",
    kinds={"labelstudio"},
    code_version="3",
    reads=["cleaned_images", "imported_labels", "predicted_images"],
)

human_labels = step(
    collect_annotations,
    about="Every label of every counted annotation, from the append-only ledger.",
    group="labeling",
    kinds={"labelstudio"},
    code_version="2",
    reads=["cleaned_images"],
)
