"""The record of past rounds, read from the lake; nothing is written, and nobody is asked."""

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
from annotation_platform.labeling.tasks import shown_predictions
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
        lake: where everything is kept.
        policy: today's: its classes, known answers and proposals.
        rounds: their keys.
        sources: where truth may be from; see ``truth.known_truth``.

    Raises:
        DataError: there is no such round, or it was cancelled.
        NotReadyError: a round is not merged yet, or none is.
    """
    keys = _merged(lake, rounds)
    parts = [_round_labels(key, lake) for key in keys]
    notes = [note for _, note in parts if note]
    labels = pd.concat([rows for rows, _ in parts], ignore_index=True)
    if labels.empty:
        raise NotReadyError(f"{', '.join(keys)}: nobody was asked, so there is nothing to replay.")
    split = carry_over(labels, policy.ontology).ask_again
    if split:
        notes.append(f"{len(split)} images with a class that was split since are left out")
        labels = labels[~labels["image_id"].isin(split)].reset_index(drop=True)
    asked = labels[["round_id", "image_id"]].drop_duplicates()
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
        proposed=_proposed(labels, lake, policy),
        review_seconds=_review_seconds(keys, lake),
        notes=(*notes, *truth.notes),
    )


def _merged(lake: Lake, named: Sequence[str]) -> list[str]:
    """Return the rounds to replay: those that are named, or all that can be."""
    merged = lake.tables.rounds(ConsensusLabels)
    known = sorted({*RoundManifests(lake.store).rounds(), *merged})
    there = f"There are: {', '.join(known)}." if known else "There is none yet."
    unknown = [key for key in named if key not in known]
    if unknown:
        raise DataError(f"no round is called {unknown[0]}. {there}")
    open_ = [key for key in named or known if key not in merged]
    if open_ and (named or not merged):
        done = f"Merged are: {', '.join(merged)}." if merged else "No round is merged yet."
        raise NotReadyError(
            f"{open_[0]} is not merged yet: its answers can be replayed once they are in. {done}"
        )
    if not merged:
        raise NotReadyError(f"there is no round to replay. {there}")
    cancelled = cancelled_rounds(lake.store, named or merged)
    for key in named:
        if key in cancelled:
            raise DataError(f"{key} was {cancelled[key]}. Its answers count nowhere; leave it out.")
    kept = [key for key in sorted(set(named or merged)) if key not in cancelled]
    if not kept:
        raise NotReadyError(f"there is no round to replay: {', '.join(merged)} were cancelled.")
    return kept


def _round_labels(round_id: str, lake: Lake) -> tuple[pd.DataFrame, str]:
    """Return the answers of a round, each with its wave, and what to note of them.

    A place that stands for one whose copy was used up is of that one's wave. Nobody asks on about
    images whose answer is known: where others were asked on about, they are no measure of those.
    """
    labels = lake.tables.read(HumanLabels, round_id)
    wave_of: dict[tuple[str, int], int] = {}
    for number, (_, places) in enumerate(AssignmentPlan(lake.store, round_id).batches()):
        for place in places:
            first = wave_of.get((place.image_id, place.stands_for), number)
            wave_of[place.image_id, place.assignment] = first
    places_of = zip(labels["image_id"], labels["place"], strict=True)
    waves = [wave_of.get((str(image), int(place)), 0) for image, place in places_of]
    labels = labels.assign(wave=pd.Series(waves, index=labels.index, dtype="int64"))
    # A back end that was set up anew counts its annotations from 1 again.
    labels["annotation_id"] = f"{round_id}/" + labels["annotation_id"]
    gold = labels["purpose"] == "gold"
    if (labels["wave"] > 0).any() and gold.any():
        return labels[~gold], (
            f"known answers of {round_id} are not used: nobody asked on about them, as about others"
        )
    return labels, ""


def _proposed(labels: pd.DataFrame, lake: Lake, policy: Policy) -> dict[str, frozenset[str]]:
    """Return by task the classes that were proposed, by today's threshold."""
    proposed: dict[str, frozenset[str]] = {}
    for key, tasks in labels.drop_duplicates("task_id").groupby("round_id"):
        made = lake.tables.read_rounds(ModelPredictions, [str(key)])
        shown = shown_predictions(
            made, policy.ontology, minimum_score=policy.labeling.minimum_score
        )
        classes = shown.groupby("image_id")["class_name"].agg(frozenset)
        pairs = zip(tasks["task_id"], tasks["image_id"], strict=True)
        proposed |= {str(task): classes[image] for task, image in pairs if image in classes.index}
    return proposed


def _review_seconds(rounds: Sequence[str], lake: Lake) -> float:
    """Return the mean time of a reviewer for an image; 0 if nobody reviewed."""
    said: dict[tuple[str, str], Submission] = {}
    for key in rounds:
        for revision in AnnotationsLedger(lake.store).read(review_round(key)):
            last = revision.submission
            said[last.backend, f"{key}/{last.annotation}"] = last
    times = [each.lead_time_seconds for each in said.values() if not each.skipped]
    return sum(times) / len(times) if times else 0.0
