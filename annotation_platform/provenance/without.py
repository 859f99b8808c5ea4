"""What a version would say without an annotator, a model, a guideline, a round or a source.

It is put together again from what it was made of, as ``rebuild`` does, with that one thing left
out: an annotator's answers as ``consensus.disregarded`` leaves them out, a round as cancelling it
does. What everybody else's measured quality was stays as it was. Only what can become another label
is looked at, so the work grows with that and not with the version.
"""

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.training_set import round_problem
from annotation_platform.errors import DataError
from annotation_platform.labeling.moments import as_of
from annotation_platform.labeling.reviews import ledger_decisions, reviewed_labels, reviews_due
from annotation_platform.lake import Lake
from annotation_platform.provenance.changes import find_changes
from annotation_platform.provenance.state import VersionState
from annotation_platform.rebuilding.derive import derive_consensus, derive_training_set
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import empty_table
from annotation_platform.storage.lineage import MadeOf
from annotation_platform.storage.round_tables import RoundTables

_LABELS = ("reviewed_labels", "imported_labels", "auto_labels")
_ABOUT_IMAGES = (*_LABELS, "cleaned_images", "raw_images", "round_tasks")


@dataclass(frozen=True)
class LeftOut:
    """What is left out; what is not named stays.

    Attributes:
        annotator: pseudonym of somebody whose answers and reviews are.
        rounds: those whose answers are, with the reason; or, with ``annotator``, those in which
            they answered or reviewed.
        weights: of a model whose accepted proposals are.
        images: pictures that are.
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


def version_without(state: VersionState, left_out: LeftOut) -> Without:
    """Return what a version would say otherwise without something.

    Splits stay as they were drawn. An image that nobody else said anything about falls back to what
    an earlier round or its own import says, else it leaves.

    Raises:
        DataError: what the version was made of was not kept, or not here.
    """
    made_of = _made_of(state, "training_set", state.training_round)
    assert state.lake is not None
    then = as_of(state.lake, made_of)
    settings = dict(made_of.settings)
    again: dict[str, pd.DataFrame] = {}
    to_review: list[str] = []
    if left_out.annotator:
        for round_id in left_out.rounds:
            again[round_id], due = _reviewed_without(state, round_id, left_out.annotator)
            to_review += due
    elif left_out.rounds:
        why = "left out"
        settings["cancelled"] = {**settings["cancelled"], **dict.fromkeys(left_out.rounds, why)}
    affected = _affected(then.tables, left_out)
    _drop_held(then.tables, state, Ontology.model_validate(settings["ontology"]))
    for round_id, labels in again.items():
        then.tables.write("reviewed_labels", round_id, labels)
        tasks = then.tables.read("round_tasks", round_id)
        nobody = (tasks["state"] == "answered") & ~tasks["task_id"].isin(labels["task_id"])
        tasks["state"] = tasks["state"].mask(nobody, "left")
        then.tables.write("round_tasks", round_id, tasks)
    _keep_only(then.tables, made_of, affected, left_out)
    _with_drawn_splits(then, state.lake)
    was = state.labels_about(affected)
    now = derive_training_set(state.training_round, then, settings)
    now = now.sort_values(["image_id", "label_id"], ignore_index=True)
    return Without(find_changes(was, now), tuple(sorted(to_review)))


def _made_of(state: VersionState, name: str, round_id: str) -> MadeOf:
    made_of = state.made_of(name, round_id)
    if made_of is None:
        raise DataError(
            f"{state.tag}: what {name} of {round_id} was made of was not kept, or not here. Set "
            "ANNOTATION_LAKE to the lake that it was published from."
        )
    return made_of


def _reviewed_without(
    state: VersionState, round_id: str, annotator: str
) -> tuple[pd.DataFrame, list[str]]:
    """Return a round's ``reviewed_labels`` without somebody's word, and what is to be reviewed.

    That is what is in dispute then, and was not decided by anybody else.
    """
    assert state.lake is not None
    made_of = _made_of(state, "consensus_labels", round_id)
    disregarded = [*made_of.settings.get("disregarded", ()), annotator]
    consensus = derive_consensus(
        round_id, as_of(state.lake, made_of), {**made_of.settings, "disregarded": disregarded}
    )
    due = reviews_due(round_id, consensus.labels, consensus.conflicts, state.policy)
    then = as_of(state.lake, _made_of(state, "reviewed_labels", round_id))
    asked = then.tables.read("review_tasks", round_id)
    decided = ledger_decisions(round_id, asked, then).without(disregarded)
    labels = reviewed_labels(consensus.labels, due, decided)
    return labels, sorted(set(due["image_id"]) - set(decided.reviews))


def _affected(tables: RoundTables, left_out: LeftOut) -> frozenset[str]:
    """Return every image whose labels may be other ones then."""
    found = set(left_out.images)
    for round_id in left_out.rounds:
        found |= set(tables.read_rounds("reviewed_labels", [round_id])["image_id"])
    certified = set(tables.rounds("certificates"))
    if left_out.weights or certified & set(left_out.rounds):
        # Where one certificate falls another may stand.
        found |= set(tables.read_all("auto_labels")["image_id"])
    return frozenset(found)


def _drop_held(tables: RoundTables, state: VersionState, ontology: Ontology) -> None:
    """Take away the labels of rounds that a gate held back: judged before images are left out."""
    named = {key for name in _LABELS for key in tables.rounds(name)} - set(state.manifest.rounds)
    if not named:
        return
    images = tables.read_all("cleaned_images")
    images = images[images["outcome"] == "accepted"]
    for round_id in sorted(named):
        if round_problem(tables, round_id, images, ontology):
            for name in _LABELS:
                if tables.exists(name, round_id):
                    tables.write(name, round_id, empty_table(name))


def _keep_only(
    tables: RoundTables, made_of: MadeOf, images: Collection[str], left_out: LeftOut
) -> None:
    """Leave nothing in the tables but what they say of these images, and is not left out."""
    kept = set(images) - left_out.images
    for key in made_of.tables:
        name, _, round_id = key.partition("/")
        if name not in _ABOUT_IMAGES:
            continue
        frame = tables.read(name, round_id)
        stays = frame["image_id"].isin(kept)
        if name == "auto_labels" and left_out.weights:
            stays &= frame["weights_sha256"] != left_out.weights
        if not stays.all():
            tables.write(name, round_id, frame[stays].reset_index(drop=True))


def _with_drawn_splits(then: Lake, now: Lake) -> None:
    """Let every split be known that was ever drawn: none is drawn again."""
    for round_id in now.tables.rounds("splits"):
        then.tables.write("splits", round_id, now.tables.read("splits", round_id))
