"""Asset checks. The conditions are in ``curation/gates.py``."""

from collections.abc import Sequence

import dagster as dg

from annotation_platform.curation import gates
from annotation_platform.curation.annotator_pace import PaceChanges
from annotation_platform.curation.drift import Drift
from annotation_platform.curation.error_bars import release_allowed
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.models.evaluation.agreement import agreement_drop
from annotation_platform.pipeline.evaluate import agreement_so_far
from annotation_platform.policy import Policy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.tables import (
    AnnotatorPace,
    BatchDrift,
    CertificateRechecks,
    CleanedImages,
    Conflicts,
    ConsensusLabels,
    ErrorBars,
    Frame,
    HumanLabels,
    ImportedLabels,
    ModelAgreement,
    OutlierImages,
    RoundTasks,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.lake import Lake
from assets.metadata import counts, number


def _verdict(
    found: Sequence[str],
    problem: str,
    remedy: str,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """Return a passed check if nothing was found, else a failed one with the first ten."""
    metadata: dict[str, dg.MetadataValue] = {
        "found": dg.MetadataValue.int(len(found)),
        "first": dg.MetadataValue.json(list(found[:10])),
    }
    sentence = f"{len(found)} {problem}. {remedy}" if found else f"No {problem}."
    return dg.AssetCheckResult(
        passed=not found, severity=severity, description=sentence, metadata=metadata
    )


@dg.asset_check(asset="cleaned_images", blocking=True)
def every_object_has_one_outcome(
    context: dg.AssetCheckExecutionContext,
    cleaned_images: Frame[CleanedImages],
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """Each arrival of the round is accepted, a duplicate or quarantined, and has one outcome."""
    found = gates.missing_outcomes(
        RoundManifests(lake.store).read(context.partition_key), cleaned_images
    )
    return _verdict(found, "objects without exactly one outcome", "Materialise the round again.")


@dg.asset_check(asset="cleaned_images", blocking=True)
def quarantine_within_limit(
    cleaned_images: Frame[CleanedImages], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """The quarantined share of the round is at most that of the policy."""
    is_quarantined = cleaned_images[CleanedImages.outcome] == Outcome.QUARANTINED
    reasons = cleaned_images.loc[is_quarantined, CleanedImages.reason]
    limit = policy.cleaning.maximum_quarantined_share
    share = len(reasons) / max(1, len(cleaned_images))
    remedy = (
        "See the reasons on cleaned_images; repair the source, or raise "
        "cleaning.maximum_quarantined_share in params.yaml."
    )
    return dg.AssetCheckResult(
        passed=share <= limit,
        description=f"{share:.0%} are quarantined, the limit is {limit:.0%}. {remedy}",
        metadata={"share": share, "reasons": counts(reasons.str.split(":").str[0])},
    )


@dg.asset_check(asset="imported_labels")
def imported_labels_usable(imported_labels: Frame[ImportedLabels]) -> dg.AssetCheckResult:
    """All imported labels are usable; images with other labels go to annotators."""
    found = gates.refused_labels(imported_labels)
    remedy = (
        "Annotators label them instead. If a class is missing, add it to params.yaml and "
        "materialise imported_labels again; other labels must be corrected before they land."
    )
    return _verdict(found, "images with unusable labels", remedy)


@dg.asset_check(asset="batch_drift", blocking=True)
def round_resembles_earlier_rounds(
    batch_drift: Frame[BatchDrift], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """The round's images resemble the known ones: light, size, appearance, objects, classes."""
    drift = Drift(batch_drift, OutlierImages.empty())
    is_held = policy.drift.gate == "hold"
    remedy = (
        "Check batch_drift. To annotate the round, materialise selected_images and label_tasks."
        if is_held
        else "Check batch_drift; the round is annotated (drift.gate in params.yaml is warn)."
    )
    return dg.AssetCheckResult(
        passed=not drift.drifted,
        severity=dg.AssetCheckSeverity.ERROR if is_held else dg.AssetCheckSeverity.WARN,
        description=drift.sentence if not drift.drifted else f"{drift.sentence} {remedy}",
        metadata={"drifted": len(drift.drifted), "first": list(drift.drifted[:10])},
    )


@dg.asset_check(asset="human_labels")
def every_region_usable(human_labels: Frame[HumanLabels]) -> dg.AssetCheckResult:
    """Every annotated region is a usable label; images with another region go to review."""
    found = gates.unusable_annotations(human_labels)
    remedy = (
        "See the reasons on human_labels. Correct them in Label Studio, or review those images."
    )
    return _verdict(found, "annotations with unusable regions", remedy)


@dg.asset_check(asset="annotator_pace")
def annotators_as_fast_as_before(annotator_pace: Frame[AnnotatorPace]) -> dg.AssetCheckResult:
    """Every annotator takes as long as in earlier rounds, per annotation and per label."""
    pace = PaceChanges(annotator_pace)
    remedy = (
        "Check their annotations and batch_drift: faster work can be careless; slower work can "
        "come from unclear guidelines or other images."
    )
    return dg.AssetCheckResult(
        passed=not pace.changed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{pace.sentence} {remedy}" if pace.changed else pace.sentence,
        metadata={"changed": len(pace.changed), "first": pace.changed[:10]},
    )


@dg.asset_check(asset="consensus_labels", blocking=True)
def boxes_inside_image(
    consensus_labels: Frame[ConsensusLabels], lake: dg.ResourceParam[Lake]
) -> dg.AssetCheckResult:
    """Every region has an area and is inside its image."""
    found = gates.boxes_outside_image(consensus_labels, accepted_images(lake.tables))
    return _verdict(found, "regions outside their image", "Correct them in Label Studio.")


@dg.asset_check(asset="consensus_labels", blocking=True)
def labels_in_ontology(
    consensus_labels: Frame[ConsensusLabels], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """Every label has a class of the ontology."""
    found = gates.labels_outside_ontology(consensus_labels, policy.ontology)
    return _verdict(found, "labels outside the ontology", "Add the class to params.yaml.")


@dg.asset_check(
    asset="consensus_labels",
    additional_ins={"round_tasks": dg.AssetIn("round_tasks")},
    blocking=True,
)
def every_task_resolved(
    consensus_labels: Frame[ConsensusLabels], round_tasks: Frame[RoundTasks]
) -> dg.AssetCheckResult:
    """Every annotated task has a resolved label."""
    found = gates.unresolved_tasks(consensus_labels, round_tasks)
    return _verdict(found, "annotated tasks without a label", "Materialise human_labels again.")


@dg.asset_check(asset="conflicts")
def conflicts_settled(conflicts: Frame[Conflicts]) -> dg.AssetCheckResult:
    """Every conflict between annotations is settled by a rule; other images are reviewed."""
    found = gates.unsettled_conflicts(conflicts)
    remedy = (
        "review_tasks lists their images. With `review.gate: manual` in params.yaml reviewers "
        "decide; otherwise these images are left out of the training set."
    )
    # Reviews have tasks of their own, so no alert is needed.
    severity = dg.AssetCheckSeverity.WARN
    return _verdict(found, "conflicts that no rule settled", remedy, severity)


@dg.asset_check(asset="certificate_rechecks")
def certificates_hold(certificate_rechecks: Frame[CertificateRechecks]) -> dg.AssetCheckResult:
    """No certificate is contradicted by later annotations made without predictions."""
    found = gates.contradicted_certificates(certificate_rechecks)
    remedy = (
        "Their labels are out of the training set. Check what the model overlooks, and audit more "
        "images before it accepts labels again."
    )
    return _verdict(found, "certificates that annotations contradict", remedy)


@dg.asset_check(asset="training_set", blocking=True)
def no_group_in_two_splits(training_set: Frame[TrainingSet]) -> dg.AssetCheckResult:
    """The images of a duplicate group are in one split only."""
    found = gates.groups_in_two_splits(training_set)
    return _verdict(found, "groups in two splits", "The splits table was changed: restore it.")


@dg.asset_check(asset="training_set", blocking=True)
def no_test_image_in_train(
    context: dg.AssetCheckExecutionContext,
    training_set: Frame[TrainingSet],
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """No image of an earlier test split is now in another split."""
    tables = lake.tables
    others = [key for key in tables.rounds(TrainingSet) if key != context.partition_key]
    columns = [TrainingSet.image_id, TrainingSet.split]
    earlier = (tables.read_columns(TrainingSet, key, columns) for key in others)
    found = gates.test_images_in_train(training_set, earlier)
    return _verdict(found, "test images moved", "The splits table was changed: restore it.")


@dg.asset_check(asset="training_set", blocking=True)
def formats_agree(
    context: dg.AssetCheckExecutionContext,
    training_set: Frame[TrainingSet],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    """COCO and YOLO files read back to the same labels, for the new images and a sample."""
    tried = gates.sample_to_read_back(training_set, context.partition_key)
    found = gates.formats_disagree(Dataset.from_training_set(tried, policy.ontology))
    return _verdict(found, "formats that disagree", "This is a bug in annotation_platform/formats.")


@dg.asset_check(asset="model_agreement")
def agreement_with_people_holds(
    context: dg.AssetCheckExecutionContext,
    model_agreement: Frame[ModelAgreement],
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """Annotators agree with the model's predictions as much as in earlier rounds."""
    drop = agreement_drop(agreement_so_far(context.partition_key, lake.tables, model_agreement))
    remedy = (
        "Check batch_drift for changed images and annotator_quality for changed annotators; "
        "model_slices and model_errors show where the model fails. `annotation-platform image "
        "relabel` has the labels that it contradicts annotated again."
    )
    return dg.AssetCheckResult(
        passed=not drop.dropped,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{drop.sentence} {remedy}" if drop.dropped else drop.sentence,
        metadata={"difference": number(drop.difference)},
    )


@dg.asset_check(asset="error_bars", blocking=True)
def label_error_within_limit(
    error_bars: Frame[ErrorBars], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    """The upper bound of the share of wrong labels is within the limit of the policy, if any."""
    limit = policy.release.maximum_label_error
    verdict = release_allowed(error_bars, limit)
    return dg.AssetCheckResult(
        passed=verdict.allowed, description=verdict.reason, metadata={"limit": limit}
    )
