"""The cleaning pass: each landed object ends accepted, duplicate of one, or quarantined."""

import hashlib
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import (
    Header,
    Picture,
    Pixels,
    decode,
    decode_picture,
    encode_png,
    misnamed,
    read_header,
    true_extension,
)
from annotation_platform.images.hashing import perceptual_hash, pixel_sha256
from annotation_platform.images.ingest import image_key, raw_key
from annotation_platform.images.near_duplicates import close_hashes, confirmed
from annotation_platform.images.privacy import picture_end, strip_jpeg, strip_png
from annotation_platform.images.quality import is_uniform, measure, unusable
from annotation_platform.params import CleaningPolicy
from annotation_platform.schema.tables import make_table, records
from annotation_platform.storage.objects import ObjectStore

_PLAIN_MODES = {"JPEG": {"L", "RGB"}, "MPO": {"L", "RGB"}, "PNG": {"L", "RGB", "P", "1"}}
_WORKERS = 2
_AHEAD = 4
"""So many looks may be done before one is taken: a slow picture lets no others pile up."""
_LARGE_PIXELS = 16_000_000
_large = threading.Lock()
"""Pictures of more than ``_LARGE_PIXELS`` take turns, so that two never need memory at once."""
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


@dataclass(frozen=True)
class Look:
    """What one look at a picture found out.

    ``facts`` are columns of ``cleaned_images``, empty where it could not be decoded; ``reason``
    says why nobody could label it, empty if one could; ``data`` is what would be stored, and
    ``format`` what the landed bytes are, whatever their name says.
    """

    facts: dict[str, object] = field(default_factory=dict)
    reason: str = ""
    data: bytes = b""
    format: str = ""


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
    seen: dict[str, Look] = {}
    looks = look_at_all(distinct, lambda image_id: store.get(raw_key(image_id)), policy)
    for count, (image_id, look) in enumerate(zip(distinct, looks, strict=True), start=1):
        seen[image_id] = look
        progress(count)
    known = earlier[earlier["outcome"] == "accepted"]
    files = dict(zip(known["image_id"], known["extension"], strict=True))

    def load(image_id: str) -> Pixels:
        if image_id in seen:
            return decode(seen[image_id].data)
        return decode(store.get(image_key(image_id, files[image_id])))

    duplicates = find_originals(distinct, seen, known, load, policy)
    result, accepted = judge(records(rows), seen, duplicates)
    for image_id in accepted:
        look = seen[image_id]
        store.create(image_key(image_id, str(look.facts["extension"])), look.data)
    order = {(row["source_key"], row["stamp"]): row for row in result}
    in_order = [order[key] for key in zip(raw["source_key"], raw["stamp"], strict=True)]
    return make_table("cleaned_images", in_order)


def look_at_all(
    names: Sequence[str], read: Callable[[str], bytes], policy: CleaningPolicy
) -> Iterator[Look]:
    """Yield the look at each picture, in order; ``read`` gives the bytes of a name.

    A DataError that ``read`` raises is the reason of that picture, and stops no other.
    """

    def look(name: str) -> Look:
        try:
            return look_at(read(name), policy)
        except DataError as error:
            return Look(reason=str(error))

    with warnings.catch_warnings(), ThreadPoolExecutor(_WORKERS) as pool:
        # What Pillow remarks upon is decided here by limits, strict decoding and flags.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        waiting: deque[Future[Look]] = deque()
        for name in names:
            waiting.append(pool.submit(look, name))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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


def _measured(
    pixels: Pixels,
    data: bytes,
    extension: str,
    header: Header,
    flags: list[str],
    policy: CleaningPolicy,
) -> Look:
    height, width = pixels.shape[:2]
    quality = measure(pixels)
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
        "perceptual_hash": perceptual_hash(pixels),
        "sharpness": quality.sharpness,
        "brightness": quality.brightness,
        "flags": ",".join(flags),
    }
    reason = unusable(quality, width=width, height=height, policy=policy)
    return Look(facts, reason, data, header.format)


def _to_store(raw: bytes, header: Header, picture: Picture) -> tuple[bytes, str, list[str]]:
    """Return the bytes to store, their extension, and what was noticed or changed on the way."""
    flags = ["multi_frame"] if header.frames > 1 else []
    flags += picture.remarks
    end = picture_end(raw, header.format)
    if end != len(raw):
        flags.append("trailing_data" if end < len(raw) else "end_missing")
    is_plain = header.mode in _PLAIN_MODES.get(header.format, set()) and not picture.transparent
    if is_plain and picture.orientation == 1:
        stripped = strip_png(raw) if header.format == "PNG" else strip_jpeg(raw)
        if stripped != raw[:end]:
            flags.append("metadata_cut")
        return stripped, true_extension(header), flags
    if picture.orientation != 1:
        flags.append("rotated")
    flags.append(f"converted_from_{header.format}_{header.mode}")
    return encode_png(picture.pixels), "png", flags


def find_originals(
    distinct: Sequence[str],
    seen: dict[str, Look],
    known: pd.DataFrame,
    load: Callable[[str], Pixels],
    policy: CleaningPolicy,
) -> dict[str, tuple[str, str]]:
    """Return kind and image id of the accepted original for each picture that repeats another.

    Args:
        distinct: image ids, in the order in which they may become originals.
        seen: the look at each of them.
        known: accepted rows of ``cleaned_images`` that were there before.
        load: the pixels of an image id, of ``distinct`` or of ``known``.
        policy: how far apart two hashes of the same picture may be.
    """
    there = set(known["image_id"])
    by_pixels = dict(zip(known["pixel_sha256"], known["image_id"], strict=True))
    hashes = dict(zip(known["image_id"], known["perceptual_hash"], strict=True))
    found: dict[str, tuple[str, str]] = {}
    for image_id in distinct:
        look = seen[image_id]
        if image_id in there:
            found[image_id] = ("exact_bytes", image_id)
        elif look.facts and not look.reason:
            pixels = str(look.facts["pixel_sha256"])
            if pixels in by_pixels:
                found[image_id] = ("exact_pixels", by_pixels[pixels])
                continue
            own_hash = str(look.facts["perceptual_hash"])
            original = _near(image_id, own_hash, hashes, load, policy)
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
    load: Callable[[str], Pixels],
    policy: CleaningPolicy,
) -> str:
    known = list(hashes)
    pairs = close_hashes([own_hash], list(hashes.values()), bits=policy.duplicate_bits)
    # However many candidates there are, the new picture is decoded once.
    own = cache(lambda: load(image_id))
    matches = confirmed(pairs, lambda _: own(), lambda position: load(known[position]))
    return known[matches[0]] if matches else ""


def judge(
    raw_rows: Iterable[dict[str, object]],
    seen: dict[str, Look],
    duplicates: dict[str, tuple[str, str]],
) -> tuple[list[dict[str, object]], list[str]]:
    """Return a row of ``cleaned_images`` for each of ``raw_images``, and the image ids accepted.

    Of several rows with the same bytes the first is accepted and the others repeat it.
    """
    accepted: dict[str, None] = {}
    return [_row(row, seen, duplicates, accepted) for row in raw_rows], list(accepted)


def _row(
    raw_row: dict[str, object],
    seen: dict[str, Look],
    duplicates: dict[str, tuple[str, str]],
    accepted: dict[str, None],
) -> dict[str, object]:
    """Return the cleaned row of one raw row; ``accepted`` collects image ids."""
    image_id = raw_row["image_id"]
    row: dict[str, object] = {
        **{key: raw_row[key] for key in ("round_id", "source_key", "stamp", "image_id")},
        **_NOTHING_KNOWN,
    }
    if not isinstance(image_id, str):
        return {**row, "outcome": "quarantined", "reason": str(raw_row["problem"])}
    look = seen[image_id]
    row.update(look.facts)
    if misnamed(str(raw_row["source_key"]), look.format):
        row["flags"] = ",".join(filter(None, [str(row["flags"]), "extension_mismatch"]))
    if image_id in duplicates:
        kind, original = duplicates[image_id]
        ids = {"duplicate_of": original, "group_id": original}
        return {**row, **ids, "outcome": "duplicate", "reason": kind}
    if look.reason:
        return {**row, "outcome": "quarantined", "reason": look.reason}
    if image_id in accepted:
        ids = {"duplicate_of": image_id, "group_id": image_id}
        return {**row, **ids, "outcome": "duplicate", "reason": "exact_bytes"}
    accepted[image_id] = None
    return {**row, "group_id": image_id, "outcome": "accepted", "reason": ""}
