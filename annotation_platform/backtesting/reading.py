"""The record of past rounds, read from the lake; nothing is written or requested."""

from collections.abc import Collection, Sequence

import pandas as pd

from annotation_platform.backtesting.record import Record
from annotation_platform.backtesting.truth import SOURCES, known_truth
from annotation_platform.curation.carry_over import carry_over
from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.labeling.backends.protocol import Submission
from annotation_platform.labeling.guidelines import guideline_of
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_decisions import cancelled_rounds
from annotation_platform.models.shown_predictions import shown_predictions
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import ConsensusLabels, HumanLabels, ModelPredictions
from annotation_platform.storage.lake import Lake


def read_record(
    lake: Lake,
    policy: Policy,
    *,
    rounds: Sequence[str] = (),
    sources: Collection[str] = SOURCES,
) -> Record:
    """Return the record of rounds, by default of all that are merged and not cancelled.

    Args:
        lake: the lake to read.
        policy: today's policy, with its classes, gold and prediction threshold.
        rounds: ids of the rounds.
        sources: allowed sources of ground truth; see ``truth.known_truth``.

    Raises:
        DataError: a round does not exist, or was cancelled.
        NotReadyError: a round is not merged yet, or no round is.
    """
    keys = _merged(lake, rounds)
    parts = [_round_labels(key, lake) for key in keys]
    notes = [note for _, note in parts if note]
    labels = pd.concat([rows for rows, _ in parts], ignore_index=True)
    if labels.empty:
        raise NotReadyError(
            f"{', '.join(keys)}: no annotations were recorded. Choose other rounds."
        )
    split = carry_over(labels, policy.ontology).ask_again
    if split:
        notes.append(f"{len(split)} images with a class that was split since are left out")
        labels = labels[~labels[HumanLabels.image_id].isin(split)].reset_index(drop=True)
    asked = labels[[HumanLabels.round_id, HumanLabels.image_id]].drop_duplicates()
    truth = known_truth(lake, asked, policy, sources=sources)
    images = accepted_images(lake.tables).drop_duplicates("image_id")
    return Record(
        labels=labels,
        truth=truth.labels,
        images=images.loc[
            images["image_id"].isin(asked["image_id"]), ["image_id", "width", "height"]
        ],
        ontology=policy.ontology,
        asked_under={
            str(key): guideline_of(rows, lake.store, policy.ontology)
            for key, rows in labels.groupby("round_id")
        },
        predicted=_predicted(labels, lake, policy),
        review_seconds=_review_seconds(keys, lake),
        notes=(*notes, *truth.notes),
    )


def _merged(lake: Lake, named: Sequence[str]) -> list[str]:
    """Return the rounds to replay: the named ones, or all that are merged and not cancelled."""
    merged = lake.tables.rounds(ConsensusLabels)
    known = sorted({*RoundManifests(lake.store).rounds(), *merged})
    existing = f"Existing rounds: {', '.join(known)}." if known else "No round exists yet."
    unknown = [key for key in named if key not in known]
    if unknown:
        raise DataError(f"there is no round {unknown[0]}. {existing}")
    open_ = [key for key in named or known if key not in merged]
    if open_ and (named or not merged):
        done = f"Merged rounds: {', '.join(merged)}." if merged else "No round is merged yet."
        raise NotReadyError(
            f"{open_[0]} is not merged yet: it can be replayed once its annotations are merged. "
            f"{done}"
        )
    if not merged:
        raise NotReadyError(f"there is no round to replay. {existing}")
    cancelled = cancelled_rounds(lake.store, named or merged)
    for key in named:
        if key in cancelled:
            raise DataError(f"{key} was {cancelled[key]}: its annotations do not count. Omit it.")
    replayable = [key for key in sorted(set(named or merged)) if key not in cancelled]
    if not replayable:
        raise NotReadyError(f"there is no round to replay: {', '.join(merged)} were cancelled.")
    return replayable


def _round_labels(round_id: str, lake: Lake) -> tuple[pd.DataFrame, str]:
    """Return the labels of a round with the ``batch`` of each annotation, and a note or "".

    An assignment that replaces one whose replica was lost belongs to the batch of the original.
    Gold tasks never get further annotations: if other tasks did, gold tasks do not represent them.
    """
    labels = lake.tables.read(HumanLabels, round_id)
    batch_of: dict[tuple[str, int], int] = {}
    for number, (_, assignments) in enumerate(AssignmentPlan(lake.store, round_id).batches()):
        for each in assignments:
            first = batch_of.get((each.image_id, each.fills_assignment), number)
            batch_of[each.image_id, each.assignment] = first
    slots = zip(labels[HumanLabels.image_id], labels[HumanLabels.assignment], strict=True)
    batches = [batch_of.get((str(image), int(slot)), 0) for image, slot in slots]
    labels = labels.assign(batch=pd.Series(batches, index=labels.index, dtype="int64"))
    # A reinstalled back end numbers its annotations from 1 again.
    labels[HumanLabels.annotation_id] = f"{round_id}/" + labels[HumanLabels.annotation_id]
    gold = labels[HumanLabels.purpose] == "gold"
    if (labels["batch"] > 0).any() and gold.any():
        return labels[~gold], (
            f"gold tasks of {round_id} are not used: unlike other tasks, they got no further"
            " annotations"
        )
    return labels, ""


def _predicted(labels: pd.DataFrame, lake: Lake, policy: Policy) -> dict[str, frozenset[str]]:
    """Return by task the predicted classes, by today's threshold."""
    predicted: dict[str, frozenset[str]] = {}
    for key, tasks in labels.drop_duplicates("task_id").groupby("round_id"):
        made = lake.tables.read_rounds(ModelPredictions, [str(key)])
        shown = shown_predictions(
            made, policy.ontology, minimum_score=policy.labeling.minimum_score
        )
        classes = shown.groupby("image_id")["class_name"].agg(frozenset)
        pairs = zip(tasks["task_id"], tasks["image_id"], strict=True)
        predicted |= {str(task): classes[image] for task, image in pairs if image in classes.index}
    return predicted


def _review_seconds(rounds: Sequence[str], lake: Lake) -> float:
    """Return the mean review time of an image; 0 without reviews."""
    latest: dict[tuple[str, str], Submission] = {}
    for key in rounds:
        for revision in AnnotationsLedger(lake.store).read(review_round(key)):
            submission = revision.submission
            latest[submission.backend, f"{key}/{submission.annotation}"] = submission
    times = [each.lead_time_seconds for each in latest.values() if not each.skipped]
    return sum(times) / len(times) if times else 0.0
