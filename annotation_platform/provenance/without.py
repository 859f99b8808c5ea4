"""What a version would say without an annotator, a model, a guideline, a round or a source.

It is put together again from what it was made of, as ``rebuild`` does, with that one thing left
out: an annotator's answers as ``consensus.disregarded`` leaves them out, a round as cancelling it
does. What everybody else's measured quality was stays as it was. Only what can become another label
is looked at, so the work grows with that and not with the version.
"""

import hashlib
from collections.abc import Collection, Hashable, Set
from dataclasses import dataclass, field, replace

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.curation.training_set import round_problem
from annotation_platform.errors import DataError
from annotation_platform.labeling.reviews import ledger_decisions, reviewed_labels, reviews_due
from annotation_platform.labeling.snapshots import as_of
from annotation_platform.provenance.changes import find_changes
from annotation_platform.provenance.rebuilding.recipes import derive_consensus, derive_training_set
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    AutoLabels,
    Certificates,
    CleanedImages,
    ReviewedLabels,
    ReviewTasks,
    RoundTasks,
    Splits,
    table_named,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs
from annotation_platform.storage.round_tables import RoundTables, table_key
from annotation_platform.storage.table_files import TableFile, read_table, table_parquet

_LABELS = ("reviewed_labels", "imported_labels", "auto_labels")
_MERGED = ("consensus_labels", "reviewed_labels")
_ABOUT_IMAGES = (*_LABELS, "cleaned_images", "raw_images", "round_tasks")


@dataclass(frozen=True)
class LeftOut:
    """What is left out; what is not named stays.

    Attributes:
        annotator: pseudonym of somebody whose answers and reviews are.
        rounds: those whose answers are, with the reason; or, with ``annotator``, those in which
            they answered or reviewed.
        weights: of a model whose accepted proposals are.
        images: images that are.
    """

    annotator: str = ""
    rounds: tuple[str, ...] = ()
    weights: str = ""
    images: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Without:
    """What would be another: the changes, and the images that a reviewer would have to see first.

    Until then these are left out, and that is among the changes.
    """

    changes: pd.DataFrame  # changes.CHANGE_COLUMNS
    to_review: tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """What versions share is worked out once: most rounds are the same in all of them."""

    rounds: dict[Hashable, tuple[pd.DataFrame, list[str]]] = field(default_factory=dict)
    tables: dict[Hashable, bytes | None] = field(default_factory=dict)


def version_without(
    state: VersionState, left_out: LeftOut, shared: Shared | None = None
) -> Without:
    """Return what a version would say otherwise without something.

    Splits stay as they were drawn. An image that nobody else said anything about falls back to what
    an earlier round or its own import says, else it leaves.

    Args:
        state: the version.
        left_out: what it is to be without.
        shared: of the versions that are asked about the same.

    Raises:
        DataError: what the version was made of was not kept, or not here.
    """
    made_of = _made_of(state, "training_set", state.training_round)
    assert state.lake is not None
    shared = shared or Shared()
    then = as_of(state.lake, made_of)
    settings = dict(made_of.settings)
    again: dict[str, pd.DataFrame] = {}
    to_review: list[str] = []
    if left_out.annotator:
        for round_id in left_out.rounds:
            again[round_id], due = _reviewed_without(state, round_id, left_out.annotator, shared)
            to_review += due
    elif left_out.rounds:
        why = "left out"
        settings["cancelled"] = {**settings["cancelled"], **dict.fromkeys(left_out.rounds, why)}
    affected = _affected(then.tables, left_out)
    # Rounds that are merged anew are judged anew, when they are put together.
    held = _held(then.tables, state, Ontology.model_validate(settings["ontology"])) - set(again)
    settings["cancelled"] = {**settings["cancelled"], **dict.fromkeys(held, "held")}
    then = _about(affected - left_out.images, state, made_of, left_out, held, shared)
    for round_id, labels in again.items():
        then.tables.write(ReviewedLabels, round_id, labels)
        tasks = then.tables.read(RoundTasks, round_id)
        nobody = (tasks["state"] == "answered") & ~tasks["task_id"].isin(labels["task_id"])
        tasks["state"] = tasks["state"].mask(nobody, "left")
        then.tables.write(RoundTasks, round_id, tasks)
    was = state.labels_about(affected)
    now = derive_training_set(state.training_round, then, settings)
    now = now.sort_values(["image_id", "label_id"], ignore_index=True)
    return Without(find_changes(was, now), tuple(sorted(to_review)))


def _made_of(state: VersionState, name: str, round_id: str) -> TableInputs:
    made_of = state.made_of(name, round_id)
    if made_of is None:
        raise DataError(
            f"{state.tag}: what {name} of {round_id} was made of was not kept, or not here. Set "
            "ANNOTATION_LAKE to the lake that it was published from."
        )
    return made_of


def _reviewed_without(
    state: VersionState, round_id: str, annotator: str, shared: Shared
) -> tuple[pd.DataFrame, list[str]]:
    """Return a round's ``reviewed_labels`` without somebody's word, and what is to be reviewed.

    That is what is in dispute then, and was not decided by anybody else.
    """
    made = [state.inputs and state.inputs.made.get(f"{name}/{round_id}") for name in _MERGED]
    key = (str(made), state.policy.digest, annotator)
    if key not in shared.rounds:
        shared.rounds[key] = _review_without(state, round_id, annotator)
    return shared.rounds[key]


def _review_without(
    state: VersionState, round_id: str, annotator: str
) -> tuple[pd.DataFrame, list[str]]:
    assert state.lake is not None
    made_of = _made_of(state, "consensus_labels", round_id)
    disregarded = [*made_of.settings.get("disregarded", ()), annotator]
    consensus = derive_consensus(
        round_id, as_of(state.lake, made_of), {**made_of.settings, "disregarded": disregarded}
    )
    due = reviews_due(round_id, consensus.labels, consensus.conflicts, state.policy)
    then = as_of(state.lake, _made_of(state, "reviewed_labels", round_id))
    asked = then.tables.read(ReviewTasks, round_id)
    decided = ledger_decisions(round_id, asked, then).without(disregarded)
    labels = reviewed_labels(consensus.labels, due, decided)
    return labels, sorted(set(due["image_id"]) - set(decided.reviews))


def _affected(tables: RoundTables, left_out: LeftOut) -> frozenset[str]:
    """Return every image whose labels may be other ones then."""
    found = set(left_out.images)
    for round_id in left_out.rounds:
        found |= set(tables.read_rounds(ReviewedLabels, [round_id])["image_id"])
    certified = set(tables.rounds(Certificates))
    if left_out.weights or certified & set(left_out.rounds):
        # Where one certificate falls another may stand.
        found |= set(tables.read_all(AutoLabels)["image_id"])
    return frozenset(found)


def _held(tables: RoundTables, state: VersionState, ontology: Ontology) -> set[str]:
    """Return the rounds that a gate held back: judged before images are left out."""
    named = {key for name in _LABELS for key in tables.rounds(table_named(name))} - set(
        state.manifest.rounds
    )
    if not named:
        return set()
    images = tables.read_all(CleanedImages)
    images = images[images["outcome"] == "accepted"]
    return {key for key in named if round_problem(tables, key, images, ontology)}


def _about(
    images: Set[str],
    state: VersionState,
    made_of: TableInputs,
    left_out: LeftOut,
    held: Collection[str],
    shared: Shared,
) -> Lake:
    """Return the lake as it was, with nothing in its tables but what is about these images.

    Tables that say nothing of them are not there; neither is what is left out, nor what was held.
    Every split is known that was ever drawn, so none is drawn again.
    """
    assert state.lake is not None
    tables, parts = dict(made_of.tables), {}
    lineage = state.lake.tables.lineage
    about = hashlib.sha256("".join(sorted(images)).encode()).digest()
    for key, digest in made_of.tables.items():
        name, _, round_id = key.partition("/")
        if name not in _ABOUT_IMAGES:
            continue
        if name in _LABELS and round_id in held:
            del tables[key]
            continue
        weights = left_out.weights if name == "auto_labels" else ""
        known = (digest, about, weights)
        if known not in shared.tables:
            shared.tables[known] = _part(
                TableFile(table_named(name), lineage.load(digest)), images, weights
            )
        part = shared.tables[known]
        if part is None:
            del tables[key]
        else:
            parts[key] = part
    then = as_of(state.lake, replace(made_of, tables=tables))
    for round_id in state.lake.tables.rounds(Splits):
        data = state.lake.store.get(table_key("splits", round_id))
        read_table(Splits, data, where=round_id)
        parts[f"splits/{round_id}"] = data
    for key, data in parts.items():
        then.store.put(table_key(*key.split("/")), data)
    return then


def _part(file: TableFile, images: Set[str], weights: str) -> bytes | None:
    """Return the rows of a table about images and not from a model; None if there are none."""
    named = file.arrow(["image_id"]).column(0).to_pylist()
    stays = pa.array([each in images for each in named], pa.bool_())
    if not pc.any(stays).as_py():
        return None
    if pc.all(stays).as_py() and not weights:
        return file.data
    if weights:
        found = file.arrow(["weights_sha256"]).column(0)
        stays = pc.and_(stays, pc.not_equal(found, weights))
    table = file.stored().filter(stays)
    return table_parquet(table) if len(table) else None
