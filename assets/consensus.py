"""One answer from several."""

import dagster as dg
import pandas as pd

from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from assets.metadata import counts, number, pictures
from assets.partitions import rounds


@dg.asset(partitions_def=rounds, group_name="consensus", kinds={"scipy"}, code_version="1")
def consensus_labels(
    human_labels: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """One resolved set of boxes for each image, with how far the annotators agreed."""
    consensus = resolve_consensus(human_labels, iou_threshold=policy.consensus.iou_threshold)
    labels = consensus.labels
    disputes = labels.groupby("image_id")["disputed"].sum()
    images = lake.accepted_images().set_index("image_id").loc[disputes.index]
    worst = images.loc[disputes.sort_values(ascending=False).index].reset_index()
    return dg.MaterializeResult(
        value=labels,
        metadata={
            "boxes": int((labels["shape"] == "box").sum()),
            "images": labels["image_id"].nunique(),
            "mean_agreement": number(consensus.mean_agreement),
            "disputed_boxes": consensus.disputed,
            "rejected_objects": consensus.rejected,
            "classes": counts(labels["class_name"].dropna()),
            "most_disputed": pictures(worst, lake, labels, policy.ontology),
        },
    )
