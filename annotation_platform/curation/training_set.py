"""The training set: every label of every finished round, with the split of its image."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.gates import (
    boxes_outside_image,
    labels_outside_ontology,
    unresolved_tasks,
    unusable_answers,
)
from annotation_platform.curation.splits import draw_splits
from annotation_platform.params import SplitPolicy
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import make_table, records
from annotation_platform.storage.round_tables import RoundTables


@dataclass(frozen=True)
class TrainingSet:
    """The labels that may be published, and the rounds held back with the reason."""

    labels: pd.DataFrame  # schema.tables.TRAINING_SET
    rounds: dict[str, str]  # finished round -> digest of its consensus_labels
    held: dict[str, str]  # round -> what is wrong with it


def build_training_set(
    tables: RoundTables, round_id: str, ontology: Ontology, policy: SplitPolicy, *, seed: int
) -> TrainingSet:
    """Return the labels of all rounds finished by now, and store their splits and digests.

    A round whose labels fail a gate (a box outside its image, a class outside the ontology, a
    task without an answer) is held back whole and named. An image labelled in several rounds has
    the labels of the latest. Rounds may finish in any order.
    """
    images = tables.read_all("cleaned_images")
    images = images[images["outcome"] == "accepted"].drop_duplicates("image_id")
    labels, finished, held = _finished(tables, images, ontology)
    labels = _latest_round(labels)
    groups = images.loc[images["image_id"].isin(labels["image_id"]), "group_id"]
    splits = _stored_splits(tables, round_id, list(groups), policy, seed=seed)
    joined = labels.merge(
        images.drop(columns=["round_id", "flags"]), on="image_id", how="left", validate="m:1"
    )
    joined = joined.merge(splits[["group_id", "split"]], on="group_id", how="left", validate="m:1")
    joined["class_id"] = joined["class_name"].map(ontology.id_of)
    joined = joined.sort_values(["image_id", "label_id"])
    rounds: list[dict[str, object]] = [
        {"round_id": round_id, "included_round": key, "labels_sha256": digest}
        for key, digest in finished.items()
    ]
    tables.write("training_rounds", round_id, make_table("training_rounds", rounds))
    return TrainingSet(make_table("training_set", records(joined)), finished, held)


def round_problem(
    tables: RoundTables, round_id: str, images: pd.DataFrame, ontology: Ontology
) -> str:
    """Return why a merged round may not be released; empty if it may.

    ``images`` holds the accepted images of all rounds.
    """
    labels = tables.read("consensus_labels", round_id)
    tasks = tables.read("label_tasks", round_id)
    answers = tables.read("human_labels", round_id)
    for found, what in (
        (unusable_answers(answers), "answers with regions that are no usable box"),
        (unresolved_tasks(labels, tasks), "tasks without an answer"),
        (labels_outside_ontology(labels, ontology), "labels outside the ontology"),
        (boxes_outside_image(labels, images), "boxes outside their image"),
    ):
        if found:
            return f"{len(found)} {what}, e.g. {found[0]}"
    return ""


def _finished(
    tables: RoundTables, images: pd.DataFrame, ontology: Ontology
) -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    sound: list[str] = []
    held: dict[str, str] = {}
    for round_id in tables.rounds("consensus_labels"):
        problem = round_problem(tables, round_id, images, ontology)
        if problem:
            held[round_id] = problem
        else:
            sound.append(round_id)
    digests = {round_id: tables.digest("consensus_labels", round_id) for round_id in sound}
    return tables.read_rounds("consensus_labels", sound), digests, held


def _latest_round(labels: pd.DataFrame) -> pd.DataFrame:
    latest = labels.groupby("image_id")["round_id"].transform("max")
    return labels[labels["round_id"] == latest].reset_index(drop=True)


def _stored_splits(
    tables: RoundTables, round_id: str, groups: Sequence[str], policy: SplitPolicy, *, seed: int
) -> pd.DataFrame:
    """Return the split of every group; what is new is drawn and stored with this round."""
    known = tables.read_all("splits")
    drawn = draw_splits(groups, known, policy, seed=seed, round_id=round_id)
    if drawn.empty:
        return known
    own = known[known["round_id"] == round_id]
    tables.write("splits", round_id, pd.concat([own, drawn], ignore_index=True))
    return pd.concat([known, drawn], ignore_index=True)
