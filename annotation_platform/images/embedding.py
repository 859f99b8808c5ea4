"""Embeddings: a vector for every image, close for similar images, and computed once.

Vectors are stored in the lake by embedder and by the SHA-256 of the original bytes, so vectors of
different models are never mixed.
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
from PIL import Image

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.images.parallel import map_each
from annotation_platform.schema.tables import CleanedImages, Frame, ImageEmbeddings
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.table_files import parquet_bytes

IMAGE_EMBEDDER = "dct-colour-1"
Vectors = npt.NDArray[np.float32]
_ID = CleanedImages.image_id
_AT_ONCE = 16
"""Number of decoded images in memory."""


class Embedder(Protocol):
    """Computes vectors of images."""

    @property
    def name(self) -> str:
        """Name and, for a model, weights; vectors of different names are never compared."""
        ...

    def embed(self, decoded: Sequence[Pixels]) -> Vectors:
        """Return ``(N, D)`` rows of unit length; a row does not depend on the other images."""
        ...


class ImageEmbedder:
    """Vectors of layout and colours, without a model; see `describe`."""

    name = IMAGE_EMBEDDER

    def embed(self, decoded: Sequence[Pixels]) -> Vectors:
        """Return ``(N, 96)`` rows of unit length."""
        return np.array([describe(image) for image in decoded], dtype=np.float32)


def describe(pixels: Pixels) -> Vectors:
    """Return a ``(96,)`` float32 vector of unit length of an image's layout and colours.

    It has the 8 × 8 lowest frequencies of the brightness and the 4 × 4 lowest of both colour
    differences; each block is scaled to its own length, so that layout and colour count equally.
    """
    from scipy.fft import dctn

    small = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX).convert("YCbCr")
    planes = np.asarray(small, dtype=np.float64) - 128.0
    blocks = []
    for plane, side in ((0, 8), (1, 4), (2, 4)):
        block = dctn(planes[..., plane], norm="ortho")[:side, :side].ravel()
        blocks.append(block / max(float(np.linalg.norm(block)), 1e-9))
    vector = np.concatenate(blocks)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float32)


def features_for(
    images: pd.DataFrame,
    embedder: Embedder,
    *,
    store: ObjectStore,
    load: Callable[[str, str], bytes],
    round_id: str,
) -> Frame[ImageEmbeddings]:
    """Return the ``image_embeddings`` of these images by this embedder.

    Vectors in the lake are reused, the others are computed and stored. Two concurrent runs may
    compute the same vectors, which are then stored twice.

    Args:
        images: rows with ``image_id`` and ``extension``: of ``cleaned_images``, a training set or a
            published version.
        embedder: computes the vectors.
        store: the lake's objects.
        load: returns an image's bytes from its id and extension.
        round_id: the round of the returned rows.

    Raises:
        DataError: an image is missing, or a file of vectors does not match its name.
    """
    wanted = images.drop_duplicates(_ID).sort_values(_ID)
    known = _stored(store, embedder.name, set(wanted[_ID]))
    missing = wanted[~wanted[_ID].isin(known.keys())]
    if len(missing):
        known |= _computed(missing, embedder, store, load)
    rows: list[dict[str, object]] = [
        {"round_id": round_id, "image_id": one, "embedder": embedder.name, "vector": known[one]}
        for one in wanted[_ID]
    ]
    return ImageEmbeddings.from_rows(rows)


def _computed(
    images: pd.DataFrame,
    embedder: Embedder,
    store: ObjectStore,
    load: Callable[[str, str], bytes],
) -> dict[str, Vectors]:
    columns = [_ID, CleanedImages.extension]
    files = list(images[columns].itertuples(index=False, name=None))
    decoded = map_each(lambda file: decode(load(*file)), files)
    vectors = np.concatenate([embedder.embed(chunk) for chunk in _chunks(decoded)])
    ids = [image_id for image_id, _ in files]
    data = parquet_bytes(pd.DataFrame({"image_id": ids, "vector": list(vectors)}))
    store.create(f"{_folder(embedder.name)}/{hashlib.sha256(data).hexdigest()}.parquet", data)
    return dict(zip(ids, vectors, strict=True))


def _stored(store: ObjectStore, name: str, wanted: set[str]) -> dict[str, Vectors]:
    found: dict[str, Vectors] = {}
    for key in store.list(_folder(name)):
        data = store.get(key)
        if hashlib.sha256(data).hexdigest() not in key:
            raise DataError(
                f"{key} in the lake was changed or damaged. Delete it: it is computed again."
            )
        table = pq.read_table(pa.BufferReader(data))
        ids = table["image_id"].to_pylist()
        if not ids:
            # All its images were erased.
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
