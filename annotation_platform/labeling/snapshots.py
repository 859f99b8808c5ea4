"""What the labels of a round were made of: noted when they are made, and looked at again later.

A moment is what there was then of the tables and journals of the lake. Labels are made from the
moment itself, so what is noted is enough to make them again.
"""

from dataclasses import replace

import pandas as pd

from annotation_platform.consensus.resolve import Consensus
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.policy import ConsensusPolicy
from annotation_platform.schema.tables import (
    CleanedImages,
    ConsensusLabels,
    LabelTasks,
    table_named,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import SnapshotStore, TableInputs, journal_entries
from annotation_platform.storage.table_files import table_bytes, table_digest


def ledger_folder(round_id: str) -> str:
    """Return the folder of the ledger with the answers of a round, or of its reviews."""
    return f"ledger/answers/{round_id}"


def as_of(lake: Lake, made_of: TableInputs) -> Lake:
    """Return the lake as it was when something was made of it."""
    return replace(lake, store=SnapshotStore(lake.store, made_of))


def annotation_inputs(round_id: str, lake: Lake, policy: ConsensusPolicy) -> TableInputs:
    """Return what the ``human_labels`` of a round are made of, were they made now; it is kept."""
    # The key is drawn with the first name; later is too late, for the past cannot be written.
    AnnotationsLedger(lake.store).pseudonym("")
    folders = [ledger_folder(round_id), f"rounds/{round_id}/decisions", "people/skills"]
    tasks = lake.tables.read(LabelTasks, round_id)
    journals = journal_entries(lake.store, folders)
    return TableInputs(_kept(round_id, lake, label_tasks=tasks), journals, _disregarded(policy))


def review_inputs(
    round_id: str,
    reviews: str,
    lake: Lake,
    policy: ConsensusPolicy,
    *,
    consensus_labels: pd.DataFrame,
    review_tasks: pd.DataFrame,
) -> TableInputs:
    """Return what the ``reviewed_labels`` of a round are made of, were they made now; it is kept.

    ``reviews`` is the name under which the ledger knows the reviews of the round. The tables are
    those at hand: the lake's may be others by now.
    """
    folders = [ledger_folder(round_id), ledger_folder(reviews), "people/skills",
               f"plans/{round_id}", f"plans/{reviews}"]  # fmt: skip
    tables = _kept(round_id, lake, consensus_labels=consensus_labels, review_tasks=review_tasks)
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
    """Note what the ``consensus_labels`` of a round, just resolved, were made of; it is kept.

    What the round has in common is noted with it: so a single label can be explained at once.
    """
    made_of = TableInputs(
        _kept(round_id, lake, human_labels=human_labels, annotator_quality=annotator_quality),
        settings={
            "iou_threshold": policy.iou_threshold,
            "common": consensus.common.to_dict(),
            **_disregarded(policy),
        },
    )
    digest = table_digest(ConsensusLabels, consensus.labels)
    lake.tables.lineage.write("consensus_labels", round_id, digest, made_of)


def _disregarded(policy: ConsensusPolicy) -> dict[str, list[str]]:
    """Return the setting as it is noted: not at all where nobody is, as before there was one."""
    return {"disregarded": list(policy.disregarded)} if policy.disregarded else {}


def _kept(round_id: str, lake: Lake, **frames: pd.DataFrame) -> dict[str, str]:
    """Return the digests of tables of a round, all of them kept, and of its images' rows.

    Of ``cleaned_images`` the rows of the images that the round asks about are enough, from
    whatever round they are.
    """
    tables = {
        f"{name}/{round_id}": lake.tables.lineage.keep(
            table_bytes(table_named(name), frame, where=round_id)
        )
        for name, frame in frames.items()
    }
    asked = lake.tables.read(LabelTasks, round_id)["image_id"]
    images = accepted_images(lake.tables)
    images = images[images["image_id"].isin(asked)].reset_index(drop=True)
    data = table_bytes(CleanedImages, images, where=round_id)
    return {**tables, f"cleaned_images/{round_id}": lake.tables.lineage.keep(data)}
