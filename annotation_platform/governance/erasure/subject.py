"""The images of an erasure: named ones, duplicates, and near-duplicates if the policy says so."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.governance.erasure.dry_run import DryRunLake
from annotation_platform.governance.erasure.similar_images import image_signatures, matching_rows
from annotation_platform.images.signature import SignatureTable, signature_rows
from annotation_platform.images.signature_files import read_signatures
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.ingestion.sources import arrived_only_from
from annotation_platform.provenance.image_ids import find_image
from annotation_platform.schema.keys import raw_key
from annotation_platform.schema.rounds import Arrival, whole_key
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.lake import Lake

Kind = Literal["image", "source"]

_SHORTEST = 8
_SHOWN = 8


@dataclass(frozen=True)
class Found:
    """The images of an erasure.

    Attributes:
        named: ids of the named images.
        images: these, and the images that are erased with them.
        stay: images of a source that also landed from another source: they stay.
        landed: name, change stamp and sidecar of every arrival with one of ``images``.
        sidecars: SHA-256 of the sidecars that describe no other image.
        sizes: byte sizes of ``images`` as they landed, each once.
        signatures: of the named images, their groups and their duplicates.
    """

    named: frozenset[str]
    images: frozenset[str]
    stay: frozenset[str]
    landed: tuple[tuple[str, str, str], ...]
    sidecars: frozenset[str]
    sizes: tuple[int, ...]
    signatures: SignatureTable = field(repr=False)


def find_images(kind: Kind, name: str, lake: Lake, *, near_duplicates: bool, bits: int) -> Found:
    """Return the images with a name, and those that are erased with them.

    Args:
        kind: the kind of name.
        name: an image's id or at least the first eight digits of it; a source in sidecars, or a
            folder of the landing zone.
        lake: the lake.
        near_duplicates: whether the whole duplicate group of an image is erased; otherwise only
            its duplicates.
        bits: of 64, the most in which near-duplicates may differ, as in cleaning.

    Raises:
        DataError: no image or source has this name, or several images do.
    """
    raw = lake.tables.read_all(RawImages)
    cleaned = lake.tables.read_all(CleanedImages)
    landed = raw[raw[RawImages.image_id].notna()]
    stay: frozenset[str] = frozenset()
    if kind == "image":
        if len(name) < _SHORTEST:
            raise DataError(f"image {name!r}: give at least {_SHORTEST} digits of its id.")
        named = frozenset({find_image(name, lake)})
    else:
        named, stay = arrived_only_from(landed, name)
        if not named | stay:
            known = ", ".join(sorted(set(landed[RawImages.source].dropna()))[:_SHOWN]) or "none"
            raise DataError(
                f"source {name!r}: nothing landed from it. Sources in sidecars: {known}."
            )
    images = _with_duplicates(named, cleaned, near_duplicates=near_duplicates)
    signatures = _signatures(lake, images)
    images |= _similar_outside(lake, cleaned, images, signatures, bits if near_duplicates else 0)
    images |= _of_same_arrivals(images, landed, cleaned, near_duplicates=near_duplicates)
    parents = _parents(landed, images)
    mine = landed[RawImages.image_id].isin(images)
    others = set(landed.loc[~mine, RawImages.sidecar_sha256].dropna())
    arrivals, sizes = _arrivals(lake, landed[mine]), landed.loc[mine, RawImages.byte_size]
    return Found(
        named=named,
        images=images | parents,
        stay=stay - images,
        landed=tuple(sorted((each.key, each.stamp, each.sidecar) for each in arrivals)),
        sidecars=frozenset(set(landed.loc[mine, RawImages.sidecar_sha256].dropna()) - others),
        sizes=tuple(sorted({each.byte_size for each in arrivals} | set(sizes.tolist()))),
        signatures=signatures,
    )


def _signatures(lake: Lake, images: frozenset[str]) -> SignatureTable:
    return image_signatures(sorted(images), partial(_raw, lake))[1]


def _similar_outside(
    lake: Lake,
    cleaned: pd.DataFrame,
    images: frozenset[str],
    signatures: SignatureTable,
    bits: int,
) -> set[str]:
    """Return the images outside the duplicate groups that match a signature.

    An image that is similar to two groups is in one of them, a quarantined image is in none, and a
    duplicate of an image of another group can be similar to one of these, too.
    """
    ids = cleaned[CleanedImages.image_id]
    others = cleaned[ids.notna() & ~ids.isin(images)]
    is_accepted = others[CleanedImages.outcome] == Outcome.ACCEPTED
    accepted = others[is_accepted].reset_index(drop=True)
    table = signature_rows(len(accepted))
    # Missing signatures are computed, but not stored by an erasure.
    read_signatures(DryRunLake(lake.store), accepted, table)
    names = accepted[CleanedImages.image_id].tolist()
    found = {names[row] for row in matching_rows(table, signatures, bits=bits)}
    remaining = others[~is_accepted & (others[CleanedImages.width] > 0)]
    names, table = image_signatures(
        sorted(set(remaining[CleanedImages.image_id])), partial(_raw, lake)
    )
    return found | {names[row] for row in matching_rows(table, signatures, bits=bits)}


def _raw(lake: Lake, image_id: str) -> bytes:
    return lake.store.get(raw_key(image_id))


def _with_duplicates(
    named: frozenset[str], cleaned: pd.DataFrame, *, near_duplicates: bool
) -> frozenset[str]:
    """Return the images, their duplicates, the images that they duplicate, and so on."""
    near = [CleanedImages.similar_to, CleanedImages.group_id] if near_duplicates else []
    ids = cleaned[CleanedImages.image_id]
    pairs = [
        cleaned.loc[cleaned[name].notna() & ids.notna(), [CleanedImages.image_id, name]]
        for name in [CleanedImages.duplicate_of, *near]
    ]
    found, size = set(named), 0
    while len(found) > size:
        size = len(found)
        for each in pairs:
            ours, theirs = each.iloc[:, 0], each.iloc[:, 1]
            met = ours.isin(found) | theirs.isin(found)
            found |= set(ours[met]) | set(theirs[met])
    # The image that names a group may have been erased earlier.
    return frozenset(found & {*ids.dropna(), *named})


def _parents(landed: pd.DataFrame, images: frozenset[str]) -> frozenset[str]:
    """Return the landed objects, by digest, that hold these images among several."""
    rows = landed[landed[RawImages.image_id].isin(images)]
    return frozenset(rows[RawImages.parent_id].dropna())


def _of_same_arrivals(
    images: frozenset[str],
    landed: pd.DataFrame,
    cleaned: pd.DataFrame,
    *,
    near_duplicates: bool,
) -> frozenset[str]:
    """Return the images of the arrivals that hold one of these, with their duplicates, and so on.

    An arrival that holds several images is erased as a whole, because its bytes hold them all.
    """
    while True:
        siblings = landed[RawImages.parent_id].isin(_parents(landed, images))
        more = frozenset(landed.loc[siblings, RawImages.image_id]) - images
        if not more:
            return images
        images = _with_duplicates(images | more, cleaned, near_duplicates=near_duplicates)


def _arrivals(lake: Lake, rows: pd.DataFrame) -> set[Arrival]:
    """Return the arrivals of rows of ``raw_images``, from the manifests of the rounds."""
    keys = [
        key if pd.isna(parent) else whole_key(key)
        for key, parent in zip(rows[RawImages.source_key], rows[RawImages.parent_id], strict=True)
    ]
    named = set(zip(keys, rows[RawImages.arrival_version], strict=True))
    return {
        each
        for round_id in sorted(set(rows[RawImages.round_id]))
        for each in RoundManifests(lake.store).read(round_id)
        if (each.key, each.stamp) in named
    }
