"""Networks as detectors, and prediction on image files with any detector."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from annotation_platform.errors import ModelError
from annotation_platform.images.decoding import Pixels
from annotation_platform.models.memory import MemoryLimit, enough_memory
from annotation_platform.models.network_inputs import read_image, resize
from annotation_platform.models.protocols import LOWEST_SCORE, Detections, Detector
from annotation_platform.schema.geometry import FloatArray, box_areas, clip_boxes

if TYPE_CHECKING:
    import torch
    from torch import nn

PREDICTION_COLUMNS = ["image_id", "class_name", "x1", "y1", "x2", "y2", "score"]
IMAGE_COLUMNS = ["image_id", "passes", "predictions", "dropped", "seconds", "device"]
# Limits of the images that are held decoded at a time: their number and their bytes.
_CHUNK = 16
_CHUNK_BYTES = 64 << 20
_BATCH = 8


@dataclass(frozen=True)
class DetectedBatch:
    """The detections in a set of images, and their cost."""

    boxes: pd.DataFrame  # PREDICTION_COLUMNS, a row per box
    images: pd.DataFrame  # IMAGE_COLUMNS, a row per image, those without boxes too


class NetworkDetector:
    """A network with torchvision's interface as a ``protocols.Detector``: ours, or a published one.

    Args:
        network: takes a list of ``(3, H, W)`` tensors in ``[0, 1]``; returns for each ``boxes``,
            ``scores``, ``labels`` and, if it counts them, ``dropped``.
        architecture: its name.
        class_names: of its outputs, by label number; those with an empty name are left out.
        image_width: length to which the longer side of an image is resized; 0: the network does it.
        digest: SHA-256 of its file.
        device: ``cpu`` or ``cuda``; by default the accelerator, if there is one.
    """

    def __init__(
        self,
        network: "nn.Module",
        *,
        architecture: str,
        class_names: Sequence[str],
        image_width: int,
        digest: str = "",
        device: str | None = None,
    ) -> None:
        self.architecture = architecture
        self.class_names = tuple(name for name in class_names if name)
        self.image_width = image_width
        self.digest = digest
        self._names = tuple(class_names)
        self._network = network.eval()
        self._memory = MemoryLimit(device or best_device(), _BATCH)

    @property
    def device(self) -> str:
        """Device in use; ``cpu`` as soon as an image has exceeded the accelerator's memory."""
        return self._memory.device

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str, device: str | None = None) -> Self:
        """Return the detector in a file of weights; ``where`` names the file in a ModelError."""
        from annotation_platform.models.weight_files import DETECTOR_FILES

        file = DETECTOR_FILES.read(data, where=where)
        return cls(
            DETECTOR_FILES.network(file, where=where),
            architecture=file.architecture,
            class_names=file.class_names,
            image_width=file.side,
            digest=hashlib.sha256(data).hexdigest(),
            device=device,
        )

    @classmethod
    def from_file(cls, path: Path, *, device: str | None = None) -> Self:
        """Return the detector in the file ``path``; any other file is a ModelError."""
        return cls.from_bytes(read_weights_file(path), where=str(path), device=device)

    def predict(
        self,
        images: Sequence[Pixels],
        *,
        minimum_score: float = LOWEST_SCORE,
        batch_size: int = _BATCH,
    ) -> list[Detections]:
        """Return the detections of each of the ``(H, W, 3)`` RGB images, in their order.

        Boxes are in absolute pixels of the given image and inside it, at most 100 an image, none
        without an area. Images may differ in size; each is resized to ``image_width`` pixels on its
        longer side. Where memory is too small for a batch, batches are halved from then on, and the
        processor is used in the end; an image that exceeds its memory is a ModelError.
        """
        found: list[Detections] = []
        with enough_memory("an image", "Use smaller images or a larger machine."):
            for start in range(0, len(images), batch_size):
                chunk = images[start : start + batch_size]
                found.extend(self._predict_batch(chunk, minimum_score))
        return found

    def _predict_batch(self, images: Sequence[Pixels], minimum: float) -> list[Detections]:
        def attempt(size: int, device: str) -> list[Detections]:
            self._network.to(device)
            starts = range(0, len(images), size)
            parts = [self._detected(images[n : n + size], device, minimum) for n in starts]
            return [one for part in parts for one in part]

        return self._memory.run(len(images), attempt)

    def _detected(self, images: Sequence[Pixels], device: str, minimum: float) -> list[Detections]:
        import torch

        resized = [self._resized(image) for image in images]
        tensors = [image_tensor(pixels, device) for pixels, _ in resized]
        with torch.inference_mode():
            outputs = self._network(tensors)
        return [
            self._detections(output, image, scale, minimum)
            for output, image, (_, scale) in zip(outputs, images, resized, strict=True)
        ]

    def _resized(self, image: Pixels) -> tuple[Pixels, FloatArray]:
        if self.image_width == 0:
            return image, np.ones(4)
        return resize(image, side=self.image_width)

    def _detections(
        self, output: dict[str, "torch.Tensor"], image: Pixels, scale: FloatArray, minimum: float
    ) -> Detections:
        height, width = image.shape[:2]
        unclipped = output["boxes"].double().cpu().numpy() / scale
        boxes = clip_boxes(unclipped, width=width, height=height)
        scores = output["scores"].double().cpu().numpy()
        labels = output["labels"].cpu().numpy()
        sound = np.isfinite(scores) & np.isfinite(unclipped).all(axis=1)
        named = np.array([bool(self._names[label]) for label in labels], dtype=bool)
        selected = sound & named & (scores >= minimum) & (box_areas(boxes) > 0)
        order = np.flatnonzero(selected)[np.argsort(-scores[selected], kind="stable")]
        return Detections(
            boxes=boxes[order],
            scores=np.clip(scores[order], 0.0, 1.0),
            class_names=[self._names[label] for label in labels[order]],
            dropped=int(output.get("dropped", 0)) + int((~sound).sum()),
        )


def predict_files(
    detector: Detector,
    paths: Mapping[str, Path],
    *,
    minimum_score: float = LOWEST_SCORE,
    progress: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """Return the boxes of ``detect_files``: a row of ``PREDICTION_COLUMNS`` for each, by image."""
    return detect_files(detector, paths, minimum_score=minimum_score, progress=progress).boxes


def detect_files(
    detector: Detector,
    paths: Mapping[str, Path],
    *,
    minimum_score: float = LOWEST_SCORE,
    progress: Callable[[float], None] | None = None,
) -> DetectedBatch:
    """Return the detections in the images and their cost, in the order of ``paths``.

    Images are processed a few at a time, so that any number of them fits into memory; the next ones
    are decoded meanwhile. ``seconds`` are wall time, decoding included, divided among the images
    processed together by their passes. An image that cannot be read is a DataError naming its file.

    Args:
        detector: predicts the boxes.
        paths: the files by image id.
        minimum_score: boxes with a lower score of the detector are left out.
        progress: called with the share done, 0 to 1.
    """
    detections: list[Detections] = []
    images: list[tuple[object, ...]] = []
    for chunk in _decoded(paths):
        started = time.perf_counter()
        found = detector.predict(chunk.images, minimum_score=minimum_score)
        seconds = time.perf_counter() - started + chunk.seconds
        passes = max(1, sum(one.passes for one in found))
        detections.extend(found)
        images.extend(
            (image_id, one.passes, len(one.scores), one.dropped, seconds * one.passes / passes,
             detector.device)
            for image_id, one in zip(chunk.image_ids, found, strict=True)
        )  # fmt: skip
        if progress is not None:
            progress(len(images) / len(paths))
    return DetectedBatch(
        boxes=_table(list(paths), detections),
        images=pd.DataFrame(images, columns=IMAGE_COLUMNS),
    )


@dataclass(frozen=True)
class _Chunk:
    image_ids: list[str]
    images: list[Pixels]
    seconds: float  # for reading and decoding


def _decoded(paths: Mapping[str, Path]) -> Iterator[_Chunk]:
    """Yield the images in their order; the next chunk is decoded while one is processed."""
    waiting = iter(paths.items())

    def read() -> _Chunk:
        started = time.perf_counter()
        image_ids: list[str] = []
        images: list[Pixels] = []
        size = 0
        while len(images) < _CHUNK and size < _CHUNK_BYTES:
            item = next(waiting, None)
            if item is None:
                break
            image_ids.append(item[0])
            images.append(read_image(item[1]))
            size += images[-1].nbytes
        return _Chunk(image_ids, images, time.perf_counter() - started)

    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = reader.submit(read)
        while (chunk := ahead.result()).images:
            ahead = reader.submit(read)
            yield chunk


def _table(image_ids: Sequence[str], found: Sequence[Detections]) -> pd.DataFrame:
    """Return the ``PREDICTION_COLUMNS`` of several images, best score first in each."""
    counts = [len(one.scores) for one in found]
    if sum(counts) == 0:
        return empty_predictions()
    boxes = np.concatenate([one.boxes for one in found])
    return pd.DataFrame(
        {
            "image_id": pd.Series(
                np.repeat(np.array(image_ids, dtype=object), counts), dtype="str"
            ),
            "class_name": pd.Series(
                [name for one in found for name in one.class_names], dtype="str"
            ),
            **dict(zip(["x1", "y1", "x2", "y2"], boxes.T, strict=True)),
            "score": np.concatenate([one.scores for one in found]),
        }
    )


def empty_predictions() -> pd.DataFrame:
    """Return a table of ``PREDICTION_COLUMNS`` without rows."""
    text = {"image_id", "class_name"}
    types = {name: "str" if name in text else "float64" for name in PREDICTION_COLUMNS}
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})


def best_device() -> str:
    """Return ``cuda`` if there is an accelerator, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def image_tensor(pixels: Pixels, device: str) -> "torch.Tensor":
    """Return the image as a ``(3, H, W)`` tensor in ``[0, 1]`` on ``device``."""
    import torch

    # A copy: torch requires writable memory, and decoded images are often read-only.
    tensor = torch.from_numpy(np.array(pixels)).to(device)
    return tensor.permute(2, 0, 1).float().div_(255.0)


def read_weights_file(path: Path) -> bytes:
    """Return the bytes of a file of weights; an unreadable file is a ModelError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: the weights cannot be read ({error.strerror}). "
            "Correct training.weights in params.yaml, or train a model first."
        ) from error
