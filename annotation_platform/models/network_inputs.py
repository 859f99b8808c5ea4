"""Images as network inputs: decoded, resized, and augmented for training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.models.detection.tiling import tile_windows
from annotation_platform.schema.geometry import Boxes, as_boxes, box_areas, clip_boxes

ImagePath = Callable[[str, str], Path]
"""Returns the file of an image, given its id and extension."""

_GREY = (124, 116, 104)
_CACHE_BYTES = 2 << 30
# Boxes of which a smaller share is left are not used for training.
_VISIBLE_SHARE = 0.3


@dataclass(frozen=True)
class TrainingExample:
    """One training image: its file, and its boxes in absolute pixels.

    With a ``window``, ``x1 y1 x2 y2`` in whole pixels, only that part of the image is used; the
    boxes are in pixels of the window, and ``image_id`` stays that of the image.
    """

    image_id: str
    path: Path
    boxes: Boxes
    class_names: Sequence[str]
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Sample:
    """A network input: ``(H, W, 3)`` pixels, ``(N, 4)`` boxes and ``(N,)`` labels."""

    pixels: Pixels
    boxes: Boxes
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes of a training image; boxes are transformed exactly."""

    zoom: tuple[float, float] = (0.75, 1.35)
    brightness: float = 0.15
    contrast: float = 0.2
    flip_rate: float = 0.5
    upside_down_rate: float = 0.0
    visible_share: float = _VISIBLE_SHARE


@dataclass
class SampleCache:
    """Examples at the network's size, decoded at the first access and cached in memory.

    The cache stops growing at 2 GiB (about 9,000 images of 320 × 240); further images are decoded
    at each access. A box without an area in its image is left out.
    """

    examples: Sequence[TrainingExample]
    class_names: Sequence[str]
    side: int
    _cache: dict[int, Sample] = field(default_factory=dict)
    _bytes: int = 0

    def __getitem__(self, index: int) -> Sample:
        if index in self._cache:
            return self._cache[index]
        sample = self._load(self.examples[index])
        if self._bytes + sample.pixels.nbytes <= _CACHE_BYTES:
            self._cache[index] = sample
            self._bytes += sample.pixels.nbytes
        return sample

    def _load(self, example: TrainingExample) -> Sample:
        image = read_image(example.path)
        if example.window is not None:
            x1, y1, x2, y2 = example.window
            image = image[y1:y2, x1:x2]
        pixels, scale = resize(image, side=self.side)
        height, width = pixels.shape[:2]
        boxes = clip_boxes(as_boxes(example.boxes) * scale, width=width, height=height)
        labels = np.array([self.class_names.index(name) for name in example.class_names], np.int64)
        visible = box_areas(boxes) > 0
        return Sample(pixels=pixels, boxes=boxes[visible], labels=labels[visible])


def tile_examples(
    example: TrainingExample, *, width: int, height: int, side: int, overlap: float = 0.2
) -> list[TrainingExample]:
    """Return the tiles of a training image, as ``tile_windows`` cuts them.

    A box is in a tile, cropped to it, if at least 0.3 of its area is. Tiles without a box are
    sampled evenly over the image to the number of tiles with one: more would only add background.
    An image no larger than ``side`` has no tiles.
    """
    if max(width, height) <= side:
        return []
    boxes = as_boxes(example.boxes)
    with_boxes: list[TrainingExample] = []
    empty: list[TrainingExample] = []
    for window in tile_windows(width, height, side=side, overlap=overlap).tolist():
        x1, y1, x2, y2 = window
        inside = clip_boxes(boxes - np.tile([x1, y1], 2), width=x2 - x1, height=y2 - y1)
        areas = box_areas(inside)
        visible = (areas > 0) & (areas >= _VISIBLE_SHARE * box_areas(boxes))
        names = [name for name, yes in zip(example.class_names, visible, strict=True) if yes]
        tile = replace(example, boxes=inside[visible], class_names=names, window=(x1, y1, x2, y2))
        (with_boxes if names else empty).append(tile)
    sample = np.linspace(0, len(empty), min(len(with_boxes), len(empty)), endpoint=False)
    return [*with_boxes, *(empty[int(index)] for index in sample)]


def image_paths(images: pd.DataFrame, image_path: ImagePath) -> dict[str, Path]:
    """Return the file of every image by image id.

    ``images`` has ``image_id`` and ``extension``; an image may have several rows.
    """
    files = images.drop_duplicates("image_id")[["image_id", "extension"]]
    return {
        image_id: image_path(image_id, extension)
        for image_id, extension in files.itertuples(index=False)
    }


def read_image(path: Path) -> Pixels:
    """Return the ``(H, W, 3)`` pixels in ``path``; a missing or damaged file is a DataError."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: the image cannot be read ({error.strerror}).") from error
    except DataError as error:
        raise DataError(f"{path}: {error}. Replace the image or remove it.") from error


def resize(pixels: Pixels, *, side: int) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """Return the image with its longer side at ``side`` pixels; smaller images are enlarged.

    The second value, ``(4,)``, scales boxes of the given image to the returned one; rounding to
    whole pixels makes its two factors differ a little.
    """
    height, width = pixels.shape[:2]
    ratio = side / max(height, width)
    new_width, new_height = max(1, round(width * ratio)), max(1, round(height * ratio))
    scale = np.array([new_width / width, new_height / height] * 2)
    if (new_width, new_height) == (width, height):
        return pixels, scale
    resized = Image.fromarray(pixels).resize(
        (new_width, new_height), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    return np.asarray(resized, dtype=np.uint8), scale


def augment(sample: Sample, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    """Return a random variation of ``sample``: zoomed, shifted, mirrored, with other brightness.

    The size stays the same. A box of which at most ``visible_share`` is left is dropped.
    """
    moved = _zoom(sample, augmentation, rng)
    mirrored = _mirror(moved, augmentation, rng)
    contrast = 1.0 + rng.uniform(-augmentation.contrast, augmentation.contrast)
    brightness = 255.0 * rng.uniform(-augmentation.brightness, augmentation.brightness)
    # A lookup table of 256 values is several times faster than arithmetic on the pixels.
    table = np.clip((np.arange(256) - 128.0) * contrast + 128.0 + brightness, 0, 255)
    return replace(mirrored, pixels=table.astype(np.uint8)[mirrored.pixels])


def _zoom(sample: Sample, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    height, width = sample.pixels.shape[:2]
    zoom = float(np.exp(rng.uniform(*np.log(augmentation.zoom))))
    # The visible window in pixels of the sample: inside it when zooming in, else around it.
    margin_x, margin_y = width - width / zoom, height - height / zoom
    left, top = rng.uniform(0, 1) * margin_x, rng.uniform(0, 1) * margin_y
    zoomed = Image.fromarray(sample.pixels).transform(
        (width, height),
        Image.Transform.AFFINE,
        (1 / zoom, 0.0, left, 0.0, 1 / zoom, top),
        resample=Image.Resampling.BILINEAR,
        fillcolor=_GREY,
    )
    whole = (sample.boxes - np.array([left, top, left, top])) * zoom
    cut = clip_boxes(whole, width=width, height=height)
    visible = box_areas(cut) > augmentation.visible_share * box_areas(whole)
    return Sample(np.asarray(zoomed, dtype=np.uint8), cut[visible], sample.labels[visible])


def _mirror(sample: Sample, augmentation: Augmentation, rng: np.random.Generator) -> Sample:
    height, width = sample.pixels.shape[:2]
    pixels, boxes = sample.pixels, sample.boxes
    if rng.random() < augmentation.flip_rate:
        pixels = pixels[:, ::-1]
        boxes = np.column_stack(
            [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]]
        )
    if rng.random() < augmentation.upside_down_rate:
        pixels = pixels[::-1]
        boxes = np.column_stack(
            [boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]]
        )
    return Sample(pixels, boxes, sample.labels)
