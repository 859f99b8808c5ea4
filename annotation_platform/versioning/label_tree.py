"""A digest of all labels of a version, and the path that shows that one label is among them.

A Merkle tree (Merkle, "A Digital Signature Based on a Conventional Encryption Function", 1987) of
three levels, wide instead of deep: labels by the first three digits of their image's id, those by
the first, and these together. A leaf is the SHA-256 of a zero byte and the label's text, a node
that of a one byte and the digests below it, in order; so no leaf can pass for a node (RFC 6962).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.errors import DataError
from annotation_platform.schema.tables import LABEL_COLUMNS

_LEAF, _NODE = b"\0", b"\1"
_DIGITS = "0123456789abcdef"
_COLUMNS = ["label_id", "split", *LABEL_COLUMNS]
_BETWEEN = "\t"


@dataclass(frozen=True)
class LabelProof:
    """That a label is in a version, for whoever knows the version's ``labels_root``.

    Attributes:
        text: what the version says of the label: id, split, shape, class, left, top, right and
            bottom edge, geometry, with tabs between them.
        path: from the leaf up, the digests before and behind that of each level, hexadecimal.
        root: the version's.
    """

    text: str
    path: list[tuple[str, str]]
    root: str

    def holds(self) -> bool:
        """Return whether the path leads from the text to the root."""
        digest = hashlib.sha256(_LEAF + self.text.encode()).digest()
        for before, behind in self.path:
            inside = bytes.fromhex(before) + digest + bytes.fromhex(behind)
            digest = hashlib.sha256(_NODE + inside).digest()
        return digest.hex() == self.root


def labels_root(training_set: pd.DataFrame) -> str:
    """Return the digest of all rows of a ``training_set`` that is sorted by image and label."""
    levels = _levels(training_set, _texts(training_set))
    return _node(levels[-1]).hex()


def prove_label(training_set: pd.DataFrame, label_id: str) -> LabelProof:
    """Return the proof that a label is in a ``training_set`` that is sorted by image and label.

    Raises:
        DataError: there is no such label.
    """
    places = np.flatnonzero(training_set["label_id"].to_numpy() == label_id)
    if not len(places):
        raise DataError(f"{label_id}: there is no such label in it.")
    place, texts = int(places[0]), _texts(training_set)
    leaves, buckets, tops = _levels(training_set, texts)
    image_id = str(training_set["image_id"].iloc[place])
    first, bucket = int(image_id[0], 16), int(image_id[:3], 16)
    own = np.flatnonzero(_prefixes(training_set) == bucket)
    path = [
        _beside(leaves[own[0] : own[-1] + 1], place - int(own[0])),
        _beside(buckets[256 * first : 256 * (first + 1)], bucket - 256 * first),
        _beside(tops, first),
    ]
    return LabelProof(texts[place].decode(), path, _node(tops).hex())


def _levels(frame: pd.DataFrame, texts: Sequence[bytes]) -> tuple[list[bytes], ...]:
    """Return the digests of the labels, of the 4,096 buckets and of the 16 groups of these."""
    leaves = [hashlib.sha256(_LEAF + text).digest() for text in texts]
    ends = list(accumulate(np.bincount(_prefixes(frame), minlength=16**3).tolist()))
    buckets = [_node(leaves[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    tops = [_node(buckets[start : start + 256]) for start in range(0, 16**3, 256)]
    return leaves, buckets, tops


def _prefixes(frame: pd.DataFrame) -> "np.typing.NDArray[np.int64]":
    """Return the first three digits of each row's image id as a number."""
    ids = pa.array(frame["image_id"])
    letters = [pc.utf8_slice_codeunits(ids, at, at + 1) for at in range(3)]
    digits = pa.array(list(_DIGITS), type=pa.large_string())
    values = [
        pc.index_in(each.cast(pa.large_string()), value_set=digits).to_numpy(zero_copy_only=False)
        for each in letters
    ]
    return np.asarray(values[0] * 256 + values[1] * 16 + values[2], dtype=np.int64)


def _texts(frame: pd.DataFrame) -> list[bytes]:
    """Return what each row says; a missing value is empty."""
    columns = [pc.fill_null(pa.array(frame[name]).cast(pa.large_string()), "") for name in _COLUMNS]
    joined = pc.binary_join_element_wise(*columns, pa.scalar(_BETWEEN, pa.large_string()))
    return joined.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]


def _node(digests: Sequence[bytes]) -> bytes:
    return hashlib.sha256(_NODE + b"".join(digests)).digest()


def _beside(digests: Sequence[bytes], place: int) -> tuple[str, str]:
    return b"".join(digests[:place]).hex(), b"".join(digests[place + 1 :]).hex()
