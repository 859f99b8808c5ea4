"""Images made for these tests, the public ones, and ways to have them cleaned."""

import csv
import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from annotation_platform.images.cleaning import clean_round
from annotation_platform.images.probing import probe_image, stored_bytes
from annotation_platform.ingestion.inspect import inspect_files
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.keys import raw_key
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.storage.objects import LocalObjectStore

PROJECT_ROOT = Path(__file__).parents[3]
POLICY = CleaningPolicy()


def scene(seed, *, width=160, height=120):
    """Return an image with blobs at random places: smooth, sharp enough, unlike any other."""
    rng = np.random.default_rng(seed)
    planes = [gaussian_filter(rng.normal(size=(height, width)), 6) for _ in range(3)]
    stretched = [(plane - plane.min()) / np.ptp(plane) * 200 + 20 for plane in planes]
    noise = rng.normal(scale=4, size=(height, width, 1))
    return np.clip(np.stack(stretched, axis=-1) + noise, 0, 255).astype(np.uint8)


def saved(image, kind="JPEG", **options):
    """Return the bytes of a file with this image, or these pixels."""
    sink = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(sink, format=kind, **options)
    return sink.getvalue()


def png(width, height, depth, colour, packed):
    """Return a PNG of any size whose pixels are the zlib stream ``packed``."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", packed),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_tags(entries):
    """Return a TIFF of one directory; ``entries`` gives type and four bytes of value by tag."""
    body = b"".join(
        struct.pack("<HHI", tag, kind, 4 if kind == 2 else 1) + value
        for tag, (kind, value) in entries.items()
    )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


def stored(data):
    """Return what cleaning stores of an image."""
    look = probe_image(data, POLICY)
    return stored_bytes(data, 0, is_converted="converted_from" in look.facts["flags"])


def public_pairs(folder):
    """Return base, variant and relation of each row of the table of known pairs."""
    with (folder / "TRUTH_pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["base"], row["variant"], row["relation"]) for row in rows]


@pytest.fixture
def alone(tmp_path):
    """Return a function that inspects one file by itself, where it can repeat no other."""

    def inspect(name, data):
        place = tmp_path / hashlib.sha256(os.fsencode(name) + data).hexdigest()
        place.mkdir()
        (place / name).write_bytes(data)
        (row,) = inspect_files(place, POLICY)
        return row

    return inspect


@pytest.fixture
def clean(tmp_path):
    """Return a function that cleans a round of files and gives its table, by name, and the store.

    Every round comes after those before it, or after the first few if ``later_than`` says so.
    ``stamps`` and ``columns`` of ``raw_images`` may be given by name.
    """
    store = LocalObjectStore(tmp_path / "lake")
    rounds = []

    def run(files, policy=POLICY, *, stamps=None, columns=None, later_than=None):
        if later_than is not None:
            del rounds[later_than:]
        round_id = f"round-{len(rounds) + 1:04d}"
        rows = []
        for name, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            store.create(raw_key(digest), data)
            row = {"round_id": round_id, "source_key": name, "image_id": digest, "problem": ""}
            row |= {
                "arrival_version": (stamps or {}).get(name, f"{len(data)}-1"),
                "byte_size": len(data),
            }
            rows.append({"other_metadata": "", **row, **(columns or {}).get(name, {})})
        earlier = pd.concat([CleanedImages.empty(), *rounds], ignore_index=True)
        cleaned = clean_round(RawImages.from_rows(rows), earlier, store, policy)
        rounds.append(cleaned)
        return cleaned.set_index("source_key"), store

    return run
