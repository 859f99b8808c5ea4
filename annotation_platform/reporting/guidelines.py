"""Every version of classes and guidelines ever used, and the labels that rest on each."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from annotation_platform.curation.imported import PEOPLE
from annotation_platform.errors import DataError
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.rounds import ledger_count
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import HumanLabels, LabelTasks
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class Changes:
    """What one version of the guidelines tells people otherwise than another.

    Classes are told apart by id, which never changes. ``other`` has a sentence for each class
    that is drawn otherwise, and one if the number of choices changed; ``text`` has the lines of
    the instructions that came (``+``) and went (``-``).
    """

    added: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]  # from, to
    retired: tuple[str, ...]
    other: tuple[str, ...]
    text: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """All of it, shortly; "–" if nothing changed."""
        parts = [
            ("added", ", ".join(self.added)),
            ("renamed", ", ".join(f"{old} to {new}" for old, new in self.renamed)),
            ("retired", ", ".join(self.retired)),
        ]
        said = [f"{what} {which}" for what, which in parts if which] + list(self.other)
        return "; ".join([*said, *(["instructions changed"] if self.text else [])]) or "–"


@dataclass(frozen=True)
class GuidelineVersion:
    """One version of the guidelines.

    ``answers`` are those counted, and ``images`` those whose labels in the newest published
    version were made under it. ``changes`` are against the version before, None for the first.
    ``since`` is the first of the ``rounds``; None if nobody was asked under it.
    """

    digest: str
    since: datetime | None
    rounds: tuple[str, ...]
    annotations: int
    images: int
    changes: Changes | None


@dataclass(frozen=True)
class Resting:
    """The images whose labels rest on a version of the guidelines, sorted.

    ``published`` ones are in the newest version of the dataset; ``others`` have answers under it
    that count, and no label in that version that was made under later guidelines.
    """

    published: tuple[str, ...]
    others: tuple[str, ...]


def changes_between(old: Ontology, new: Ontology) -> Changes:
    """Return what people are told otherwise under ``new`` than under ``old``."""
    before = {each.id: each for each in old.classes}
    after = {each.id: each for each in new.classes}
    both = [(before[key], after[key]) for key in before if key in after]
    other = [
        f"{one.name} is a {two.shape} instead of a {one.shape}"
        for one, two in both
        if one.shape != two.shape
    ]
    if old.choose != new.choose:
        other.append(f"choose {new.choose} instead of {old.choose}")
    lines = difflib.unified_diff(
        old.guidelines.splitlines(), new.guidelines.splitlines(), lineterm="", n=0
    )
    return Changes(
        added=tuple(each.name for key, each in after.items() if key not in before),
        renamed=tuple((one.name, two.name) for one, two in both if one.name != two.name),
        retired=tuple(each.name for key, each in before.items() if key not in after),
        other=tuple(other),
        text=tuple(line for line in lines if not line.startswith(("---", "+++", "@@"))),
    )


def guideline_versions(lake: Lake, published: pd.DataFrame) -> list[GuidelineVersion]:
    """Return every version of the guidelines, in the order in which people were asked under them.

    Args:
        lake: where they are kept, with plans and answers.
        published: the ``training_set`` of the newest version of the dataset.
    """
    rounds, since = _rounds(lake)
    resting = _by_people(published)
    # What nobody was asked under comes last.
    asked = sorted(since, key=lambda digest: since[digest])
    order = [*asked, *(digest for digest in _digests(lake) if digest not in since)]
    found: list[GuidelineVersion] = []
    before: Ontology | None = None
    for digest in order:
        now = read_guideline(lake.store, digest)
        under = rounds.get(digest, ())
        found.append(
            GuidelineVersion(
                digest=digest,
                since=since.get(digest),
                rounds=under,
                annotations=sum(_annotations(round_id, lake) for round_id in under),
                images=sum(round_id in under for round_id in resting.values()),
                changes=changes_between(before, now) if before else None,
            )
        )
        before = now
    return found


def find_guideline(beginning: str, lake: Lake) -> str:
    """Return the digest of the one version that begins like this; otherwise raise a DataError."""
    found = [key for key in _digests(lake) if beginning and key.startswith(beginning.lower())]
    if len(found) != 1:
        what = "several versions begin" if found else "no version of the guidelines begins"
        raise DataError(
            f"{beginning}: {what} like this. `annotation-platform policy guidelines --json` "
            "lists them."
        )
    return found[0]


def resting_on(digest: str, lake: Lake, published: pd.DataFrame) -> Resting:
    """Return the images whose labels rest on a version of the guidelines.

    Args:
        digest: of the version.
        lake: where everything is kept.
        published: the ``training_set`` of the newest version of the dataset.
    """
    rounds, _ = _rounds(lake)
    under = rounds.get(digest, ())
    resting = _by_people(published)
    mine = {image for image, round_id in resting.items() if round_id in under}
    labels = lake.tables.read_rounds(HumanLabels, under)
    annotated = labels[labels["purpose"] == "label"]
    latest = annotated.groupby("image_id")["round_id"].max()
    others = {
        str(image)
        for image, round_id in latest.items()
        if image not in mine and resting.get(str(image), "") <= str(round_id)
    }
    return Resting(tuple(sorted(mine)), tuple(sorted(others)))


def _digests(lake: Lake) -> list[str]:
    keys = lake.store.list("guidelines")
    return [key.rsplit("/", 1)[1].removesuffix(".json") for key in keys]


def _rounds(lake: Lake) -> tuple[dict[str, tuple[str, ...]], dict[str, datetime]]:
    """Return by digest the rounds that asked under it, and when the first of them did."""
    rounds: dict[str, tuple[str, ...]] = {}
    since: dict[str, datetime] = {}
    for round_id in RoundManifests(lake.store).rounds():
        plan = AssignmentPlan(lake.store, round_id).read()
        if plan.asked_at is not None:
            rounds[plan.guideline] = (*rounds.get(plan.guideline, ()), round_id)
            since[plan.guideline] = min(since.get(plan.guideline, plan.asked_at), plan.asked_at)
    return rounds, since


def _by_people(published: pd.DataFrame) -> Mapping[str, str]:
    """Return the images that people labelled here, each with the round of its labels."""
    rows = published[published["origin"] == PEOPLE]
    return dict(zip(rows["image_id"], rows["round_id"], strict=True))


def _annotations(round_id: str, lake: Lake) -> int:
    tasks = lake.tables.read_rounds(LabelTasks, [round_id])
    return len(ledger_count(round_id, tasks, lake).counted)
