"""The cleaning pass: each landed object ends accepted, duplicate of one, or quarantined."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import (
    Header,
    Pixels,
    decode,
    encode_png,
    read_header,
    true_extension,
)
from annotation_platform.images.hashing import perceptual_hash, pixel_sha256
from annotation_platform.images.ingest import image_key, raw_key
from annotation_platform.images.near_duplicates import close_hashes, confirmed
from annotation_platform.images.privacy import strip_jpeg, strip_png
from annotation_platform.images.quality import measure, unusable
from annotation_platform.params import CleaningPolicy
from annotation_platform.schema.tables import make_table, records
from annotation_platform.storage.objects import ObjectStore

_PLAIN_MODES = {"JPEG": {"L", "RGB"}, "PNG": {"L", "RGB", "P", "1"}}
_WORKERS = 2
_NOTHING_KNOWN: dict[str, object] = {
    "duplicate_of": None,
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
    "flags": "",
}


@dataclass
class _Seen:
    """What the pass found out about one distinct picture; ``data`` is what would be stored."""

    facts: dict[str, object] = field(default_factory=dict)
    reason: str = ""
    data: bytes = b""


def clean_round(
    raw: pd.DataFrame,
    earlier: pd.DataFrame,
    store: ObjectStore,
    policy: CleaningPolicy,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Return the ``cleaned_images`` table of a round and store its accepted pictures.

    Args:
        raw: the round's ``raw_images``.
        earlier: ``cleaned_images`` of all earlier rounds; only their accepted rows count. A picture
            that repeats one of them, or one before it in this round (by name), is its duplicate.
        store: the lake, with the landed bytes in it.
        policy: the limits.
        progress: told how many distinct pictures were looked at.

    Returns:
        One row per row of ``raw``, in its order. Accepted pictures keep their coded data where it
        needs no change; metadata is cut out of all of them.
    """
    rows = raw.sort_values(["source_key", "stamp"], kind="stable")
    distinct = list(dict.fromkeys(rows["image_id"].dropna()))
    seen: dict[str, _Seen] = {}
    with ThreadPoolExecutor(_WORKERS) as pool:
        looks = pool.map(lambda image_id: _look(store, image_id, policy), distinct)
        for count, (image_id, look) in enumerate(zip(distinct, looks, strict=True), start=1):
            seen[image_id] = look
            progress(count)
    duplicates = _find_duplicates(distinct, seen, earlier, store, policy)
    accepted: dict[str, str] = {}
    result = [_row(row, seen, duplicates, accepted) for row in records(rows)]
    for image_id, extension in accepted.items():
        store.create(image_key(image_id, extension), seen[image_id].data)
    order = {(row["source_key"], row["stamp"]): row for row in result}
    in_order = [order[key] for key in zip(raw["source_key"], raw["stamp"], strict=True)]
    return make_table("cleaned_images", in_order)


def _look(store: ObjectStore, image_id: str, policy: CleaningPolicy) -> _Seen:
    try:
        return _inspect(store.get(raw_key(image_id)), policy)
    except DataError as error:
        return _Seen(reason=str(error))


def _inspect(raw: bytes, policy: CleaningPolicy) -> _Seen:
    header = read_header(raw)
    if header.width * header.height > policy.maximum_pixels:
        raise DataError(
            f"too many pixels: {header.width}x{header.height}, at most {policy.maximum_pixels}"
        )
    pixels = decode(raw)
    data, extension, flags = _to_store(raw, header, pixels)
    height, width = pixels.shape[:2]
    quality = measure(pixels)
    facts: dict[str, object] = {
        "width": width,
        "height": height,
        "extension": extension,
        "stored_sha256": hashlib.sha256(data).hexdigest(),
        "stored_md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "stored_bytes": len(data),
        "pixel_sha256": pixel_sha256(pixels),
        "perceptual_hash": perceptual_hash(pixels),
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "flags": ",".join(flags),
    }
    return _Seen(facts, unusable(quality, width=width, height=height, policy=policy), data)


def _to_store(raw: bytes, header: Header, pixels: Pixels) -> tuple[bytes, str, list[str]]:
    """Return the bytes to store, their extension and what was changed on the way."""
    flags = ["first_frame"] if header.frames > 1 else []
    plain = header.mode in _PLAIN_MODES.get(header.format, set()) and header.orientation == 1
    if plain:
        stripped = strip_jpeg(raw) if header.format == "JPEG" else strip_png(raw)
        if stripped != raw:
            flags.append("metadata_cut")
        return stripped, true_extension(header), flags
    if header.orientation != 1:
        flags.append("rotated")
    return encode_png(pixels), "png", [*flags, f"converted_from_{header.format}_{header.mode}"]


def _find_duplicates(
    distinct: list[str],
    seen: dict[str, _Seen],
    earlier: pd.DataFrame,
    store: ObjectStore,
    policy: CleaningPolicy,
) -> dict[str, tuple[str, str]]:
    """Return (kind, image_id of the accepted original) for each picture that repeats another."""
    known = earlier[earlier["outcome"] == "accepted"]
    files = dict(zip(known["image_id"], known["extension"], strict=True))
    by_pixels = dict(zip(known["pixel_sha256"], known["image_id"], strict=True))
    hashes = dict(zip(known["image_id"], known["perceptual_hash"], strict=True))
    found: dict[str, tuple[str, str]] = {}
    for image_id in distinct:
        look = seen[image_id]
        if image_id in files:
            found[image_id] = ("exact_bytes", image_id)
        elif look.facts and not look.reason:
            pixels = str(look.facts["pixel_sha256"])
            if pixels in by_pixels:
                found[image_id] = ("exact_pixels", by_pixels[pixels])
                continue
            own_hash = str(look.facts["perceptual_hash"])
            original = _near(image_id, own_hash, hashes, seen, files, store, policy)
            if original:
                found[image_id] = ("near", original)
            else:
                by_pixels[pixels] = image_id
                hashes[image_id] = own_hash
    return found


def _near(
    image_id: str,
    own_hash: str,
    hashes: dict[str, str],
    seen: dict[str, _Seen],
    files: dict[str, str],
    store: ObjectStore,
    policy: CleaningPolicy,
) -> str:
    known = list(hashes)
    pairs = close_hashes([own_hash], list(hashes.values()), bits=policy.duplicate_bits)

    def load_known(position: int) -> Pixels:
        other = known[position]
        data = seen[other].data if other in seen else store.get(image_key(other, files[other]))
        return decode(data)

    matches = confirmed(pairs, lambda _: decode(seen[image_id].data), load_known)
    return known[matches[0]] if matches else ""


def _row(
    raw_row: dict[str, object],
    seen: dict[str, _Seen],
    duplicates: dict[str, tuple[str, str]],
    accepted: dict[str, str],
) -> dict[str, object]:
    """Return the cleaned row of one raw row; ``accepted`` collects what must be stored."""
    image_id = raw_row["image_id"]
    row: dict[str, object] = {
        **{key: raw_row[key] for key in ("round_id", "source_key", "stamp", "image_id")},
        **_NOTHING_KNOWN,
    }
    if not isinstance(image_id, str):
        return {**row, "outcome": "quarantined", "reason": str(raw_row["problem"])}
    look = seen[image_id]
    row.update(look.facts)
    if image_id in duplicates:
        kind, original = duplicates[image_id]
        ids = {"duplicate_of": original, "group_id": original}
        return {**row, **ids, "outcome": "duplicate", "reason": kind}
    if look.reason:
        return {**row, "outcome": "quarantined", "reason": look.reason}
    if image_id in accepted:
        ids = {"duplicate_of": image_id, "group_id": image_id}
        return {**row, **ids, "outcome": "duplicate", "reason": "exact_bytes"}
    accepted[image_id] = str(look.facts["extension"])
    return {**row, "group_id": image_id, "outcome": "accepted", "reason": ""}
