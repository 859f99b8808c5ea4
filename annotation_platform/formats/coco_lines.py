"""The layout of our COCO files: a line for each image and each annotation.

No text in JSON holds the end of a line, so the lines of a file can be told apart without reading
what they say: of a dataset that changed a little, most are taken over from the file before.
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

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Taken:
    """What of a split's file is taken over; flags are in the order of the files.

    ``of_before`` has one for each image, or annotation, of the file before and says whether it is
    taken; ``of_now`` has one for each of the file to be and says whether it comes from there.
    """

    of_before: Flags
    of_now: Flags


def coco_file(images: Sequence[str], annotations: Sequence[str], categories: str) -> bytes:
    """Return a COCO file of these objects, each a JSON text in one line."""
    return _joined([text.encode() for text in images], [text.encode() for text in annotations],
                   categories.encode() + _END)  # fmt: skip


def splice_coco(before: bytes, changed: bytes, images: Taken, annotations: Taken) -> bytes:
    """Return the file of a split of which ``changed`` holds only what is not taken over.

    Args:
        before: the split's file as it was.
        changed: the file of the images that are new or have changed, and of their annotations.
        images: which images are taken over.
        annotations: which annotations are.

    Raises:
        DataError: an id of ``changed`` is one of those that are taken over.
        ValueError: the flags do not fit the files.
    """
    old_images, old_annotations, _ = _parts(before)
    new_images, new_annotations, tail = _parts(changed)
    return _joined(
        _merged(old_images, new_images, images, "image"),
        _merged(old_annotations, new_annotations, annotations, "annotation"),
        tail,
    )


def same_id(what: str) -> DataError:
    """Return the error for two images, or annotations, whose hashes begin alike."""
    return DataError(f"two {what}s have the same COCO id. Is an {what} listed twice?")


def _merged(old: list[bytes], new: list[bytes], taken: Taken, what: str) -> list[bytes]:
    if len(old) != len(taken.of_before):
        raise ValueError(f"{len(old)} {what}s, but {len(taken.of_before)} flags")
    stay = list(itertools.compress(old, taken.of_before.tolist()))
    # A line begins with its object's id.
    ids = {line.partition(b",")[0] for line in new}
    if not ids.isdisjoint([line.partition(b",")[0] for line in stay]):
        raise same_id(what)
    merged = np.empty(len(taken.of_now), dtype=object)
    merged[taken.of_now] = stay
    merged[~taken.of_now] = new
    lines: list[bytes] = merged.tolist()
    return lines


def _parts(data: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """Return the lines of images and of annotations, and what comes behind them."""
    images, _, rest = data.removeprefix(_HEAD).partition(_MIDDLE)
    annotations, _, tail = rest.rpartition(_TAIL)
    return (
        images.split(_NEXT) if images else [],
        annotations.split(_NEXT) if annotations else [],
        tail,
    )


def _joined(images: Sequence[bytes], annotations: Sequence[bytes], tail: bytes) -> bytes:
    return b"".join([_HEAD, _NEXT.join(images), _MIDDLE, _NEXT.join(annotations), _TAIL, tail])
