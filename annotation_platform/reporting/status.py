"""The progress of every round, and what it waits for."""

from dataclasses import asdict
from typing import Any, Literal

import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.curation.training_set import usable_imports
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_annotations import ledger_count
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.reporting.manual_effort import publishable
from annotation_platform.schema.tables import (
    CleanedImages,
    ConsensusLabels,
    DatasetVersions,
    Frame,
    ImportedLabels,
    LabelTasks,
    ReviewedLabels,
    ReviewTasks,
    RoundReports,
    RoundTasks,
    Table,
)
from annotation_platform.schema.tables.shared import Outcome, Purpose
from annotation_platform.storage.lake import Lake

_STAGES = [
    (CleanedImages, "cleaning"),
    (LabelTasks, "its tasks"),
    (ConsensusLabels, "people"),
    (ReviewedLabels, "reviewers"),
    (DatasetVersions, "the release"),
    (RoundReports, "training"),
]
_HELD = "a release by hand: its images have drifted (see batch_drift)"


def round_states(
    lake: Lake, *, drift_gate: Literal["warn", "hold"] = "warn"
) -> list[dict[str, object]]:
    """Return one row per round: arrivals, annotations so far, and what it waits for.

    ``imported`` counts the images whose imported labels are used; ``annotations`` counts those in
    the ledger, which is written when a round is merged. ``drift_gate`` is the policy's.
    """
    states = [round_state(lake, round_id) for round_id in RoundManifests(lake.store).rounds()]
    held = set(held_rounds(lake.tables, drift_gate))
    return [{**row, "waits_for": _HELD} if row["round"] in held else row for row in states]


def round_state(lake: Lake, round_id: str) -> dict[str, object]:
    """Return the row of one round; raise a DataError if it does not exist."""
    tables = lake.tables
    waits_for = next((stage for table, stage in _STAGES if not tables.exists(table, round_id)), "–")
    imported = usable_imports(tables, [round_id])[ImportedLabels.image_id].nunique()
    has_tasks = tables.exists(LabelTasks, round_id)
    tasks = tables.read_columns(LabelTasks, round_id, [LabelTasks.task_id]) if has_tasks else None
    if tasks is not None and tasks.empty:
        if not imported:
            waits_for = "– (nothing new to label)"
        elif not tables.exists(ConsensusLabels, round_id):
            waits_for = "merging (all images landed with labels)"
    state = RoundRecord(lake.store, round_id).state
    row: dict[str, object] = {
        "round": round_id,
        "landed": len(RoundManifests(lake.store).read(round_id)),
        "accepted": 0,
        "imported": imported,
        "tasks": 0,
        "assignments": 0,
        "annotations": 0,
        "version": "",
        "waits_for": waits_for if state == "open" else f"{waits_for} ({state})",
    }
    if tables.exists(CleanedImages, round_id):
        outcomes = tables.read_columns(CleanedImages, round_id, [CleanedImages.outcome])
        row["accepted"] = _accepted(outcomes)
    if tasks is not None:
        row["tasks"], row["assignments"] = tasks[LabelTasks.task_id].nunique(), len(tasks)
        row["annotations"] = _counted(lake, round_id)
    if tables.exists(DatasetVersions, round_id):
        row["version"] = str(
            tables.read(DatasetVersions, round_id)[DatasetVersions.version].iloc[0]
        )
    return row


def _counted(lake: Lake, round_id: str) -> int:
    """Return the number of counted annotations: as merged, or by the ledger before that."""
    tables = lake.tables
    # The ledger of a merged round has the same number, at a hundred times the cost.
    if tables.exists(RoundTasks, round_id):
        return int(tables.read_columns(RoundTasks, round_id, [RoundTasks.counted]).iloc[:, 0].sum())
    return len(ledger_count(round_id, tables.read(LabelTasks, round_id), lake).counted)


def round_progress(lake: Lake, round_id: str) -> dict[str, Any]:
    """Return the progress of each stage of a round, and the decisions about the round.

    Each stage has ``done`` of ``all``, the unit that is counted, and ``percent``, 0 to 100; before
    it begins, the numbers are 0.
    """
    landed = RoundManifests(lake.store).read(round_id)
    cleaned = _rows(lake, CleanedImages, round_id)
    tasks = _rows(lake, LabelTasks, round_id)
    requested = tasks[tasks[LabelTasks.purpose] == Purpose.LABEL]
    counted = ledger_count(round_id, tasks, lake).counted
    reviews = _rows(lake, ReviewTasks, round_id)
    reviewed = _rows(lake, ReviewedLabels, round_id).drop_duplicates(ReviewedLabels.image_id)
    consensus = _rows(lake, ConsensusLabels, round_id)
    resolved = consensus[ConsensusLabels.image_id].nunique()
    decided = AnnotationsLedger(lake.store).read(review_round(round_id))
    images = requested[LabelTasks.image_id].nunique()
    figures = [
        ("cleaned", len(cleaned), len(landed), "landed objects"),
        ("requested", images, _accepted(cleaned), "accepted images"),
        ("annotated", len(counted), len(tasks), "assignments"),
        ("resolved", resolved, images, "images"),
        ("reviewed", len({one.submission.image_id for one in decided}), len(reviews), "images"),
        ("released", len(publishable(reviewed)), len(reviewed), "images"),
    ]
    stages = [
        {
            "stage": stage,
            "done": done,
            "all": total,
            "of": unit,
            "percent": round(100 * done / total, 1) if total else 0.0,
        }
        for stage, done, total, unit in figures
    ]
    record = RoundRecord(lake.store, round_id).read()
    decisions = [{**asdict(decision), "at": decision.at.isoformat()} for decision in record]
    return {"round": round_id, "stages": stages, "decisions": decisions}


def _accepted(cleaned: Frame[CleanedImages]) -> int:
    return int((cleaned[CleanedImages.outcome] == Outcome.ACCEPTED).sum())


def _rows(lake: Lake, table: type[Table], round_id: str) -> pd.DataFrame:
    return lake.tables.read_rounds(table, [round_id])
