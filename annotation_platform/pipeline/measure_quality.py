"""How well the annotators of a round do."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.consensus.anchoring import crowd_anchoring, pre_annotation_decisions
from annotation_platform.consensus.anomalies import label_anomalies
from annotation_platform.consensus.quality import quality_table
from annotation_platform.curation.annotator_pace import measure_pace
from annotation_platform.curation.known_labels import known_labels
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.qualification import qualify
from annotation_platform.labeling.tasks import shown_predictions
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Counts, Result, Rows
from annotation_platform.schema.tables import AnnotatorQuality, HumanLabels

_PACE_ROUNDS = 3
"""Earlier rounds that pace is compared with: practice makes older ones no measure."""


@dataclass(frozen=True, kw_only=True)
class QualityMeasured(Result):
    """The quality of a round's annotators, and their pace."""

    annotator_quality: pd.DataFrame
    annotator_pace: pd.DataFrame


def measure_quality(
    context: RoundContext,
    human_labels: pd.DataFrame,
    model_predictions: pd.DataFrame,
    labeling: LabelingBackend,
) -> QualityMeasured:
    """Return how well each annotator does, next to the others and on gold tasks.

    Where the policy has annotators qualify, those who do by now are granted the skill.
    """
    round_id, tables, policy = context.round_id, context.tables, context.policy
    known = known_labels(tables, policy.labeling.gold_origins)
    least = policy.labeling.minimum_score
    shown = shown_predictions(model_predictions, policy.ontology, minimum_score=least)
    decisions = pre_annotation_decisions(human_labels, shown)
    measured = quality_table(round_id, human_labels, known, decisions)
    anchoring = crowd_anchoring(decisions)
    # At half an overlap honest annotations agree with every sound prediction, shown or not.
    waved = crowd_anchoring(pre_annotation_decisions(human_labels, shown, agreement_iou=0.5))
    odd = label_anomalies(human_labels)
    pace = measure_pace(
        round_id,
        human_labels,
        tables.read_rounds(HumanLabels, context.before(HumanLabels)[-_PACE_ROUNDS:]),
        level=policy.drift.level,
        least_effect=policy.drift.least_effect,
    )
    flagged = measured[measured["flags"] != ""]
    return QualityMeasured(
        annotator_quality=measured,
        annotator_pace=pace.table,
        figures={
            "annotators": len(measured),
            "flagged": len(flagged),
            "qualified_now": ", ".join(_qualified(context, measured, labeling)),
            "mean_quality": float(measured["quality"].mean()),
            "anchoring": anchoring.anchoring,
            "anchoring_low": anchoring.low,
            "anchoring_high": anchoring.high,
            "waved_through": waved.anchoring,
            "waved_through_low": waved.low,
            "waved_through_high": waved.high,
            "odd_annotations": Counts(odd["kind"]),
            "odd": Rows(odd, ["kind", "annotation_id", "detail"]),
            "pace": pace.sentence,
            "changed_pace": len(pace.changed),
            "flags": Rows(flagged, ["annotator", "quality", "gold_quality", "flags"]),
            "preview": Rows(measured),
        },
    )


def _qualified(
    context: RoundContext, measured: pd.DataFrame, labeling: LabelingBackend
) -> list[str]:
    """Grant the skill to annotators who qualify by now, and return their pseudonyms."""
    others = context.tables.read_all(AnnotatorQuality)
    others = others[others["round_id"] != context.round_id]
    so_far = pd.concat([others, measured], ignore_index=True)
    policy = context.policy.labeling
    people = labeling.annotators() if policy.qualify_annotations else []
    return qualify(so_far, people, context.lake, policy, now=context.now)
