"""Files of a detector's weights, ours or torchvision's ResNet-50. This module imports torch."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import ARCHITECTURES, RESNET50_FCOS
from annotation_platform.models.detection.networks import build_network
from annotation_platform.models.tensor_files import (
    TensorFile,
    checked_tensors,
    download,
    read_content,
    ready_network,
    rows_of_classes,
    take_over,
    write_content,
)

_FORMAT = "annotation-platform detector 1"
# A file that asks for larger images would only exhaust the memory.
_WIDTHS = range(32, 8193)
_CLASS_LAYER = "head.classification_head.cls_logits."
_DEFAULT_NAME = "torchvision FCOS_ResNet50_FPN_Weights.COCO_V1"
_REMEDY = "Give a file that this platform trained, or one of torchvision's ResNet-50 files."


@dataclass(frozen=True)
class WeightFile(TensorFile):
    """The content of a file of a detector's weights."""

    image_width: int


def write_weights(
    network: nn.Module, *, architecture: str, class_names: tuple[str, ...], image_width: int
) -> bytes:
    """Return the network as a file of weights, independent of the device."""
    head = {"architecture": architecture, "class_names": list(class_names)}
    return write_content(network, {"format": _FORMAT, **head, "image_width": image_width})


def read_weights(data: bytes, *, where: str) -> WeightFile:
    """Return the content of a file of weights; anything else is a ModelError naming ``where``.

    A pickle, which could run code when it is read, is refused without running any of it.
    """
    content = read_content(data, where=where)
    if isinstance(content, dict) and content.get("format") == _FORMAT:
        return _our_file(content, where=where)
    return _published_file(content, where=where)


def build_from(file: WeightFile, *, where: str) -> nn.Module:
    """Return the network in one of our files, ready for prediction."""
    return ready_network(file, lambda name, count: build_network(name, classes=count), where=where)


def start_network(
    network: nn.Module, file: WeightFile, *, class_names: tuple[str, ...], where: str
) -> None:
    """Load the weights of ``file`` into ``network``; classes it lacks keep their initial rows."""
    known = dict(file.tensors)
    if not any(name.startswith("backbone.") for name in known):
        # A file of the bare ResNet, as torchvision publishes them.
        known = {f"backbone.body.{name}": tensor for name, tensor in known.items()}
    target = network.state_dict()
    for name in [name for name in known if name.startswith(_CLASS_LAYER)]:
        known[name] = rows_of_classes(target[name], known[name], class_names, file.class_names)
    needed = {name for name in target if file.ours or name.startswith("backbone.body.")}
    take_over(network, known, needed, where=where)


def default_weights() -> tuple[WeightFile, str]:
    """Return torchvision's published FCOS for COCO, cached or downloaded, and its name."""
    url = FCOS_ResNet50_FPN_Weights.COCO_V1.url
    tensors = download(url, reason="training.weights is DEFAULT", setting="training.weights")
    return _published_file(tensors, where=url), _DEFAULT_NAME


def _our_file(content: dict[str, Any], *, where: str) -> WeightFile:
    try:
        file = WeightFile(
            architecture=str(content["architecture"]),
            class_names=tuple(str(name) for name in content["class_names"]),
            image_width=int(content["image_width"]),
            tensors=dict(content["tensors"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: its head is damaged ({error}). Train it again.") from error
    if file.architecture not in ARCHITECTURES or file.image_width not in _WIDTHS:
        raise ModelError(
            f"{where}: a {file.architecture!r} for images of {file.image_width} pixels is not "
            "supported by this version of the platform. Train the model again."
        )
    checked_tensors(file.tensors, where=where)
    return file


def _published_file(content: Any, *, where: str) -> WeightFile:
    tensors = checked_tensors(content, where=where)
    if not any(name.endswith("layer4.2.conv3.weight") for name in tensors):
        raise ModelError(f"{where}: not a ResNet-50. {_REMEDY}")
    return WeightFile(RESNET50_FCOS, (), tensors, 0)
