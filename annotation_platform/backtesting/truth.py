"""What is known to be true of images that rounds asked about, and not from the answers themselves.

The labels that all recorded answers came to are no truth here: those answers are what is judged. A
policy that has more of them agrees more with what they came to, right or wrong, so it would always
seem the better one.
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
"""Where the truth of an image can be from, the first that has it; see ``known_truth``."""

COLUMNS = ["round_id", "image_id", "source", "weight", "label_id", *LABEL_COLUMNS]

_SAID = ["round_id", "image_id", "label_id", *LABEL_COLUMNS]


@dataclass(frozen=True)
class Truth:
    """What is true, and what of it could not be used, as sentences."""

    labels: pd.DataFrame  # COLUMNS, as of a Record
    notes: tuple[str, ...]


def known_truth(
    lake: Lake, asked: pd.DataFrame, policy: Policy, *, sources: Collection[str] = SOURCES
) -> Truth:
    """Return what is true of images, by the round that asked about them, under today's classes.

    ``gold``: the image landed with labels that are known answers, or reviewers decided about it in
    another round. ``later``: nobody disputed what a later round came to. ``review``: a reviewer
    decided about it in this round; but only if the round also had a random share of its undisputed
    images reviewed, which then stand for all of these, each weighed by one by its chance to be
    drawn. Images in dispute alone would be those on which these very answers failed.

    Args:
        lake: where everything is kept.
        asked: ``round_id`` and ``image_id`` of what is asked about.
        policy: its classes, ``labeling.gold_origins``, and the seed of the samples.
        sources: of ``SOURCES``, those that may be used.
    """
    reviewed = lake.tables.read_all(ReviewedLabels)
    imported = lake.tables.read_all(ImportedLabels)
    known = imported["origin"].isin(policy.labeling.gold_origins) & (imported["problem"] == "")
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
                its = found[source][found[source]["image_id"].isin(open_)]
                open_ -= set(its["image_id"])
                parts.append(its.assign(round_id=round_id, source=source))
    labels = _together(parts)
    # Of an image of which nobody could tell there is no truth.
    labels = labels[labels["shape"] != UNSURE.shape].reset_index(drop=True)
    return Truth(carry_over(labels[COLUMNS], policy.ontology).labels, tuple(notes))


def _gold(round_id: str, imported: pd.DataFrame, reviewed: pd.DataFrame) -> pd.DataFrame:
    elsewhere = reviewed[
        reviewed["decision"].isin(["accepted", "fixed"]) & (reviewed["round_id"] != round_id)
    ]
    return _latest(_together([imported[_SAID], elsewhere[_SAID]]))


def _later(round_id: str, reviewed: pd.DataFrame) -> pd.DataFrame:
    agreed = reviewed["decision"] == "undisputed"
    return _latest(reviewed.loc[agreed & (reviewed["round_id"] > round_id), _SAID])


def _together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return parts as one table; an empty one has no types to keep."""
    kept = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(kept, ignore_index=True)


def _latest(known: pd.DataFrame) -> pd.DataFrame:
    """Return of each image the labels of the latest round, each counting once."""
    latest = known.groupby("image_id")["round_id"].transform("max")
    return known[known["round_id"] == latest].assign(weight=1.0)


def _reviews(
    round_id: str, reviewed: pd.DataFrame, lake: Lake, policy: Policy
) -> tuple[pd.DataFrame, str]:
    """Return what the reviewers of a round decided, and why none of it or not all can be used."""
    own = reviewed[reviewed["round_id"] == round_id]
    decided = own[own["decision"].isin(["accepted", "fixed"])]
    nothing = decided.head(0).assign(weight=1.0)
    if decided.empty:
        return nothing, ""
    tasks = lake.tables.read(ReviewTasks, round_id)
    sampled = set(tasks.loc[tasks["kinds"] == SAMPLE, "image_id"])
    if not sampled:
        return nothing, (
            f"reviewers of {round_id} saw images in dispute alone, which say nothing of the others"
        )
    consensus = lake.tables.read(ConsensusLabels, round_id)
    plan = review_sample(round_id, consensus, disputed_images(tasks), policy, size=len(sampled))
    chance = plan.sample.set_index("item")["probability"]
    if set(chance.index) != sampled:
        return nothing, (
            f"the seed of the sample that reviewers of {round_id} saw is no longer that of the"
            " policy, so nobody knows what its images stand for"
        )
    open_ = own.loc[own["decision"].isin(["rejected", "undecided"]), "image_id"].nunique()
    left = f"{open_} images of {round_id} were rejected or are undecided: their truth is not known"
    weight = 1.0 / decided["image_id"].map(chance).fillna(1.0)
    return decided[_SAID].assign(weight=weight), left if open_ else ""
