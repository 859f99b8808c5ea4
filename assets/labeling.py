"""Questions to people, and what they answered."""

from datetime import UTC, datetime
from functools import partial

import dagster as dg
import pandas as pd

from annotation_platform.labeling.client import LabelingClient
from annotation_platform.labeling.rounds import ask_people, collect_answers
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from annotation_platform.selection.batch import select_batch
from assets.metadata import counts, pictures, table
from assets.partitions import rounds


@dg.asset(partitions_def=rounds, group_name="labeling", kinds={"numpy"}, code_version="1")
def selected_images(
    context: dg.AssetExecutionContext,
    image_embeddings: pd.DataFrame,  # noqa: ARG001  the pool may need vectors of earlier rounds
    model_predictions: pd.DataFrame,  # noqa: ARG001  nothing is asked before it was predicted
    imported_labels: pd.DataFrame,  # noqa: ARG001  the pool leaves out what landed with labels
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The images that people are asked about in this round, in order."""
    again = policy.labeling.ask_about_imported
    pool = lake.unasked_images(context.partition_key, ask_about_imported=again)
    vectors = lake.tables.read_all("image_embeddings")
    budget = policy.selection.budget
    selected = select_batch(pool, vectors, budget=budget, round_id=context.partition_key)
    return dg.MaterializeResult(
        value=selected,
        metadata={
            "images": len(selected),
            "passed_over": len(pool) - len(selected),
            "preview": table(selected, ["rank", "image_id", "reason"]),
        },
    )


@dg.asset(partitions_def=rounds, group_name="labeling", kinds={"labelstudio"}, code_version="1")
def label_tasks(
    context: dg.AssetExecutionContext,
    selected_images: pd.DataFrame,
    model_predictions: pd.DataFrame,
    labeling: dg.ResourceParam[LabelingClient],
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The places that people answer: k blind copies of each selected image."""
    round_id = context.partition_key
    images = lake.accepted_images()
    tasks = ask_people(
        round_id, selected_images, images, model_predictions, labeling, lake.store, policy
    )
    url = labeling.round_url(round_id)
    people, needed = len(labeling.annotators()), policy.labeling.answers_per_task
    return dg.MaterializeResult(
        value=tasks,
        metadata={
            "tasks": tasks["task_id"].nunique(),
            "places": len(tasks),
            "people": f"{people} annotators; every image needs {needed} different people",
            "places_by_assignee": counts(tasks["assignee"].map(partial(_shown_as, lake))),
            "preview": table(tasks, ["image_id", "place", "backend", "backend_task"]),
            **({"answer_here": dg.MetadataValue.url(url)} if url else {}),
        },
    )


@dg.asset(
    partitions_def=rounds,
    group_name="labeling",
    kinds={"labelstudio"},
    code_version="1",
)
def human_labels(
    context: dg.AssetExecutionContext,
    label_tasks: pd.DataFrame,
    labeling: dg.ResourceParam[LabelingClient],
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """What people said: every box of every counted answer, from the append-only ledger."""
    answers = collect_answers(
        context.partition_key,
        label_tasks,
        labeling,
        lake,
        policy.ontology,
        now=datetime.now(UTC),
    )
    labels = answers.labels
    asked = lake.accepted_images().merge(label_tasks[["image_id"]].drop_duplicates())
    return dg.MaterializeResult(
        value=labels,
        metadata={
            "boxes": int((labels["shape"] == "box").sum()),
            "answers": labels["answer_id"].nunique(),
            "annotators": labels["annotator"].nunique(),
            "surplus_answers": answers.surplus,
            "unusable_regions": int(labels.drop_duplicates("answer_id")["refused_regions"].sum()),
            "noticed": list(answers.problems[:20]),
            "minutes_of_work": answers.minutes,
            "classes": counts(labels["class_name"].dropna()),
            "preview": pictures(asked, lake, labels, policy.ontology),
        },
    )


def _shown_as(lake: Lake, assignee: str) -> str:
    return lake.ledger.pseudonym(assignee) if assignee else "anybody"
