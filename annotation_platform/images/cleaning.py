"""The cleaning pass: each landed object ends accepted, duplicate of one, or quarantined.

A round is gone through twice, so that never more than a few pictures are in memory: the first
pass looks at each picture, then all are compared, and the second stores those that are accepted.
"""

import hashlib
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import (
    Header,
    Picture,
    Pixels,
    decode_picture,
    encode_png,
    misnamed,
    read_header,
    true_extension,
)
from annotation_platform.images.hashing import pixel_sha256
from annotation_platform.images.likeness import (
    Likeness,
    LikenessTable,
    likeness,
    likeness_rows,
    set_likeness,
)
from annotation_platform.images.likeness_files import read_likenesses, write_likenesses
from annotation_platform.images.originals import Newcomer, Standing, find_standings
from annotation_platform.images.parallel import map_each
from annotation_platform.images.privacy import picture_end, strip_jpeg, strip_png
from annotation_platform.images.quality import is_uniform, measure, unusable
from annotation_platform.images.reduced import reduced
from annotation_platform.params import CleaningPolicy
from annotation_platform.schema.rounds import RELEASED
from annotation_platform.schema.tables import make_table, records
from annotation_platform.storage.keys import image_key, raw_key
from annotation_platform.storage.objects import ObjectStore

_PLAIN_MODES = {"JPEG": {"L", "RGB"}, "MPO": {"L", "RGB"}, "PNG": {"L", "RGB", "P", "1"}}
_LARGE_PIXELS = 16_000_000
_large = threading.Lock()
"""Pictures of more than ``_LARGE_PIXELS`` take turns, so that two never need memory at once."""
_NOTHING_KNOWN: dict[str, object] = {
    "duplicate_of": None,
    "similar_to": None,
    "group_id": None,
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
_CONVERTED = "converted_from_"
_METADATA_COLUMNS = {"geo": ("latitude", "longitude")}
"""Columns of ``raw_images`` of a field of metadata, where they are not called as it is."""


@dataclass(frozen=True)
class Look:
    """What one look at a picture found out.

    ``facts`` are columns of ``cleaned_images``, empty where it could not be decoded; ``reason``
    says why nobody could label it, empty if one could; ``format`` is what the landed bytes are,
    whatever their name says; ``likeness`` is for finding it again.
    """

    facts: dict[str, object] = field(default_factory=dict)
    reason: str = ""
    format: str = ""
    likeness: Likeness | None = None


@dataclass(frozen=True)
class LookAt:
    """Looks at the landed picture of an image id."""

    store: ObjectStore
    policy: CleaningPolicy

    def __call__(self, image_id: str) -> Look:
        """Return what a look finds; what cannot be read or decoded has the reason alone."""
        try:
            return look_at(self.store.get(raw_key(image_id)), self.policy)
        except DataError as error:
            return Look(reason=str(error))


@dataclass(frozen=True)
class Accepted:
    """A picture to be stored: what its stored bytes must be, and whether they are made anew."""

    image_id: str
    extension: str
    stored_sha256: str
    is_converted: bool
    is_large: bool


@dataclass(frozen=True)
class Keep:
    """Stores an accepted picture, if it is not there yet."""

    store: ObjectStore

    def __call__(self, picture: Accepted) -> None:
        """Store it; a DataError if what landed is no longer what was looked at."""
        key = raw_key(picture.image_id)
        with _large if picture.is_large else nullcontext():
            data = stored_bytes(self.store.get(key), is_converted=picture.is_converted)
        if hashlib.sha256(data).hexdigest() != picture.stored_sha256:
            raise DataError(
                f"{key}: changed in the lake while it was cleaned. Restore it and clean again."
            )
        self.store.create(image_key(picture.image_id, picture.extension), data)


@dataclass(frozen=True)
class Entrant:
    """The row, by its place, that brings a new picture in; a person may have released it."""

    place: int
    is_released: bool


def clean_round(
    raw: pd.DataFrame,
    earlier: pd.DataFrame,
    store: ObjectStore,
    policy: CleaningPolicy,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Return the ``cleaned_images`` table of a round and store its accepted pictures.

    Their likenesses are stored beside them, for later rounds.

    Args:
        raw: the round's ``raw_images``. A row with a problem or without mandatory metadata is
            quarantined. One that a person released is accepted whatever its quality, metadata or
            look-alikes, if it can be decoded and its bytes and pixels are not there yet.
        earlier: ``cleaned_images`` of all earlier rounds; only their accepted rows count. A picture
            that repeats one of them, or one before it in this round (by name), is its duplicate;
            see `find_standings`.
        store: the lake, with the landed bytes in it.
        policy: the limits.
        progress: told how many distinct pictures were looked at.

    Returns:
        One row per row of ``raw``, in its order. Accepted pictures keep their coded data where it
        needs no change; metadata is cut out of all of them.
    """
    rows = records(raw.sort_values(["source_key", "stamp"], kind="stable"))
    distinct = list(dict.fromkeys(str(row["image_id"]) for row in rows if _has_bytes(row)))
    known = earlier[earlier["outcome"] == "accepted"].reset_index(drop=True)
    likenesses = likeness_rows(len(known) + len(distinct))
    read_likenesses(store, known, likenesses[: len(known)])
    seen: dict[str, Look] = {}
    looks = zip(distinct, look_at_all(LookAt(store, policy), distinct), strict=True)
    for count, (image_id, look) in enumerate(looks, start=1):
        seen[image_id] = put_away(look, image_id, likenesses, len(known) + count - 1)
        progress(count)
    result = judge(rows, seen, known, likenesses, policy)
    accepted = [row for row in result if row["outcome"] == "accepted"]
    for _ in map_each(Keep(store), [_to_keep(row) for row in accepted]):
        pass
    if accepted:
        places = {image_id: place for place, image_id in enumerate(distinct, start=len(known))}
        kept = np.array([places[str(row["image_id"])] for row in accepted])
        write_likenesses(store, str(accepted[0]["round_id"]), likenesses, kept)
    order = {(row["source_key"], row["stamp"]): row for row in result}
    in_order = [order[key] for key in zip(raw["source_key"], raw["stamp"], strict=True)]
    return make_table("cleaned_images", in_order)


def look_at_all(look: Callable[[str], Look], names: Sequence[str]) -> Iterator[Look]:
    """Yield the look at each picture, in order, several at a time."""
    return map_each(look, names)


def look_at(raw: bytes, policy: CleaningPolicy) -> Look:
    """Return what a look at the bytes of one picture finds; bytes that are none are a DataError."""
    if len(raw) > policy.maximum_bytes:
        raise DataError(f"too many bytes: {len(raw)}, at most {policy.maximum_bytes}")
    header = read_header(
        raw, maximum_pixels=policy.maximum_pixels, maximum_frames=policy.maximum_frames
    )
    is_large = header.width * header.height > _LARGE_PIXELS
    with _large if is_large else nullcontext():
        picture = decode_picture(raw)
        data, extension, flags = _to_store(raw, header, picture)
        return _measured(picture.pixels, data, extension, header, flags, policy)


def stored_bytes(raw: bytes, *, is_converted: bool) -> bytes:
    """Return what is stored of a sound picture: its coded data without metadata, or a new PNG."""
    if is_converted:
        return encode_png(decode_picture(raw).pixels)
    return strip_jpeg(raw) if raw[:2] == b"\xff\xd8" else strip_png(raw)


def put_away(look: Look, image_id: str, likenesses: LikenessTable, row: int) -> Look:
    """Return the look without its likeness, which goes into a row of ``likenesses``."""
    if look.likeness is not None:
        set_likeness(likenesses[row], image_id, look.likeness)
    return Look(look.facts, look.reason, look.format)


def judge(
    rows: Sequence[dict[str, object]],
    seen: dict[str, Look],
    known: pd.DataFrame,
    likenesses: LikenessTable,
    policy: CleaningPolicy,
) -> list[dict[str, object]]:
    """Return a row of ``cleaned_images`` for each of ``raw_images``.

    Of several rows with the same bytes the first that may is accepted, a released one before
    others, and the others repeat it.

    Args:
        rows: of ``raw_images``, in the order in which they may become originals.
        seen: the look at each image id.
        known: accepted rows of ``cleaned_images`` that were there before.
        likenesses: of the known pictures, then of those seen, in their order.
        policy: the limits.
    """
    groups = dict(zip(known["image_id"], known["group_id"], strict=True))
    entrants: dict[str, Entrant] = {}
    refusals = [_refusal(row, seen, groups, policy) for row in rows]
    for place, (row, refusal) in enumerate(zip(rows, refusals, strict=True)):
        image_id = str(row["image_id"])
        held = entrants.get(image_id)
        if not refusal and image_id not in groups:
            entrant = Entrant(place, _is_released(row))
            if held is None or (entrant.is_released and not held.is_released):
                entrants[image_id] = entrant
    places = {image_id: row for row, image_id in enumerate(seen, start=len(known))}
    newcomers = [
        _newcomer(image_id, seen[image_id], entrant, places[image_id])
        for image_id, entrant in sorted(entrants.items(), key=lambda item: item[1].place)
    ]
    standings = find_standings(newcomers, known, likenesses, bits=policy.duplicate_bits)
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
    image_id: str, place: int, standing: Standing, entrant: Entrant, facts: Mapping[str, object]
) -> dict[str, object]:
    """Return what becomes of a row whose picture is sound and new in this round."""
    if standing.original is not None:
        return _duplicate(standing.repeats, standing.original, standing.group_id)
    if place != entrant.place:
        return _duplicate("exact_bytes", image_id, standing.group_id)
    flags = [
        *filter(None, [facts["flags"]]),
        *(["similar"] if standing.similar_to else []),
        *(["joins_groups"] if standing.joins_groups else []),
        *(["released"] if entrant.is_released else []),
    ]
    return {
        "outcome": "accepted",
        "reason": "",
        "similar_to": standing.similar_to,
        "group_id": standing.group_id,
        "flags": ",".join(map(str, flags)),
    }


def _duplicate(kind: str, original: str, group: str) -> dict[str, object]:
    return {
        "outcome": "duplicate",
        "reason": kind,
        "duplicate_of": original,
        "group_id": group,
    }


def _facts(raw_row: Mapping[str, object], seen: Mapping[str, Look]) -> dict[str, object]:
    """Return the columns of ``cleaned_images`` that are no matter of judgement."""
    row: dict[str, object] = {
        **{key: raw_row[key] for key in ("round_id", "source_key", "stamp", "image_id")},
        **_NOTHING_KNOWN,
    }
    if _has_bytes(raw_row):
        look = seen[str(raw_row["image_id"])]
        row |= look.facts
        if misnamed(str(raw_row["source_key"]), look.format):
            row["flags"] = ",".join(filter(None, [str(row["flags"]), "extension_mismatch"]))
    return row


def _refusal(
    row: Mapping[str, object],
    seen: Mapping[str, Look],
    known: Container[str],
    policy: CleaningPolicy,
) -> str:
    """Return why a row can neither be accepted nor be a duplicate; empty if it can."""
    problem = str(row["problem"])
    if not _has_bytes(row):
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


def _has_bytes(row: Mapping[str, object]) -> bool:
    return isinstance(row["image_id"], str)


def _is_released(row: Mapping[str, object]) -> bool:
    return str(row["stamp"]).startswith(RELEASED)


def _newcomer(image_id: str, look: Look, entrant: Entrant, row: int) -> Newcomer:
    width, height = (float(str(look.facts[side])) for side in ("width", "height"))
    pixels = str(look.facts["pixel_sha256"])
    return Newcomer(image_id, row, pixels, width / height, entrant.is_released)


def _to_keep(row: Mapping[str, object]) -> Accepted:
    pixels = int(str(row["width"])) * int(str(row["height"]))
    return Accepted(
        str(row["image_id"]),
        str(row["extension"]),
        str(row["stored_sha256"]),
        is_converted=_CONVERTED in str(row["flags"]),
        is_large=pixels > _LARGE_PIXELS,
    )


def _measured(
    pixels: Pixels,
    data: bytes,
    extension: str,
    header: Header,
    flags: list[str],
    policy: CleaningPolicy,
) -> Look:
    height, width = pixels.shape[:2]
    small = reduced(pixels)
    quality, found = measure(small), likeness(small)
    if is_uniform(quality):
        flags = [*flags, "uniform"]
    facts: dict[str, object] = {
        "width": width,
        "height": height,
        "extension": extension,
        "stored_sha256": hashlib.sha256(data).hexdigest(),
        "stored_md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "stored_bytes": len(data),
        "pixel_sha256": pixel_sha256(pixels),
        "perceptual_hash": found.perceptual_hash,
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "entropy": quality.entropy,
        "flags": ",".join(flags),
    }
    reason = unusable(quality, width=width, height=height, policy=policy)
    return Look(facts, reason, header.format, found)


def _to_store(raw: bytes, header: Header, picture: Picture) -> tuple[bytes, str, list[str]]:
    """Return the bytes to store, their extension, and what was noticed or changed on the way."""
    flags = ["multi_frame"] if header.frames > 1 else []
    flags += picture.remarks
    end = picture_end(raw, header.format)
    if end != len(raw):
        flags.append("trailing_data" if end < len(raw) else "end_missing")
    is_plain = header.mode in _PLAIN_MODES.get(header.format, set()) and not picture.transparent
    if is_plain and picture.orientation == 1:
        stripped = stored_bytes(raw, is_converted=False)
        if stripped != raw[:end]:
            flags.append("metadata_cut")
        return stripped, true_extension(header), flags
    if picture.orientation != 1:
        flags.append("rotated")
    flags.append(f"{_CONVERTED}{header.format}_{header.mode}")
    return encode_png(picture.pixels), "png", flags
