"""Where every round is, and what it waits for."""

from dataclasses import asdict
from typing import Any, Literal

import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.curation.training_set import usable_imports
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.labeling.rounds import ledger_count
from annotation_platform.schema.tables import (
    CleanedImages,
    ConsensusLabels,
    DatasetVersions,
    LabelTasks,
    ReviewedLabels,
    ReviewTasks,
    RoundReports,
    RoundTasks,
    Table,
)
from annotation_platform.storage.lake import Lake

_STAGES = [
    (CleanedImages, "cleaning"),
    (LabelTasks, "questions to be asked"),
    (ConsensusLabels, "people"),
    (ReviewedLabels, "reviewers"),
    (DatasetVersions, "the release"),
    (RoundReports, "training"),
]
_HELD = "somebody who looks at its images: they have drifted (see batch_drift)"


def round_states(
    lake: Lake, *, drift_gate: Literal["warn", "hold"] = "warn"
) -> list[dict[str, object]]:
    """Return one row a round: what landed, what people answered so far, what it waits for.

    ``imported`` counts the images whose own labels are used; ``answers`` are those in the ledger,
    which is written when a round is merged. ``drift_gate`` is the policy's.
    """
    states = [round_state(lake, round_id) for round_id in RoundManifests(lake.store).rounds()]
    held = set(held_rounds(lake.tables, drift_gate))
    return [{**row, "waits_for": _HELD} if row["round"] in held else row for row in states]


def round_state(lake: Lake, round_id: str) -> dict[str, object]:
    """Return the row of one round; a DataError if there is no such round."""
    tables = lake.tables
    waits_for = next((what for table, what in _STAGES if not tables.exists(table, round_id)), "–")
    brought = usable_imports(tables, [round_id])["image_id"].nunique()
    asked = tables.exists(LabelTasks, round_id)
    tasks = tables.read_columns(LabelTasks, round_id, ["task_id"]) if asked else None
    if tasks is not None and tasks.empty:
        if not brought:
            waits_for = "– (nothing new to label)"
        elif not tables.exists(ConsensusLabels, round_id):
            waits_for = "merging (all images landed with labels)"
    state = RoundRecord(lake.store, round_id).state
    row: dict[str, object] = {
        "round": round_id,
        "landed": len(RoundManifests(lake.store).read(round_id)),
        "accepted": 0,
        "imported": brought,
        "tasks": 0,
        "places": 0,
        "annotations": 0,
        "version": "",
        "waits_for": waits_for if state == "open" else f"{waits_for} ({state})",
    }
    if tables.exists(CleanedImages, round_id):
        cleaned = tables.read_columns(CleanedImages, round_id, ["outcome"])
        row["accepted"] = int((cleaned["outcome"] == "accepted").sum())
    if tasks is not None:
        row["tasks"], row["places"] = tasks["task_id"].nunique(), len(tasks)
        row["annotations"] = _counted(lake, round_id)
    if tables.exists(DatasetVersions, round_id):
        row["version"] = str(tables.read(DatasetVersions, round_id)["version"].iloc[0])
    return row


def _counted(lake: Lake, round_id: str) -> int:
    """Return how many answers count: as they were merged, else by the ledger."""
    tables = lake.tables
    # The ledger of a merged round says the same, in a hundred times the time.
    if tables.exists(RoundTasks, round_id):
        return int(tables.read_columns(RoundTasks, round_id, ["counted"])["counted"].sum())
    return len(ledger_count(round_id, tables.read(LabelTasks, round_id), lake).counted)


def round_progress(lake: Lake, round_id: str) -> dict[str, Any]:
    """Return how far each stage of a round is, and what was decided about it.

    Each stage has ``done`` of ``all`` and what is counted; a stage that has not begun has none.
    """
    landed = RoundManifests(lake.store).read(round_id)
    cleaned = _rows(lake, CleanedImages, round_id)
    tasks = _rows(lake, LabelTasks, round_id)
    asked = tasks[tasks["purpose"] == "label"]
    counted = ledger_count(round_id, tasks, lake).counted
    reviews = _rows(lake, ReviewTasks, round_id)
    reviewed = _rows(lake, ReviewedLabels, round_id).drop_duplicates("image_id")
    stands = reviewed[~reviewed["decision"].isin(["rejected", "undecided"])]
    resolved = _rows(lake, ConsensusLabels, round_id)["image_id"].nunique()
    decided = AnnotationsLedger(lake.store).read(review_round(round_id))
    images = asked["image_id"].nunique()
    figures = [
        ("cleaned", len(cleaned), len(landed), "landed objects"),
        ("asked", images, int((cleaned["outcome"] == "accepted").sum()), "accepted images"),
        ("answered", len(counted), len(tasks), "places"),
        ("resolved", resolved, images, "images"),
        ("reviewed", len({said.submission.image_id for said in decided}), len(reviews), "images"),
        ("released", len(stands), len(reviewed), "images"),
    ]
    stages = [
        {"stage": stage, "done": done, "all": total, "of": what}
        for stage, done, total, what in figures
    ]
    record = RoundRecord(lake.store, round_id).read()
    decisions = [{**asdict(decision), "at": decision.at.isoformat()} for decision in record]
    return {"round": round_id, "stages": stages, "decisions": decisions}


def _rows(lake: Lake, table: type[Table], round_id: str) -> pd.DataFrame:
    return lake.tables.read_rounds(table, [round_id])
