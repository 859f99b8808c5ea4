"""The training set, and its publication as a version."""

from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from annotation_platform.curation.imported import PEOPLE
from annotation_platform.curation.training_set import build_training_set
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.record import cancelled_rounds
from annotation_platform.params import Params
from annotation_platform.pipeline.auto_accept import accept_proposals, reaudits_by_now
from annotation_platform.pipeline.measure_errors import measure_errors
from annotation_platform.pipeline.publish import publish_round
from annotation_platform.schema.shapes import AREAS
from annotation_platform.storage.lake import Lake
from annotation_platform.versioning.store import VersionStore
from assets.metadata import counts, histogram, number, pictures, table
from assets.partitions import rounds
from resources.pages import PagesResource


@dg.asset(partitions_def=rounds, group_name="release", kinds={"scipy"}, code_version="1")
def auto_labels(
    context: dg.AssetExecutionContext,
    reviewed_labels: pd.DataFrame,  # noqa: ARG001  what people said of the audited pictures
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """Proposals that need no person: so few of them are wrong, and a certificate says how few."""
    found = accept_proposals(context.partition_key, lake=lake, policy=policy)
    lake.tables.write("certificates", context.partition_key, found.certificates)
    reaudits = reaudits_by_now(context.partition_key, lake=lake)
    lake.tables.write("reaudits", context.partition_key, reaudits)
    overall = found.certificates[found.certificates["class_name"] == ""]
    shown = accepted_images(lake.tables).merge(found.labels[["image_id"]].drop_duplicates())
    return dg.MaterializeResult(
        value=found.labels,
        metadata={
            "images": found.labels["image_id"].nunique(),
            "labels": len(found.labels),
            "automated_share": number(float(overall["share"].sum()) if found.granted else 0.0),
            "minutes_saved": number(found.seconds_saved / 60),
            "refused_because": " ".join(overall["reason"]) or "",
            "certificate": table(
                found.certificates,
                ["class_name", "granted", "alpha", "bound", "delta", "audited_pictures", "reason"],
            ),
            "held": counts(pd.Series(found.held.values(), dtype="str")),
            "seen_again_next": len(found.seen_again),
            "contradicted": int(reaudits["contradicted"].sum()),
            "seen_again": table(
                reaudits, ["certified_round", "pictures", "labels", "errors", "contradicted"]
            ),
            "preview": pictures(shown, lake, found.labels, policy.ontology),
        },
    )


# The pool is of one: splits are drawn and versions numbered one after the other. Labels that no
# person gave are an edge, not an input: rounds that started before there were any have none.
@dg.asset(
    partitions_def=rounds,
    group_name="release",
    kinds={"pandas"},
    code_version="3",
    pool="dvc",
    deps=["imported_labels", "auto_labels"],
)
def training_set(
    context: dg.AssetExecutionContext,
    reviewed_labels: pd.DataFrame,  # noqa: ARG001  the edge; the set reads every finished round
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """Every label of every finished round or landed image, each in the split drawn for ever."""
    built = build_training_set(
        lake.tables,
        context.partition_key,
        policy.ontology,
        policy.splits,
        seed=policy.seed,
        cancelled=cancelled_rounds(lake.store, lake.tables.rounds("label_tasks")),
        use_auto=policy.auto_accept.enabled and policy.auto_accept.use_in_training,
    )
    images = built.labels.drop_duplicates("image_id")
    return dg.MaterializeResult(
        value=built.labels,
        metadata={
            "images": len(images),
            "boxes": int(built.labels["shape"].isin(AREAS).sum()),
            "test_images": int((images["split"] == "test").sum()),
            "splits": counts(images["split"]),
            "classes": histogram(built.labels["class_name"].dropna()),
            "origins": counts(built.labels["origin"]),
            "rounds": built.rounds,
            "held_rounds": built.held,
            "held_images": dict(list(built.held_images.items())[:100]),
            "preview": pictures(images, lake, built.labels, policy.ontology),
        },
    )


@dg.asset(partitions_def=rounds, group_name="release", kinds={"scipy"}, code_version="1")
def error_bars(
    context: dg.AssetExecutionContext,
    training_set: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """How many labels are wrong, by origin and class, each with its interval."""
    measured = measure_errors(context.partition_key, training_set, lake=lake, policy=policy)
    bars = measured.bars
    overall = bars[(bars["class_name"] == "") & (bars["origin"] == PEOPLE)]
    figures = overall[["rate", "low", "high"]].mean().add_prefix("wrong_")
    return dg.MaterializeResult(
        value=bars,
        metadata={
            "audited_labels": int(overall["audited"].sum()),
            **{str(name): number(float(value)) for name, value in figures.items()},
            "unread_samples": measured.unread,
            "preview": table(
                bars,
                ["origin", "class_name", "design", "labels", "audited", "rate", "low", "high"],
            ),
        },
    )


# The check of error_bars can keep it from being published.
@dg.asset(
    partitions_def=rounds,
    group_name="release",
    kinds={"dvc", "git"},
    code_version="1",
    pool="dvc",
    deps=["error_bars"],
)
def dataset_version(
    context: dg.AssetExecutionContext,
    training_set: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
    versions: dg.ResourceParam[VersionStore],
    pages: PagesResource,
) -> dg.MaterializeResult[pd.DataFrame]:
    """The published version: a git tag, and files that anybody can ``dvc pull``."""
    published = publish_round(
        context.partition_key, training_set, lake, policy, versions, now=datetime.now(UTC)
    )
    version = published.table
    row = version.iloc[0]
    return dg.MaterializeResult(
        value=version,
        data_version=dg.DataVersion(str(row["folder_md5"])),
        metadata={
            "images": int(row["images"]),
            "boxes": int(row["boxes"]),
            "uploaded_files": published.uploaded_files,
            "version": str(row["version"]),
            "tag": str(row["tag"]),
            **pages.links(card=f"versions/{row['version']}/card.html"),
            "get_it": dg.MetadataValue.md(published.instructions),
            "preview": table(version, ["version", "images", "boxes", "new_version"]),
        },
    )
