"""What reviewers are asked where the answers leave something open, and what they decided."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from annotation_platform.consensus.error_rate import ErrorRate
from annotation_platform.curation.label_issues import with_suspects
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling import reviews
from annotation_platform.labeling.client import LabelingClient
from annotation_platform.labeling.shown_pictures import ShownPictures
from annotation_platform.models.known_classes import KnownClasses
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.pipeline.find_issues import issues_of_round
from annotation_platform.pipeline.release_due import held_back, release_due
from annotation_platform.storage.lake import Lake
from assets.jobs import merge_round, release_round
from assets.metadata import counts, number, pictures, table
from assets.partitions import rounds
from resources.causes import goes_on


@dg.asset(partitions_def=rounds, group_name="consensus", kinds={"scipy"}, code_version="2")
def label_issues(
    context: dg.AssetExecutionContext,
    consensus_labels: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """Labels that are probably wrong, and objects that probably lack one, most suspect first."""
    round_id = context.partition_key
    found = issues_of_round(round_id, consensus_labels, lake=lake, policy=policy)
    issues = found.table
    if policy.review.gate == "manual":
        # Without a reviewer an image with an open conflict would be left out of the release. And
        # what is audited must be judged by people alone.
        selected = lake.tables.read("selected_images", round_id)
        by_lot = selected["audit"] | (selected["rule"] == "reaudit")
        audited = selected.loc[by_lot, "image_id"]
        conflicts = with_suspects(
            lake.tables.read("conflicts", round_id),
            issues[~issues["image_id"].isin(audited)],
            consensus_labels,
        )
        lake.tables.write("conflicts", round_id, conflicts)
    # The likeliest to hold an error first; those with suspect choices alone after them.
    order = [*found.risk.sort_values(ascending=False).index, *issues["image_id"]]
    shown = issues[["image_id"]].drop_duplicates().set_index("image_id")
    shown = shown.loc[[image for image in dict.fromkeys(order) if image in shown.index]]
    worst = shown.reset_index().merge(accepted_images(lake.tables))
    return dg.MaterializeResult(
        value=issues,
        metadata={
            "issues": len(issues),
            "images": issues["image_id"].nunique(),
            "images_expected_to_hold_an_error": number(float(found.risk.sum())),
            "kinds": counts(issues["kind"]),
            "worst": table(issues, ["image_id", "kind", "score", "suggestion"]),
            "preview": pictures(worst, lake, consensus_labels, policy.ontology),
        },
    )


@dg.asset(partitions_def=rounds, group_name="consensus", kinds={"labelstudio"}, code_version="2")
def review_tasks(
    context: dg.AssetExecutionContext,
    consensus_labels: pd.DataFrame,
    label_issues: pd.DataFrame,  # noqa: ARG001  they are among the conflicts
    labeling: dg.ResourceParam[LabelingClient],
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The images whose answers leave something open, put before a reviewer if policy says so."""
    round_id = context.partition_key
    conflicts = lake.tables.read("conflicts", round_id)
    tasks = reviews.ask_reviewers(
        round_id,
        consensus_labels,
        conflicts,
        labeling,
        lake,
        policy,
        pictures=ShownPictures(lake, policy.masking, KnownClasses(models, policy)),
        now=datetime.now(UTC),
    )
    url = labeling.round_url(reviews.review_round(round_id)) if len(tasks) else ""
    shown = accepted_images(lake.tables).merge(tasks[["image_id"]])
    return dg.MaterializeResult(
        value=tasks,
        metadata={
            "images": len(tasks),
            "asked": int((tasks["backend"] != "").sum()),
            "kinds": counts(tasks["kinds"].str.split(", ").explode()),
            "reasons": table(tasks, ["image_id", "kinds", "reasons"]),
            "preview": pictures(shown, lake, consensus_labels, policy.ontology),
            **({"review_here": dg.MetadataValue.url(url)} if url else {}),
        },
    )


@dg.asset(
    partitions_def=rounds,
    group_name="release",
    kinds={"labelstudio"},
    code_version="1",
    output_required=False,
)
def reviewed_labels(
    context: dg.AssetExecutionContext,
    consensus_labels: pd.DataFrame,
    review_tasks: pd.DataFrame,
    labeling: dg.ResourceParam[LabelingClient],
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """The labels that stand: undisputed, or decided by a reviewer, who is named, and why."""
    round_id = context.partition_key
    stop = _merge_ends(context, review_tasks, labeling, lake, policy)
    if stop:
        context.log.info(f"{round_id} is merged, and not released by this run: {stop}.")
        return
    labels = reviews.decide(
        round_id,
        consensus_labels,
        review_tasks,
        labeling,
        lake,
        policy,
        now=datetime.now(UTC),
    )
    plan = reviews.review_sample(
        round_id,
        consensus_labels,
        lake.tables.read("conflicts", round_id),
        policy,
    )
    errors = reviews.estimated_errors(plan, labels)
    images = labels.drop_duplicates("image_id")
    held = images[images["decision"].isin(["rejected", "undecided"])]
    reviewed = accepted_images(lake.tables).merge(
        images.loc[images["decided_by"] != "", ["image_id"]]
    )
    yield dg.MaterializeResult(
        value=labels,
        metadata={
            "images": len(images),
            "held_out_images": len(held),
            "decisions": counts(images["decision"]),
            **({} if errors is None else _said_of_errors(errors)),
            "held_out": table(held, ["image_id", "decision", "comment"]),
            "preview": pictures(reviewed, lake, labels, policy.ontology),
        },
    )


def _merge_ends(
    context: dg.AssetExecutionContext,
    review_tasks: pd.DataFrame,
    labeling: LabelingClient,
    lake: Lake,
    policy: Params,
) -> str:
    """Return why a merge ends here; empty if it goes on to the release, or is none."""
    if context.run.job_name != merge_round.name:
        return ""
    if policy.release.gate == "manual":
        return "release.gate is manual"
    round_id = context.partition_key
    due = release_due(round_id, review_tasks, labeling, lake, policy)
    stop = due.waits_for or held_back(round_id, lake, policy)
    if not stop:
        goes_on(context.instance, context.run.run_id, release_round.name, round_id, due.cause)
    return stop


def _said_of_errors(errors: ErrorRate) -> dict[str, float | None]:
    """Return what the sample says of the undisputed images; numbers that Dagster can plot."""
    return {
        "wrong_share": number(errors.rate),
        "wrong_share_low": number(errors.low),
        "wrong_share_high": number(errors.high),
        "sample_reviewed": errors.reviewed,
        "sample_wrong": errors.wrong,
    }
