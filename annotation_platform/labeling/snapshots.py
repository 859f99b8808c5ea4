"""The inputs of a round's labels, recorded when the labels are made, for rebuilding them.

A snapshot is the state of the lake's tables and journals at one time. Labels are made from the
snapshot itself, so the recorded inputs are sufficient to make them again.
"""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from annotation_platform.consensus.resolve import Consensus
from annotation_platform.images.accepted import accepted_images
from annotation_platform.policy import ConsensusPolicy
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    CleanedImages,
    ConsensusLabels,
    HumanLabels,
    LabelTasks,
    ReviewTasks,
    Table,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import SnapshotStore, TableInputs, journal_entries
from annotation_platform.storage.pseudonyms import pseudonym_key
from annotation_platform.storage.table_files import table_bytes, table_digest


def ledger_folder(round_id: str) -> str:
    """Return the ledger folder of the annotations of a round, or of its reviews."""
    return f"ledger/answers/{round_id}"


def as_of(lake: Lake, inputs: TableInputs) -> Lake:
    """Return the lake as it was when something was made from these inputs."""
    return replace(lake, store=SnapshotStore(lake.store, inputs))


def annotation_inputs(round_id: str, lake: Lake, policy: ConsensusPolicy) -> TableInputs:
    """Return the inputs of the ``human_labels`` of a round now, and keep the tables among them."""
    # The first call draws the key: a snapshot cannot be written to.
    pseudonym_key(lake.store)
    folders = [ledger_folder(round_id), f"rounds/{round_id}/decisions", "people/skills"]
    tasks = lake.tables.read(LabelTasks, round_id)
    journals = journal_entries(lake.store, folders)
    return TableInputs(_keep(round_id, lake, {LabelTasks: tasks}), journals, _disregarded(policy))


def review_inputs(
    round_id: str,
    reviews: str,
    lake: Lake,
    policy: ConsensusPolicy,
    *,
    consensus_labels: pd.DataFrame,
    review_tasks: pd.DataFrame,
) -> TableInputs:
    """Return the inputs of the ``reviewed_labels`` of a round now, and keep the tables among them.

    ``reviews`` is the name of the round's reviews in the ledger. The tables are passed in, as those
    of the lake may be others by now.
    """
    folders = [ledger_folder(round_id), ledger_folder(reviews), "people/skills",
               f"plans/{round_id}", f"plans/{reviews}"]  # fmt: skip
    tables = _keep(round_id, lake, {ConsensusLabels: consensus_labels, ReviewTasks: review_tasks})
    return TableInputs(tables, journal_entries(lake.store, folders), _disregarded(policy))


def record_consensus(
    round_id: str,
    lake: Lake,
    policy: ConsensusPolicy,
    *,
    human_labels: pd.DataFrame,
    annotator_quality: pd.DataFrame,
    consensus: Consensus,
) -> None:
    """Record the inputs of the ``consensus_labels`` of a round, and keep the tables among them.

    The values that all labels of the round share are recorded too, so that a single label can be
    explained at once.
    """
    inputs = TableInputs(
        _keep(round_id, lake, {HumanLabels: human_labels, AnnotatorQuality: annotator_quality}),
        settings={
            "iou_threshold": policy.iou_threshold,
            "common": consensus.common.to_dict(),
            **_disregarded(policy),
        },
    )
    digest = table_digest(ConsensusLabels, consensus.labels)
    lake.tables.lineage.write(ConsensusLabels.table_name, round_id, digest, inputs)


def _disregarded(policy: ConsensusPolicy) -> dict[str, list[str]]:
    """Return the setting as recorded: absent if empty, as in releases without it."""
    return {"disregarded": list(policy.disregarded)} if policy.disregarded else {}


def _keep(round_id: str, lake: Lake, frames: Mapping[type[Table], pd.DataFrame]) -> dict[str, str]:
    """Return the digests of tables of a round and of its images' rows, and keep these tables.

    Only the ``cleaned_images`` rows of the round's images are kept, from any round.
    """
    tables = {
        f"{table.table_name}/{round_id}": lake.tables.lineage.keep(
            table_bytes(table, frame, where=round_id)
        )
        for table, frame in frames.items()
    }
    round_images = lake.tables.read(LabelTasks, round_id)[LabelTasks.image_id]
    images = accepted_images(lake.tables)
    images = images[images[CleanedImages.image_id].isin(round_images)].reset_index(drop=True)
    data = table_bytes(CleanedImages, images, where=round_id)
    return {**tables, f"{CleanedImages.table_name}/{round_id}": lake.tables.lineage.keep(data)}
