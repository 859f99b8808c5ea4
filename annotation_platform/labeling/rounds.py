"""A round of questions from asking to collecting."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from annotation_platform.labeling.client import LabelingClient
from annotation_platform.labeling.ledger import (
    AnswersLedger,
    Count,
    as_revision,
    count_answers,
    human_labels,
    require_complete,
)
from annotation_platform.labeling.tasks import assign_places, task_copies, tasks_table
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import empty_table
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class Answers:
    """The counted answers of a round and what was left out of them."""

    labels: pd.DataFrame  # schema.tables.HUMAN_LABELS
    surplus: dict[str, int]  # reason -> answers kept but not counted
    problems: list[str]  # regions that are no usable box
    minutes: float  # of people's work, as the back end measured it


def ask_people(
    round_id: str,
    selected: pd.DataFrame,
    images: pd.DataFrame,
    predictions: pd.DataFrame,
    labeling: LabelingClient,
    store: ObjectStore,
    policy: Params,
) -> pd.DataFrame:
    """Put the tasks of a round before people and return the ``label_tasks`` table.

    Who is meant to answer which place is fixed in the lake before anybody is asked. Asking again
    adds what is missing and nothing else, whoever joined or left meanwhile. Proposals of a class
    that the ontology no longer has are not shown. A round without images asks nobody.
    """
    if selected.empty:
        return empty_table("label_tasks")
    assignees = _plan(round_id, selected, labeling, store, policy)
    known = predictions["class_name"].isin(policy.ontology.names)
    shown = predictions[known] if policy.labeling.preannotate else predictions.head(0)
    copies = task_copies(
        round_id, selected, images, shown, assignees, minimum_score=policy.labeling.minimum_score
    )
    backend_tasks = labeling.publish_round(round_id, policy.ontology, copies)
    return tasks_table(round_id, labeling.name, copies, backend_tasks)


def _plan(
    round_id: str,
    selected: pd.DataFrame,
    labeling: LabelingClient,
    store: ObjectStore,
    policy: Params,
) -> dict[tuple[str, int], str]:
    key = f"plans/{round_id}.json"
    if not store.exists(key):
        order = list(selected.sort_values("rank")["image_id"])
        k = policy.labeling.answers_per_task
        drawn = assign_places(order, labeling.annotators(), answers_per_task=k)
        places = [[image, place, assignee] for (image, place), assignee in drawn.items()]
        store.create(key, json.dumps(places).encode(), private=True)
    return {(image, place): assignee for image, place, assignee in json.loads(store.get(key))}


def count_round(
    round_id: str, tasks: pd.DataFrame, labeling: LabelingClient, ledger: AnswersLedger
) -> Count:
    """Return how far people are, from the ledger and from what the back end shows now.

    Nothing is written: a sensor's tick may call it.
    """
    live = [as_revision(submission) for submission in labeling.submissions(round_id)]
    return count_answers([*ledger.read(round_id), *live], tasks)


def collect_answers(
    round_id: str,
    tasks: pd.DataFrame,
    labeling: LabelingClient,
    lake: Lake,
    ontology: Ontology,
    *,
    now: datetime,
) -> Answers:
    """Write what people submitted into the ledger and return the round's counted answers.

    Raises:
        NotReadyError: a place is still empty; what came so far is in the ledger all the same.
    """
    lake.ledger.append(round_id, labeling.submissions(round_id), now=now)
    count = count_answers(lake.ledger.read(round_id), tasks)
    require_complete(round_id, count)
    authors = {revision.submission.author for revision in count.counted.values()}
    pseudonyms = {author: lake.ledger.pseudonym(author) for author in authors}
    labels, problems = human_labels(round_id, count, lake.accepted_images(), ontology, pseudonyms)
    seconds = labels.drop_duplicates("answer_id")["lead_time_seconds"].sum()
    surplus = dict(Counter(item.reason for item in count.surplus))
    return Answers(labels, surplus, problems, float(seconds) / 60.0)
