"""The books of the first two stages: each landed object ends in exactly one way."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.rounds import Arrivals, RoundManifests, new_objects
from annotation_platform.schema.rounds import Arrival
from annotation_platform.schema.tables import CleanedImages, records
from annotation_platform.storage.keys import image_key, raw_key
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class Account:
    """How many landed objects ended how; they add up to ``landed`` where nothing is wrong.

    ``pending`` are those whose round is not formed or not cleaned yet. ``problems`` says what does
    not add up, each with its round and name.
    """

    landed: int
    accepted: int
    duplicates: int
    quarantined: int
    pending: int
    problems: list[str]


def account_of(lake: Lake, landed: Arrivals) -> Account:
    """Return the account of everything that ever landed, and what of ``landed`` still waits."""
    rounds = {
        key: RoundManifests(lake.store).read(key) for key in RoundManifests(lake.store).rounds()
    }
    cleaned = {key: lake.tables.read(CleanedImages, key) for key in _cleaned(lake)}
    problems = _in_two_rounds(rounds)
    for key, table in cleaned.items():
        problems += [f"{key}: {each}" for each in missing_outcomes(rounds[key], table)]
    every = pd.concat(cleaned.values()) if cleaned else lake.tables.read_all(CleanedImages)
    problems += _without_original(every)
    outcomes = Counter(every["outcome"])
    taken = {item for objects in rounds.values() for item in objects}
    new = new_objects(landed, taken)
    uncleaned = [item for key, objects in rounds.items() if key not in cleaned for item in objects]
    total = len(new) + sum(len(objects) for objects in rounds.values())
    account = Account(
        landed=total,
        accepted=outcomes["accepted"],
        duplicates=outcomes["duplicate"],
        quarantined=outcomes["quarantined"],
        pending=len(new) + len(uncleaned),
        problems=problems,
    )
    ended = sum(outcomes.values()) + account.pending
    if ended != total:
        problems.append(f"{total} objects landed, and {ended} are accounted for")
    return account


def missing_outcomes(objects: Sequence[Arrival], cleaned: pd.DataFrame) -> list[str]:
    """Return the objects of a round that do not have exactly one row in its ``cleaned_images``."""
    rows = Counter(zip(cleaned["source_key"], cleaned["stamp"], strict=True))
    wanted = {(item.key, item.stamp) for item in objects}
    wrong = [f"{key!r} has {rows[key, stamp]} outcomes" for key, stamp in sorted(wanted)
             if rows[key, stamp] != 1]  # fmt: skip
    return wrong + [f"{key!r} never landed" for key, _ in sorted(set(rows) - wanted)]


def damaged_images(lake: Lake) -> list[str]:
    """Return which files of accepted images, landed or stored, are missing or changed."""
    problems = []
    for row in records(accepted_images(lake.tables)):
        image_id, extension = str(row["image_id"]), str(row["extension"])
        for key, digest in (
            (raw_key(image_id), image_id),
            (image_key(image_id, extension), str(row["stored_sha256"])),
        ):
            if not lake.store.exists(key):
                problems.append(f"{key}: is missing")
            elif hashlib.sha256(lake.store.get(key)).hexdigest() != digest:
                problems.append(f"{key}: is not what was stored")
    return problems


def _cleaned(lake: Lake) -> list[str]:
    return lake.tables.rounds(CleanedImages)


def _in_two_rounds(rounds: dict[str, list[Arrival]]) -> list[str]:
    first: dict[Arrival, str] = {}
    twice = []
    for key, objects in rounds.items():
        for item in objects:
            if first.setdefault(item, key) != key:
                twice.append(f"{item.key!r} is in {first[item]} and in {key}")
    return twice


def _without_original(cleaned: pd.DataFrame) -> list[str]:
    accepted = set(cleaned.loc[cleaned["outcome"] == "accepted", "image_id"])
    repeats = cleaned[cleaned["outcome"] == "duplicate"]
    lost = repeats[~repeats["duplicate_of"].isin(accepted)]
    return [f"{key!r} repeats an image that is not accepted" for key in lost["source_key"]]
