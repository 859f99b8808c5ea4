"""Find labels, versions and models that depend on an annotator, model, guideline, round or source.

A label depends on every input on its way into the version, whether or not it would be another label
without it; ``without.py`` computes the latter. A model depends on its training labels, and labels
that were accepted from its predictions depend on the model in turn.
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
from annotation_platform.models.cards import ModelCard
from annotation_platform.provenance.state import VersionState
from annotation_platform.provenance.without import LeftOut, Shared, Without, version_without
from annotation_platform.schema.tables import (
    AutoLabels,
    HumanLabels,
    RawImages,
    ReviewedLabels,
    TrainingSet,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.pseudonyms import pseudonym_of

Kind = Literal["annotator", "model", "guideline", "round", "source"]

DEPENDENT_COLUMNS = ["image_id", "label_id", "class_name", "split", "round_id", "how"]
"""The columns of dependent labels; ``how`` is the kind of dependency in a word or two."""

_LABEL = ["image_id", "label_id", "class_name", "split", "round_id", "origin"]
_SHOWN = 8

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Subject:
    """The subject of an impact analysis.

    ``name`` is a pseudonym, a SHA-256 of weights, a digest of a guideline, a round, or a source
    (one named in sidecars, or a folder of the landing zone).
    """

    kind: Kind
    name: str


@dataclass(frozen=True)
class VersionImpact:
    """The dependent labels of a version, and its changes without the subject.

    ``without`` is None if it was not requested. Images without labels have a row in ``dependents``,
    too: the absence of objects is also an annotation.
    """

    tag: str
    dependents: pd.DataFrame = field(repr=False)  # DEPENDENT_COLUMNS
    without: Without | None = field(repr=False)


@dataclass(frozen=True)
class ModelImpact:
    """A model that was trained on dependent labels, with the numbers of these and their images."""

    weights_sha256: str
    dataset_tag: str
    labels: int
    images: int


@dataclass(frozen=True)
class Impact:
    """All dependents of a subject, in the order of versions; versions without any are left out.

    ``unknown`` are versions whose inputs were not stored.
    """

    subject: Subject
    versions: tuple[VersionImpact, ...]
    models: tuple[ModelImpact, ...]
    unknown: tuple[str, ...]


def find_subject(kind: Kind, name: str, lake: Lake, models: Mapping[str, ModelCard]) -> Subject:
    """Return the subject with a name.

    An annotator can be named by e-mail address, and a subject with a digest by a prefix of it.

    Raises:
        DataError: there is no such subject, or several have the prefix; it lists the known ones.
    """
    known = _known(kind, lake, models)
    prefix = name.rstrip("/")
    if kind == "annotator" and "@" in name:
        prefix = pseudonym_of(lake.store, name)
    if prefix in known:
        return Subject(kind, prefix)
    matching = [each for each in known if each.startswith(prefix)] if kind != "source" else []
    if len(matching) == 1 and prefix:
        return Subject(kind, matching[0])
    shown = ", ".join(each[:24] for each in known[:_SHOWN]) or "none"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    several = f"{len(matching)} have this prefix" if matching and prefix else "there is none"
    raise DataError(f"{kind} {name!r}: {several}. Known: {shown}{more}.")


def find_impact(
    subject: Subject,
    versions: Sequence[VersionState],
    models: Mapping[str, ModelCard],
    *,
    without: bool = True,
    progress: Progress | None = None,
) -> Impact:
    """Return all dependents of a subject.

    Args:
        subject: the subject, from ``find_subject``.
        versions: all published versions, oldest first.
        models: the card of every model, by the SHA-256 of its weights.
        without: whether to compute the changes of each version without the subject.
        progress: called with the versions done and their total.
    """
    found: list[VersionImpact] = []
    dependent_models: list[ModelImpact] = []
    # A model is trained on earlier versions than those with its predictions.
    trained: set[str] = set()
    shared = Shared()
    known = [state for state in versions if state.inputs is not None]
    for number, state in enumerate(known, start=1):
        claims = list(_CLAIMS[subject.kind](state, subject.name))
        dependents = _dependents(subject, state, claims, trained)
        if not dependents.empty:
            left_out = _left_out(subject, state, claims) if without else None
            would_be = version_without(state, left_out, shared) if left_out else None
            found.append(VersionImpact(state.tag, dependents, would_be))
            learned = [sha for sha, card in models.items() if card.dataset_tag == state.tag]
            seen = dependents[dependents[TrainingSet.split] == "train"]
            if len(seen):
                trained |= set(learned)
                dependent_models += [
                    ModelImpact(sha, state.tag, len(seen), seen[TrainingSet.image_id].nunique())
                    for sha in sorted(learned)
                ]
        if progress is not None:
            progress(number, len(known))
    unknown = tuple(state.tag for state in versions if state.inputs is None)
    return Impact(subject, tuple(found), tuple(dependent_models), unknown)


def _dependents(
    subject: Subject,
    state: VersionState,
    claims: Sequence[tuple[str, pd.DataFrame]],
    trained: Iterable[str],
) -> pd.DataFrame:
    """Return the labels of a version that depend on a subject, or on a model trained on it."""
    through = [
        (AUTO, _accepted(state, sha).assign(how=f"accepted from model {sha[:12]}"))
        for sha in sorted(set(trained) - {subject.name})
    ]
    found = []
    for origin, several in (*claims, *through):
        claim = several.drop_duplicates(["image_id", "round_id"])
        labels = state.labels_about(set(claim["image_id"]), _LABEL)
        if origin:
            labels = labels[labels[TrainingSet.origin] == origin]
        # Images of a source count in whichever round they were labelled.
        by = ["image_id"] if subject.kind == "source" and not origin else ["image_id", "round_id"]
        rows = labels.merge(claim[[*by, "how"]].drop_duplicates(by), on=by)
        found.append(rows[DEPENDENT_COLUMNS])
    everything = pd.concat(found, ignore_index=True)
    return everything.drop_duplicates("label_id").sort_values(
        ["image_id", "label_id"], ignore_index=True
    )


def _by_annotator(state: VersionState, name: str) -> Iterable[tuple[str, pd.DataFrame]]:
    annotations = _counted(state)
    own = annotations[annotations[HumanLabels.annotator] == name]
    decided = _rounds(state, "reviewed_labels", ["image_id", "round_id", "decided_by"])
    decided = decided[decided[ReviewedLabels.decided_by] == name]
    yield PEOPLE, pd.concat([decided.assign(how="reviewed"), own.assign(how="annotated")])


def _by_model(state: VersionState, sha256: str) -> Iterable[tuple[str, pd.DataFrame]]:
    yield AUTO, _accepted(state, sha256).assign(how="accepted")
    annotations = _counted(state, "weights_sha256")
    yield (
        PEOPLE,
        annotations[annotations[HumanLabels.weights_sha256] == sha256].assign(how="pre-annotated"),
    )


def _by_guideline(state: VersionState, digest: str) -> Iterable[tuple[str, pd.DataFrame]]:
    annotations = _counted(state, "guideline")
    yield (
        PEOPLE,
        annotations[annotations[HumanLabels.guideline] == digest].assign(how="annotated under it"),
    )


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
    """Return the annotations that counted when the rounds of a version were merged."""
    selected = ["image_id", "round_id", "annotator", "purpose", *columns]
    frames = []
    for round_id in state.rounds("human_labels"):
        inputs = state.inputs_of("consensus_labels", round_id)
        left_out = inputs.settings.get("disregarded", ()) if inputs is not None else ()
        frames.append(
            counting_annotations(state.distinct("human_labels", round_id, selected), left_out)
        )
    frames = [each for each in frames if len(each)]
    return pd.concat(frames) if frames else state.table("human_labels", "", selected)


def _accepted(state: VersionState, sha256: str) -> pd.DataFrame:
    accepted = _rounds(state, "auto_labels", ["image_id", "round_id", "weights_sha256"])
    return accepted[accepted[AutoLabels.weights_sha256] == sha256]


def _left_out(
    subject: Subject, state: VersionState, claims: Sequence[tuple[str, pd.DataFrame]]
) -> LeftOut:
    """Return the parts of a version to leave out."""
    if subject.kind == "model":
        return LeftOut(weights=subject.name)
    if subject.kind == "source":
        # Images that also landed from another source stay.
        return LeftOut(images=arrived_only_from(_landed(state), subject.name)[0])
    rounds = tuple(sorted({key for _, claim in claims for key in claim["round_id"]}))
    annotator = subject.name if subject.kind == "annotator" else ""
    return LeftOut(annotator=annotator, rounds=rounds)


def _landed(state: VersionState) -> pd.DataFrame:
    landed = _rounds(state, "raw_images", ["image_id", "round_id", "source", "source_key"])
    return landed[landed[RawImages.image_id].notna()]


def _rounds(state: VersionState, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns of a table from all rounds in the inputs of a version."""
    frames = [state.distinct(name, round_id, columns) for round_id in state.rounds(name)]
    frames = [each for each in frames if len(each)]
    return pd.concat(frames) if frames else state.table(name, "", columns)


def _known(kind: Kind, lake: Lake, models: Mapping[str, ModelCard]) -> list[str]:
    """Return the names of all known subjects of a kind, sorted."""
    tables = lake.tables
    if kind == "round":
        return RoundManifests(lake.store).rounds()
    if kind == "source":
        rounds = tables.rounds(RawImages)
        folders = {key.rpartition("/")[0] for key in tables.values(RawImages, "source_key", rounds)}
        below = {
            folder[:end]
            for folder in folders
            for end in [*(at for at, char in enumerate(folder) if char == "/"), len(folder)]
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
