"""Which images are erased with one: what repeats it, and what looks like it if policy says so."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.governance.erasure.dry_run import DryRunLake
from annotation_platform.governance.erasure.similar_images import look_at, which_show
from annotation_platform.images.signature import SignatureTable, signature_rows
from annotation_platform.images.signature_files import read_signatures
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.ingestion.sources import arrived_only_from
from annotation_platform.provenance.image_history import find_image
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.storage.keys import raw_key
from annotation_platform.storage.lake import Lake

Kind = Literal["image", "source"]

_SHORTEST = 8
_SHOWN = 8


@dataclass(frozen=True)
class Found:
    """What an erasure is about.

    Attributes:
        asked: ids of the images that were named.
        images: these, and what goes with them.
        stay: images of a source that landed from elsewhere as well: they stay.
        landed: name, stamp and sidecar in the landing zone of everything that goes.
        sidecars: SHA-256 of the sidecars that describe nothing else.
        sizes: how many bytes landed of each.
        signatures: of those that were named, of their groups and of what repeats them.
    """

    asked: frozenset[str]
    images: frozenset[str]
    stay: frozenset[str]
    landed: tuple[tuple[str, str, str], ...]
    sidecars: frozenset[str]
    sizes: tuple[int, ...]
    signatures: SignatureTable = field(repr=False)


def find_images(kind: Kind, name: str, lake: Lake, *, near_duplicates: bool, bits: int) -> Found:
    """Return the images that a name means, and what goes with them.

    Args:
        kind: what the name is.
        name: of an image its id or the first eight or more digits of it; of a source what sidecars
            say, or a folder of the landing zone.
        lake: where they are.
        near_duplicates: whether the whole group of an image goes; else only what repeats it.
        bits: how much near-duplicates may differ, as where duplicates are found.

    Raises:
        DataError: nothing is called that, or several images are.
    """
    raw = lake.tables.read_all(RawImages)
    cleaned = lake.tables.read_all(CleanedImages)
    landed = raw[raw["image_id"].notna()]
    stay: frozenset[str] = frozenset()
    if kind == "image":
        if len(name) < _SHORTEST:
            raise DataError(f"image {name!r}: give at least {_SHORTEST} digits of its id.")
        asked = frozenset({find_image(name, lake)})
    else:
        asked, stay = arrived_only_from(landed, name)
        if not asked | stay:
            known = ", ".join(sorted(set(landed["source"].dropna()))[:_SHOWN]) or "none"
            raise DataError(f"source {name!r}: nothing landed from it. Sidecars name: {known}.")
    images = _with_likes(asked, cleaned, near_duplicates=near_duplicates)
    signatures = _signatures(lake, images)
    images |= _seen_elsewhere(lake, cleaned, images, signatures, bits if near_duplicates else 0)
    mine = landed["image_id"].isin(images)
    others = set(landed.loc[~mine, "sidecar_sha256"].dropna())
    return Found(
        asked=asked,
        images=images,
        stay=stay - images,
        landed=_landed(lake, landed[mine]),
        sidecars=frozenset(set(landed.loc[mine, "sidecar_sha256"].dropna()) - others),
        sizes=tuple(sorted(set(landed.loc[mine, "byte_size"].tolist()))),
        signatures=signatures,
    )


def _signatures(lake: Lake, images: frozenset[str]) -> SignatureTable:
    return look_at(sorted(images), partial(_raw, lake))[1]


def _seen_elsewhere(
    lake: Lake,
    cleaned: pd.DataFrame,
    images: frozenset[str],
    signatures: SignatureTable,
    bits: int,
) -> set[str]:
    """Return the images outside of their groups that look like some.

    An image that looks like two groups is in one of them; what was kept out, in none; and what
    repeats an image of another group may look like one of this as well.
    """
    others = cleaned[cleaned["image_id"].notna() & ~cleaned["image_id"].isin(images)]
    accepted = others[others["outcome"] == "accepted"].reset_index(drop=True)
    table = signature_rows(len(accepted))
    # What is missing there is made anew, and may be kept another time.
    read_signatures(DryRunLake(lake.store), accepted, table)
    names = accepted["image_id"].tolist()
    found = {names[row] for row in which_show(table, signatures, bits=bits)}
    rest = others[(others["outcome"] != "accepted") & (others["width"] > 0)]
    names, table = look_at(sorted(set(rest["image_id"])), partial(_raw, lake))
    return found | {names[row] for row in which_show(table, signatures, bits=bits)}


def _raw(lake: Lake, image_id: str) -> bytes:
    return lake.store.get(raw_key(image_id))


def _with_likes(
    asked: frozenset[str], cleaned: pd.DataFrame, *, near_duplicates: bool
) -> frozenset[str]:
    """Return the images, and those that repeat them or that they repeat, and so on."""
    columns = ["duplicate_of", *(["similar_to", "group_id"] if near_duplicates else [])]
    pairs = [
        cleaned.loc[cleaned[name].notna() & cleaned["image_id"].notna(), ["image_id", name]]
        for name in columns
    ]
    found, size = set(asked), 0
    while len(found) > size:
        size = len(found)
        for each in pairs:
            ours, theirs = each.iloc[:, 0], each.iloc[:, 1]
            met = ours.isin(found) | theirs.isin(found)
            found |= set(ours[met]) | set(theirs[met])
    # The name of a group may be that of nothing that is here any more.
    return frozenset(found & {*cleaned["image_id"].dropna(), *asked})


def _landed(lake: Lake, rows: pd.DataFrame) -> tuple[tuple[str, str, str], ...]:
    """Return name, stamp and sidecar of landed objects, as the rounds' manifests have them."""
    wanted = set(zip(rows["source_key"], rows["stamp"], strict=True))
    found = {
        (each.key, each.stamp, each.sidecar)
        for round_id in sorted(set(rows["round_id"]))
        for each in RoundManifests(lake.store).read(round_id)
        if (each.key, each.stamp) in wanted
    }
    return tuple(sorted(found))
