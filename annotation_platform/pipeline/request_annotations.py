"""The tasks of a round, put before annotators."""

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
from annotation_platform.pipeline.result import Counts, Link, Result, Rows


@dataclass(frozen=True, kw_only=True)
class Requested(Result):
    """The assignments of a round."""

    label_tasks: pd.DataFrame


def shown_images(context: RoundContext, models: ModelRegistry) -> ShownImages:
    """Return what annotators and reviewers see of images: masked where the policy masks."""
    policy = context.policy
    return ShownImages(context.lake, policy.masking, ClassCoverage(models, policy))


def labeling_context(context: RoundContext, labeling: LabelingBackend) -> LabelingContext:
    """Return the round with the back end in which people annotate."""
    return LabelingContext(context.round_id, labeling, context.lake, context.policy, context.now)


def request_annotations(
    context: RoundContext,
    selected_images: pd.DataFrame,
    model_predictions: pd.DataFrame,
    labeling: LabelingBackend,
    models: ModelRegistry,
) -> Requested:
    """Put the round's tasks before annotators; see ``ask_people`` for errors."""
    shown, policy = shown_images(context, models), context.policy
    tasks = ask_people(
        labeling_context(context, labeling),
        selected_images,
        model_predictions,
        known=known_labels(context.tables, policy.labeling.gold_origins),
        images=shown,
    )
    url = labeling.round_url(context.round_id)
    assigned = tasks.loc[tasks["assignee"] != "", "assignee"]
    return Requested(
        label_tasks=tasks,
        figures={
            "tasks": tasks["task_id"].nunique(),
            "places": len(tasks),
            "masked_images": shown.masked(tasks["image_id"]),
            "gold_tasks": tasks.loc[tasks["purpose"] == "gold", "task_id"].nunique(),
            "blind_places": int(tasks["blind"].sum()),
            "places_for_anybody": len(tasks) - len(assigned),
            "nobody_has_expertise": Counts(_expertise_lacking(tasks, context)),
            "places_by_assignee": Counts(assigned),
            "preview": Rows(tasks, ["image_id", "place", "backend", "backend_task"]),
            **({"annotation_here": Link(url)} if url else {}),
        },
    )


def _expertise_lacking(tasks: pd.DataFrame, context: RoundContext) -> "pd.Series[str]":
    """Return the expertise of each assignment that waits until a person is granted it."""
    skills = Skills(context.lake.store)
    asked = tasks.loc[tasks["expertise"] != "", "expertise"]
    return asked[[not skills.people(skill) for skill in asked]]
