"""A vector for every image: those that look alike lie close together. None is made twice.

Vectors are kept in the lake by what made them and by the SHA-256 of the landed bytes, so nobody can
be handed the vector of another model: it lies elsewhere.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.images.hashing import describe
from annotation_platform.images.parallel import map_each
from annotation_platform.schema.tables import ImageEmbeddings
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.table_files import parquet_bytes

IMAGE_EMBEDDER = "dct-colour-1"
Vectors = npt.NDArray[np.float32]
_AT_ONCE = 16
"""Images held decoded."""


class Embedder(Protocol):
    """Something that makes vectors of images."""

    @property
    def name(self) -> str:
        """What it is, and, of a model, whose weights: vectors of two names are never compared."""
        ...

    def embed(self, decoded: Sequence[Pixels]) -> Vectors:
        """Return ``(N, D)`` rows of unit length, whatever other images come along."""
        ...


class ImageEmbedder:
    """What lies where in an image, and in which colours: see `hashing.describe`. No model."""

    name = IMAGE_EMBEDDER

    def embed(self, decoded: Sequence[Pixels]) -> Vectors:
        """Return ``(N, 96)`` rows of unit length."""
        return np.array([describe(image) for image in decoded], dtype=np.float32)


def features_for(
    images: pd.DataFrame,
    embedder: Embedder,
    *,
    store: ObjectStore,
    load: Callable[[str, str], bytes],
    round_id: str,
) -> pd.DataFrame:
    """Return the ``image_embeddings`` of these images, by this embedder and no other.

    What the lake has is taken from there, the rest is made and kept. Two runs at once may make
    the same vectors; then they are kept twice.

    Args:
        images: rows with ``image_id`` and ``extension``: of ``cleaned_images``, a training set or a
            published version.
        embedder: what makes the vectors.
        store: the lake's objects.
        load: gives an image's bytes for id and extension.
        round_id: written beside each vector.

    Raises:
        DataError: an image is missing, or a file of vectors is not what it is called.
    """
    wanted = images.drop_duplicates("image_id").sort_values("image_id")
    known = _kept(store, embedder.name, set(wanted["image_id"]))
    missing = wanted[~wanted["image_id"].isin(known.keys())]
    if len(missing):
        known |= _made(missing, embedder, store, load)
    rows: list[dict[str, object]] = [
        {"round_id": round_id, "image_id": one, "embedder": embedder.name, "vector": known[one]}
        for one in wanted["image_id"]
    ]
    return ImageEmbeddings.from_rows(rows)


def _made(
    images: pd.DataFrame,
    embedder: Embedder,
    store: ObjectStore,
    load: Callable[[str, str], bytes],
) -> dict[str, Vectors]:
    files = list(images[["image_id", "extension"]].itertuples(index=False, name=None))
    decoded = map_each(lambda file: decode(load(*file)), files)
    vectors = np.concatenate([embedder.embed(chunk) for chunk in _chunks(decoded)])
    ids = [image_id for image_id, _ in files]
    data = parquet_bytes(pd.DataFrame({"image_id": ids, "vector": list(vectors)}))
    store.create(f"{_folder(embedder.name)}/{hashlib.sha256(data).hexdigest()}.parquet", data)
    return dict(zip(ids, vectors, strict=True))


def _kept(store: ObjectStore, name: str, wanted: set[str]) -> dict[str, Vectors]:
    found: dict[str, Vectors] = {}
    for key in store.list(_folder(name)):
        data = store.get(key)
        if hashlib.sha256(data).hexdigest() not in key:
            raise DataError(
                f"{key} in the lake was changed or damaged. Delete it: it is made anew."
            )
        table = pq.read_table(pa.BufferReader(data))
        ids = table["image_id"].to_pylist()
        if not ids:
            # All that it had was erased.
            continue
        flat = table["vector"].combine_chunks().flatten().to_numpy().astype(np.float32, copy=False)
        rows = flat.reshape(len(ids), -1)
        found |= {one: row for one, row in zip(ids, rows, strict=True) if one in wanted}
    return found


def _folder(name: str) -> str:
    return f"features/{name}"


def _chunks(decoded: Iterable[Pixels]) -> Iterator[list[Pixels]]:
    waiting = iter(decoded)
    while chunk := list(islice(waiting, _AT_ONCE)):
        yield chunk
