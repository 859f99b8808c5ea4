"""Line layout of the COCO files that this platform writes: one line per image and annotation.

No JSON text contains a line end, so a file can be split into lines without parsing it. When a
dataset changed a little, most lines are copied from the previous file.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annotation_platform.errors import DataError

_HEAD, _NEXT = b'{"images":[\n', b",\n"
_MIDDLE, _TAIL = b'\n],"annotations":[\n', b'\n],"categories":'
_END = b"}\n"

LineFlags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReusedLines:
    """Which lines of a split's previous file are reused; flags are in the order of the files.

    ``of_before`` has one flag per image, or annotation, of the previous file: whether it is reused.
    ``of_now`` has one flag per image, or annotation, of the new file: whether it is a reused one.
    """

    of_before: LineFlags
    of_now: LineFlags


def coco_file(images: Sequence[str], annotations: Sequence[str], categories: str) -> bytes:
    """Return a COCO file of these objects, each a JSON text in one line."""
    return _joined([text.encode() for text in images], [text.encode() for text in annotations],
                   categories.encode() + _END)  # fmt: skip


def splice_coco(
    before: bytes, changed: bytes, images: ReusedLines, annotations: ReusedLines
) -> bytes:
    """Return a split's file, merged from reused lines of ``before`` and all lines of ``changed``.

    Args:
        before: the split's previous file.
        changed: a file with the images that are new or have changed, and their annotations.
        images: which images are reused.
        annotations: which annotations are reused.

    Raises:
        DataError: an id of ``changed`` is also the id of a reused line.
        ValueError: the number of flags differs from the number of lines in ``before``.
    """
    old_images, old_annotations, _ = _parts(before)
    new_images, new_annotations, tail = _parts(changed)
    return _joined(
        _merged(old_images, new_images, images, "image"),
        _merged(old_annotations, new_annotations, annotations, "annotation"),
        tail,
    )


def same_id(noun: str) -> DataError:
    """Return the error for two images, or annotations, with the same id."""
    return DataError(f"two {noun}s have the same COCO id. Is an {noun} listed twice?")


def _merged(old: list[bytes], new: list[bytes], flags: ReusedLines, noun: str) -> list[bytes]:
    if len(old) != len(flags.of_before):
        raise ValueError(f"{len(old)} {noun}s, but {len(flags.of_before)} flags")
    unchanged = list(itertools.compress(old, flags.of_before.tolist()))
    # A line begins with its object's id.
    ids = {line.partition(b",")[0] for line in new}
    if not ids.isdisjoint([line.partition(b",")[0] for line in unchanged]):
        raise same_id(noun)
    merged = np.empty(len(flags.of_now), dtype=object)
    merged[flags.of_now] = unchanged
    merged[~flags.of_now] = new
    lines: list[bytes] = merged.tolist()
    return lines


def _parts(data: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """Return the lines of images, the lines of annotations, and the rest of the file."""
    images, _, rest = data.removeprefix(_HEAD).partition(_MIDDLE)
    annotations, _, tail = rest.rpartition(_TAIL)
    return (
        images.split(_NEXT) if images else [],
        annotations.split(_NEXT) if annotations else [],
        tail,
    )


def _joined(images: Sequence[bytes], annotations: Sequence[bytes], tail: bytes) -> bytes:
    return b"".join([_HEAD, _NEXT.join(images), _MIDDLE, _NEXT.join(annotations), _TAIL, tail])
