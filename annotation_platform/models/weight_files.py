"""Files of weights: ours, and those that torchvision publishes. This module imports torch.

A file of ours has a head (format, architecture, classes, image size) and the network's tensors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import ARCHITECTURES, CLASSIFIERS, RESNET18, RESNET50_FCOS
from annotation_platform.models.detection.networks import build_classifier, build_network
from annotation_platform.models.tensor_files import (
    checked_tensors,
    download,
    read_content,
    write_content,
)


@dataclass(frozen=True)
class WeightFile:
    """The content of a file of weights; one that is not ours has only tensors."""

    architecture: str
    class_names: tuple[str, ...]
    tensors: dict[str, Tensor]
    side: int = 0  # that images are resized to, pixels: the longer one, or that of a square
    choose: str = ""  # of a classifier: one or many

    @property
    def ours(self) -> bool:
        """Whether this platform wrote it."""
        return bool(self.class_names)


@dataclass(frozen=True)
class PublishedWeights:
    """The weights that torchvision publishes for an architecture, and how they are recognized."""

    architecture: str
    network: str  # its name in error messages
    name: str
    url: str
    setting: str  # of params.yaml
    remedy: str
    last_layer: str  # end of the name of its deepest tensor
    deeper_layer: str = "\n"  # end of the name of a tensor that only deeper networks have

    def matches(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether the tensors are of this network."""
        return any(name.endswith(self.last_layer) for name in tensors) and not any(
            name.endswith(self.deeper_layer) for name in tensors
        )


@dataclass(frozen=True)
class WeightFormat:
    """The files of one kind of model: how they are written, read, and used to start training."""

    name: str  # written in each file
    architectures: tuple[str, ...]
    build: Callable[[str, int], nn.Module]  # of an architecture, for a number of classes
    class_layer: str  # start of the names of tensors that have a row for each class
    side_key: str  # of the image size in the head
    sides: range  # a file that asks for larger images would only exhaust the memory
    published: PublishedWeights
    chooses: tuple[str, ...] = ("",)  # values of ``choose`` in the head; "": the head has none
    trunk: str = ""  # start of the names of tensors that a published file holds

    def write(
        self,
        network: nn.Module,
        *,
        architecture: str,
        class_names: tuple[str, ...],
        side: int,
        choose: str = "",
    ) -> bytes:
        """Return the network as a file of weights, independent of the device."""
        head: dict[str, object] = {
            "format": self.name,
            "architecture": architecture,
            "class_names": list(class_names),
        }
        if choose:
            head["choose"] = choose
        return write_content(network, {**head, self.side_key: side})

    def read(self, data: bytes, *, where: str) -> WeightFile:
        """Return the content of a file of weights; anything else is a ModelError naming ``where``.

        A pickle, which could run code when it is read, is refused without running any of it.
        """
        content = read_content(data, where=where)
        if isinstance(content, dict) and content.get("format") == self.name:
            return self._our_file(content, where=where)
        return self._published_file(content, where=where)

    def default(self) -> tuple[WeightFile, str]:
        """Return torchvision's published weights, cached or downloaded, and their name."""
        known = self.published
        reason = f"{known.setting} is DEFAULT"
        tensors = download(known.url, reason=reason, setting=known.setting)
        return self._published_file(tensors, where=known.url), known.name

    def network(self, file: WeightFile, *, where: str) -> nn.Module:
        """Return the network in one of our files, ready for prediction.

        A file that is not ours, or does not fit, is a ModelError naming ``where``.
        """
        if not file.ours:
            raise ModelError(
                f"{where}: has none of our classes: it can only be used to start training. "
                "Give a file that this platform trained."
            )
        try:
            network = self.build(file.architecture, len(file.class_names))
            network.load_state_dict(file.tensors)
        except RuntimeError as error:
            raise ModelError(
                f"{where}: its weights do not fit a {file.architecture!r} of "
                f"{len(file.class_names)} classes. Train the model again."
            ) from error
        return network.eval()

    def start(
        self, network: nn.Module, file: WeightFile, *, class_names: tuple[str, ...], where: str
    ) -> None:
        """Load the weights of ``file`` into ``network``; classes it lacks keep their initial rows.

        Tensors that do not fit are a ModelError naming ``where``, unless only files of ours have
        them.
        """
        known = dict(file.tensors)
        if self.trunk and not any(name.startswith("backbone.") for name in known):
            # A file of the bare network, as torchvision publishes them.
            known = {f"{self.trunk}{name}": tensor for name, tensor in known.items()}
        target = network.state_dict()
        for name in [name for name in target if name.startswith(self.class_layer)]:
            # The file of a network without classes has no such layer.
            rows, learned = target[name].clone(), known.get(name, target[name])
            for row, class_name in enumerate(class_names):
                if class_name in file.class_names:
                    rows[row] = learned[file.class_names.index(class_name)]
            known[name] = rows
        fitting = {n: t for n, t in known.items() if n in target and t.shape == target[n].shape}
        # Older files of torchvision have no batch counters.
        needed = {
            name
            for name in target
            if (file.ours or name.startswith(self.trunk))
            and not name.endswith("num_batches_tracked")
        }
        missing = sorted(needed - fitting.keys())
        if missing:
            raise ModelError(
                f"{where}: {len(missing)} weights do not fit, first {missing[0]}. "
                f"{self.published.remedy}"
            )
        network.load_state_dict(fitting, strict=False)

    def _our_file(self, content: dict[str, Any], *, where: str) -> WeightFile:
        try:
            file = WeightFile(
                architecture=str(content["architecture"]),
                class_names=tuple(str(name) for name in content["class_names"]),
                tensors=dict(content["tensors"]),
                side=int(content[self.side_key]),
                choose=str(content["choose"]) if any(self.chooses) else "",
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{where}: its head is damaged ({error}). Train it again.") from error
        known = file.architecture in self.architectures and file.choose in self.chooses
        if not known or file.side not in self.sides:
            raise ModelError(
                f"{where}: a {file.architecture!r} for images of {file.side} pixels is not "
                "supported by this version of the platform. Train the model again."
            )
        checked_tensors(file.tensors, where=where)
        return file

    def _published_file(self, content: Any, *, where: str) -> WeightFile:
        tensors, known = checked_tensors(content, where=where), self.published
        if not known.matches(tensors):
            raise ModelError(f"{where}: not a {known.network}. {known.remedy}")
        return WeightFile(known.architecture, (), tensors)


DETECTOR_FILES = WeightFormat(
    name="annotation-platform detector 1",
    architectures=ARCHITECTURES,
    build=lambda architecture, classes: build_network(architecture, classes=classes),
    class_layer="head.classification_head.cls_logits.",
    side_key="image_width",
    sides=range(32, 8193),
    published=PublishedWeights(
        architecture=RESNET50_FCOS,
        network="ResNet-50",
        name="torchvision FCOS_ResNet50_FPN_Weights.COCO_V1",
        url=FCOS_ResNet50_FPN_Weights.COCO_V1.url,
        setting="training.weights",
        remedy="Give a file that this platform trained, or one of torchvision's ResNet-50 files.",
        last_layer="layer4.2.conv3.weight",
    ),
    trunk="backbone.body.",
)
CLASSIFIER_FILES = WeightFormat(
    name="annotation-platform classifier 1",
    architectures=CLASSIFIERS,
    build=lambda architecture, classes: build_classifier(architecture, classes=classes),
    class_layer="fc.",
    side_key="side",
    sides=range(32, 1025),
    published=PublishedWeights(
        architecture=RESNET18,
        network="ResNet-18",
        name="torchvision ResNet18_Weights.IMAGENET1K_V1",
        url=ResNet18_Weights.IMAGENET1K_V1.url,
        setting="training.classifier_weights",
        remedy="Give a classifier that this platform trained, or torchvision's ResNet-18.",
        last_layer="layer4.1.conv2.weight",
        deeper_layer="layer4.2.conv1.weight",
    ),
    chooses=("one", "many"),
)
