"""Every version of classes and guidelines ever used, and the labels made under each."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from annotation_platform.curation.imported import PEOPLE
from annotation_platform.errors import DataError
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.round_annotations import ledger_count
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import Frame, HumanLabels, LabelTasks, TrainingSet
from annotation_platform.schema.tables.shared import Purpose
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class GuidelineChanges:
    """The differences between two versions of the guidelines.

    Classes are identified by id, which never changes. ``other`` has a phrase for each class whose
    shape changed, and one if the number of choices changed; ``text`` has the lines of the
    instructions that were added (``+``) and removed (``-``).
    """

    added: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]  # from, to
    retired: tuple[str, ...]
    other: tuple[str, ...]
    text: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """A summary of all differences; "–" if there are none."""
        parts = [
            ("added", ", ".join(self.added)),
            ("renamed", ", ".join(f"{old} to {new}" for old, new in self.renamed)),
            ("retired", ", ".join(self.retired)),
        ]
        phrases = [f"{change} {names}" for change, names in parts if names] + list(self.other)
        return "; ".join([*phrases, *(["instructions changed"] if self.text else [])]) or "–"


@dataclass(frozen=True)
class GuidelineVersion:
    """One version of the guidelines.

    ``annotations`` is the number of counted annotations made under it, ``images`` the number of
    images whose labels in the newest published version were made under it. ``changes`` compares it
    with the version before, None for the first. ``since`` is the time of the first task under it;
    None if there was none.
    """

    digest: str
    since: datetime | None
    rounds: tuple[str, ...]
    annotations: int
    images: int
    changes: GuidelineChanges | None


@dataclass(frozen=True)
class GuidelineImages:
    """The images whose labels were made under a version of the guidelines, sorted.

    ``published`` ones are in the newest version of the dataset; ``others`` have counted annotations
    under it, and no label in that version that was made under later guidelines.
    """

    published: tuple[str, ...]
    others: tuple[str, ...]


def changes_between(old: Ontology, new: Ontology) -> GuidelineChanges:
    """Return the differences of the guidelines ``new`` from ``old``."""
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
    return GuidelineChanges(
        added=tuple(each.name for key, each in after.items() if key not in before),
        renamed=tuple((one.name, two.name) for one, two in both if one.name != two.name),
        retired=tuple(each.name for key, each in before.items() if key not in after),
        other=tuple(other),
        text=tuple(line for line in lines if not line.startswith(("---", "+++", "@@"))),
    )


def guideline_versions(lake: Lake, published: Frame[TrainingSet]) -> list[GuidelineVersion]:
    """Return every version of the guidelines, in the order of their first tasks.

    Args:
        lake: the lake of guidelines, assignment plans and annotations.
        published: the ``training_set`` of the newest version of the dataset.
    """
    rounds, since = _rounds(lake)
    round_of = _human_labelled(published)
    # Versions without tasks come last.
    used = sorted(since, key=lambda digest: since[digest])
    order = [*used, *(digest for digest in _digests(lake) if digest not in since)]
    versions: list[GuidelineVersion] = []
    before: Ontology | None = None
    for digest in order:
        now = read_guideline(lake.store, digest)
        under = rounds.get(digest, ())
        versions.append(
            GuidelineVersion(
                digest=digest,
                since=since.get(digest),
                rounds=under,
                annotations=sum(_annotations(round_id, lake) for round_id in under),
                images=sum(round_id in under for round_id in round_of.values()),
                changes=changes_between(before, now) if before else None,
            )
        )
        before = now
    return versions


def find_guideline(prefix: str, lake: Lake) -> str:
    """Return the digest with this prefix; raise a DataError if there is none, or several."""
    found = [key for key in _digests(lake) if prefix and key.startswith(prefix.lower())]
    if len(found) != 1:
        problem = "several guidelines have" if found else "no guideline has"
        raise DataError(
            f"{prefix}: {problem} this prefix. `annotation-platform policy guidelines --json` "
            "lists them."
        )
    return found[0]


def images_under_guideline(
    digest: str, lake: Lake, published: Frame[TrainingSet]
) -> GuidelineImages:
    """Return the images whose labels were made under a version of the guidelines.

    Args:
        digest: digest of the guidelines.
        lake: the lake of assignment plans and annotations.
        published: the ``training_set`` of the newest version of the dataset.
    """
    rounds, _ = _rounds(lake)
    under = rounds.get(digest, ())
    round_of = _human_labelled(published)
    labelled = {image for image, round_id in round_of.items() if round_id in under}
    labels = lake.tables.read_rounds(HumanLabels, under)
    annotated = labels[labels[HumanLabels.purpose] == Purpose.LABEL]
    latest = annotated.groupby(HumanLabels.image_id)[HumanLabels.round_id].max()
    others = {
        str(image)
        for image, round_id in latest.items()
        if image not in labelled and round_of.get(str(image), "") <= str(round_id)
    }
    return GuidelineImages(tuple(sorted(labelled)), tuple(sorted(others)))


def _digests(lake: Lake) -> list[str]:
    keys = lake.store.list("guidelines")
    return [key.rsplit("/", 1)[1].removesuffix(".json") for key in keys]


def _rounds(lake: Lake) -> tuple[dict[str, tuple[str, ...]], dict[str, datetime]]:
    """Return, by digest, the rounds with tasks under it and the time of the first task."""
    rounds: dict[str, tuple[str, ...]] = {}
    since: dict[str, datetime] = {}
    for round_id in RoundManifests(lake.store).rounds():
        plan = AssignmentPlan(lake.store, round_id).read()
        if plan.asked_at is not None:
            rounds[plan.guideline] = (*rounds.get(plan.guideline, ()), round_id)
            since[plan.guideline] = min(since.get(plan.guideline, plan.asked_at), plan.asked_at)
    return rounds, since


def _human_labelled(published: Frame[TrainingSet]) -> Mapping[str, str]:
    """Return the images that annotators labelled here, each with the round of its labels."""
    rows = published[published[TrainingSet.origin] == PEOPLE]
    return dict(zip(rows[TrainingSet.image_id], rows[TrainingSet.round_id], strict=True))


def _annotations(round_id: str, lake: Lake) -> int:
    tasks = lake.tables.read_rounds(LabelTasks, [round_id])
    return len(ledger_count(round_id, tasks, lake).counted)
