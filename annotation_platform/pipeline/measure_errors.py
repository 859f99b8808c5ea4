"""How many labels of a version are wrong: what was looked at again of each round that it holds."""

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
from annotation_platform.pipeline.result import Result, Rows
from annotation_platform.schema.tables import (
    Certificates,
    ConsensusLabels,
    ErrorBars,
    Frame,
    ReviewedLabels,
    ReviewTasks,
)

_DECIDED = ["accepted", "fixed", "rejected"]
_FINDINGS = ["image_id", "class_name", "wrong", "weight"]


@dataclass(frozen=True)
class _Measured:
    """The bars of a version, and the rounds whose sample cannot be read, with the reason."""

    bars: Frame[ErrorBars]
    unread: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ErrorsMeasured(Result):
    """The error bars of a version."""

    error_bars: pd.DataFrame


def measure_errors(context: RoundContext, training_set: pd.DataFrame) -> ErrorsMeasured:
    """Return how many labels of the version are wrong, by origin and class."""
    measured = _measure(context, training_set)
    bars = measured.bars
    overall = bars[(bars["class_name"] == "") & (bars["origin"] == PEOPLE)]
    means = overall[["rate", "low", "high"]].mean().add_prefix("wrong_")
    shown = ["origin", "class_name", "design", "labels", "audited", "rate", "low", "high"]
    return ErrorsMeasured(
        error_bars=bars,
        figures={
            "audited_labels": int(overall["audited"].sum()),
            **{str(name): float(value) for name, value in means.items()},
            "unread_samples": measured.unread,
            "preview": Rows(bars, shown),
        },
    )


def _measure(context: RoundContext, training_set: pd.DataFrame) -> _Measured:
    """Return how many labels of a version are wrong, by origin and class.

    Of people's labels those speak that nothing was in dispute about: reviewers of each round looked
    at a random sample of their images (``review.sample_share``), and what they changed, removed
    or added is counted. It is the share before they mended it. Labels of images in dispute were
    all looked at, and are not in it. What was accepted without a person has the bound of its
    certificate. Labels that came along with images nobody looked at: they may all be wrong.
    """
    round_id, lake = context.round_id, context.lake
    labels = training_set[~training_set["shape"].isin(["none", "unsure"])]
    published = training_set.drop_duplicates("image_id", keep="last")
    round_of = dict(zip(published["image_id"], published["round_id"], strict=True))
    by_people = training_set.loc[training_set["origin"] == PEOPLE, "round_id"].unique()
    images = accepted_images(lake.tables).drop_duplicates("image_id").set_index("image_id")
    sides = images[["width", "height"]].astype(float)
    findings: list[pd.DataFrame] = []
    unread: dict[str, str] = {}
    disputed: set[str] = set()
    for key in sorted(by_people):
        tasks = lake.tables.read(ReviewTasks, key)
        sampled = tasks.loc[tasks["kinds"] == SAMPLE, "image_id"]
        disputed |= {image for image in tasks["image_id"] if round_of.get(image) == key}
        disputed -= set(sampled)
        if sampled.empty:
            continue
        found = _findings(replace(context, round_id=key), tasks, round_of, sides)
        if found is None:
            unread[key] = "the seed of its sample is no longer that of params.yaml"
        elif len(found):
            findings.append(found)
    nothing = pd.DataFrame(columns=_FINDINGS).astype({"wrong": bool, "weight": float})
    seen = pd.concat(findings, ignore_index=True) if findings else nothing
    bars = []
    for origin, its in labels.groupby("origin"):
        open_ = its[~its["image_id"].isin(disputed)] if origin == PEOPLE else its
        counts = {str(name): int(n) for name, n in open_["class_name"].value_counts().items()}
        if origin == AUTO:
            certificates = lake.tables.read(Certificates, str(its["round_id"].iloc[0]))
            bars.append(certificate_bars(certificates, counts, round_id=round_id))
        else:
            looked = seen if origin == PEOPLE else nothing
            bars.append(
                image_error_bars(looked, round_id=round_id, origin=str(origin), labels=counts)
            )
    if not bars:
        return _Measured(ErrorBars.empty(), unread)
    return _Measured(pd.concat(bars, ignore_index=True), unread)


def _findings(
    context: RoundContext, tasks: pd.DataFrame, round_of: dict[str, str], sides: pd.DataFrame
) -> pd.DataFrame | None:
    """Return what reviewers found in a round's sample; None where it is not known how it was drawn.

    Images that people labelled anew in a later round are not of this one any more. A rejected one
    counts all the same: what was not drawn and would be rejected is in the version.
    """
    tables, round_id, policy = context.tables, context.round_id, context.policy
    sampled = set(tasks.loc[tasks["kinds"] == SAMPLE, "image_id"])
    consensus = tables.read(ConsensusLabels, round_id)
    disputed = disputed_images(tasks)
    plan = review_sample(round_id, consensus, disputed, policy, size=len(sampled))
    if set(plan.sample["item"]) != sampled:
        return None
    reviewed = tables.read(ReviewedLabels, round_id)
    reviewed = reviewed[reviewed["image_id"].isin(sampled) & reviewed["decision"].isin(_DECIDED)]
    current = reviewed["image_id"].map(round_of) == round_id
    reviewed = reviewed[current | (reviewed["decision"] == "rejected")]
    its = sides.loc[reviewed["image_id"].unique()]
    sizes = {str(image): (width, height) for image, width, height in its.itertuples()}
    found = review_findings(
        consensus[consensus["image_id"].isin(reviewed["image_id"])], reviewed, sizes
    )
    today = {old: now[0] for old, now in policy.ontology.successors.items() if len(now) == 1}
    weights = 1.0 / plan.sample.set_index("item")["probability"]
    return found.assign(
        class_name=[today.get(name, name) for name in found["class_name"]],
        weight=found["image_id"].map(weights),
    )
