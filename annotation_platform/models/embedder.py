"""Embedding of whole images by a detector's backbone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from annotation_platform.images.decoding import Pixels
from annotation_platform.images.embedding import Embedder, ImageEmbedder, Vectors
from annotation_platform.models.detection.detector import best_device, image_tensor
from annotation_platform.models.memory import MemoryLimit, enough_memory
from annotation_platform.models.network_inputs import resize
from annotation_platform.models.registry import ModelRegistry

if TYPE_CHECKING:
    import torch
    from torch import nn


def embedder_for(kind: Literal["image", "model"], registry: ModelRegistry) -> Embedder:
    """Return the embedder of a kind; before the first promotion, the one without a model."""
    weights = registry.promoted()
    if kind == "image" or weights is None:
        return ImageEmbedder()
    return ModelEmbedder.from_registry(registry, weights)


class ModelEmbedder:
    """The deepest features of a network's backbone, averaged over the image.

    Images are embedded one by one: a batch is padded to its largest image, so the vector of one
    would depend on the others.
    """

    def __init__(self, network: "nn.Module", *, name: str, image_width: int) -> None:
        self.name = name
        self._width = image_width
        # One image at a time; the processor is used once an image exceeds the memory.
        self._memory = MemoryLimit(best_device(), 1)
        # Its attributes are those of torchvision's FCOS, which has no types.
        self._network: Any = network.eval()

    @classmethod
    def from_registry(cls, registry: ModelRegistry, sha256: str) -> Self:
        """Return the embedder of these weights; a changed file is a ModelError."""
        from annotation_platform.models.weight_files import DETECTOR_FILES

        where = str(registry.weights_path(sha256))
        file = DETECTOR_FILES.read(registry.read(sha256), where=where)
        network = DETECTOR_FILES.network(file, where=where)
        return cls(network, name=f"{file.architecture}@{sha256}", image_width=file.side)

    def embed(self, images: Sequence[Pixels]) -> Vectors:
        """Return ``(N, D)`` rows of unit length; D is 256 for the small network.

        An image for which memory is too small is a ModelError.
        """
        with enough_memory("an image", "Use smaller images or a larger machine."):
            return np.array([self._vector(image) for image in images], dtype=np.float32)

    def _vector(self, image: Pixels) -> Vectors:
        import torch

        resized, _ = resize(image, side=self._width)

        def attempt(_images: int, device: str) -> Vectors:
            with torch.inference_mode():
                return self._pooled(image_tensor(resized, device), device)

        return self._memory.run(1, attempt)

    def _pooled(self, image: "torch.Tensor", device: str) -> Vectors:
        import torch

        self._network.to(device)
        # The network's own normalisation also pads to whole cells.
        images, _ = self._network.transform([image])
        features = self._deepest(images.tensors)
        height, width = images.image_sizes[0]
        rows = -(-height * features.shape[2] // images.tensors.shape[2])
        columns = -(-width * features.shape[3] // images.tensors.shape[3])
        pooled = features[0, :, :rows, :columns].float().mean(dim=(1, 2))
        unit: Vectors = torch.nn.functional.normalize(pooled, dim=0).cpu().numpy()
        return unit

    def _deepest(self, images: "torch.Tensor") -> "torch.Tensor":
        """Return the last feature map of the backbone, before its pyramid: ``(1, D, h, w)``."""

        backbone = self._network.backbone
        if hasattr(backbone, "body"):
            *_, deepest = backbone.body(images).values()
        else:
            deepest = backbone.stem(images)
            for stage in backbone.stages:
                deepest = stage(deepest)
        features: torch.Tensor = deepest
        return features
