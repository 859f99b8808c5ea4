"""What becomes of each row of a round, once all its images were looked at."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from annotation_platform.images.decoding import misnamed
from annotation_platform.images.probing import Probe
from annotation_platform.images.repeats import Newcomer, Standing, find_standings
from annotation_platform.images.signature import SignatureTable, set_signature
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.rounds import RELEASED

_NOTHING_KNOWN: dict[str, object] = {
    "duplicate_of": None,
    "similar_to": None,
    "group_id": None,
    "joins": "",
    "width": 0,
    "height": 0,
    "extension": "",
    "stored_sha256": None,
    "stored_md5": None,
    "stored_bytes": 0,
    "pixel_sha256": None,
    "perceptual_hash": None,
    "sharpness": None,
    "brightness": None,
    "entropy": None,
    "flags": "",
}
_METADATA_COLUMNS = {"geo": ("latitude", "longitude")}
"""Columns of ``raw_images`` of a field of metadata, where they are not called as it is."""


@dataclass(frozen=True)
class Arriving:
    """The row, by its place, that brings a new image in; a person may have released it."""

    place: int
    is_released: bool


def has_bytes(row: Mapping[str, object]) -> bool:
    """Return whether a row's object could be read."""
    return isinstance(row["image_id"], str)


def needed_columns(policy: CleaningPolicy) -> list[str]:
    """Return the columns of ``raw_images`` that judging by this policy needs."""
    asked = [_METADATA_COLUMNS.get(name, (name,)) for name in policy.mandatory_metadata]
    return ["round_id", "source_key", "stamp", "image_id", "problem", *chain(*asked)]


def put_away(look: Probe, image_id: str, signatures: SignatureTable, row: int) -> Probe:
    """Return the look without its signature, which goes into a row of ``signatures``."""
    if look.signature is not None:
        set_signature(signatures[row], image_id, look.signature)
    return Probe(look.facts, look.reason, look.format)


def judge(
    rows: Sequence[dict[str, object]],
    seen: dict[str, Probe],
    known: pd.DataFrame,
    signatures: SignatureTable,
    policy: CleaningPolicy,
) -> list[dict[str, object]]:
    """Return a row of ``cleaned_images`` for each of ``raw_images``.

    Of several rows with the same bytes the first that may is accepted, a released one before
    others, and the others repeat it.

    Args:
        rows: of ``raw_images``, in the order in which they may become originals.
        seen: the look at each image id.
        known: accepted rows of ``cleaned_images`` that were there before.
        signatures: of the known images, then of those seen, in their order.
        policy: the limits.
    """
    groups = dict(zip(known["image_id"], known["group_id"], strict=True))
    entrants: dict[str, Arriving] = {}
    refusals = [_refusal(row, seen, groups, policy) for row in rows]
    for place, (row, refusal) in enumerate(zip(rows, refusals, strict=True)):
        image_id = str(row["image_id"])
        held = entrants.get(image_id)
        if not refusal and image_id not in groups:
            entrant = Arriving(place, _is_released(row))
            if held is None or (entrant.is_released and not held.is_released):
                entrants[image_id] = entrant
    places = {image_id: row for row, image_id in enumerate(seen, start=len(known))}
    newcomers = [
        _newcomer(image_id, seen[image_id], entrant, places[image_id])
        for image_id, entrant in sorted(entrants.items(), key=lambda item: item[1].place)
    ]
    standings = find_standings(newcomers, known, signatures, bits=policy.duplicate_bits)
    judged = []
    for place, (row, refusal) in enumerate(zip(rows, refusals, strict=True)):
        image_id = str(row["image_id"])
        facts = _facts(row, seen)
        if refusal:
            facts |= {"outcome": "quarantined", "reason": refusal}
        elif image_id in groups:
            facts |= _duplicate("exact_bytes", image_id, groups[image_id])
        else:
            facts |= _settled(image_id, place, standings[image_id], entrants[image_id], facts)
        judged.append(facts)
    return judged


def _settled(
    image_id: str, place: int, standing: Standing, entrant: Arriving, facts: Mapping[str, object]
) -> dict[str, object]:
    """Return what becomes of a row whose image is sound and new in this round."""
    if standing.original is not None:
        return _duplicate(standing.repeats, standing.original, standing.group_id)
    if place != entrant.place:
        return _duplicate("exact_bytes", image_id, standing.group_id)
    flags = [
        *filter(None, [facts["flags"]]),
        *(["similar"] if standing.similar_to else []),
        *(["joins_groups"] if standing.joins else []),
        *(["released"] if entrant.is_released else []),
    ]
    return {
        "outcome": "accepted",
        "reason": "",
        "similar_to": standing.similar_to,
        "group_id": standing.group_id,
        "joins": ",".join(standing.joins),
        "flags": ",".join(map(str, flags)),
    }


def _duplicate(kind: str, original: str, group: str) -> dict[str, object]:
    return {
        "outcome": "duplicate",
        "reason": kind,
        "duplicate_of": original,
        "group_id": group,
    }


def _facts(raw_row: Mapping[str, object], seen: Mapping[str, Probe]) -> dict[str, object]:
    """Return the columns of ``cleaned_images`` that are no matter of judgement."""
    row: dict[str, object] = {
        **{key: raw_row[key] for key in ("round_id", "source_key", "stamp", "image_id")},
        **_NOTHING_KNOWN,
    }
    if has_bytes(raw_row):
        look = seen[str(raw_row["image_id"])]
        row |= look.facts
        if misnamed(str(raw_row["source_key"]), look.format):
            row["flags"] = ",".join(filter(None, [str(row["flags"]), "extension_mismatch"]))
    return row


def _refusal(
    row: Mapping[str, object],
    seen: Mapping[str, Probe],
    known: Container[str],
    policy: CleaningPolicy,
) -> str:
    """Return why a row can neither be accepted nor be a duplicate; empty if it can."""
    problem = str(row["problem"])
    if not has_bytes(row):
        return problem
    look = seen[str(row["image_id"])]
    if not look.facts:
        return look.reason
    if _is_released(row):
        return ""
    # What is in the lake already was good enough by the policy of its day.
    poor = "" if row["image_id"] in known else look.reason
    missing = [name for name in policy.mandatory_metadata if _is_missing(row, name)]
    return problem or poor or (f"missing metadata: {', '.join(missing)}" if missing else "")


def _is_missing(row: Mapping[str, object], name: str) -> bool:
    values: list[Any] = [row.get(column) for column in _METADATA_COLUMNS.get(name, (name,))]
    return any(pd.isna(value) or not str(value).strip() for value in values)


def _is_released(row: Mapping[str, object]) -> bool:
    return str(row["stamp"]).startswith(RELEASED)


def _newcomer(image_id: str, look: Probe, entrant: Arriving, row: int) -> Newcomer:
    width, height = (float(str(look.facts[side])) for side in ("width", "height"))
    pixels = str(look.facts["pixel_sha256"])
    return Newcomer(image_id, row, pixels, width / height, entrant.is_released)
