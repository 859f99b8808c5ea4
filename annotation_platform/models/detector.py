"""The detector: from pictures to proposed boxes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from annotation_platform.errors import ModelError
from annotation_platform.images.decoding import Pixels
from annotation_platform.models.pictures import fit, read_picture
from annotation_platform.schema.geometry import Boxes, FloatArray, box_areas, clip_boxes

if TYPE_CHECKING:
    import torch
    from torch import nn

PREDICTION_COLUMNS = ["image_id", "class_name", "x1", "y1", "x2", "y2", "score"]
# Pictures held decoded at a time.
_CHUNK = 16


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first; nothing found is a result like any other."""

    boxes: Boxes  # (N, 4), absolute pixels of the picture that was given
    scores: FloatArray  # (N,), 0 to 1
    class_names: list[str]  # N
    dropped: int = 0  # outputs of the network that were no numbers


class Detector:
    """A trained network with its class names and the picture size it works at."""

    def __init__(
        self,
        network: "nn.Module",
        *,
        architecture: str,
        class_names: Sequence[str],
        image_width: int,
        device: str | None = None,
    ) -> None:
        self.architecture = architecture
        self.class_names = tuple(class_names)
        self.image_width = image_width
        self.device = device or best_device()
        self._network = network.to(self.device).eval()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str, device: str | None = None) -> Self:
        """Return the detector in a file of weights; ``where`` names the file in a ModelError."""
        from annotation_platform.models.weight_files import build_from, read_weights

        file = read_weights(data, where=where)
        return cls(
            build_from(file, where=where),
            architecture=file.architecture,
            class_names=file.class_names,
            image_width=file.image_width,
            device=device,
        )

    @classmethod
    def from_file(cls, path: Path, *, device: str | None = None) -> Self:
        """Return the detector in the file ``path``; a missing or foreign one is a ModelError."""
        return cls.from_bytes(read_weights_file(path), where=str(path), device=device)

    def predict(
        self, pictures: Sequence[Pixels], *, minimum_score: float = 0.05, batch_size: int = 8
    ) -> list[Detections]:
        """Return what is seen in each of the ``(H, W, 3)`` RGB pictures, in their order.

        Boxes are in absolute pixels of the picture as given and inside it, at most 100 a picture,
        none without an area. Pictures may differ in size; each is looked at with its longer side
        at ``image_width`` pixels. Where the accelerator's memory is too small for a batch, the
        batch is halved, and at last the processor is used.
        """
        found: list[Detections] = []
        for start in range(0, len(pictures), batch_size):
            chunk = pictures[start : start + batch_size]
            found.extend(self._predict_batch(chunk, minimum_score))
        return found

    def _predict_batch(self, pictures: Sequence[Pixels], minimum: float) -> list[Detections]:
        import torch

        fitted = [fit(picture, side=self.image_width) for picture in pictures]
        tensors = [picture_tensor(pixels, self.device) for pixels, _ in fitted]
        try:
            with torch.inference_mode():
                outputs = self._network(tensors)
        except torch.OutOfMemoryError:
            if len(pictures) > 1:
                half = len(pictures) // 2
                first = self._predict_batch(pictures[:half], minimum)
                return first + self._predict_batch(pictures[half:], minimum)
            if self.device == "cpu":
                raise
            self.device = "cpu"
            self._network.to("cpu")
            return self._predict_batch(pictures, minimum)
        return [
            self._detections(output, picture, scale, minimum)
            for output, picture, (_, scale) in zip(outputs, pictures, fitted, strict=True)
        ]

    def _detections(
        self, output: dict[str, "torch.Tensor"], picture: Pixels, scale: FloatArray, minimum: float
    ) -> Detections:
        height, width = picture.shape[:2]
        boxes = output["boxes"].double().cpu().numpy() / scale
        boxes = clip_boxes(boxes, width=width, height=height)
        scores = output["scores"].double().cpu().numpy()
        labels = output["labels"].cpu().numpy()
        sound = np.isfinite(scores) & np.isfinite(boxes).all(axis=1)
        kept = sound & (scores >= minimum) & (box_areas(boxes) > 0)
        order = np.flatnonzero(kept)[np.argsort(-scores[kept], kind="stable")]
        return Detections(
            boxes=boxes[order],
            scores=np.clip(scores[order], 0.0, 1.0),
            class_names=[self.class_names[label] for label in labels[order]],
            dropped=int(output["dropped"]) + int((~sound).sum()),
        )


def predict_files(
    detector: Detector,
    paths: Mapping[str, Path],
    *,
    minimum_score: float = 0.05,
    progress: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """Return a row of ``PREDICTION_COLUMNS`` for every box seen in the pictures, by image id.

    Pictures are decoded a few at a time, so that any number of them fits into memory. A picture
    that cannot be read is a DataError naming its file. ``progress`` is told the share done.
    """
    rows: list[pd.DataFrame] = []
    image_ids = list(paths)
    for start in range(0, len(image_ids), _CHUNK):
        chunk = image_ids[start : start + _CHUNK]
        pictures = [read_picture(paths[image_id]) for image_id in chunk]
        rows.extend(prediction_rows(chunk, detector.predict(pictures, minimum_score=minimum_score)))
        if progress is not None:
            progress((start + len(chunk)) / len(image_ids))
    frames = [frame for frame in rows if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else empty_predictions()


def prediction_rows(image_ids: Sequence[str], found: Sequence[Detections]) -> list[pd.DataFrame]:
    """Return one table of ``PREDICTION_COLUMNS`` per picture, best score first."""
    return [
        pd.DataFrame(one.boxes, columns=["x1", "y1", "x2", "y2"]).assign(
            image_id=image_id, class_name=one.class_names, score=one.scores
        )[PREDICTION_COLUMNS]
        for image_id, one in zip(image_ids, found, strict=True)
    ]


def empty_predictions() -> pd.DataFrame:
    """Return a table of ``PREDICTION_COLUMNS`` without rows."""
    text = {"image_id", "class_name"}
    types = {name: "str" if name in text else "float64" for name in PREDICTION_COLUMNS}
    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in types.items()})


def best_device() -> str:
    """Return ``cuda`` where there is an accelerator, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def picture_tensor(pixels: Pixels, device: str) -> "torch.Tensor":
    """Return the picture as a ``(3, H, W)`` tensor in ``[0, 1]`` on ``device``."""
    import torch

    # A copy: torch wants memory that it may write to, decoded pictures are often read-only.
    tensor = torch.from_numpy(np.array(pixels)).to(device)
    return tensor.permute(2, 0, 1).float().div_(255.0)


def read_weights_file(path: Path) -> bytes:
    """Return the bytes of a file of weights; a file that is not there is a ModelError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: the weights cannot be read ({error.strerror}). "
            "Correct training.weights in params.yaml, or train a model first."
        ) from error
