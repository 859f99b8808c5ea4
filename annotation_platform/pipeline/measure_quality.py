"""The quality and pace of the annotators of a round."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.consensus.anchoring import crowd_anchoring, pre_annotation_decisions
from annotation_platform.consensus.anomalies import label_anomalies
from annotation_platform.consensus.quality import quality_table
from annotation_platform.curation.annotator_pace import measure_pace
from annotation_platform.curation.known_labels import known_labels
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.qualification import qualify
from annotation_platform.models.shown_predictions import shown_predictions
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Counts, Result, TableRows
from annotation_platform.schema.tables import (
    AnnotatorPace,
    AnnotatorQuality,
    Frame,
    HumanLabels,
    ModelPredictions,
)

_PACE_ROUNDS = 3
"""Earlier rounds that pace is compared with: practice makes older rounds incomparable."""


@dataclass(frozen=True, kw_only=True)
class QualityMeasured(Result):
    """The quality of a round's annotators, and their pace."""

    annotator_quality: Frame[AnnotatorQuality]
    annotator_pace: Frame[AnnotatorPace]


def measure_quality(
    context: RoundContext,
    human_labels: Frame[HumanLabels],
    model_predictions: Frame[ModelPredictions],
    labeling: LabelingBackend,
) -> QualityMeasured:
    """Return the quality of each annotator, against the others and on gold tasks.

    If the policy requires qualification, annotators who qualify now are granted the skill.
    """
    round_id, tables, policy = context.round_id, context.tables, context.policy
    known = known_labels(tables, policy.labeling.gold_origins)
    least = policy.labeling.minimum_score
    shown = shown_predictions(model_predictions, policy.ontology, minimum_score=least)
    decisions = pre_annotation_decisions(human_labels, shown)
    measured = quality_table(round_id, human_labels, known, decisions)
    anchoring = crowd_anchoring(decisions)
    # At an IoU of 0.5, careful annotations agree with every correct prediction, shown or not.
    accepted_unchanged = crowd_anchoring(
        pre_annotation_decisions(human_labels, shown, agreement_iou=0.5)
    )
    anomalies = label_anomalies(human_labels)
    pace = measure_pace(
        round_id,
        human_labels,
        tables.read_rounds(HumanLabels, context.before(HumanLabels)[-_PACE_ROUNDS:]),
        level=policy.drift.level,
        minimum_effect=policy.drift.minimum_effect,
    )
    flagged = measured[measured[AnnotatorQuality.flags] != ""]
    return QualityMeasured(
        annotator_quality=measured,
        annotator_pace=pace.table,
        figures={
            "annotators": len(measured),
            "flagged": len(flagged),
            "newly_qualified": ", ".join(_qualified(context, measured, labeling)),
            "mean_quality": float(measured[AnnotatorQuality.quality].mean()),
            "anchoring": anchoring.anchoring,
            "anchoring_low": anchoring.low,
            "anchoring_high": anchoring.high,
            "accepted_unchanged": accepted_unchanged.anchoring,
            "accepted_unchanged_low": accepted_unchanged.low,
            "accepted_unchanged_high": accepted_unchanged.high,
            "anomaly_kinds": Counts(anomalies["kind"]),
            "anomalies": TableRows(anomalies, ["kind", "annotation_id", "detail"]),
            "pace_summary": pace.sentence,
            "changed_pace": len(pace.changed),
            "flags": TableRows(flagged, ["annotator", "quality", "gold_quality", "flags"]),
            "preview": TableRows(measured),
        },
    )


def _qualified(
    context: RoundContext, measured: pd.DataFrame, labeling: LabelingBackend
) -> list[str]:
    """Grant the skill to annotators who qualify now, and return their pseudonyms."""
    others = context.tables.read_all(AnnotatorQuality)
    others = others[others[AnnotatorQuality.round_id] != context.round_id]
    so_far = pd.concat([others, measured], ignore_index=True)
    policy = context.policy.labeling
    people = labeling.annotators() if policy.qualify_annotations else []
    return qualify(so_far, people, context.lake, policy, now=context.now)
