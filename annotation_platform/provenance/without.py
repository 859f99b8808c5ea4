"""Compute the labels of a version without an annotator, a model, a guideline, a round or a source.

The version is assembled again from its inputs, as in ``rebuilding/``, with one of them left out: an
annotator's annotations as under ``consensus.disregarded``, a round as if it was cancelled. The
measured quality of the other annotators does not change. Only images whose labels can change are
processed, so the cost follows the change and not the version.
"""

import hashlib
from collections.abc import Collection, Hashable, Set
from dataclasses import dataclass, field, replace

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.curation.training_set import round_problem
from annotation_platform.labeling.reviews import decisions, reviewed_labels, reviews_due
from annotation_platform.labeling.snapshots import as_of
from annotation_platform.provenance.changes import find_changes
from annotation_platform.provenance.rebuilding.recipes import derive_consensus, derive_training_set
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    AutoLabels,
    Certificates,
    CleanedImages,
    ConsensusLabels,
    ImportedLabels,
    RawImages,
    ReviewedLabels,
    ReviewTasks,
    RoundTasks,
    Splits,
    Table,
    TrainingSet,
    table_named,
)
from annotation_platform.schema.tables.shared import Outcome, TaskState
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs
from annotation_platform.storage.round_tables import RoundTables, table_key
from annotation_platform.storage.table_files import TableFile, read_table, table_parquet

_LABELS: tuple[type[Table], ...] = (ReviewedLabels, ImportedLabels, AutoLabels)
_ABOUT_IMAGES: tuple[type[Table], ...] = (*_LABELS, CleanedImages, RawImages, RoundTasks)


@dataclass(frozen=True)
class LeftOut:
    """The parts of a version to leave out.

    Attributes:
        annotator: pseudonym of an annotator, whose annotations and reviews are left out.
        rounds: rounds whose annotations are left out; or, with ``annotator``, the rounds in which
            they annotated or reviewed.
        weights: SHA-256 of a model's weights, whose accepted predictions are left out.
        images: ids of images to leave out.
    """

    annotator: str = ""
    rounds: tuple[str, ...] = ()
    weights: str = ""
    images: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Without:
    """The changes of a version, and the images that would have to be reviewed first.

    Without a review these images are left out, which is among the changes.
    """

    changes: pd.DataFrame  # changes.CHANGE_COLUMNS
    to_review: tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """Results that versions share, computed once: most rounds are the same in all versions."""

    rounds: dict[Hashable, tuple[pd.DataFrame, list[str]]] = field(default_factory=dict)
    tables: dict[Hashable, bytes | None] = field(default_factory=dict)


def version_without(
    state: VersionState, left_out: LeftOut, shared: Shared | None = None
) -> Without:
    """Return the changes of a version if some of its inputs are left out.

    Splits do not change. An image without other annotations falls back to the labels of an earlier
    round or of its import; without these it is removed.

    Args:
        state: the version.
        left_out: the inputs to leave out.
        shared: results shared by several versions with the same ``left_out``.

    Raises:
        DataError: the inputs of the version were not stored, or not in this lake.
    """
    inputs = state.known_inputs_of(TrainingSet, state.training_round)
    assert state.lake is not None
    shared = shared or Shared()
    snapshot = as_of(state.lake, inputs)
    settings = dict(inputs.settings)
    again: dict[str, pd.DataFrame] = {}
    to_review: list[str] = []
    if left_out.annotator:
        for round_id in left_out.rounds:
            again[round_id], due = _reviewed_without(state, round_id, left_out.annotator, shared)
            to_review += due
    elif left_out.rounds:
        cancelled = dict.fromkeys(left_out.rounds, "left out")
        settings["cancelled"] = {**settings["cancelled"], **cancelled}
    affected = _affected(snapshot.tables, left_out)
    # Rounds that are merged again pass the gates again, when the training set is assembled.
    held = _held(snapshot.tables, state, Ontology.model_validate(settings["ontology"])) - set(again)
    settings["cancelled"] = {**settings["cancelled"], **dict.fromkeys(held, "held")}
    snapshot = _about(affected - left_out.images, state, inputs, left_out, held, shared)
    for round_id, labels in again.items():
        snapshot.tables.write(ReviewedLabels, round_id, labels)
        tasks = snapshot.tables.read(RoundTasks, round_id)
        is_answered = tasks[RoundTasks.state] == TaskState.ANNOTATED
        lost = is_answered & ~tasks[RoundTasks.task_id].isin(labels[ReviewedLabels.task_id])
        tasks[RoundTasks.state] = tasks[RoundTasks.state].mask(lost, TaskState.ABANDONED)
        snapshot.tables.write(RoundTasks, round_id, tasks)
    was = state.labels_about(affected)
    now = derive_training_set(state.training_round, snapshot, settings)
    now = now.sort_values(["image_id", "label_id"], ignore_index=True)
    return Without(find_changes(was, now), tuple(sorted(to_review)))


def _reviewed_without(
    state: VersionState, round_id: str, annotator: str, shared: Shared
) -> tuple[pd.DataFrame, list[str]]:
    """Return a round's ``reviewed_labels`` without an annotator, and the images to review.

    These are in dispute and have no decision of another reviewer.
    """
    made = [
        state.inputs and state.inputs.made.get(f"{table.table_name}/{round_id}")
        for table in (ConsensusLabels, ReviewedLabels)
    ]
    key = (str(made), state.policy.digest, annotator)
    if key not in shared.rounds:
        shared.rounds[key] = _review_without(state, round_id, annotator)
    return shared.rounds[key]


def _review_without(
    state: VersionState, round_id: str, annotator: str
) -> tuple[pd.DataFrame, list[str]]:
    assert state.lake is not None
    inputs = state.known_inputs_of(ConsensusLabels, round_id)
    disregarded = [*inputs.settings.get("disregarded", ()), annotator]
    consensus = derive_consensus(
        round_id, as_of(state.lake, inputs), {**inputs.settings, "disregarded": disregarded}
    )
    due = reviews_due(round_id, consensus.labels, consensus.conflicts, state.policy)
    snapshot = as_of(state.lake, state.known_inputs_of(ReviewedLabels, round_id))
    review_tasks = snapshot.tables.read(ReviewTasks, round_id)
    decided = decisions(round_id, review_tasks, snapshot).without(disregarded)
    labels = reviewed_labels(consensus.labels, due, decided)
    return labels, sorted(set(due[ReviewTasks.image_id]) - set(decided.reviews))


def _affected(tables: RoundTables, left_out: LeftOut) -> frozenset[str]:
    """Return every image whose labels can change."""
    found = set(left_out.images)
    for round_id in left_out.rounds:
        found |= set(tables.read_rounds(ReviewedLabels, [round_id])[ReviewedLabels.image_id])
    certified = set(tables.rounds(Certificates))
    if left_out.weights or certified & set(left_out.rounds):
        # Without one certificate, another one may hold.
        found |= set(tables.read_all(AutoLabels)[AutoLabels.image_id])
    return frozenset(found)


def _held(tables: RoundTables, state: VersionState, ontology: Ontology) -> set[str]:
    """Return the rounds that a gate held back, by all images of the version."""
    named = {key for table in _LABELS for key in tables.rounds(table)} - {*state.manifest.rounds}
    if not named:
        return set()
    images = tables.read_all(CleanedImages)
    images = images[images[CleanedImages.outcome] == Outcome.ACCEPTED]
    return {key for key in named if round_problem(tables, key, images, ontology)}


def _about(
    images: Set[str],
    state: VersionState,
    inputs: TableInputs,
    left_out: LeftOut,
    held: Collection[str],
    shared: Shared,
) -> Lake:
    """Return a snapshot of the lake whose tables hold only rows about these images.

    Tables without such rows are missing, and so are left-out rows and held rounds. It has all
    splits ever drawn, so no split is drawn again.
    """
    assert state.lake is not None
    tables, parts = dict(inputs.tables), {}
    lineage = state.lake.tables.lineage
    about = hashlib.sha256("".join(sorted(images)).encode()).digest()
    for key, digest in inputs.tables.items():
        name, _, round_id = key.partition("/")
        table = table_named(name)
        if table not in _ABOUT_IMAGES:
            continue
        if table in _LABELS and round_id in held:
            del tables[key]
            continue
        weights = left_out.weights if table is AutoLabels else ""
        known = (digest, about, weights)
        if known not in shared.tables:
            file = TableFile(table, lineage.load(digest))
            shared.tables[known] = _part(file, images, weights)
        part = shared.tables[known]
        if part is None:
            del tables[key]
        else:
            parts[key] = part
    snapshot = as_of(state.lake, replace(inputs, tables=tables))
    for round_id in state.lake.tables.rounds(Splits):
        data = state.lake.store.get(table_key(Splits.table_name, round_id))
        read_table(Splits, data, where=round_id)
        parts[f"{Splits.table_name}/{round_id}"] = data
    for key, data in parts.items():
        snapshot.store.put(table_key(*key.split("/")), data)
    return snapshot


def _part(file: TableFile, images: Set[str], weights: str) -> bytes | None:
    """Return the rows of a table about images that are not from a model; None without rows."""
    named = file.arrow([CleanedImages.image_id]).column(0).to_pylist()
    stays = pa.array([each in images for each in named], pa.bool_())
    if not pc.any(stays).as_py():
        return None
    if pc.all(stays).as_py() and not weights:
        return file.data
    if weights:
        found = file.arrow([AutoLabels.weights_sha256]).column(0)
        stays = pc.and_(stays, pc.not_equal(found, weights))
    table = file.stored().filter(stays)
    return table_parquet(table) if len(table) else None
