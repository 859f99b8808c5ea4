"""The annotations of a round, from the append-only ledger."""

from dataclasses import dataclass

from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.rounds import collected_annotations
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import BarChart, Counts, Result, TableRows, Thumbnails
from annotation_platform.schema.tables import (
    Annotations,
    Frame,
    HumanLabels,
    LabelTasks,
    RoundTasks,
)


@dataclass(frozen=True, kw_only=True)
class AnnotationsCollected(Result):
    """The labels of the counted annotations, all annotations, and the state of each task."""

    human_labels: Frame[HumanLabels]
    annotations: Frame[Annotations]
    round_tasks: Frame[RoundTasks]


def collect_annotations(
    context: RoundContext, label_tasks: Frame[LabelTasks], labeling: LabelingBackend
) -> AnnotationsCollected:
    """Write new annotations into the ledger, and return the ledger's contents for the round.

    Raises:
        NotReadyError: annotations are missing.
    """
    found = collected_annotations(
        context.round_id, label_tasks, labeling, context.lake, context.policy, now=context.now
    )
    labels = found.labels
    annotations = labels.drop_duplicates(HumanLabels.annotation_id)
    images = accepted_images(context.tables).merge(label_tasks[["image_id"]].drop_duplicates())
    return AnnotationsCollected(
        human_labels=labels,
        annotations=found.annotations,
        round_tasks=found.tasks,
        figures={
            "labels": len(labels),
            "shapes": Counts(labels[HumanLabels.shape]),
            "annotations": len(annotations),
            "annotators": labels[HumanLabels.annotator].nunique(),
            "annotations_not_counted": found.not_counted,
            "tasks": Counts(found.tasks[RoundTasks.state]),
            "unusable_regions": int(annotations[HumanLabels.refused_regions].sum()),
            "problems": TableRows(
                annotations[annotations[HumanLabels.problems] != ""], ["annotation_id", "problems"]
            ),
            "annotation_minutes": found.minutes,
            "classes": BarChart(labels[HumanLabels.class_name].dropna()),
            "preview": Thumbnails(images, labels, context.policy.ontology),
        },
    )
