"""Files of weights: written by us, or published by torchvision. Importing this imports torch.

A file is only ever read with ``weights_only=True``: tensors, numbers and text, never code.
"""

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import ARCHITECTURES, RESNET50_FCOS
from annotation_platform.models.networks import build_network

_FORMAT = "annotation-platform detector 1"
# A file that asks for larger pictures would only exhaust the memory.
_WIDTHS = range(32, 8193)
_CLASS_LAYER = "head.classification_head.cls_logits."
DEFAULT_NAME = "torchvision FCOS_ResNet50_FPN_Weights.COCO_V1"
_REMEDY = "Give a file that this platform trained, or one of torchvision's ResNet-50 files."


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds. Of a file that is not ours, only the tensors are known."""

    architecture: str
    class_names: tuple[str, ...]
    image_width: int
    tensors: dict[str, Tensor]

    @property
    def ours(self) -> bool:
        """Whether this platform wrote it."""
        return bool(self.class_names)


def write_weights(
    network: nn.Module, *, architecture: str, class_names: tuple[str, ...], image_width: int
) -> bytes:
    """Return the network as a file of weights, on no device in particular."""
    head = {"architecture": architecture, "class_names": list(class_names)}
    return write_content(network, {"format": _FORMAT, **head, "image_width": image_width})


def read_weights(data: bytes, *, where: str) -> WeightFile:
    """Return what a file of weights holds; anything else is a ModelError naming ``where``.

    A pickle, which could run code when read, is refused without running any of it.
    """
    content = read_content(data, where=where)
    if isinstance(content, dict) and content.get("format") == _FORMAT:
        return _our_file(content, where=where)
    return _published_file(content, where=where)


def read_tensors(data: bytes, *, where: str) -> dict[str, Tensor]:
    """Return the tensors by name in a file of weights of any network; see ``read_weights``."""
    content = read_content(data, where=where)
    if not isinstance(content, dict):
        raise ModelError(f"{where}: holds no weights by name. {_REMEDY}")
    check_tensors(content, where=where)
    return content


def load_published(url: str) -> tuple[dict[str, Tensor], str]:
    """Return weights that torchvision publishes, from its cache or by download, and their SHA-256.

    The start of the digest is in the address, and the file must agree.
    """
    tensors = download(url, asked="prediction.architecture", give="prediction.weights")
    path = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlparse(url).path).name
    return tensors, hashlib.sha256(path.read_bytes()).hexdigest()


def write_content(network: nn.Module, head: Mapping[str, object]) -> bytes:
    """Return what ``read_content`` reads: ``head``, and the network's tensors on the processor."""
    tensors = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in network.state_dict().items()
    }
    sink = io.BytesIO()
    torch.save({**head, "tensors": tensors}, sink)
    return sink.getvalue()


def read_content(data: bytes, *, where: str) -> Any:
    """Return what a file holds, of tensors, numbers and text; anything else is a ModelError."""
    try:
        with warnings.catch_warnings():
            # torch warns of a foreign pickle before it refuses it; the refusal says enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{where}: refused: it holds more than weights, or is no file of weights. {_REMEDY}"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            OSError, zipfile.BadZipFile) as error:  # fmt: skip
        raise ModelError(f"{where}: damaged, or no file of weights. {_REMEDY}") from error


def build_from(file: WeightFile, *, where: str) -> nn.Module:
    """Return the network that one of our files holds, ready to propose."""
    if not file.ours:
        raise ModelError(
            f"{where}: knows none of our classes: it is something to start training from. {_REMEDY}"
        )
    try:
        network = build_network(file.architecture, classes=len(file.class_names))
        network.load_state_dict(file.tensors)
    except RuntimeError as error:
        raise ModelError(
            f"{where}: its weights do not fit a {file.architecture!r} of "
            f"{len(file.class_names)} classes. Train the model again."
        ) from error
    return network.eval()


def start_network(
    network: nn.Module, file: WeightFile, *, class_names: tuple[str, ...], where: str
) -> None:
    """Take over into ``network`` what ``file`` knows; classes that it does not know start new."""
    known = dict(file.tensors)
    if not any(name.startswith("backbone.") for name in known):
        # A file of the bare ResNet, as torchvision publishes them.
        known = {f"backbone.body.{name}": tensor for name, tensor in known.items()}
    target = network.state_dict()
    for name in [name for name in known if name.startswith(_CLASS_LAYER)]:
        taken = target[name].clone()
        for row, class_name in enumerate(class_names):
            if class_name in file.class_names:
                taken[row] = known[name][file.class_names.index(class_name)]
        known[name] = taken
    fitting = {n: t for n, t in known.items() if n in target and t.shape == target[n].shape}
    needed = {n for n in target if file.ours or n.startswith("backbone.body.")}
    missing = sorted(needed - fitting.keys())
    if missing:
        raise ModelError(
            f"{where}: {len(missing)} weights do not fit, first {missing[0]}. {_REMEDY}"
        )
    network.load_state_dict(fitting, strict=False)


def default_weights() -> WeightFile:
    """Return torchvision's published FCOS, learned on COCO, from its cache or by download."""
    url = FCOS_ResNet50_FPN_Weights.COCO_V1.url
    tensors = download(url, asked="training.weights is DEFAULT", give="training.weights")
    return _published_file(tensors, where=url)


def download(url: str, *, asked: str, give: str) -> dict[str, Tensor]:
    """Return the tensors that torchvision publishes at ``url``, from its cache or by download.

    A ModelError says that ``asked`` wants them, and where to ``give`` a file instead.
    """
    try:
        found: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, progress=False, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{asked}, but {url} cannot be fetched ({error}). "
            f"Download it elsewhere and give the file in {give}, or leave it empty."
        ) from error
    return found


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
            f"{where}: a {file.architecture!r} for pictures of {file.image_width} pixels is "
            "nothing that this version of the platform makes. Train the model again."
        )
    check_tensors(file.tensors, where=where)
    return file


def _published_file(content: Any, *, where: str) -> WeightFile:
    if not isinstance(content, dict):
        raise ModelError(f"{where}: holds no weights by name. {_REMEDY}")
    check_tensors(content, where=where)
    if not any(name.endswith("layer4.2.conv3.weight") for name in content):
        raise ModelError(f"{where}: not a ResNet-50. {_REMEDY}")
    return WeightFile(RESNET50_FCOS, (), 0, content)


def check_tensors(tensors: dict[Any, Any], *, where: str) -> None:
    """Refuse what is no tensor by name, or holds values that are no numbers, as a ModelError."""
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{where}: {name!r} is no weight. {_REMEDY}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{where}: {name} holds values that are no numbers. Train it again.")
