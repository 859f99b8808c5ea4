"""One answer from several."""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from annotation_platform.consensus.agreement_tables import agreement, agreement_by_class
from annotation_platform.consensus.anchoring import crowd_anchoring, proposal_decisions
from annotation_platform.consensus.anomalies import label_anomalies
from annotation_platform.consensus.quality import quality_table
from annotation_platform.consensus.resolve import counting_answers, resolve_consensus
from annotation_platform.curation.known_labels import known_labels
from annotation_platform.curation.pace import measure_pace
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.client import LabelingClient
from annotation_platform.labeling.guidelines import guideline_of
from annotation_platform.labeling.moments import note_consensus
from annotation_platform.labeling.qualification import qualify
from annotation_platform.labeling.tasks import shown_proposals
from annotation_platform.params import Params
from annotation_platform.storage.lake import Lake
from assets.metadata import counts, histogram, number, pictures, table
from assets.partitions import rounds


@dg.asset(partitions_def=rounds, group_name="consensus", kinds={"scipy"}, code_version="1")
def annotator_quality(
    context: dg.AssetExecutionContext,
    human_labels: pd.DataFrame,
    labeling: dg.ResourceParam[LabelingClient],
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """How well each annotator does, beside the others and on tasks whose answer is known."""
    round_id = context.partition_key
    known = known_labels(lake.tables, policy.labeling.gold_origins)
    proposed = lake.tables.read_rounds("model_predictions", [round_id])
    least = policy.labeling.minimum_score
    shown = shown_proposals(proposed, policy.ontology, minimum_score=least)
    decisions = proposal_decisions(human_labels, shown)
    measured = quality_table(round_id, human_labels, known, decisions)
    anchoring = crowd_anchoring(decisions)
    # At half an overlap honest answers agree with every sound proposal, seen or not.
    waved = crowd_anchoring(proposal_decisions(human_labels, shown, agreement_iou=0.5))
    odd = label_anomalies(human_labels)
    before = [key for key in lake.tables.rounds("human_labels") if key < round_id]
    pace = measure_pace(
        round_id,
        human_labels,
        # People get faster by practice: who they were long ago is no measure.
        lake.tables.read_rounds("human_labels", before[-3:]),
        level=policy.drift.level,
        least_effect=policy.drift.least_effect,
    )
    lake.tables.write("annotator_pace", round_id, pace.table)
    flagged = measured[measured["flags"] != ""]
    others = lake.tables.read_all("annotator_quality")
    so_far = pd.concat([others[others["round_id"] != round_id], measured], ignore_index=True)
    people = labeling.annotators() if policy.labeling.qualify_answers else []
    qualified = qualify(so_far, people, lake, policy.labeling, now=datetime.now(UTC))
    return dg.MaterializeResult(
        value=measured,
        metadata={
            "annotators": len(measured),
            "flagged": len(flagged),
            "qualified_now": ", ".join(qualified),
            "mean_quality": number(float(measured["quality"].mean())),
            "anchoring": number(anchoring.anchoring),
            "anchoring_low": number(anchoring.low),
            "anchoring_high": number(anchoring.high),
            "waved_through": number(waved.anchoring),
            "waved_through_low": number(waved.low),
            "waved_through_high": number(waved.high),
            "odd_answers": counts(odd["kind"]),
            "odd": table(odd, ["kind", "answer_id", "detail"]),
            "pace": pace.sentence,
            "changed_pace": len(pace.changed),
            "flags": table(flagged, ["annotator", "quality", "gold_quality", "flags"]),
            "preview": table(measured),
        },
    )


@dg.asset(partitions_def=rounds, group_name="consensus", kinds={"scipy"}, code_version="2")
def consensus_labels(
    context: dg.AssetExecutionContext,
    human_labels: pd.DataFrame,
    annotator_quality: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """One resolved set of labels for each image, with how far the annotators agreed."""
    consensus = resolve_consensus(
        counting_answers(human_labels, policy.consensus.disregarded),
        iou_threshold=policy.consensus.iou_threshold,
        ontology=guideline_of(human_labels, lake.store, policy.ontology),
        images=accepted_images(lake.tables),
        quality=annotator_quality,
    )
    lake.tables.write("conflicts", context.partition_key, consensus.conflicts)
    note_consensus(
        context.partition_key,
        lake,
        policy.consensus,
        human_labels=human_labels,
        annotator_quality=annotator_quality,
        consensus=consensus,
    )
    together = agreement(human_labels)
    labels, conflicts = consensus.labels, consensus.conflicts
    disputes = labels.groupby("image_id")["disputed"].sum()
    images = accepted_images(lake.tables).set_index("image_id").loc[disputes.index]
    worst = images.loc[disputes.sort_values(ascending=False).index].reset_index()
    return dg.MaterializeResult(
        value=labels,
        metadata={
            "most_disputed": pictures(worst, lake, labels, policy.ontology),
            "labels": len(labels),
            "images": labels["image_id"].nunique(),
            "mean_agreement": number(consensus.mean_agreement),
            "mean_iou": number(together.mean_iou),
            "krippendorff_alpha": number(together.alpha),
            "class_alpha": number(together.class_alpha),
            "agreement_by_class": table(agreement_by_class(human_labels)),
            "disputed_labels": consensus.disputed,
            "rejected_objects": consensus.rejected,
            "classes_by": f"{consensus.method}: {consensus.reason}",
            "conflicts": counts(conflicts["kind"]),
            "unsettled_conflicts": int((~conflicts["settled"]).sum()),
            "classes": histogram(labels["class_name"].dropna()),
        },
    )
