"""Facts that must hold before anything is published. The judging is in ``curation/gates.py``."""

from collections.abc import Sequence

import dagster as dg
import pandas as pd

from annotation_platform.curation import gates
from annotation_platform.curation.annotator_pace import Pace
from annotation_platform.curation.drift import Drift
from annotation_platform.curation.error_bars import release_allowed
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.models.evaluation.agreement import agreement_drop
from annotation_platform.pipeline.evaluate import agreement_so_far
from annotation_platform.policy import Policy
from annotation_platform.reporting.reconciliation import missing_outcomes
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.tables import OddImages, TrainingSet
from annotation_platform.storage.lake import Lake
from assets.metadata import counts, number


def _verdict(
    found: Sequence[str],
    what: str,
    remedy: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """Return a passed check where nothing was found, else one that names the first of it."""
    metadata: dict[str, dg.MetadataValue] = {
        "found": dg.MetadataValue.int(len(found)),
        "first": dg.MetadataValue.json(list(found[:10])),
    }
    sentence = f"{len(found)} {what}. {remedy}" if found else f"No {what}."
    return dg.AssetCheckResult(
        passed=not found, severity=severity, description=sentence, metadata=metadata
    )


@dg.asset_check(asset="cleaned_images", blocking=True)
def every_object_has_one_outcome(
    context: dg.AssetCheckExecutionContext,
    cleaned_images: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """Each landed object of the round is accepted, a duplicate or quarantined, and only one."""
    found = missing_outcomes(RoundManifests(lake.store).read(context.partition_key), cleaned_images)
    return _verdict(found, "objects without exactly one outcome", "Materialise the round again.")


@dg.asset_check(asset="cleaned_images", blocking=True)
def quarantine_within_limit(
    cleaned_images: pd.DataFrame, policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """No larger share of the round is quarantined than the policy allows."""
    kept_out = cleaned_images.loc[cleaned_images["outcome"] == "quarantined", "reason"]
    limit = policy.cleaning.maximum_quarantined_share
    share = len(kept_out) / max(1, len(cleaned_images))
    remedy = (
        "See the reasons on cleaned_images; mend the source, or raise "
        "cleaning.maximum_quarantined_share in params.yaml."
    )
    return dg.AssetCheckResult(
        passed=share <= limit,
        description=f"{share:.0%} are quarantined, at most {limit:.0%} may be. {remedy}",
        metadata={"share": share, "reasons": counts(kept_out.str.split(":").str[0])},
    )


@dg.asset_check(asset="imported_labels")
def imported_labels_usable(imported_labels: pd.DataFrame) -> dg.AssetCheckResult:
    """Every image that landed with labels can use them; people are asked about the others."""
    found = gates.refused_labels(imported_labels)
    remedy = (
        "People are asked about them instead. If a class is missing, add it to params.yaml and "
        "materialise imported_labels again; other labels must be corrected before they land."
    )
    return _verdict(found, "images with labels that cannot be used", remedy)


@dg.asset_check(asset="batch_drift", blocking=True)
def round_resembles_earlier_rounds(
    batch_drift: pd.DataFrame, policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """The round's images are of the kind that is known: light, size, look, objects, classes."""
    drift = Drift(batch_drift, OddImages.empty())
    held = policy.drift.gate == "hold"
    remedy = (
        "Look at batch_drift. Then materialise selected_images and label_tasks to ask all the same."
        if held
        else "Look at batch_drift; people are asked all the same (drift.gate in params.yaml)."
    )
    return dg.AssetCheckResult(
        passed=not drift.drifted,
        severity=dg.AssetCheckSeverity.ERROR if held else dg.AssetCheckSeverity.WARN,
        description=drift.sentence if not drift.drifted else f"{drift.sentence} {remedy}",
        metadata={"drifted": len(drift.drifted), "first": list(drift.drifted[:10])},
    )


@dg.asset_check(asset="human_labels")
def every_region_usable(human_labels: pd.DataFrame) -> dg.AssetCheckResult:
    """No answer holds a region that is no usable label; images with one are held for review."""
    found = gates.unusable_annotations(human_labels)
    remedy = "human_labels says why. Correct them in Label Studio, or review those images."
    return _verdict(found, "answers with regions that are no usable label", remedy)


@dg.asset_check(asset="annotator_pace")
def annotators_as_fast_as_before(annotator_pace: pd.DataFrame) -> dg.AssetCheckResult:
    """Everybody takes as long as in the rounds before, for an answer and for a label."""
    pace = Pace(annotator_pace)
    remedy = (
        "Look at their answers and at batch_drift: faster may be careless, slower unclear "
        "guidelines, or other images."
    )
    return dg.AssetCheckResult(
        passed=not pace.changed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{pace.sentence} {remedy}" if pace.changed else pace.sentence,
        metadata={"changed": len(pace.changed), "first": pace.changed[:10]},
    )


@dg.asset_check(asset="consensus_labels", blocking=True)
def boxes_inside_image(
    consensus_labels: pd.DataFrame, lake: dg.ResourceParam[Lake]
) -> dg.AssetCheckResult:
    """Every region has an area and lies inside its image."""
    found = gates.boxes_outside_image(consensus_labels, accepted_images(lake.tables))
    return _verdict(found, "regions outside their image", "Correct them in Label Studio.")


@dg.asset_check(asset="consensus_labels", blocking=True)
def labels_in_ontology(
    consensus_labels: pd.DataFrame, policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """Every label has a class that the ontology knows."""
    found = gates.labels_outside_ontology(consensus_labels, policy.ontology)
    return _verdict(found, "labels outside the ontology", "Add the class to params.yaml.")


@dg.asset_check(
    asset="consensus_labels",
    additional_ins={"round_tasks": dg.AssetIn("round_tasks")},
    blocking=True,
)
def every_task_resolved(
    consensus_labels: pd.DataFrame, round_tasks: pd.DataFrame
) -> dg.AssetCheckResult:
    """Every task that was answered has a resolved label."""
    found = gates.unresolved_tasks(consensus_labels, round_tasks)
    return _verdict(found, "answered tasks without a label", "Materialise human_labels again.")


@dg.asset_check(asset="conflicts")
def conflicts_settled(conflicts: pd.DataFrame) -> dg.AssetCheckResult:
    """Every conflict between answers was settled by a rule; images with others are reviewed."""
    found = gates.unsettled_conflicts(conflicts)
    remedy = (
        "review_tasks lists their images. With `review.gate: manual` in params.yaml reviewers "
        "decide; otherwise they stay out of the training set."
    )
    # They have a way of their own: nobody has to be told.
    severity = dg.AssetCheckSeverity.WARN
    return _verdict(found, "conflicts that no rule settled", remedy, severity)


@dg.asset_check(asset="reaudits")
def certificates_hold(reaudits: pd.DataFrame) -> dg.AssetCheckResult:
    """No certificate is contradicted by people who saw accepted images again, blind."""
    found = gates.contradicted_certificates(reaudits)
    remedy = (
        "What was accepted under them is out of the training set. See what the model overlooks, "
        "and audit more before it accepts again."
    )
    return _verdict(found, "certificates that people contradict", remedy)


@dg.asset_check(asset="training_set", blocking=True)
def no_group_in_two_splits(training_set: pd.DataFrame) -> dg.AssetCheckResult:
    """Images that look alike stand in one split only."""
    found = gates.groups_in_two_splits(training_set)
    return _verdict(found, "groups in two splits", "The splits table was changed: restore it.")


@dg.asset_check(asset="training_set", blocking=True)
def no_test_image_in_train(
    context: dg.AssetCheckExecutionContext,
    training_set: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """No image that ever was in the test split is now in another one."""
    tables = lake.tables
    others = [key for key in tables.rounds(TrainingSet) if key != context.partition_key]
    earlier = (tables.read_columns(TrainingSet, key, ["image_id", "split"]) for key in others)
    found = gates.test_images_in_train(training_set, earlier)
    return _verdict(found, "test images moved", "The splits table was changed: restore it.")


@dg.asset_check(asset="training_set", blocking=True)
def formats_agree(
    context: dg.AssetCheckExecutionContext,
    training_set: pd.DataFrame,
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    """COCO and YOLO read back to the labels they were written from, the new and a sample."""
    tried = gates.sample_to_read_back(training_set, context.partition_key)
    found = gates.formats_disagree(Dataset.from_training_set(tried, policy.ontology))
    return _verdict(found, "formats that disagree", "This is a bug in annotation_platform/formats.")


@dg.asset_check(asset="model_agreement")
def agreement_with_people_holds(
    context: dg.AssetCheckExecutionContext,
    model_agreement: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """People agree with the model's proposals as they did in the rounds before."""
    drop = agreement_drop(agreement_so_far(context.partition_key, lake.tables, model_agreement))
    remedy = (
        "batch_drift says whether the images changed, annotator_quality whether people did; "
        "model_slices and model_findings show where the model fails. `annotation-platform image "
        "relabel` has people look again at what it contradicts."
    )
    return dg.AssetCheckResult(
        passed=not drop.dropped,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{drop.sentence} {remedy}" if drop.dropped else drop.sentence,
        metadata={"difference": number(drop.difference)},
    )


@dg.asset_check(asset="error_bars", blocking=True)
def label_error_within_limit(
    error_bars: pd.DataFrame, policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """An audit shows that no more labels are wrong than policy allows, if it sets a limit."""
    limit = policy.release.maximum_label_error
    verdict = release_allowed(error_bars, limit)
    return dg.AssetCheckResult(
        passed=verdict.allowed, description=verdict.reason, metadata={"limit": limit}
    )
