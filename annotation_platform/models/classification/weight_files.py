"""Files of a classifier's weights, ours or torchvision's ResNet-18. This module imports torch."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torchvision.models import ResNet18_Weights

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import CLASSIFIERS, RESNET18
from annotation_platform.models.detection.networks import build_classifier
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

_DEFAULT_NAME = "torchvision ResNet18_Weights.IMAGENET1K_V1"
_FORMAT = "annotation-platform classifier 1"
# A file that asks for larger images would only exhaust the memory.
_SIDES = range(32, 1025)
_CLASS_LAYER = "fc."
_REMEDY = "Give a classifier that this platform trained, or torchvision's ResNet-18."


@dataclass(frozen=True)
class ClassifierFile(TensorFile):
    """The content of a file of a classifier's weights."""

    choose: str  # one or many
    side: int  # of the square that images are resized to, pixels


def write_classifier(
    network: nn.Module, *, architecture: str, class_names: tuple[str, ...], choose: str, side: int
) -> bytes:
    """Return the network as a file of weights, independent of the device."""
    head = {"architecture": architecture, "class_names": list(class_names)}
    return write_content(network, {"format": _FORMAT, **head, "choose": choose, "side": side})


def read_classifier(data: bytes, *, where: str) -> ClassifierFile:
    """Return the content of a file of weights; anything else is a ModelError naming ``where``.

    A pickle, which could run code when it is read, is refused without running any of it.
    """
    content = read_content(data, where=where)
    if isinstance(content, dict) and content.get("format") == _FORMAT:
        return _our_file(content, where=where)
    return _published_file(content, where=where)


def default_classifier() -> tuple[ClassifierFile, str]:
    """Return torchvision's ResNet-18 for ImageNet, cached or downloaded, and its name."""
    url = ResNet18_Weights.IMAGENET1K_V1.url
    setting = "training.classifier_weights"
    tensors = download(url, reason=f"{setting} is DEFAULT", setting=setting)
    return _published_file(tensors, where=url), _DEFAULT_NAME


def build_classifier_from(file: ClassifierFile, *, where: str) -> nn.Module:
    """Return the network in one of our files, ready for prediction."""
    return ready_network(
        file, lambda name, count: build_classifier(name, classes=count), where=where
    )


def start_classifier(
    network: nn.Module, file: ClassifierFile, *, class_names: tuple[str, ...], where: str
) -> None:
    """Load the weights of ``file`` into ``network``; classes it lacks keep their initial rows."""
    target = network.state_dict()
    known = {n: t for n, t in file.tensors.items() if not n.startswith(_CLASS_LAYER)}
    for name in (f"{_CLASS_LAYER}weight", f"{_CLASS_LAYER}bias"):
        learned = file.tensors.get(name, target[name])
        known[name] = rows_of_classes(target[name], learned, class_names, file.class_names)
    # Older files of torchvision have no batch counters.
    needed = {name for name in target if not name.endswith("num_batches_tracked")}
    take_over(network, known, needed, where=where)


def _our_file(content: dict[str, Any], *, where: str) -> ClassifierFile:
    try:
        file = ClassifierFile(
            architecture=str(content["architecture"]),
            class_names=tuple(str(name) for name in content["class_names"]),
            choose=str(content["choose"]),
            side=int(content["side"]),
            tensors=dict(content["tensors"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: its head is damaged ({error}). Train it again.") from error
    known = file.architecture in CLASSIFIERS and file.choose in ("one", "many")
    if not known or file.side not in _SIDES:
        raise ModelError(
            f"{where}: a {file.architecture!r} for images of {file.side} pixels is not supported "
            "by this version of the platform. Train the model again."
        )
    checked_tensors(file.tensors, where=where)
    return file


def _published_file(content: Any, *, where: str) -> ClassifierFile:
    tensors = checked_tensors(content, where=where)
    if "layer4.1.conv2.weight" not in tensors or "layer4.2.conv1.weight" in tensors:
        raise ModelError(f"{where}: not a ResNet-18. {_REMEDY}")
    return ClassifierFile(RESNET18, (), tensors, "", 0)
