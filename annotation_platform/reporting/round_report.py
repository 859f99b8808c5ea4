"""The report of a round in one row: arrivals, annotations, labels, version, model."""

from annotation_platform.consensus.agreement import pairwise_agreement
from annotation_platform.errors import NotReadyError
from annotation_platform.reporting.manual_effort import (
    manual_effort_of,
    minutes_of,
    published_labels,
)
from annotation_platform.reporting.round_facts import label_error_of
from annotation_platform.schema.tables import (
    AutoLabels,
    CalibrationFrame,
    Certificates,
    CleanedImages,
    ConsensusLabels,
    DatasetVersions,
    ErrorBars,
    Frame,
    HumanLabels,
    LabelTasks,
    ModelEvaluations,
    ReviewedLabels,
    RoundReports,
)
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.round_tables import RoundTables


def report_round(lake: Lake, round_id: str) -> Frame[RoundReports]:
    """Return the ``round_report`` of a round.

    The model's figures are missing if no model was trained on the round's version, and those of
    automatically accepted labels if auto-accept is off.

    Raises:
        NotReadyError: an earlier stage is missing.
    """
    tables, manual_effort = lake.tables, manual_effort_of(lake, round_id)
    cleaned = tables.read(CleanedImages, round_id)
    tasks = tables.read(LabelTasks, round_id)
    labels = tables.read(HumanLabels, round_id)
    consensus = tables.read(ConsensusLabels, round_id)
    version = tables.read(DatasetVersions, round_id).iloc[0]
    try:
        model = tables.read(ModelEvaluations, round_id).iloc[0]
        map50 = float(model[ModelEvaluations.map50])
        test_images = int(model[ModelEvaluations.test_images])
    except NotReadyError:
        map50, test_images = float("nan"), int(version[DatasetVersions.test_images])
    outcomes = cleaned[CleanedImages.outcome].value_counts()
    (rate, low, high), _ = label_error_of(tables.read_rounds(ErrorBars, [round_id]))
    row: dict[str, object] = {
        "round_id": round_id,
        "landed": len(cleaned),
        "accepted": int(outcomes.get(Outcome.ACCEPTED, 0)),
        "quarantined": int(outcomes.get(Outcome.QUARANTINED, 0)),
        "duplicates": int(outcomes.get(Outcome.DUPLICATE, 0)),
        "tasks": tasks[LabelTasks.task_id].nunique(),
        "annotations": labels[HumanLabels.annotation_id].nunique(),
        "agreement": pairwise_agreement(labels),
        "disputed": int(consensus[ConsensusLabels.disputed].sum()),
        "labels": published_labels(tables.read(ReviewedLabels, round_id)),
        "manual_actions": sum(each.actions for each in manual_effort),
        "minutes": minutes_of(manual_effort),
        **_automated(tables, round_id),
        "label_error": rate,
        "label_error_low": low,
        "label_error_high": high,
        "model_map50": map50,
        "test_images": test_images,
        "version": version[DatasetVersions.version],
    }
    return RoundReports.from_rows([row])


def _automated(tables: RoundTables, round_id: str) -> dict[str, object]:
    """Return the figures of automatically accepted labels, with the bound on their error."""
    certificates = tables.read_rounds(Certificates, [round_id])
    overall = certificates[certificates[Certificates.class_name] == ""]
    if overall.empty:
        figures = ("auto_share", "auto_alpha", "auto_delta", "auto_bound", "minutes_saved")
        return {"sampled_images": 0, "auto_images": 0, **dict.fromkeys(figures, float("nan"))}
    certificate = overall.iloc[0]
    images = tables.read_rounds(AutoLabels, [round_id])[AutoLabels.image_id].nunique()
    pool = len(tables.read_rounds(CalibrationFrame, [round_id]))
    return {
        "sampled_images": int(certificate[Certificates.sampled_images]),
        "auto_images": images,
        "auto_share": images / max(pool, 1),
        "auto_alpha": certificate[Certificates.alpha],
        "auto_delta": certificate[Certificates.delta],
        "auto_bound": certificate[Certificates.bound],
        "minutes_saved": certificate[Certificates.seconds_saved] / 60,
    }
