"""A digest of all labels of a version, and the proof that one label is among them.

A Merkle tree (Merkle, "A Digital Signature Based on a Conventional Encryption Function", 1987) of
three levels, wide instead of deep: labels are grouped by the first three digits of their image's
id, these groups by the first digit, and those at the root. A leaf is the SHA-256 of a zero byte and
the lines of its labels; a node is the SHA-256 of a one byte and the digests below it, in order.
Therefore a leaf cannot be presented as a node (RFC 6962).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.errors import DataError
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.schema.tables.shared import LABEL_COLUMNS

_LEAF, _NODE = b"\0", b"\1"
_DIGITS = "0123456789abcdef"
_LEAVES = 16**3
_COLUMNS = [TrainingSet.label_id, TrainingSet.split, *LABEL_COLUMNS]
_CLASS = _COLUMNS.index(TrainingSet.class_name)


@dataclass(frozen=True)
class LabelProof:
    """The proof that a label is in a version, for a reader who has its ``labels_root``.

    Attributes:
        text: the label as a line: id, split, shape, class, left, top, right and bottom edge,
            geometry, separated by tabs and ended by a newline. Tabs, newlines and backslashes in
            the class name are escaped with a backslash.
        neighbours: the lines before and after it in its leaf.
        path: from the leaf up, the digests before and after the own one on each level, in
            hexadecimal digits.
        root: the ``labels_root`` of the version.
    """

    text: str
    neighbours: tuple[str, str]
    path: list[tuple[str, str]]
    root: str

    def holds(self) -> bool:
        """Return whether the path leads from the text, one whole line, to the root."""
        before, after = self.neighbours
        if self.text.find("\n") != len(self.text) - 1 or not f"\n{before}".endswith("\n"):
            return False
        digest = hashlib.sha256(_LEAF + f"{before}{self.text}{after}".encode()).digest()
        for left, right in self.path:
            inside = bytes.fromhex(left) + digest + bytes.fromhex(right)
            digest = hashlib.sha256(_NODE + inside).digest()
        return digest.hex() == self.root


def labels_root(training_set: Frame[TrainingSet]) -> str:
    """Return the digest of all rows of a training set that is sorted by image and label."""
    lines = _lines(training_set)
    return _node(_tops(_leaves(lines, _ends(training_set)))).hex()


def prove_label(training_set: Frame[TrainingSet], label_id: str) -> LabelProof:
    """Return the proof that a label is in a training set that is sorted by image and label.

    Raises:
        DataError: there is no such label.
    """
    rows = np.flatnonzero(training_set[TrainingSet.label_id].to_numpy() == label_id)
    if not len(rows):
        raise DataError(f"{label_id}: the training set has no such label. Correct the label id.")
    row, lines, ends = int(rows[0]), _lines(training_set), _ends(training_set)
    leaves = _leaves(lines, ends)
    tops = _tops(leaves)
    image_id = str(training_set[TrainingSet.image_id].iloc[row])
    first, leaf = int(image_id[0], 16), int(image_id[:3], 16)
    before, after = (
        "".join(lines[start:end].to_pylist())
        for start, end in ((ends[leaf], row), (row + 1, ends[leaf + 1]))
    )
    path = [_siblings(leaves[256 * first : 256 * (first + 1)], leaf - 256 * first),
            _siblings(tops, first)]  # fmt: skip
    return LabelProof(lines[row].as_py(), (before, after), path, _node(tops).hex())


def _lines(frame: Frame[TrainingSet]) -> pa.LargeStringArray:
    """Return each row as a line; a missing value is empty."""
    columns = [pc.fill_null(pa.array(frame[name]).cast(pa.large_string()), "") for name in _COLUMNS]
    for sign, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t")):
        columns[_CLASS] = pc.replace_substring(columns[_CLASS], sign, escaped)
    nothing, tab, end = (pa.scalar(each, pa.large_string()) for each in ("", "\t", "\n"))
    columns[-1] = pc.binary_join_element_wise(columns[-1], nothing, end)
    lines = pc.binary_join_element_wise(*columns, tab)
    return lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines


def _ends(frame: Frame[TrainingSet]) -> list[int]:
    """Return the first row of each leaf, and the number of rows."""
    ids = pa.array(frame[TrainingSet.image_id])
    digits = pa.array(list(_DIGITS), type=pa.large_string())
    values = [
        pc.index_in(
            pc.utf8_slice_codeunits(ids, at, at + 1).cast(pa.large_string()), value_set=digits
        ).to_numpy(zero_copy_only=False)
        for at in range(3)
    ]
    leaf = np.asarray(values[0] * 256 + values[1] * 16 + values[2], dtype=np.int64)
    return [0, *np.bincount(leaf, minlength=_LEAVES).cumsum().tolist()]


def _leaves(lines: pa.LargeStringArray, ends: Sequence[int]) -> list[bytes]:
    """Return the digest of the lines of each leaf."""
    # The lines of a leaf are consecutive in memory, so they are hashed without a copy.
    _, offsets, data = lines.buffers()
    starts = np.frombuffer(offsets, np.int64)[lines.offset + np.asarray(ends)].tolist()
    text = memoryview(data or b"")
    leaves = []
    for start, end in pairwise(starts):
        digest = hashlib.sha256(_LEAF)
        digest.update(text[start:end])
        leaves.append(digest.digest())
    return leaves


def _tops(leaves: Sequence[bytes]) -> list[bytes]:
    return [_node(leaves[start : start + 256]) for start in range(0, _LEAVES, 256)]


def _node(digests: Sequence[bytes]) -> bytes:
    return hashlib.sha256(_NODE + b"".join(digests)).digest()


def _siblings(digests: Sequence[bytes], position: int) -> tuple[str, str]:
    return b"".join(digests[:position]).hex(), b"".join(digests[position + 1 :]).hex()
