"""A digest of all labels of a version, and the path that shows that one label is among them.

A Merkle tree (Merkle, "A Digital Signature Based on a Conventional Encryption Function", 1987) of
three levels, wide instead of deep: labels by the first three digits of their image's id, those by
the first, and these together. A leaf is the SHA-256 of a zero byte and the lines of its labels, a
node that of a one byte and the digests below it, in order; so no leaf can pass for a node (RFC
6962).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.errors import DataError
from annotation_platform.schema.tables.shared import LABEL_COLUMNS

_LEAF, _NODE = b"\0", b"\1"
_DIGITS = "0123456789abcdef"
_LEAVES = 16**3
_COLUMNS = ["label_id", "split", *LABEL_COLUMNS]
_CLASS = _COLUMNS.index("class_name")


@dataclass(frozen=True)
class LabelProof:
    """That a label is in a version, for whoever knows the version's ``labels_root``.

    Attributes:
        text: what the version says of the label, as a line: id, split, shape, class, left, top,
            right and bottom edge, geometry, with tabs between them and a line's end behind. What is
            a tab, a line's end or a backslash in a class's name has a backslash before it.
        neighbours: the lines before and behind it in its leaf.
        path: from the leaf up, the digests before and behind that of each level, hexadecimal.
        root: the version's.
    """

    text: str
    neighbours: tuple[str, str]
    path: list[tuple[str, str]]
    root: str

    def holds(self) -> bool:
        """Return whether the path leads from the text, one whole line, to the root."""
        before, behind = self.neighbours
        if self.text.find("\n") != len(self.text) - 1 or not f"\n{before}".endswith("\n"):
            return False
        digest = hashlib.sha256(_LEAF + f"{before}{self.text}{behind}".encode()).digest()
        for left, right in self.path:
            inside = bytes.fromhex(left) + digest + bytes.fromhex(right)
            digest = hashlib.sha256(_NODE + inside).digest()
        return digest.hex() == self.root


def labels_root(training_set: pd.DataFrame) -> str:
    """Return the digest of all rows of a ``training_set`` that is sorted by image and label."""
    lines = _lines(training_set)
    return _node(_tops(_leaves(lines, _ends(training_set)))).hex()


def prove_label(training_set: pd.DataFrame, label_id: str) -> LabelProof:
    """Return the proof that a label is in a ``training_set`` that is sorted by image and label.

    Raises:
        DataError: there is no such label.
    """
    places = np.flatnonzero(training_set["label_id"].to_numpy() == label_id)
    if not len(places):
        raise DataError(f"{label_id}: there is no such label in it.")
    place, lines, ends = int(places[0]), _lines(training_set), _ends(training_set)
    leaves = _leaves(lines, ends)
    tops = _tops(leaves)
    image_id = str(training_set["image_id"].iloc[place])
    first, leaf = int(image_id[0], 16), int(image_id[:3], 16)
    before, behind = (
        "".join(lines[start:end].to_pylist())
        for start, end in ((ends[leaf], place), (place + 1, ends[leaf + 1]))
    )
    path = [_beside(leaves[256 * first : 256 * (first + 1)], leaf - 256 * first),
            _beside(tops, first)]  # fmt: skip
    return LabelProof(lines[place].as_py(), (before, behind), path, _node(tops).hex())


def _lines(frame: pd.DataFrame) -> pa.LargeStringArray:
    """Return what each row says, as a line; a missing value is empty."""
    columns = [pc.fill_null(pa.array(frame[name]).cast(pa.large_string()), "") for name in _COLUMNS]
    for sign, escaped in (("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t")):
        columns[_CLASS] = pc.replace_substring(columns[_CLASS], sign, escaped)
    nothing, tab, end = (pa.scalar(each, pa.large_string()) for each in ("", "\t", "\n"))
    columns[-1] = pc.binary_join_element_wise(columns[-1], nothing, end)
    lines = pc.binary_join_element_wise(*columns, tab)
    return lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines


def _ends(frame: pd.DataFrame) -> list[int]:
    """Return where the rows of each leaf begin, and where the last ends."""
    ids = pa.array(frame["image_id"])
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
    # They lie behind each other in memory as they are hashed: none is copied.
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


def _beside(digests: Sequence[bytes], place: int) -> tuple[str, str]:
    return b"".join(digests[:place]).hex(), b"".join(digests[place + 1 :]).hex()
