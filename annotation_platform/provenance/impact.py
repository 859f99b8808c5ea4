"""What rests on an annotator, a model, a guideline, a round or a source: labels, versions, models.

A label rests on whatever was asked, answered, decided, proposed or landed on its way into the
version, whether or not it would be another one without; ``without.py`` says that. A model rests on
what it learned from, and what was accepted from its proposals rests on it in turn.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from annotation_platform.consensus.resolve import counting_annotations
from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.errors import DataError
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.ingestion.sources import arrived_from, arrived_only_from
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.models.cards import ModelCard
from annotation_platform.provenance.state import VersionState
from annotation_platform.provenance.without import LeftOut, Shared, Without, version_without
from annotation_platform.schema.tables import AutoLabels, HumanLabels, RawImages, ReviewedLabels
from annotation_platform.storage.lake import Lake

Kind = Literal["annotator", "model", "guideline", "round", "source"]

RESTS_COLUMNS = ["image_id", "label_id", "class_name", "split", "round_id", "how"]
"""The columns of what rests on something in a version; ``how`` says in a word or two."""

_LABEL = ["image_id", "label_id", "class_name", "split", "round_id", "origin"]
_SHOWN = 8

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Subject:
    """What is asked about.

    ``name`` is a pseudonym, a SHA-256 of weights, a digest of a guideline, a round, or a source:
    what sidecars say, or a folder of the landing zone.
    """

    kind: Kind
    name: str


@dataclass(frozen=True)
class VersionImpact:
    """What of a version rests on the subject, and what it would say without it.

    ``without`` is None where nobody asked for it. Images without a label have a row in ``rests``,
    too: that there is nothing to see is what somebody said.
    """

    tag: str
    rests: pd.DataFrame = field(repr=False)  # RESTS_COLUMNS
    without: Without | None = field(repr=False)


@dataclass(frozen=True)
class ModelImpact:
    """A model that learned from labels that rest on the subject: so many, of so many images."""

    weights_sha256: str
    dataset_tag: str
    labels: int
    images: int


@dataclass(frozen=True)
class Impact:
    """Everything that rests on a subject, versions in order; those with nothing are left out.

    ``unknown`` are versions of which it was not kept what they were made of.
    """

    subject: Subject
    versions: tuple[VersionImpact, ...]
    models: tuple[ModelImpact, ...]
    unknown: tuple[str, ...]


def find_subject(kind: Kind, name: str, lake: Lake, models: Mapping[str, ModelCard]) -> Subject:
    """Return what a name means: who it is, or what.

    Of annotators it may be the e-mail address, of whatever has a digest its beginning.

    Raises:
        DataError: there is no such thing, or several begin like that; it names what there is.
    """
    known = _known(kind, lake, models)
    wanted = name.rstrip("/")
    if kind == "annotator" and "@" in name:
        wanted = AnnotationsLedger(lake.store).pseudonym(name)
    if wanted in known:
        return Subject(kind, wanted)
    begin = [each for each in known if each.startswith(wanted)] if kind != "source" else []
    if len(begin) == 1 and wanted:
        return Subject(kind, begin[0])
    shown = ", ".join(each[:24] for each in known[:_SHOWN]) or "none"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    several = f"{len(begin)} begin like that" if begin and wanted else "there is none"
    raise DataError(f"{kind} {name!r}: {several}. Known: {shown}{more}.")


def find_impact(
    subject: Subject,
    versions: Sequence[VersionState],
    models: Mapping[str, ModelCard],
    *,
    without: bool = True,
    progress: Progress | None = None,
) -> Impact:
    """Return what rests on a subject.

    Args:
        subject: of ``find_subject``.
        versions: all published ones, oldest first.
        models: the card of every model, by the SHA-256 of its weights.
        without: whether to say what each version would say without it.
        progress: told the versions done, and all of them.
    """
    found: list[VersionImpact] = []
    resting: list[ModelImpact] = []
    # A model learns from versions before those that its proposals are in.
    taught: set[str] = set()
    shared = Shared()
    known = [state for state in versions if state.inputs is not None]
    for number, state in enumerate(known, start=1):
        claims = list(_CLAIMS[subject.kind](state, subject.name))
        rests = _rests(subject, state, claims, taught)
        if not rests.empty:
            left_out = _left_out(subject, state, claims) if without else None
            would_be = version_without(state, left_out, shared) if left_out else None
            found.append(VersionImpact(state.tag, rests, would_be))
            learned = [sha for sha, card in models.items() if card.dataset_tag == state.tag]
            seen = rests[rests["split"] == "train"]
            if len(seen):
                taught |= set(learned)
                resting += [
                    ModelImpact(sha, state.tag, len(seen), seen["image_id"].nunique())
                    for sha in sorted(learned)
                ]
        if progress is not None:
            progress(number, len(known))
    unknown = tuple(state.tag for state in versions if state.inputs is None)
    return Impact(subject, tuple(found), tuple(resting), unknown)


def _rests(
    subject: Subject,
    state: VersionState,
    claims: Sequence[tuple[str, pd.DataFrame]],
    taught: Iterable[str],
) -> pd.DataFrame:
    """Return the labels of a version that rest on a subject, or on a model that learned from it."""
    through = [
        (AUTO, _accepted(state, sha).assign(how=f"accepted from model {sha[:12]}"))
        for sha in sorted(set(taught) - {subject.name})
    ]
    found = []
    for origin, several in (*claims, *through):
        claim = several.drop_duplicates(["image_id", "round_id"])
        labels = state.labels_about(set(claim["image_id"]), _LABEL)
        if origin:
            labels = labels[labels["origin"] == origin]
        # Of a source it does not matter in which round its images were labelled.
        by = ["image_id"] if subject.kind == "source" and not origin else ["image_id", "round_id"]
        rows = labels.merge(claim[[*by, "how"]].drop_duplicates(by), on=by)
        found.append(rows[RESTS_COLUMNS])
    everything = pd.concat(found, ignore_index=True)
    return everything.drop_duplicates("label_id").sort_values(
        ["image_id", "label_id"], ignore_index=True
    )


def _by_annotator(state: VersionState, name: str) -> Iterable[tuple[str, pd.DataFrame]]:
    annotations = _counted(state)
    own = annotations[annotations["annotator"] == name]
    decided = _rounds(state, "reviewed_labels", ["image_id", "round_id", "decided_by"])
    decided = decided[decided["decided_by"] == name]
    yield PEOPLE, pd.concat([decided.assign(how="reviewed"), own.assign(how="answered")])


def _by_model(state: VersionState, sha256: str) -> Iterable[tuple[str, pd.DataFrame]]:
    yield AUTO, _accepted(state, sha256).assign(how="accepted")
    annotations = _counted(state, "weights_sha256")
    yield PEOPLE, annotations[annotations["weights_sha256"] == sha256].assign(how="proposed")


def _by_guideline(state: VersionState, digest: str) -> Iterable[tuple[str, pd.DataFrame]]:
    annotations = _counted(state, "guideline")
    yield PEOPLE, annotations[annotations["guideline"] == digest].assign(how="asked under it")


def _by_round(state: VersionState, round_id: str) -> Iterable[tuple[str, pd.DataFrame]]:
    tables = ("reviewed_labels", "imported_labels", "auto_labels")
    frames = [state.table(name, round_id, ["image_id", "round_id"]) for name in tables]
    yield "", pd.concat(frames).assign(how="labelled in it")


def _by_source(state: VersionState, name: str) -> Iterable[tuple[str, pd.DataFrame]]:
    landed = _landed(state)
    yield "", landed[arrived_from(landed, name)].assign(how="landed from it")


_CLAIMS = {
    "annotator": _by_annotator,
    "model": _by_model,
    "guideline": _by_guideline,
    "round": _by_round,
    "source": _by_source,
}


def _counted(state: VersionState, *columns: str) -> pd.DataFrame:
    """Return the answers that counted when the rounds of a version were merged."""
    wanted = ["image_id", "round_id", "annotator", "purpose", *columns]
    frames = []
    for round_id in state.rounds("human_labels"):
        made_of = state.made_of("consensus_labels", round_id)
        left_out = made_of.settings.get("disregarded", ()) if made_of is not None else ()
        frames.append(
            counting_annotations(state.distinct("human_labels", round_id, wanted), left_out)
        )
    frames = [each for each in frames if len(each)]
    return pd.concat(frames) if frames else state.table("human_labels", "", wanted)


def _accepted(state: VersionState, sha256: str) -> pd.DataFrame:
    accepted = _rounds(state, "auto_labels", ["image_id", "round_id", "weights_sha256"])
    return accepted[accepted["weights_sha256"] == sha256]


def _left_out(
    subject: Subject, state: VersionState, claims: Sequence[tuple[str, pd.DataFrame]]
) -> LeftOut:
    """Return what a version is to be without."""
    if subject.kind == "model":
        return LeftOut(weights=subject.name)
    if subject.kind == "source":
        # What landed from elsewhere as well stays.
        return LeftOut(images=arrived_only_from(_landed(state), subject.name)[0])
    rounds = tuple(sorted({key for _, claim in claims for key in claim["round_id"]}))
    annotator = subject.name if subject.kind == "annotator" else ""
    return LeftOut(annotator=annotator, rounds=rounds)


def _landed(state: VersionState) -> pd.DataFrame:
    landed = _rounds(state, "raw_images", ["image_id", "round_id", "source", "source_key"])
    return landed[landed["image_id"].notna()]


def _rounds(state: VersionState, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns of a table, of all rounds of which the version was made."""
    frames = [state.distinct(name, round_id, columns) for round_id in state.rounds(name)]
    frames = [each for each in frames if len(each)]
    return pd.concat(frames) if frames else state.table(name, "", columns)


def _known(kind: Kind, lake: Lake, models: Mapping[str, ModelCard]) -> list[str]:
    """Return everything of a kind that there is, sorted."""
    tables = lake.tables
    if kind == "round":
        return RoundManifests(lake.store).rounds()
    if kind == "source":
        rounds = tables.rounds(RawImages)
        folders = {key.rpartition("/")[0] for key in tables.values(RawImages, "source_key", rounds)}
        below = {
            folder[:end]
            for folder in folders
            for end in [*(at for at, sign in enumerate(folder) if sign == "/"), len(folder)]
        }
        return sorted({*tables.values(RawImages, "source", rounds), *below} - {""})
    column = {"annotator": "annotator", "model": "weights_sha256", "guideline": "guideline"}[kind]
    found = tables.values(HumanLabels, column, tables.rounds(HumanLabels))
    if kind == "annotator":
        found |= tables.values(ReviewedLabels, "decided_by", tables.rounds(ReviewedLabels))
    if kind == "model":
        accepted = tables.values(AutoLabels, "weights_sha256", tables.rounds(AutoLabels))
        found |= {*models, *accepted}
    return sorted(found - {""})
