"""Which of a round's images need no person: what its audit certifies, and nothing else."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.curation.auto_accept import (
    Audit,
    AutoAccepted,
    Reaudit,
    accept_labels,
    judge_certificates,
)
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import ImageEmbedder, features_for
from annotation_platform.labeling.round_decisions import cancelled_rounds
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Counts, Result, Rows, Thumbnails
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import (
    AutoLabels,
    Certificates,
    LabelTasks,
    ModelPredictions,
    ReviewedLabels,
    SelectedImages,
    records,
)
from annotation_platform.storage.lake import Lake

_CERTIFICATE = ["class_name", "granted", "alpha", "bound", "delta", "audited_images", "reason"]
_COMPARED = ("brightness", "sharpness")
_NO_FRAME = (
    "Auto-accept was off when the images of this round were chosen, so nothing says what its audit "
    "speaks of. It begins with the next round."
)
_OTHER_PROPOSALS = (
    "The proposals were made anew since the audit was drawn, perhaps by a model that learned from "
    "it. It begins with the next round."
)
_OTHER_SHAPES = (
    "Some classes are no boxes, which alone are judged, and an image is accepted with all its "
    "labels or not at all. Let people answer."
)


@dataclass(frozen=True)
class AcceptInputs:
    """The tables of a round on which its certificate rests, by name."""

    model_predictions: pd.DataFrame
    selected_images: pd.DataFrame
    audit_frame: pd.DataFrame
    label_tasks: pd.DataFrame
    human_labels: pd.DataFrame
    reviewed_labels: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class AutoAccept(Result):
    """The labels that need no person, their certificate, and how certificates fare since."""

    auto_labels: pd.DataFrame
    certificates: pd.DataFrame
    reaudits: pd.DataFrame


def auto_accept(context: RoundContext, inputs: AcceptInputs) -> AutoAccept:
    """Accept predictions of the round without a person, under a certificate."""
    found = _accept(context, inputs)
    reaudits = _reaudits_by_now(context)
    overall = found.certificates[found.certificates["class_name"] == ""]
    labelled = found.labels[["image_id"]].drop_duplicates()
    shown = accepted_images(context.tables).merge(labelled)
    return AutoAccept(
        auto_labels=found.labels,
        certificates=found.certificates,
        reaudits=reaudits,
        figures={
            "images": found.labels["image_id"].nunique(),
            "labels": len(found.labels),
            "automated_share": float(overall["share"].sum()) if found.granted else 0.0,
            "minutes_saved": found.seconds_saved / 60,
            "refused_because": " ".join(overall["reason"]) or "",
            "certificate": Rows(found.certificates, _CERTIFICATE),
            "held": Counts(pd.Series(found.held.values(), dtype="str")),
            "seen_again_next": len(found.seen_again),
            "contradicted": int(reaudits["contradicted"].sum()),
            "seen_again": Rows(
                reaudits, ["certified_round", "images", "labels", "errors", "contradicted"]
            ),
            "preview": Thumbnails(shown, found.labels, context.policy.ontology),
        },
    )


def _accept(context: RoundContext, inputs: AcceptInputs) -> AutoAccepted:
    """Return the labels of a round that no person gives, with the certificate they rest on.

    The audit of the round is a random sample of its pool, but what is accepted is never what the
    rules of selection chose: those images went to people. So the certificate is made for the
    rest, that is for the pool without what the same rules would have chosen had nobody been
    audited; both were written down when the images were chosen (``select.py``). That choice knows
    nothing of the audit, so the audited images among the rest are a random sample of it. An
    audited image of which no answer stands counts with all its proposals wrong: leaving out what
    people cannot agree on would flatter the model.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    if not policy.auto_accept.enabled:
        nothing = AutoLabels.empty(), Certificates.empty()
        return AutoAccepted(*nothing, held={}, seen_again=[], seconds_saved=0.0, p_values={})
    tables = lake.tables
    frame = inputs.audit_frame
    boxed = [each.name for each in policy.ontology.classes if each.shape == "box"]
    refusal = "" if len(frame) else _NO_FRAME
    if not set(frame["predictions_sha256"]) <= {tables.digest(ModelPredictions, round_id)}:
        refusal = _OTHER_PROPOSALS
    if len(boxed) < len(policy.ontology.classes):
        refusal = _OTHER_SHAPES
    predictions = inputs.model_predictions
    predictions = predictions[predictions["class_name"].isin(boxed)]
    selected = inputs.selected_images.sort_values("rank")
    tasks = inputs.label_tasks
    open_ = frame.loc[~frame["by_rule"], "image_id"]
    drawn = selected.loc[selected["audit"] & selected["image_id"].isin(open_), "image_id"]
    blind = tasks.groupby("image_id")["blind"].all()
    audit = [image for image in drawn if blind.get(image, False)]
    # An image that is a gold task was asked about too.
    rest = open_[~open_.isin({*selected["image_id"], *tasks["image_id"]})]
    images = accepted_images(lake.tables)
    described = images[images["image_id"].isin([*rest, *audit])].drop_duplicates("image_id")
    vectors = features_for(
        described, ImageEmbedder(), store=lake.store, load=lake.image, round_id=round_id
    )
    described = described.set_index("image_id")
    features = {name: described[name] for name in _COMPARED}
    features["look"] = vectors.set_index("image_id")["vector"]
    return accept_labels(
        predictions,
        rest.tolist(),
        Audit(audit, _standing(inputs.reviewed_labels, audit)),
        features,
        round_id=round_id,
        policy=policy.auto_accept,
        seconds_per_image=_seconds_per_image(inputs.human_labels),
        rng=np.random.default_rng([policy.seed, round_number(round_id)]),
        refusal=refusal,
    )


def _reaudits_by_now(context: RoundContext) -> pd.DataFrame:
    """Return the ``reaudits``: what people found since in images accepted without a person.

    Of every certificate of another round those images count that were drawn by lot since and
    answered blind: to be seen again, or in a later audit. What the rules of selection chose of
    them, or somebody pinned, says nothing of the others. As in an audit, an image of which no
    answer stands counts with all its labels wrong.
    """
    round_id, lake = context.round_id, context.lake
    tables = lake.tables
    certificates = tables.read_all(Certificates)
    accepted = tables.read_all(AutoLabels)
    overall = certificates[(certificates["class_name"] == "") & certificates["granted"]]
    annotated = tables.rounds(ReviewedLabels)
    cancelled = cancelled_rounds(lake.store, annotated)
    found = []
    for certificate in records(overall[overall["round_id"] != round_id]):
        certified = str(certificate["round_id"])
        labels = accepted[accepted["round_id"] == certified]
        later = [key for key in annotated if key > certified and key not in cancelled]
        audits = [_seen_since(key, labels, lake) for key in later]
        alpha, most_labels, level = (
            float(str(certificate[name])) for name in ("alpha", "most_labels", "delta")
        )
        images = [image for audit in audits for image in audit.images]
        said = pd.concat([audit.labels for audit in audits]) if audits else labels.iloc[:0]
        found.append(Reaudit(certified, labels, Audit(images, said), alpha, most_labels, level))
    return judge_certificates(found, round_id=round_id)


def _seen_since(round_id: str, accepted: pd.DataFrame, lake: Lake) -> Audit:
    """Return the accepted images that a later round drew by lot and that people answered."""
    selected = lake.tables.read(SelectedImages, round_id).sort_values("rank")
    at_random = selected["audit"] | (selected["rule"] == "reaudit")
    drawn = selected.loc[at_random & selected["image_id"].isin(accepted["image_id"]), "image_id"]
    blind = lake.tables.read(LabelTasks, round_id).groupby("image_id")["blind"].all()
    reviewed = lake.tables.read(ReviewedLabels, round_id)
    annotated = set(reviewed["image_id"])
    images = [image for image in drawn if blind.get(image, False) and image in annotated]
    return Audit(images, _standing(reviewed, images))


def _standing(reviewed: pd.DataFrame, images: list[str]) -> pd.DataFrame:
    """Return the labels that stand of these images."""
    stands = ~reviewed["decision"].isin(["rejected", "undecided"])
    return reviewed[stands & reviewed["image_id"].isin(images)]


def _seconds_per_image(said: pd.DataFrame) -> float:
    """Return the seconds of people that an image takes: all its answers together."""
    said = said[said["purpose"] == "label"].drop_duplicates("annotation_id")
    return float(said.groupby("image_id")["lead_time_seconds"].sum().median())
