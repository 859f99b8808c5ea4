"""The images of a round that need no person: only those that its audit certifies."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.curation.auto_accept import (
    AcceptanceCandidates,
    AutoAccepted,
    accept_labels,
)
from annotation_platform.curation.gates import OPEN_DECISIONS
from annotation_platform.curation.rechecks import Recheck, judge_certificates
from annotation_platform.curation.units import Audit
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import ImageEmbedder, features_for
from annotation_platform.labeling.round_decisions import cancelled_rounds
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Counts, Result, TableRows, Thumbnails
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.shapes import UPRIGHT_BOXES
from annotation_platform.schema.tables import (
    AutoLabels,
    CalibrationFrame,
    CertificateRechecks,
    Certificates,
    CleanedImages,
    Frame,
    HumanLabels,
    LabelTasks,
    ModelPredictions,
    ReviewedLabels,
    SelectedImages,
    records,
)
from annotation_platform.schema.tables.shared import Purpose, SelectionRule
from annotation_platform.storage.lake import Lake

_CERTIFICATE = ["class_name", "granted", "alpha", "bound", "delta", "sampled_images", "reason"]
_COMPARED = ("brightness", "sharpness")
_NO_FRAME = (
    "Auto-accept was off when the images of this round were selected, so the population of its "
    "audit was not recorded. Auto-accept starts with the next round."
)
_OTHER_PREDICTIONS = (
    "The predictions changed after the audit was drawn, perhaps to those of a model trained on it. "
    "Auto-accept starts with the next round."
)
_OTHER_SHAPES = (
    "Some classes are not boxes. Only boxes are certified, and an image is accepted with all its "
    "labels or not at all. Collect the annotations."
)


@dataclass(frozen=True)
class AcceptInputs:
    """The tables of a round from which its certificate is computed, by name."""

    model_predictions: Frame[ModelPredictions]
    selected_images: Frame[SelectedImages]
    calibration_frame: Frame[CalibrationFrame]
    label_tasks: Frame[LabelTasks]
    human_labels: Frame[HumanLabels]
    reviewed_labels: Frame[ReviewedLabels]


@dataclass(frozen=True, kw_only=True)
class AutoAccept(Result):
    """The labels that need no person, their certificate, and rechecks of all certificates."""

    auto_labels: Frame[AutoLabels]
    certificates: Frame[Certificates]
    certificate_rechecks: Frame[CertificateRechecks]


def auto_accept(context: RoundContext, inputs: AcceptInputs) -> AutoAccept:
    """Accept predictions of the round without a person, under a certificate."""
    found = _accept(context, inputs)
    certificate_rechecks = _rechecks_by_now(context)
    overall = found.certificates[found.certificates[Certificates.class_name] == ""]
    labelled = found.labels[["image_id"]].drop_duplicates()
    shown = accepted_images(context.tables).merge(labelled)
    return AutoAccept(
        auto_labels=found.labels,
        certificates=found.certificates,
        certificate_rechecks=certificate_rechecks,
        figures={
            "images": found.labels["image_id"].nunique(),
            "labels": len(found.labels),
            "automated_share": float(overall[Certificates.share].sum()) if found.granted else 0.0,
            "minutes_saved": found.seconds_saved / 60,
            "refusal_reasons": " ".join(overall[Certificates.reason]) or "",
            "certificate": TableRows(found.certificates, _CERTIFICATE),
            "held_images": Counts(pd.Series(found.held.values(), dtype="str")),
            "images_to_recheck": len(found.seen_again),
            "contradicted": int(certificate_rechecks[CertificateRechecks.contradicted].sum()),
            "rechecks": TableRows(
                certificate_rechecks,
                ["certified_round", "images", "labels", "errors", "contradicted"],
            ),
            "preview": Thumbnails(shown, found.labels, context.policy.ontology),
        },
    )


def _accept(context: RoundContext, inputs: AcceptInputs) -> AutoAccepted:
    """Return the automatic labels of a round, with their certificate.

    The audit of the round is a random sample of its pool, but images chosen by the rules of
    selection are never accepted: annotators have them. So the certificate is made for the
    remaining images: the pool without the images that the same rules would have chosen without an
    audit. Both were recorded when the images were selected (``select.py``). That choice does not
    depend on the audit, so the audited images among the remaining ones are a random sample of
    them. An audited image without valid labels counts with all its predictions wrong: leaving out
    images that annotators cannot agree on would favour the model.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    if not policy.auto_accept.enabled:
        nothing = AutoLabels.empty(), Certificates.empty()
        return AutoAccepted(*nothing, held={}, seen_again=[], seconds_saved=0.0, p_values={})
    tables = lake.tables
    frame = inputs.calibration_frame
    boxed = [each.name for each in policy.ontology.classes if each.shape in UPRIGHT_BOXES]
    refusal = "" if len(frame) else _NO_FRAME
    digest = tables.digest(ModelPredictions, round_id)
    if not set(frame[CalibrationFrame.predictions_sha256]) <= {digest}:
        refusal = _OTHER_PREDICTIONS
    if len(boxed) < len(policy.ontology.classes):
        refusal = _OTHER_SHAPES
    predictions = inputs.model_predictions
    predictions = predictions[predictions[ModelPredictions.class_name].isin(boxed)]
    selected = inputs.selected_images.sort_values(SelectedImages.rank)
    tasks = inputs.label_tasks
    open_ = frame.loc[~frame[CalibrationFrame.by_rule], CalibrationFrame.image_id]
    is_drawn = selected[SelectedImages.calibration_sample] & selected[SelectedImages.image_id].isin(
        open_
    )
    drawn = selected.loc[is_drawn, SelectedImages.image_id]
    audit = _without_predictions(drawn, tasks)
    # Gold tasks were annotated too.
    asked = {*selected[SelectedImages.image_id], *tasks[LabelTasks.image_id]}
    remaining = open_[~open_.isin(asked)]
    images = accepted_images(lake.tables)
    described = images[images[CleanedImages.image_id].isin([*remaining, *audit])].drop_duplicates(
        "image_id"
    )
    vectors = features_for(
        described, ImageEmbedder(), store=lake.store, load=lake.image, round_id=round_id
    )
    described = described.set_index("image_id")
    features = {name: described[name] for name in _COMPARED}
    features["appearance"] = vectors.set_index("image_id")["vector"]
    labels = Audit(audit, _valid_labels(inputs.reviewed_labels, audit))
    return accept_labels(
        AcceptanceCandidates(predictions, remaining.tolist(), labels, features),
        round_id=round_id,
        policy=policy.auto_accept,
        seconds_per_image=_seconds_per_image(inputs.human_labels),
        rng=np.random.default_rng([policy.seed, round_number(round_id)]),
        refusal=refusal,
    )


def _rechecks_by_now(context: RoundContext) -> Frame[CertificateRechecks]:
    """Return the ``certificate_rechecks``: later annotations of images accepted without a person.

    For each certificate of another round, the images count that were later drawn at random and
    annotated without predictions, as a recheck or in a later audit. Images chosen by the rules of
    selection or by an include list do not represent the others. As in an audit, an image without
    valid labels counts with all its labels wrong.
    """
    round_id, lake = context.round_id, context.lake
    tables = lake.tables
    certificates = tables.read_all(Certificates)
    accepted = tables.read_all(AutoLabels)
    is_overall = certificates[Certificates.class_name] == ""
    overall = certificates[is_overall & certificates[Certificates.granted]]
    annotated = tables.rounds(ReviewedLabels)
    cancelled = cancelled_rounds(lake.store, annotated)
    found = []
    for certificate in records(overall[overall[Certificates.round_id] != round_id]):
        certified = str(certificate["round_id"])
        labels = accepted[accepted[AutoLabels.round_id] == certified]
        later = [key for key in annotated if key > certified and key not in cancelled]
        audits = [_later_audit(key, labels, lake) for key in later]
        alpha, most_labels, level = (
            float(str(certificate[name])) for name in ("alpha", "most_labels", "delta")
        )
        images = [image for audit in audits for image in audit.images]
        truth = pd.concat([audit.labels for audit in audits]) if audits else labels.iloc[:0]
        found.append(Recheck(certified, labels, Audit(images, truth), alpha, most_labels, level))
    return judge_certificates(found, round_id=round_id)


def _later_audit(round_id: str, accepted: Frame[AutoLabels], lake: Lake) -> Audit:
    """Return the accepted images that a later round drew at random and has labels of."""
    selected = lake.tables.read(SelectedImages, round_id).sort_values(SelectedImages.rank)
    is_recheck = selected[SelectedImages.rule] == SelectionRule.RECHECK
    is_accepted = selected[SelectedImages.image_id].isin(accepted[AutoLabels.image_id])
    at_random = (selected[SelectedImages.calibration_sample] | is_recheck) & is_accepted
    drawn = selected.loc[at_random, SelectedImages.image_id]
    reviewed = lake.tables.read(ReviewedLabels, round_id)
    annotated = set(reviewed[ReviewedLabels.image_id])
    tasks = lake.tables.read(LabelTasks, round_id)
    images = [image for image in _without_predictions(drawn, tasks) if image in annotated]
    return Audit(images, _valid_labels(reviewed, images))


def _without_predictions(images: "pd.Series[str]", tasks: Frame[LabelTasks]) -> list[str]:
    """Return the images of which every assignment is shown without predictions."""
    blind = tasks.groupby(LabelTasks.image_id)[LabelTasks.without_predictions].all()
    return [image for image in images if blind.get(image, False)]


def _valid_labels(reviewed: Frame[ReviewedLabels], images: list[str]) -> Frame[ReviewedLabels]:
    """Return the labels of these images that no reviewer rejected or left undecided."""
    is_valid = ~reviewed[ReviewedLabels.decision].isin(OPEN_DECISIONS)
    return reviewed[is_valid & reviewed[ReviewedLabels.image_id].isin(images)]


def _seconds_per_image(human_labels: Frame[HumanLabels]) -> float:
    """Return the median time that an image takes, in seconds: the sum of its annotations."""
    is_label = human_labels[HumanLabels.purpose] == Purpose.LABEL
    annotations = human_labels[is_label].drop_duplicates(HumanLabels.annotation_id)
    seconds = annotations.groupby(HumanLabels.image_id)[HumanLabels.lead_time_seconds]
    return float(seconds.sum().median())
