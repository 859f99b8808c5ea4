"""Consensus: one set of labels for each image, from several annotations."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.consensus.agreement_tables import agreement, agreement_by_class
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.snapshots import record_consensus
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import BarChart, Counts, Result, TableRows, Thumbnails
from annotation_platform.provenance.rebuilding.recipes import resolve_round
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    Conflicts,
    ConsensusLabels,
    Frame,
    HumanLabels,
)


@dataclass(frozen=True, kw_only=True)
class ConsensusResolved(Result):
    """The resolved labels of a round, and the conflicts between its annotations."""

    consensus_labels: Frame[ConsensusLabels]
    conflicts: Frame[Conflicts]


def resolve(
    context: RoundContext,
    human_labels: Frame[HumanLabels],
    annotator_quality: Frame[AnnotatorQuality],
) -> ConsensusResolved:
    """Resolve the annotations of the round, and record the lineage of the labels."""
    policy = context.policy.consensus
    consensus = resolve_round(
        context.lake,
        human_labels,
        annotator_quality,
        iou_threshold=policy.iou_threshold,
        disregarded=policy.disregarded,
    )
    record_consensus(
        context.round_id,
        context.lake,
        policy,
        human_labels=human_labels,
        annotator_quality=annotator_quality,
        consensus=consensus,
    )
    together = agreement(human_labels)
    labels, conflicts = consensus.labels, consensus.conflicts
    return ConsensusResolved(
        consensus_labels=labels,
        conflicts=conflicts,
        figures={
            "most_disputed": Thumbnails(
                _most_disputed(context, labels), labels, context.policy.ontology
            ),
            "labels": len(labels),
            "images": labels[ConsensusLabels.image_id].nunique(),
            "mean_agreement": consensus.mean_agreement,
            "mean_iou": together.mean_iou,
            "krippendorff_alpha": together.alpha,
            "class_alpha": together.class_alpha,
            "agreement_by_class": TableRows(agreement_by_class(human_labels)),
            "disputed_labels": consensus.disputed,
            "rejected_objects": consensus.rejected,
            "class_resolution": f"{consensus.method}: {consensus.reason}",
            "conflicts": Counts(conflicts[Conflicts.kind]),
            "unsettled_conflicts": int((~conflicts[Conflicts.settled]).sum()),
            "classes": BarChart(labels[ConsensusLabels.class_name].dropna()),
        },
    )


def _most_disputed(context: RoundContext, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the images of the labels, those with the most disputed labels first."""
    disputes = labels.groupby(ConsensusLabels.image_id)[ConsensusLabels.disputed].sum()
    images = accepted_images(context.tables).set_index("image_id").loc[disputes.index]
    return images.loc[disputes.sort_values(ascending=False).index].reset_index()
