"""A round in one row: what came in, what people said, what came out."""

import pandas as pd

from annotation_platform.consensus.agreement import pairwise_agreement
from annotation_platform.errors import NotReadyError
from annotation_platform.reporting.manual_effort import (
    manual_effort_of,
    minutes_of,
    published_labels,
)
from annotation_platform.reporting.round_facts import label_error_of
from annotation_platform.schema.tables import (
    AuditFrame,
    AutoLabels,
    Certificates,
    CleanedImages,
    ConsensusLabels,
    DatasetVersions,
    ErrorBars,
    HumanLabels,
    LabelTasks,
    ModelEvaluations,
    ReviewedLabels,
    RoundReports,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.round_tables import RoundTables


def report_round(lake: Lake, round_id: str) -> pd.DataFrame:
    """Return the ``round_report`` of a round; NotReadyError while an earlier stage is missing.

    The model's figures are missing where the round's version trained none, and those of labels
    without a person where auto-accept is off.
    """
    tables, manual_effort = lake.tables, manual_effort_of(lake, round_id)
    cleaned = tables.read(CleanedImages, round_id)
    tasks = tables.read(LabelTasks, round_id)
    said = tables.read(HumanLabels, round_id)
    consensus = tables.read(ConsensusLabels, round_id)
    version = tables.read(DatasetVersions, round_id).iloc[0]
    try:
        model = tables.read(ModelEvaluations, round_id).iloc[0]
        map50, test_images = float(model["map50"]), int(model["test_images"])
    except NotReadyError:
        map50, test_images = float("nan"), int(version["test_images"])
    outcomes = cleaned["outcome"].value_counts()
    (rate, low, high), _ = label_error_of(tables.read_rounds(ErrorBars, [round_id]))
    row: dict[str, object] = {
        "round_id": round_id,
        "landed": len(cleaned),
        "accepted": int(outcomes.get("accepted", 0)),
        "quarantined": int(outcomes.get("quarantined", 0)),
        "duplicates": int(outcomes.get("duplicate", 0)),
        "tasks": tasks["task_id"].nunique(),
        "annotations": said["annotation_id"].nunique(),
        "agreement": pairwise_agreement(said),
        "disputed": int(consensus["disputed"].sum()),
        "labels": published_labels(tables.read(ReviewedLabels, round_id)),
        "touches": sum(each.touches for each in manual_effort),
        "minutes": minutes_of(manual_effort),
        **_automated(tables, round_id),
        "label_error": rate,
        "label_error_low": low,
        "label_error_high": high,
        "model_map50": map50,
        "test_images": test_images,
        "version": version["version"],
    }
    return RoundReports.from_rows([row])


def _automated(tables: RoundTables, round_id: str) -> dict[str, object]:
    """Return what needed no person, beside the bound on what is wrong with it."""
    certificates = tables.read_rounds(Certificates, [round_id])
    overall = certificates[certificates["class_name"] == ""]
    if overall.empty:
        figures = ("auto_share", "auto_alpha", "auto_delta", "auto_bound", "minutes_saved")
        return {"audited_images": 0, "auto_images": 0, **dict.fromkeys(figures, float("nan"))}
    certificate = overall.iloc[0]
    images = tables.read_rounds(AutoLabels, [round_id])["image_id"].nunique()
    pool = len(tables.read_rounds(AuditFrame, [round_id]))
    return {
        "audited_images": int(certificate["audited_images"]),
        "auto_images": images,
        "auto_share": images / max(pool, 1),
        "auto_alpha": certificate["alpha"],
        "auto_delta": certificate["delta"],
        "auto_bound": certificate["bound"],
        "minutes_saved": certificate["seconds_saved"] / 60,
    }
