"""Ground truth of images of past rounds that is independent of the annotations under test.

The consensus of all recorded annotations is not ground truth here, because these annotations are
under test. A policy with more of them agrees more with their consensus, right or wrong, so it would
always score better.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.carry_over import carry_over
from annotation_platform.labeling.review_sampling import SAMPLE, disputed_images, review_sample
from annotation_platform.policy import Policy
from annotation_platform.schema.shapes import UNSURE
from annotation_platform.schema.tables import (
    ConsensusLabels,
    ImportedLabels,
    ReviewedLabels,
    ReviewTasks,
)
from annotation_platform.schema.tables.shared import LABEL_COLUMNS
from annotation_platform.storage.lake import Lake

GOLD, LATER, REVIEW = "gold", "later", "review"
SOURCES = (GOLD, LATER, REVIEW)
"""Sources of ground truth, in descending order of precedence; see ``known_truth``."""

COLUMNS = ["round_id", "image_id", "source", "weight", "label_id", *LABEL_COLUMNS]

_COLUMNS_OF_LABELS = ["round_id", "image_id", "label_id", *LABEL_COLUMNS]


@dataclass(frozen=True)
class KnownTruth:
    """The ground truth, and notes on truth that could not be used, as sentences."""

    labels: pd.DataFrame  # COLUMNS, as of a Record
    notes: tuple[str, ...]


def known_truth(
    lake: Lake, asked: pd.DataFrame, policy: Policy, *, sources: Collection[str] = SOURCES
) -> KnownTruth:
    """Return the ground truth of images by round, under today's classes.

    ``gold``: the image was imported with labels that count as ground truth, or was reviewed in
    another round. ``later``: the consensus of a later round was undisputed. ``review``: the image
    was reviewed in this round; but only if the round also had a random sample of its undisputed
    images reviewed, which then represent all of these, each weighed by the inverse of its sampling
    probability. Disputed images alone would be those on which the annotations under test failed.

    Args:
        lake: the lake to read.
        asked: ``round_id`` and ``image_id`` of the images.
        policy: supplies the classes, ``labeling.gold_origins``, and the seed of the samples.
        sources: members of ``SOURCES`` that may be used.
    """
    reviewed = lake.tables.read_all(ReviewedLabels)
    imported = lake.tables.read_all(ImportedLabels)
    known = imported[ImportedLabels.origin].isin(policy.labeling.gold_origins) & (
        imported[ImportedLabels.problem] == ""
    )
    parts, notes = [], []
    for key, rows in asked.groupby("round_id"):
        round_id, open_ = str(key), set(rows["image_id"])
        found = {
            GOLD: _gold(round_id, imported[known], reviewed),
            LATER: _later(round_id, reviewed),
        }
        if REVIEW in sources:
            found[REVIEW], note = _reviews(round_id, reviewed, lake, policy)
            notes += [note] if note else []
        for source in SOURCES:
            if source in sources:
                labels = found[source][found[source]["image_id"].isin(open_)]
                open_ -= set(labels["image_id"])
                parts.append(labels.assign(round_id=round_id, source=source))
    labels = _concatenated(parts)
    # An image of which every annotator was unsure has no ground truth.
    labels = labels[labels["shape"] != UNSURE.shape].reset_index(drop=True)
    return KnownTruth(carry_over(labels[COLUMNS], policy.ontology).labels, tuple(notes))


def _gold(round_id: str, imported: pd.DataFrame, reviewed: pd.DataFrame) -> pd.DataFrame:
    elsewhere = reviewed[
        reviewed[ReviewedLabels.decision].isin(["accepted", "fixed"])
        & (reviewed[ReviewedLabels.round_id] != round_id)
    ]
    return _latest(_concatenated([imported[_COLUMNS_OF_LABELS], elsewhere[_COLUMNS_OF_LABELS]]))


def _later(round_id: str, reviewed: pd.DataFrame) -> pd.DataFrame:
    agreed = reviewed[ReviewedLabels.decision] == "undisputed"
    return _latest(
        reviewed.loc[agreed & (reviewed[ReviewedLabels.round_id] > round_id), _COLUMNS_OF_LABELS]
    )


def _concatenated(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the parts as one table, without the empty parts, whose types are undefined."""
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True)


def _latest(known: pd.DataFrame) -> pd.DataFrame:
    """Return the labels of the latest round of each image, with weight 1."""
    latest = known.groupby("image_id")["round_id"].transform("max")
    return known[known["round_id"] == latest].assign(weight=1.0)


def _reviews(
    round_id: str, reviewed: pd.DataFrame, lake: Lake, policy: Policy
) -> tuple[pd.DataFrame, str]:
    """Return the labels reviewed in a round, and a note if some or all of them cannot be used."""
    own = reviewed[reviewed[ReviewedLabels.round_id] == round_id]
    decided = own[own[ReviewedLabels.decision].isin(["accepted", "fixed"])]
    nothing = decided.head(0).assign(weight=1.0)
    if decided.empty:
        return nothing, ""
    tasks = lake.tables.read(ReviewTasks, round_id)
    sampled = set(tasks.loc[tasks[ReviewTasks.kinds] == SAMPLE, ReviewTasks.image_id])
    if not sampled:
        return nothing, (
            f"reviewers of {round_id} saw only disputed images, which do not represent the others"
        )
    consensus = lake.tables.read(ConsensusLabels, round_id)
    plan = review_sample(round_id, consensus, disputed_images(tasks), policy, size=len(sampled))
    chance = plan.sample.set_index("item")["probability"]
    if set(chance.index) != sampled:
        return nothing, (
            f"the seed of the review sample of {round_id} differs from that of the policy, so the"
            " sampling probabilities of its images are unknown"
        )
    open_ = own.loc[
        own[ReviewedLabels.decision].isin(["rejected", "undecided"]), ReviewedLabels.image_id
    ].nunique()
    left = f"{open_} images of {round_id} were rejected or are undecided: they have no ground truth"
    weight = 1.0 / decided[ReviewedLabels.image_id].map(chance).fillna(1.0)
    return decided[_COLUMNS_OF_LABELS].assign(weight=weight), left if open_ else ""
