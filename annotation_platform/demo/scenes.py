"""The demo's batches: drawn images with exact ground truth, and files with defects.

Like a real one, a batch holds sound images and some defects: a truncated file, a web page named
like an image, an image without content, a copy and a re-encoded copy.
"""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from annotation_platform.demo.harbour import draw_scene
from annotation_platform.errors import DataError
from annotation_platform.images.decoding import Pixels, encode_png
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.ontology import LabelClass, Ontology

ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=0, name="boat", color="#1f77b4"),
        LabelClass(id=1, name="container", color="#d95f02"),
        LabelClass(id=2, name="buoy", color="#e7298a"),
        LabelClass(id=3, name="lorry", color="#1b9e77"),
    ),
    guidelines=(
        "Draw a tight box around the visible part of every boat, container, buoy and lorry. "
        "Shadows, wakes and objects of which less than a quarter is visible are left out."
    ),
)

_WEB_PAGE = b"""<!DOCTYPE html>
<html><head><title>Sign in</title></head>
<body><h1>Your session has expired</h1><p>Please sign in to download this image.</p></body></html>
"""


@dataclass(frozen=True)
class Batch:
    """The files that land together, and their ground truth.

    ``truth`` covers every sound image and the re-encoded copy, by SHA-256 of the file's bytes;
    ``expected`` is the correct outcome of cleaning for each file: ``accepted``, ``quarantined`` or
    ``duplicate``.
    """

    files: dict[str, bytes]
    truth: Dataset
    expected: dict[str, str]


def draw_batch(batch: int, images: int, *, seed: int, width: int = 320, height: int = 240) -> Batch:
    """Return the files of one batch, sorted by name; the same seed gives the same bytes.

    Args:
        batch: number of the batch, from 1. From the second on, the re-encoded copy is one of the
            first image of the batch before it, so batches are meant to land in order.
        images: number of sound, distinct images, at least 1; five files with defects are added.
        seed: 0 or more; batches of one seed share no image apart from the copies.
        width: width of each image, pixels.
        height: height of each image, pixels.

    Raises:
        DataError: ``batch`` or ``images`` is below 1, or ``seed`` below 0.
    """
    if batch < 1 or images < 1 or seed < 0:
        raise DataError(
            f"cannot draw a batch: batch {batch}, images {images}, seed {seed}. "
            "Batches and images count from 1, seeds from 0."
        )
    drawing = _Drawing(seed, width, height)
    sound = [drawing.file(batch, number) for number in range(1, images + 1)]
    resaved = drawing.resaved(batch - 1, 1) if batch > 1 else drawing.resaved(1, (images + 1) // 2)
    with_truth = [*sound, resaved]
    expected = {one.name: "accepted" for one in sound} | {resaved.name: "duplicate"}
    files = {one.name: one.data for one in with_truth}
    copied = sound[-1]
    stem, extension = copied.name.rsplit(".", 1)
    files[f"{stem}_copy.{extension}"] = copied.data
    expected[f"{stem}_copy.{extension}"] = "duplicate"
    for name, data in drawing.unusable(batch, images + 1).items():
        files[name] = data
        expected[name] = "quarantined"
    return Batch(dict(sorted(files.items())), _dataset(with_truth, width, height), expected)


@dataclass(frozen=True)
class _File:
    name: str
    data: bytes
    labels: pd.DataFrame

    @property
    def image_id(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class _Drawing:
    seed: int
    width: int
    height: int

    def file(self, batch: int, number: int) -> _File:
        """Return image ``number`` of a batch: a PNG with probability 1/8, else a JPEG."""
        rng = np.random.default_rng([self.seed, batch, number])
        scene = draw_scene(rng, width=self.width, height=self.height)
        name = f"harbour-{batch:02d}-{number:04d}"
        if rng.random() < 0.125:
            return _File(f"{name}.png", encode_png(scene.pixels), scene.labels)
        exif = _camera(rng) if rng.random() < 0.25 else None
        data = _encode_jpeg(scene.pixels, quality=int(rng.integers(85, 95)), exif=exif)
        return _File(f"{name}.jpg", data, scene.labels)

    def resaved(self, batch: int, number: int) -> _File:
        """Return an image re-encoded at lower quality; its name sorts after the original's."""
        original = self.file(batch, number)
        pixels = np.asarray(Image.open(io.BytesIO(original.data)).convert("RGB"), dtype=np.uint8)
        name = f"{original.name.rsplit('.', 1)[0]}_resaved.jpg"
        return _File(name, _encode_jpeg(pixels, quality=60), original.labels)

    def unusable(self, batch: int, number: int) -> dict[str, bytes]:
        """Return the files of a batch that cannot be labelled, by name."""
        rng = np.random.default_rng([self.seed, batch, number])
        whole = _encode_jpeg(
            draw_scene(rng, width=self.width, height=self.height).pixels, quality=90
        )
        shape = (self.height, self.width, 3)
        if batch % 2:
            defect, pixels = "lens-cap", rng.integers(0, 3, shape).astype(np.uint8)
        else:
            defect, pixels = "fog", np.full(shape, rng.integers(168, 196), dtype=np.uint8)
        return {
            f"harbour-{batch:02d}-broken-upload.jpg": whole[
                : int(len(whole) * rng.uniform(0.4, 0.8))
            ],
            f"harbour-{batch:02d}-sign-in.jpg": _WEB_PAGE,
            f"harbour-{batch:02d}-{defect}.jpg": _encode_jpeg(pixels, quality=90),
        }


def _encode_jpeg(pixels: Pixels, *, quality: int, exif: Image.Exif | None = None) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="JPEG", quality=quality, exif=exif or b"")
    return sink.getvalue()


def _camera(rng: np.random.Generator) -> Image.Exif:
    """Return a camera's EXIF data with make, model and position, which cleaning has to remove."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Harbour Survey"
    exif[ExifTags.Base.Model] = f"Drone {rng.integers(1, 4)}"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {
            ExifTags.GPS.GPSLatitudeRef: "N",
            ExifTags.GPS.GPSLatitude: (53.0, 32.0, float(rng.integers(0, 60))),
            ExifTags.GPS.GPSLongitudeRef: "E",
            ExifTags.GPS.GPSLongitude: (9.0, 58.0, float(rng.integers(0, 60))),
        }
    )
    return exif


def _dataset(files: list[_File], width: int, height: int) -> Dataset:
    images = [
        {
            "image_id": one.image_id,
            "file_name": one.name,
            "split": "",
            "width": width,
            "height": height,
        }
        for one in files
    ]
    labels = [one.labels.assign(image_id=one.image_id) for one in files]
    return Dataset(
        images=pd.DataFrame(images, columns=IMAGE_COLUMNS),
        labels=pd.concat(labels, ignore_index=True)[LABEL_COLUMNS],
        ontology=ONTOLOGY,
    )
