"""Files of a classifier's weights, ours or torchvision's ResNet-18. Importing this imports torch.

As with detectors, a file is only ever read with ``weights_only=True``; see ``weight_files.py``.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import CLASSIFIERS, RESNET18
from annotation_platform.models.networks import build_classifier
from annotation_platform.models.weight_files import (
    check_tensors,
    download,
    read_content,
    write_content,
)

DEFAULT_NAME = "torchvision ResNet18_Weights.IMAGENET1K_V1"
_FORMAT = "annotation-platform classifier 1"
# A file that asks for larger pictures would only exhaust the memory.
_SIDES = range(32, 1025)
_CLASS_LAYER = "fc."
_REMEDY = "Give a classifier that this platform trained, or torchvision's ResNet-18."


@dataclass(frozen=True)
class ClassifierFile:
    """What a file of weights holds. Of a file that is not ours, only the tensors are known."""

    architecture: str
    class_names: tuple[str, ...]
    choose: str  # one or many
    side: int  # of the square that pictures are brought to, pixels
    tensors: dict[str, Tensor]

    @property
    def ours(self) -> bool:
        """Whether this platform wrote it."""
        return bool(self.class_names)


def write_classifier(
    network: nn.Module, *, architecture: str, class_names: tuple[str, ...], choose: str, side: int
) -> bytes:
    """Return the network as a file of weights, on no device in particular."""
    head = {"architecture": architecture, "class_names": list(class_names)}
    return write_content(network, {"format": _FORMAT, **head, "choose": choose, "side": side})


def read_classifier(data: bytes, *, where: str) -> ClassifierFile:
    """Return what a file of weights holds; anything else is a ModelError naming ``where``.

    A pickle, which could run code when read, is refused without running any of it.
    """
    content = read_content(data, where=where)
    if isinstance(content, dict) and content.get("format") == _FORMAT:
        return _our_file(content, where=where)
    return _published_file(content, where=where)


def default_classifier() -> ClassifierFile:
    """Return torchvision's ResNet-18, learned on ImageNet, from its cache or by download."""
    url = ResNet18_Weights.IMAGENET1K_V1.url
    setting = "training.classifier_weights"
    tensors = download(url, asked=f"{setting} is DEFAULT", give=setting)
    return _published_file(tensors, where=url)


def build_classifier_from(file: ClassifierFile, *, where: str) -> nn.Module:
    """Return the network that one of our files holds, ready to propose."""
    if not file.ours:
        raise ModelError(
            f"{where}: knows none of our classes: it is something to start training from. {_REMEDY}"
        )
    try:
        network = build_classifier(file.architecture, classes=len(file.class_names))
        network.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise ModelError(
            f"{where}: its weights do not fit a {file.architecture!r} of "
            f"{len(file.class_names)} classes. Train the model again."
        ) from error
    return network.eval()


def start_classifier(
    network: nn.Module, file: ClassifierFile, *, class_names: tuple[str, ...], where: str
) -> None:
    """Take over into ``network`` what ``file`` knows; classes that it does not know start new."""
    target = network.state_dict()
    known = {n: t for n, t in file.tensors.items() if not n.startswith(_CLASS_LAYER)}
    for name in (f"{_CLASS_LAYER}weight", f"{_CLASS_LAYER}bias"):
        taken = target[name].clone()
        for row, class_name in enumerate(class_names):
            if class_name in file.class_names:
                taken[row] = file.tensors[name][file.class_names.index(class_name)]
        known[name] = taken
    fitting = {n: t for n, t in known.items() if n in target and t.shape == target[n].shape}
    # Older files of torchvision's do not count batches.
    needed = {name for name in target if not name.endswith("num_batches_tracked")}
    missing = sorted(needed - fitting.keys())
    if missing:
        raise ModelError(
            f"{where}: {len(missing)} weights do not fit, first {missing[0]}. {_REMEDY}"
        )
    network.load_state_dict(fitting, strict=False)


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
            f"{where}: a {file.architecture!r} for pictures of {file.side} pixels is "
            "nothing that this version of the platform makes. Train the model again."
        )
    check_tensors(file.tensors, where=where)
    return file


def _published_file(content: Any, *, where: str) -> ClassifierFile:
    if not isinstance(content, dict):
        raise ModelError(f"{where}: holds no weights by name. {_REMEDY}")
    check_tensors(content, where=where)
    if "layer4.1.conv2.weight" not in content or "layer4.2.conv1.weight" in content:
        raise ModelError(f"{where}: not a ResNet-18. {_REMEDY}")
    return ClassifierFile(RESNET18, (), "", 0, content)
