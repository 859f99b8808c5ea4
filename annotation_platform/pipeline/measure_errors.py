"""The error bars of a version, from the review samples of its rounds."""

from dataclasses import dataclass, replace

import pandas as pd

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.error_bars import (
    certificate_bars,
    image_error_bars,
    review_findings,
)
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.review_sampling import SAMPLE, disputed_images, review_sample
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Result, TableRows
from annotation_platform.schema.shapes import STATEMENTS
from annotation_platform.schema.tables import (
    Certificates,
    ConsensusLabels,
    ErrorBars,
    Frame,
    ReviewedLabels,
    ReviewTasks,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import ReviewDecision

_DECIDED = (ReviewDecision.ACCEPTED, ReviewDecision.FIXED, ReviewDecision.REJECTED)
_FINDINGS = ["image_id", "class_name", "wrong", "weight"]


@dataclass(frozen=True)
class _Measured:
    """The error bars, and the rounds whose sample cannot be used, with the reason."""

    bars: Frame[ErrorBars]
    unread: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ErrorsMeasured(Result):
    """The error bars of a version."""

    error_bars: Frame[ErrorBars]


def measure_errors(context: RoundContext, training_set: Frame[TrainingSet]) -> ErrorsMeasured:
    """Return the share of wrong labels in the version, by origin and class."""
    measured = _measure(context, training_set)
    bars = measured.bars
    overall = bars[(bars[ErrorBars.class_name] == "") & (bars[ErrorBars.origin] == PEOPLE)]
    means = overall[["rate", "low", "high"]].mean().add_prefix("wrong_")
    shown = ["origin", "class_name", "design", "labels", "reviewed", "rate", "low", "high"]
    return ErrorsMeasured(
        error_bars=bars,
        figures={
            "sampled_labels": int(overall[ErrorBars.reviewed].sum()),
            **{str(name): float(value) for name, value in means.items()},
            "unusable_samples": measured.unread,
            "preview": TableRows(bars, shown),
        },
    )


def _measure(context: RoundContext, training_set: Frame[TrainingSet]) -> _Measured:
    """Return the share of wrong labels in a version, by origin and class.

    Human labels that were not disputed are estimated from a random review sample of each round
    (``review.sample_share``): labels that reviewers changed, removed or added count as errors. It
    is the share before their corrections. Labels of disputed images were all reviewed and are not
    part of the estimate. Labels accepted without a person have the bound of their certificate.
    Imported labels are not reviewed: their interval is [0, 1].
    """
    round_id, lake = context.round_id, context.lake
    labels = training_set[~training_set[TrainingSet.shape].isin(STATEMENTS)]
    published = training_set.drop_duplicates(TrainingSet.image_id, keep="last")
    image_ids, round_ids = published[TrainingSet.image_id], published[TrainingSet.round_id]
    round_of = dict(zip(image_ids, round_ids, strict=True))
    is_human = training_set[TrainingSet.origin] == PEOPLE
    by_people = training_set.loc[is_human, TrainingSet.round_id].unique()
    images = accepted_images(lake.tables).drop_duplicates("image_id").set_index("image_id")
    sides = images[["width", "height"]].astype(float)
    findings: list[pd.DataFrame] = []
    unread: dict[str, str] = {}
    disputed: set[str] = set()
    for key in sorted(by_people):
        tasks = lake.tables.read(ReviewTasks, key)
        sampled = tasks.loc[tasks[ReviewTasks.kinds] == SAMPLE, ReviewTasks.image_id]
        disputed |= {image for image in tasks[ReviewTasks.image_id] if round_of.get(image) == key}
        disputed -= set(sampled)
        if sampled.empty:
            continue
        found = _findings(replace(context, round_id=key), tasks, round_of, sides)
        if found is None:
            unread[key] = "its sample was drawn with another seed than that of params.yaml"
        elif len(found):
            findings.append(found)
    nothing = pd.DataFrame(columns=_FINDINGS).astype({"wrong": bool, "weight": float})
    reviewed = pd.concat(findings, ignore_index=True) if findings else nothing
    bars = []
    for origin, its in labels.groupby("origin"):
        open_ = its[~its[TrainingSet.image_id].isin(disputed)] if origin == PEOPLE else its
        counts = {
            str(name): int(n) for name, n in open_[TrainingSet.class_name].value_counts().items()
        }
        if origin == AUTO:
            certificates = lake.tables.read(Certificates, str(its[TrainingSet.round_id].iloc[0]))
            bars.append(certificate_bars(certificates, counts, round_id=round_id))
        else:
            own = reviewed if origin == PEOPLE else nothing
            bars.append(image_error_bars(own, round_id=round_id, origin=str(origin), labels=counts))
    if not bars:
        return _Measured(ErrorBars.empty(), unread)
    return _Measured(pd.concat(bars, ignore_index=True), unread)


def _findings(
    context: RoundContext, tasks: pd.DataFrame, round_of: dict[str, str], sides: pd.DataFrame
) -> pd.DataFrame | None:
    """Return the reviewers' findings in a round's sample; None if its drawing is not reproducible.

    Images that were labelled again in a later round no longer belong to this one. Rejected images
    count, because images that were not drawn and would be rejected are in the version.
    """
    tables, round_id, policy = context.tables, context.round_id, context.policy
    sampled = set(tasks.loc[tasks[ReviewTasks.kinds] == SAMPLE, ReviewTasks.image_id])
    consensus = tables.read(ConsensusLabels, round_id)
    disputed = disputed_images(tasks)
    plan = review_sample(round_id, consensus, disputed, policy, size=len(sampled))
    if set(plan.sample["item"]) != sampled:
        return None
    reviewed = tables.read(ReviewedLabels, round_id)
    is_sampled = reviewed[ReviewedLabels.image_id].isin(sampled)
    reviewed = reviewed[is_sampled & reviewed[ReviewedLabels.decision].isin(_DECIDED)]
    is_current = reviewed[ReviewedLabels.image_id].map(round_of) == round_id
    is_rejected = reviewed[ReviewedLabels.decision] == ReviewDecision.REJECTED
    reviewed = reviewed[is_current | is_rejected]
    its = sides.loc[reviewed[ReviewedLabels.image_id].unique()]
    sizes = {str(image): (width, height) for image, width, height in its.itertuples()}
    found = review_findings(
        consensus[consensus[ConsensusLabels.image_id].isin(reviewed[ReviewedLabels.image_id])],
        reviewed,
        sizes,
    )
    current = {old: new[0] for old, new in policy.ontology.successors.items() if len(new) == 1}
    weights = 1.0 / plan.sample.set_index("item")["probability"]
    return found.assign(
        class_name=[current.get(name, name) for name in found["class_name"]],
        weight=found["image_id"].map(weights),
    )
