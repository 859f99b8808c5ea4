"""What images as a whole are, by a network: one choice or many, each with a probability."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image

from annotation_platform.errors import ModelError
from annotation_platform.images.decoding import Pixels
from annotation_platform.models.classification.calibration import Choose
from annotation_platform.models.detection.detector import best_device, image_tensor
from annotation_platform.models.memory import Room, enough_memory
from annotation_platform.models.network_inputs import read_image
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.schema.geometry import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import nn

# Of ImageNet, which published weights were learned with.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Images decoded at a time.
_CHUNK = 32


class ImageClassifier:
    """A network that says of each class how likely it holds for an image.

    Args:
        network: takes ``(N, 3, S, S)`` normalised images, returns ``(N, C)`` logits.
        class_names: the ``C`` classes, in the order of its outputs.
        choose: whether one of them holds for an image, or any number.
        side: ``S``, pixels.
        digest: SHA-256 of its file.
        device: ``cpu`` or ``cuda``; by default the accelerator, where there is one.
    """

    def __init__(
        self,
        network: "nn.Module",
        *,
        class_names: Sequence[str],
        choose: str,
        side: int,
        digest: str = "",
        device: str | None = None,
    ) -> None:
        self.class_names = tuple(class_names)
        self.choose = choose
        self.side = side
        self.digest = digest
        self._network = network.eval()
        self._room = Room(device or best_device(), _CHUNK)

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, too, once the accelerator had no room for an image."""
        return self._room.device

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Return the classifier in a file of weights; ``where`` names the file in a ModelError."""
        from annotation_platform.models.classification.weight_files import (
            build_classifier_from,
            read_classifier,
        )

        file = read_classifier(data, where=where)
        return cls(
            build_classifier_from(file, where=where),
            class_names=file.class_names,
            choose=file.choose,
            side=file.side,
            digest=hashlib.sha256(data).hexdigest(),
        )

    @classmethod
    def from_registry(cls, registry: ModelRegistry, sha256: str) -> Self:
        """Return the classifier of these weights; a file that is not what it was: ModelError."""
        path = registry.weights_path(sha256)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ModelError(
                f"{path}: the file was changed or damaged. "
                "Restore it from a copy, or delete it and train again."
            )
        return cls.from_bytes(data, where=str(path))

    def predict(self, images: Sequence[Pixels]) -> FloatArray:
        """Return ``(N, C)`` probabilities of the ``(H, W, 3)`` RGB images, in their order.

        Rows add up to 1 where one class is chosen. A network that gives no numbers gives NaN.
        Where memory is too small for a batch, it is halved, from then on, and at last the
        processor is used; an image that has no room there is a ModelError.
        """
        squares = [square(image, side=self.side) for image in images]
        seen: list[FloatArray] = [np.zeros((0, len(self.class_names)))]
        with enough_memory("an image", "Look at smaller ones, or on a larger machine."):
            for start in range(0, len(squares), _CHUNK):
                seen.extend(self._seen(squares[start : start + _CHUNK]))
        return np.concatenate(seen)

    def _seen(self, squares: Sequence[Pixels]) -> list[FloatArray]:
        import torch

        def attempt(size: int, device: str) -> list[FloatArray]:
            self._network.to(device)
            found = []
            for start in range(0, len(squares), size):
                with torch.inference_mode():
                    part = squares_tensor(squares[start : start + size], device)
                    logits = self._network(part).double()
                    chances = logits.softmax(dim=1) if self.choose == "one" else logits.sigmoid()
                found.append(np.asarray(chances.cpu().numpy(), dtype=np.float64))
            return found

        return self._room.fit(len(squares), attempt)


def predict_classifications(
    classifier: ImageClassifier,
    paths: Mapping[str, Path],
    *,
    class_names: Sequence[str],
    choose: Choose,
    progress: Callable[[float], None] | None = None,
) -> FloatArray:
    """Return ``(N, C)`` probabilities of today's classes for the images, in the order of paths.

    A class that the classifier does not know has 0, one that is no more is left out; where one is
    chosen the others are made to add up to 1, all alike where it knows none of them. An image
    that cannot be read is a DataError naming its file.
    """
    files = list(paths.values())
    seen = np.zeros((len(files), len(classifier.class_names)))
    for start in range(0, len(files), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        seen[chunk] = classifier.predict([read_image(path) for path in files[chunk]])
        if progress is not None:
            progress(min(1.0, (start + _CHUNK) / len(files)))
    result = np.zeros((len(files), len(class_names)))
    for column, name in enumerate(class_names):
        if name in classifier.class_names:
            result[:, column] = seen[:, classifier.class_names.index(name)]
    if choose == "many" or not class_names:
        return result
    total = result.sum(axis=1, keepdims=True)
    alike = np.full_like(result, 1.0 / len(class_names))
    return np.asarray(np.divide(result, total, out=alike, where=total != 0))


def square(pixels: Pixels, *, side: int) -> Pixels:
    """Return the image as a square of ``side`` pixels, whatever its proportions."""
    if pixels.shape[:2] == (side, side):
        return pixels
    resized = Image.fromarray(pixels).resize(
        (side, side), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    return np.asarray(resized, dtype=np.uint8)


def squares_tensor(squares: Sequence[Pixels], device: str) -> "torch.Tensor":
    """Return ``(N, 3, S, S)``, normalised, from ``N`` images that ``square`` made."""
    import torch

    images = torch.stack([image_tensor(each, device) for each in squares])
    mean, deviation = (torch.tensor(v, device=device).view(3, 1, 1) for v in (_MEAN, _DEVIATION))
    return (images - mean) / deviation
