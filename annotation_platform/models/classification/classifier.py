"""Networks as classifiers of whole images: one class or several, each with a probability."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image

from annotation_platform.images.decoding import Pixels
from annotation_platform.models.classification.calibration import Choose
from annotation_platform.models.detection.detector import best_device, image_tensor
from annotation_platform.models.memory import MemoryLimit, enough_memory
from annotation_platform.models.network_inputs import read_image
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.schema.geometry import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import nn

# Of ImageNet, on which the published weights were trained.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Number of images decoded at a time.
_CHUNK = 32


class ImageClassifier:
    """A network that returns the probability of each class for an image.

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
        self._memory = MemoryLimit(device or best_device(), _CHUNK)

    @property
    def device(self) -> str:
        """Device in use; ``cpu`` as soon as an image has exceeded the accelerator's memory."""
        return self._memory.device

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Self:
        """Return the classifier in a file of weights; ``where`` names the file in a ModelError."""
        from annotation_platform.models.weight_files import CLASSIFIER_FILES

        file = CLASSIFIER_FILES.read(data, where=where)
        return cls(
            CLASSIFIER_FILES.network(file, where=where),
            class_names=file.class_names,
            choose=file.choose,
            side=file.side,
            digest=hashlib.sha256(data).hexdigest(),
        )

    @classmethod
    def from_registry(cls, registry: ModelRegistry, sha256: str) -> Self:
        """Return the classifier of these weights; a changed file is a ModelError."""
        return cls.from_bytes(registry.read(sha256), where=str(registry.weights_path(sha256)))

    def predict(self, images: Sequence[Pixels]) -> FloatArray:
        """Return ``(N, C)`` probabilities of the ``(H, W, 3)`` RGB images, in their order.

        Rows add up to 1 where one class holds. Outputs of the network that are not numbers are
        NaN. Where memory is too small for a batch, batches are halved from then on, and the
        processor is used in the end; an image that exceeds its memory is a ModelError.
        """
        squares = [square(image, side=self.side) for image in images]
        found: list[FloatArray] = [np.zeros((0, len(self.class_names)))]
        with enough_memory("an image", "Use smaller images or a larger machine."):
            for start in range(0, len(squares), _CHUNK):
                found.extend(self._predict_batch(squares[start : start + _CHUNK]))
        return np.concatenate(found)

    def _predict_batch(self, squares: Sequence[Pixels]) -> list[FloatArray]:
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

        return self._memory.run(len(squares), attempt)


def predict_classifications(
    classifier: ImageClassifier,
    paths: Mapping[str, Path],
    *,
    class_names: Sequence[str],
    choose: Choose,
    progress: Callable[[float], None] | None = None,
) -> FloatArray:
    """Return ``(N, C)`` probabilities of ``class_names`` for the images, in the order of paths.

    A class that the classifier does not have gets 0; a class that is only the classifier's is left
    out. Where one class holds, the rest are scaled to add up to 1, or are equal if the classifier
    has none of them. An image that cannot be read is a DataError naming its file.
    """
    files = list(paths.values())
    own = np.zeros((len(files), len(classifier.class_names)))
    for start in range(0, len(files), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        own[chunk] = classifier.predict([read_image(path) for path in files[chunk]])
        if progress is not None:
            progress(min(1.0, (start + _CHUNK) / len(files)))
    result = np.zeros((len(files), len(class_names)))
    for column, name in enumerate(class_names):
        if name in classifier.class_names:
            result[:, column] = own[:, classifier.class_names.index(name)]
    if choose == "many" or not class_names:
        return result
    total = result.sum(axis=1, keepdims=True)
    equal = np.full_like(result, 1.0 / len(class_names))
    return np.asarray(np.divide(result, total, out=equal, where=total != 0))


def square(pixels: Pixels, *, side: int) -> Pixels:
    """Return the image resized to a square of ``side`` pixels; its proportions change."""
    if pixels.shape[:2] == (side, side):
        return pixels
    resized = Image.fromarray(pixels).resize(
        (side, side), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    return np.asarray(resized, dtype=np.uint8)


def squares_tensor(squares: Sequence[Pixels], device: str) -> "torch.Tensor":
    """Return ``N`` squares as a normalised ``(N, 3, S, S)`` tensor."""
    import torch

    images = torch.stack([image_tensor(each, device) for each in squares])
    mean, deviation = (torch.tensor(v, device=device).view(3, 1, 1) for v in (_MEAN, _DEVIATION))
    return (images - mean) / deviation
