"""Reconciliation of the first two stages: every arrival has exactly one outcome."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.gates import missing_outcomes
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.rounds import Arrivals, RoundManifests, new_objects
from annotation_platform.schema.keys import image_key, raw_key
from annotation_platform.schema.rounds import Arrival, whole_key
from annotation_platform.schema.tables import CleanedImages, Frame, records
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class Reconciliation:
    """Arrivals by outcome; the numbers add up to ``landed`` unless there are problems.

    ``pending`` counts arrivals whose round is not formed or not cleaned yet. ``problems`` has a
    sentence for each discrepancy, with round and name.
    """

    landed: int
    accepted: int
    duplicates: int
    quarantined: int
    pending: int
    problems: list[str]


def reconcile_arrivals(lake: Lake, landed: Arrivals) -> Reconciliation:
    """Return the reconciliation of all rounds and of the objects that have landed since."""
    rounds = {
        key: RoundManifests(lake.store).read(key) for key in RoundManifests(lake.store).rounds()
    }
    cleaned = {
        key: lake.tables.read(CleanedImages, key) for key in lake.tables.rounds(CleanedImages)
    }
    problems = _in_two_rounds(rounds)
    for key, table in cleaned.items():
        problems += [f"{key}: {each}" for each in missing_outcomes(rounds[key], table)]
    every = pd.concat(cleaned.values()) if cleaned else lake.tables.read_all(CleanedImages)
    problems += _without_original(every)
    outcomes = Counter(every[CleanedImages.outcome])
    taken = {item for objects in rounds.values() for item in objects}
    new = new_objects(landed, taken)
    uncleaned = [item for key, objects in rounds.items() if key not in cleaned for item in objects]
    # Every image of an object counts where an object has several.
    parts = set(
        zip(every[CleanedImages.source_key], every[CleanedImages.arrival_version], strict=True)
    )
    parts -= {(item.key, item.stamp) for item in taken}
    wholes = {(whole_key(key), stamp) for key, stamp in parts}
    total = len(new) + sum(len(objects) for objects in rounds.values()) + len(parts) - len(wholes)
    result = Reconciliation(
        landed=total,
        accepted=outcomes[Outcome.ACCEPTED],
        duplicates=outcomes[Outcome.DUPLICATE],
        quarantined=outcomes[Outcome.QUARANTINED],
        pending=len(new) + len(uncleaned),
        problems=problems,
    )
    reconciled = sum(outcomes.values()) + result.pending
    if reconciled != total:
        problems.append(f"{total} objects landed, but {reconciled} have an outcome or are pending")
    return result


def damaged_images(lake: Lake) -> list[str]:
    """Return the files of accepted images, landed or stored, that are missing or changed."""
    problems = []
    for row in records(accepted_images(lake.tables)):
        image_id, extension = str(row[CleanedImages.image_id]), str(row[CleanedImages.extension])
        for key, digest in (
            (raw_key(image_id), image_id),
            (image_key(image_id, extension), str(row[CleanedImages.stored_sha256])),
        ):
            if not lake.store.exists(key):
                problems.append(f"{key}: is missing")
            elif hashlib.sha256(lake.store.get(key)).hexdigest() != digest:
                problems.append(f"{key}: has changed since it was stored")
    return problems


def _in_two_rounds(rounds: dict[str, list[Arrival]]) -> list[str]:
    first: dict[Arrival, str] = {}
    twice = []
    for key, objects in rounds.items():
        for item in objects:
            if first.setdefault(item, key) != key:
                twice.append(f"{item.key!r} is in {first[item]} and in {key}")
    return twice


def _without_original(cleaned: Frame[CleanedImages]) -> list[str]:
    outcome = cleaned[CleanedImages.outcome]
    accepted = set(cleaned.loc[outcome == Outcome.ACCEPTED, CleanedImages.image_id])
    duplicates = cleaned[outcome == Outcome.DUPLICATE]
    lost = duplicates[~duplicates[CleanedImages.duplicate_of].isin(accepted)]
    return [
        f"{key!r} is a duplicate of an image that is not accepted"
        for key in lost[CleanedImages.source_key]
    ]
