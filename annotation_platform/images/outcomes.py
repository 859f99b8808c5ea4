"""The outcome of each row of a round, after all its images were probed."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from annotation_platform.images.decoding import misnamed
from annotation_platform.images.probing import Probe
from annotation_platform.images.repeats import DuplicateStatus, NewImage, find_duplicate_status
from annotation_platform.images.signature import SignatureTable, set_signature
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.rounds import RELEASED
from annotation_platform.schema.tables import CleanedImages, Frame, RawImages
from annotation_platform.schema.tables.shared import Outcome

_UNPROBED: dict[str, object] = {
    CleanedImages.duplicate_of: None,
    CleanedImages.similar_to: None,
    CleanedImages.group_id: None,
    CleanedImages.joins: "",
    CleanedImages.width: 0,
    CleanedImages.height: 0,
    CleanedImages.extension: "",
    CleanedImages.stored_sha256: None,
    CleanedImages.stored_md5: None,
    CleanedImages.stored_bytes: 0,
    CleanedImages.pixel_sha256: None,
    CleanedImages.perceptual_hash: None,
    CleanedImages.sharpness: None,
    CleanedImages.brightness: None,
    CleanedImages.entropy: None,
    CleanedImages.flags: "",
}
_METADATA_COLUMNS = {"geo": ("latitude", "longitude")}
"""Columns of ``raw_images`` for fields of metadata with another name."""


@dataclass(frozen=True)
class NewRow:
    """The position of the row with which a new image arrives, and whether it was restored."""

    position: int
    is_released: bool


def has_bytes(row: Mapping[str, object]) -> bool:
    """Return whether the object of a row could be read."""
    return isinstance(row[RawImages.image_id], str)


def needed_columns(policy: CleaningPolicy) -> list[str]:
    """Return the columns of ``raw_images`` that decide outcomes under this policy."""
    mandatory = [_METADATA_COLUMNS.get(name, (name,)) for name in policy.mandatory_metadata]
    columns = [*RawImages.key_columns, RawImages.image_id, RawImages.problem]
    return [*columns, *chain(*mandatory)]


def move_signature(probe: Probe, image_id: str, signatures: SignatureTable, row: int) -> Probe:
    """Write the signature of a probe into a row of ``signatures``; return the probe without it."""
    if probe.signature is not None:
        set_signature(signatures[row], image_id, probe.signature)
    return Probe(probe.facts, probe.reason, probe.format)


def decide_outcomes(
    rows: Sequence[dict[str, object]],
    probes: dict[str, Probe],
    known: Frame[CleanedImages],
    signatures: SignatureTable,
    policy: CleaningPolicy,
) -> list[dict[str, object]]:
    """Return the row of ``cleaned_images`` for each row of ``raw_images``.

    Of several rows with the same bytes, the first acceptable one is accepted, a restored one
    before others, and the others are its duplicates.

    Args:
        rows: rows of ``raw_images``, in the order in which they may become originals.
        probes: the probe of each image id.
        known: accepted rows of ``cleaned_images`` of earlier rounds.
        signatures: of the known images, then of the probed ones, in their order.
        policy: the limits.
    """
    groups = dict(zip(known[CleanedImages.image_id], known[CleanedImages.group_id], strict=True))
    refusals = [_refusal(row, probes, groups, policy) for row in rows]
    new_rows = _new_rows(rows, refusals, groups)
    row_of = {image_id: row for row, image_id in enumerate(probes, start=len(known))}
    new_images = [
        _new_image(image_id, probes[image_id], new_row, row_of[image_id])
        for image_id, new_row in sorted(new_rows.items(), key=lambda item: item[1].position)
    ]
    statuses = find_duplicate_status(new_images, known, signatures, bits=policy.duplicate_bits)
    decided = []
    for position, (row, refusal) in enumerate(zip(rows, refusals, strict=True)):
        image_id = str(row[RawImages.image_id])
        facts = _facts(row, probes)
        if refusal:
            facts |= {
                CleanedImages.outcome: Outcome.QUARANTINED.value,
                CleanedImages.reason: refusal,
            }
        elif image_id in groups:
            facts |= _duplicate("exact_bytes", image_id, groups[image_id])
        elif position != new_rows[image_id].position and statuses[image_id].original is None:
            facts |= _duplicate("exact_bytes", image_id, statuses[image_id].group_id)
        else:
            facts |= _new_outcome(statuses[image_id], new_rows[image_id], facts)
        decided.append(facts)
    return decided


def _new_rows(
    rows: Sequence[dict[str, object]], refusals: Sequence[str], known: Container[str]
) -> dict[str, NewRow]:
    """Return the first acceptable row of each new image, a restored one before others."""
    new_rows: dict[str, NewRow] = {}
    for position, (row, refusal) in enumerate(zip(rows, refusals, strict=True)):
        image_id = str(row[RawImages.image_id])
        earlier = new_rows.get(image_id)
        if not refusal and image_id not in known:
            new_row = NewRow(position, _is_released(row))
            if earlier is None or (new_row.is_released and not earlier.is_released):
                new_rows[image_id] = new_row
    return new_rows


def _new_outcome(
    status: DuplicateStatus, new_row: NewRow, facts: Mapping[str, object]
) -> dict[str, object]:
    """Return the outcome of an acceptable image that is new in this round."""
    if status.original is not None:
        return _duplicate(status.repeats, status.original, status.group_id)
    flags = [
        *filter(None, [facts[CleanedImages.flags]]),
        *(["similar"] if status.similar_to else []),
        *(["joins_groups"] if status.joins else []),
        *(["released"] if new_row.is_released else []),
    ]
    return {
        CleanedImages.outcome: Outcome.ACCEPTED.value,
        CleanedImages.reason: "",
        CleanedImages.similar_to: status.similar_to,
        CleanedImages.group_id: status.group_id,
        CleanedImages.joins: ",".join(status.joins),
        CleanedImages.flags: ",".join(map(str, flags)),
    }


def _duplicate(kind: str, original: str, group: str) -> dict[str, object]:
    return {
        CleanedImages.outcome: Outcome.DUPLICATE.value,
        CleanedImages.reason: kind,
        CleanedImages.duplicate_of: original,
        CleanedImages.group_id: group,
    }


def _facts(raw_row: Mapping[str, object], probes: Mapping[str, Probe]) -> dict[str, object]:
    """Return the columns of ``cleaned_images`` that do not depend on the outcome."""
    row: dict[str, object] = {
        **{column: raw_row[column] for column in (*RawImages.key_columns, RawImages.image_id)},
        **_UNPROBED,
    }
    if has_bytes(raw_row):
        probe = probes[str(raw_row[RawImages.image_id])]
        row |= probe.facts
        if misnamed(str(raw_row[RawImages.source_key]), probe.format):
            row[CleanedImages.flags] = ",".join(
                filter(None, [str(row[CleanedImages.flags]), "extension_mismatch"])
            )
    return row


def _refusal(
    row: Mapping[str, object],
    probes: Mapping[str, Probe],
    known: Container[str],
    policy: CleaningPolicy,
) -> str:
    """Return why a row is quarantined; empty if it can be accepted or a duplicate."""
    problem = str(row[RawImages.problem])
    if not has_bytes(row):
        return problem
    probe = probes[str(row[RawImages.image_id])]
    if not probe.facts:
        return probe.reason
    if _is_released(row):
        return ""
    # An image in the lake was accepted under the policy of its time.
    quality = "" if row[RawImages.image_id] in known else probe.reason
    missing = [name for name in policy.mandatory_metadata if _is_missing(row, name)]
    return problem or quality or (f"missing metadata: {', '.join(missing)}" if missing else "")


def _is_missing(row: Mapping[str, object], name: str) -> bool:
    values: list[Any] = [row.get(column) for column in _METADATA_COLUMNS.get(name, (name,))]
    return any(pd.isna(value) or not str(value).strip() for value in values)


def _is_released(row: Mapping[str, object]) -> bool:
    return str(row[RawImages.arrival_version]).startswith(RELEASED)


def _new_image(image_id: str, probe: Probe, new_row: NewRow, row: int) -> NewImage:
    width, height = (
        float(str(probe.facts[side])) for side in (CleanedImages.width, CleanedImages.height)
    )
    pixels = str(probe.facts[CleanedImages.pixel_sha256])
    return NewImage(image_id, row, pixels, width / height, new_row.is_released)
