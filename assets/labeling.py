"""Questions to people, and what they answered."""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.curation.known_labels import known_labels
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.client import LabelingClient
from annotation_platform.labeling.rounds import ask_people, collect_answers
from annotation_platform.labeling.shown_pictures import ShownPictures
from annotation_platform.labeling.skills import Skills
from annotation_platform.models.embedder import embedder_for
from annotation_platform.models.known_classes import KnownClasses
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.pipeline.select import choose_images
from annotation_platform.pipeline.unasked import unasked_images
from annotation_platform.storage.lake import Lake
from assets.metadata import counts, histogram, pictures, table
from assets.partitions import rounds


# The check of batch_drift may hold a round back from people.
@dg.asset(
    partitions_def=rounds,
    group_name="labeling",
    kinds={"numpy"},
    code_version="2",
    deps=["batch_drift"],
)
def selected_images(
    context: dg.AssetExecutionContext,
    image_embeddings: pd.DataFrame,  # noqa: ARG001  kept in the lake, with those of earlier rounds
    model_predictions: pd.DataFrame,
    imported_labels: pd.DataFrame,  # noqa: ARG001  the pool leaves out what landed with labels
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The images that people are asked about in this round, in order."""
    round_id = context.partition_key
    again = policy.labeling.ask_about_imported
    pool = unasked_images(
        round_id,
        lake,
        policy.ontology,
        ask_about_imported=again,
        held=held_rounds(lake.tables, policy.drift.gate),
    )
    embedder = embedder_for(policy.selection.embedder, models)
    selection = choose_images(
        round_id, pool, model_predictions, lake=lake, embedder=embedder, policy=policy
    )
    selected = selection.images
    return dg.MaterializeResult(
        value=selected,
        metadata={
            "images": len(selected),
            "passed_over": int((~pool["image_id"].isin(selected["image_id"])).sum()),
            "chosen_by": counts(selected["rule"]),
            "outliers": dict(list(selection.outliers.items())[:50]),
            "kept_out": dict(list(selection.kept_out.items())[:50]),
            "pinned_but_not_in_the_pool": list(selection.pinned_elsewhere)[:50],
            "without_vector": len(selection.without_vector),
            "proposals_without_score": selection.unscored_proposals,
            "preview": table(selected, ["rank", "image_id", "rule", "reason"]),
        },
    )


@dg.asset(partitions_def=rounds, group_name="labeling", kinds={"labelstudio"}, code_version="3")
def label_tasks(
    context: dg.AssetExecutionContext,
    selected_images: pd.DataFrame,
    model_predictions: pd.DataFrame,
    labeling: dg.ResourceParam[LabelingClient],
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The places that people answer: blind copies of each selected image, one for each answer."""
    round_id = context.partition_key
    shown = ShownPictures(lake, policy.masking, KnownClasses(models, policy))
    tasks = ask_people(
        round_id,
        selected_images,
        model_predictions,
        labeling,
        lake,
        policy,
        known=known_labels(lake.tables, policy.labeling.gold_origins),
        pictures=shown,
        now=datetime.now(UTC),
    )
    url = labeling.round_url(round_id)
    assigned = tasks.loc[tasks["assignee"] != "", "assignee"]
    return dg.MaterializeResult(
        value=tasks,
        metadata={
            "tasks": tasks["task_id"].nunique(),
            "places": len(tasks),
            "masked_images": shown.masked(tasks["image_id"]),
            "gold_tasks": tasks.loc[tasks["purpose"] == "gold", "task_id"].nunique(),
            "blind_places": int(tasks["blind"].sum()),
            "places_for_anybody": len(tasks) - len(assigned),
            "nobody_has_expertise": counts(_beyond_everybody(tasks, lake)),
            "places_by_assignee": counts(assigned),
            "preview": table(tasks, ["image_id", "place", "backend", "backend_task"]),
            **({"answer_here": dg.MetadataValue.url(url)} if url else {}),
        },
    )


def _beyond_everybody(tasks: pd.DataFrame, lake: Lake) -> "pd.Series[str]":
    """Return the expertise of each place that nobody has: it waits until somebody is given it."""
    skills = Skills(lake.store)
    asked = tasks.loc[tasks["expertise"] != "", "expertise"]
    return asked[[not skills.people(skill) for skill in asked]]


@dg.asset(
    partitions_def=rounds,
    group_name="labeling",
    kinds={"labelstudio"},
    code_version="2",
)
def human_labels(
    context: dg.AssetExecutionContext,
    label_tasks: pd.DataFrame,
    labeling: dg.ResourceParam[LabelingClient],
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """What people said: every label of every counted answer, from the append-only ledger."""
    answers = collect_answers(
        context.partition_key, label_tasks, labeling, lake, policy, now=datetime.now(UTC)
    )
    labels = answers.labels
    said = labels.drop_duplicates("answer_id")
    asked = accepted_images(lake.tables).merge(label_tasks[["image_id"]].drop_duplicates())
    return dg.MaterializeResult(
        value=labels,
        metadata={
            "labels": len(labels),
            "shapes": counts(labels["shape"]),
            "answers": len(said),
            "annotators": labels["annotator"].nunique(),
            "surplus_answers": answers.surplus,
            "tasks": counts(answers.tasks["state"]),
            "unusable_regions": int(said["refused_regions"].sum()),
            "noticed": table(said[said["problems"] != ""], ["answer_id", "problems"]),
            "minutes_of_work": answers.minutes,
            "classes": histogram(labels["class_name"].dropna()),
            "preview": pictures(asked, lake, labels, policy.ontology),
        },
    )
