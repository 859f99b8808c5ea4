"""Derive each derived table from its recorded inputs.

The use cases of ``pipeline/`` use the same functions, so a rebuild cannot differ from them.
"""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from annotation_platform.consensus.resolve import Consensus, counting_annotations, resolve_consensus
from annotation_platform.curation.training_set import TrainingSetSettings, assemble_training_set
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.reviews import decisions, reviewed_labels
from annotation_platform.labeling.rounds import annotations_as_of
from annotation_platform.labeling.snapshots import as_of
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    ConsensusLabels,
    HumanLabels,
    ReviewTasks,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs


def derive_table(name: str, lake: Lake, inputs: TableInputs) -> pd.DataFrame:
    """Return a derived table, named as ``table/round``, from its recorded inputs."""
    table, _, round_id = name.partition("/")
    snapshot, settings = as_of(lake, inputs), inputs.settings
    if table == "consensus_labels":
        return derive_consensus(round_id, snapshot, settings).labels
    if table == "reviewed_labels":
        consensus = snapshot.tables.read(ConsensusLabels, round_id)
        tasks = snapshot.tables.read(ReviewTasks, round_id)
        decided = decisions(round_id, tasks, snapshot)
        return reviewed_labels(consensus, tasks, decided.without(settings.get("disregarded", ())))
    if table == "training_set":
        return derive_training_set(round_id, snapshot, settings)
    annotations = annotations_as_of(round_id, snapshot, disregarded=settings.get("disregarded", ()))
    return annotations.labels if table == "human_labels" else annotations.tasks


def derive_training_set(round_id: str, snapshot: Lake, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Return a round's ``training_set``, as the asset of this name does.

    Args:
        round_id: the round.
        snapshot: the lake as it was when the table was made.
        settings: the recorded settings.
    """
    known = TrainingSetSettings.model_validate(settings)
    return assemble_training_set(snapshot.tables, round_id, known).labels


def derive_consensus(round_id: str, snapshot: Lake, settings: Mapping[str, Any]) -> Consensus:
    """Return the consensus of a round, as the asset ``consensus_labels`` does.

    Args:
        round_id: the round.
        snapshot: the lake as it was when the table was made.
        settings: the recorded settings.
    """
    return resolve_round(
        snapshot,
        snapshot.tables.read(HumanLabels, round_id),
        snapshot.tables.read(AnnotatorQuality, round_id),
        iou_threshold=settings["iou_threshold"],
        disregarded=settings.get("disregarded", ()),
    )


def resolve_round(
    lake: Lake,
    human_labels: pd.DataFrame,
    annotator_quality: pd.DataFrame,
    *,
    iou_threshold: float,
    disregarded: Collection[str] = (),
) -> Consensus:
    """Return the consensus of a round, under the guideline of its annotators.

    Args:
        lake: the lake, with the guideline and the rows of the round's images.
        human_labels: the table of the round.
        annotator_quality: the table of the round.
        iou_threshold: least overlap, in [0, 1], of regions of one object.
        disregarded: pseudonyms of annotators whose annotations do not count.
    """
    guideline = None if human_labels.empty else str(human_labels[HumanLabels.guideline].iloc[0])
    return resolve_consensus(
        counting_annotations(human_labels, disregarded),
        iou_threshold=iou_threshold,
        ontology=read_guideline(lake.store, guideline) if guideline else None,
        images=accepted_images(lake.tables),
        quality=annotator_quality,
    )
