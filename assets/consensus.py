"""Annotator quality, consensus labels, label issues, and review tasks for what is left open."""

from annotation_platform.pipeline.find_issues import find_issues
from annotation_platform.pipeline.measure_quality import measure_quality
from annotation_platform.pipeline.resolve import resolve
from annotation_platform.pipeline.review import request_reviews
from assets.making import step

annotator_quality = step(
    measure_quality,
    about="The quality of each annotator, against the other annotators and on gold tasks.",
    group="consensus",
    kinds={"scipy"},
    code_version="1",
    reads=["imported_labels"],
)

consensus_labels = step(
    resolve,
    about="One resolved set of labels for each image, with the agreement of its annotators.",
    group="consensus",
    kinds={"scipy"},
    code_version="2",
    reads=["cleaned_images", "label_tasks"],
)

label_issues = step(
    find_issues,
    about="Labels that are probably wrong and objects that probably lack one, most suspected "
    "first.",
    group="consensus",
    kinds={"scipy"},
    code_version="2",
    reads=["cleaned_images"],
)

review_tasks = step(
    request_reviews,
    about="The images that need a decision, with their review tasks if the policy has reviewers.",
    group="consensus",
    kinds={"labelstudio"},
    code_version="2",
    reads=["cleaned_images", "predicted_images"],
)
