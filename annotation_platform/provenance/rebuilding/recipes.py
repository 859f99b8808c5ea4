"""How each table that can be made again is made, from its inputs as they were noted.

The use cases of ``pipeline/`` make the tables by these functions too, so that a rebuild cannot
differ from them.
"""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from annotation_platform.consensus.resolve import Consensus, counting_annotations, resolve_consensus
from annotation_platform.curation.training_set import assemble_training_set
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.reviews import ledger_decisions, reviewed_labels
from annotation_platform.labeling.rounds import annotations_as_of
from annotation_platform.labeling.snapshots import as_of
from annotation_platform.policy import SplitPolicy
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    ConsensusLabels,
    HumanLabels,
    ReviewTasks,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs


def make_again(name: str, lake: Lake, made_of: TableInputs) -> pd.DataFrame:
    """Return a table, by ``table/round``, made again from its inputs as they were."""
    table, _, round_id = name.partition("/")
    then, settings = as_of(lake, made_of), made_of.settings
    if table == "consensus_labels":
        return derive_consensus(round_id, then, settings).labels
    if table == "reviewed_labels":
        consensus = then.tables.read(ConsensusLabels, round_id)
        tasks = then.tables.read(ReviewTasks, round_id)
        decided = ledger_decisions(round_id, tasks, then)
        return reviewed_labels(consensus, tasks, decided.without(settings.get("disregarded", ())))
    if table == "training_set":
        return derive_training_set(round_id, then, settings)
    annotations = annotations_as_of(round_id, then, disregarded=settings.get("disregarded", ()))
    return annotations.labels if table == "human_labels" else annotations.tasks


def derive_training_set(round_id: str, then: Lake, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Return a round's ``training_set`` as the asset of that name makes it.

    Args:
        round_id: the round.
        then: the lake as it was when it was made.
        settings: as they were noted.
    """
    return assemble_training_set(
        then.tables,
        round_id,
        Ontology.model_validate(settings["ontology"]),
        SplitPolicy.model_validate(settings["splits"]),
        seed=settings["seed"],
        cancelled=settings["cancelled"],
        # Not there before labels could be accepted without a person.
        use_auto=settings.get("use_auto", False),
    ).labels


def derive_consensus(round_id: str, then: Lake, settings: Mapping[str, Any]) -> Consensus:
    """Return the consensus of a round as the asset ``consensus_labels`` makes it.

    Args:
        round_id: the round.
        then: the lake as it was when they were made.
        settings: as they were noted.
    """
    return resolve_round(
        then,
        then.tables.read(HumanLabels, round_id),
        then.tables.read(AnnotatorQuality, round_id),
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
    """Return the consensus of a round, under the guideline that its annotators had.

    Args:
        lake: with the guideline, and the rows of the round's images.
        human_labels: of the round.
        annotator_quality: of the round.
        iou_threshold: from which overlap on regions are of one object, in [0, 1].
        disregarded: pseudonyms of annotators whose annotations do not count.
    """
    guideline = None if human_labels.empty else str(human_labels["guideline"].iloc[0])
    return resolve_consensus(
        counting_annotations(human_labels, disregarded),
        iou_threshold=iou_threshold,
        ontology=read_guideline(lake.store, guideline) if guideline else None,
        images=accepted_images(lake.tables),
        quality=annotator_quality,
    )
