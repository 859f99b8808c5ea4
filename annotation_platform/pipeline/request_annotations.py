"""The assignments of a round, published to annotators."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.known_labels import known_labels
from annotation_platform.labeling.asking import ask_people
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.context import LabelingContext
from annotation_platform.labeling.shown_images import ShownImages
from annotation_platform.labeling.skills import Skills
from annotation_platform.models.known_classes import ClassCoverage
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Counts, PageLink, Result, TableRows
from annotation_platform.schema.tables import Frame, LabelTasks, ModelPredictions, SelectedImages
from annotation_platform.schema.tables.shared import Purpose


@dataclass(frozen=True, kw_only=True)
class Requested(Result):
    """The assignments of a round."""

    label_tasks: Frame[LabelTasks]


def shown_images(context: RoundContext, models: ModelRegistry) -> ShownImages:
    """Return the images as annotators and reviewers see them: masked if the policy says so."""
    policy = context.policy
    return ShownImages(context.lake, policy.masking, ClassCoverage(models, policy))


def labeling_context(context: RoundContext, labeling: LabelingBackend) -> LabelingContext:
    """Return the round with the back end in which people annotate."""
    return LabelingContext(context.round_id, labeling, context.lake, context.policy, context.now)


def request_annotations(
    context: RoundContext,
    selected_images: Frame[SelectedImages],
    model_predictions: Frame[ModelPredictions],
    labeling: LabelingBackend,
    models: ModelRegistry,
) -> Requested:
    """Publish the round's tasks to annotators; see ``ask_people`` for errors."""
    shown, policy = shown_images(context, models), context.policy
    tasks = ask_people(
        labeling_context(context, labeling),
        selected_images,
        model_predictions,
        known=known_labels(context.tables, policy.labeling.gold_origins),
        images=shown,
    )
    url = labeling.round_url(context.round_id)
    is_gold = tasks[LabelTasks.purpose] == Purpose.GOLD
    assigned = tasks.loc[tasks[LabelTasks.assignee] != "", LabelTasks.assignee]
    return Requested(
        label_tasks=tasks,
        figures={
            "tasks": tasks[LabelTasks.task_id].nunique(),
            "assignments": len(tasks),
            "masked_images": shown.masked(tasks[LabelTasks.image_id]),
            "gold_tasks": tasks.loc[is_gold, LabelTasks.task_id].nunique(),
            "assignments_without_predictions": int(tasks[LabelTasks.without_predictions].sum()),
            "unassigned": len(tasks) - len(assigned),
            "missing_expertise": Counts(_missing_expertise(tasks, context)),
            "by_assignee": Counts(assigned),
            "preview": TableRows(tasks, ["image_id", "assignment", "backend", "backend_task"]),
            **({"annotation_page": PageLink(url)} if url else {}),
        },
    )


def _missing_expertise(tasks: pd.DataFrame, context: RoundContext) -> "pd.Series[str]":
    """Return the expertise of each assignment for which no annotator has it yet."""
    skills = Skills(context.lake.store)
    required = tasks.loc[tasks[LabelTasks.expertise] != "", LabelTasks.expertise]
    return required[[not skills.people(skill) for skill in required]]
