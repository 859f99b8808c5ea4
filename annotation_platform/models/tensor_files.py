"""Files of tensors by name. This module imports torch.

Files are always read with ``weights_only=True``: tensors, numbers and text, never code.
"""

import hashlib
import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from annotation_platform.errors import ModelError

_REMEDY = "Give a file that this platform trained, or one that torchvision publishes for it."


def write_content(network: nn.Module, head: Mapping[str, object]) -> bytes:
    """Return a file for ``read_content``: ``head``, and the network's tensors on the processor."""
    tensors = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in network.state_dict().items()
    }
    sink = io.BytesIO()
    torch.save({**head, "tensors": tensors}, sink)
    return sink.getvalue()


def read_content(data: bytes, *, where: str) -> Any:
    """Return a file's tensors, numbers and text; any other content is a ModelError.

    A pickle, which could run code when it is read, is refused without running any of it.
    """
    try:
        with warnings.catch_warnings():
            # torch warns about a pickle of others before it refuses it; the error is enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{where}: refused: it holds more than weights, or is not a file of weights. {_REMEDY}"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            OSError, zipfile.BadZipFile) as error:  # fmt: skip
        raise ModelError(f"{where}: damaged, or not a file of weights. {_REMEDY}") from error


def read_tensors(data: bytes, *, where: str) -> dict[str, Tensor]:
    """Return the tensors by name in a file of weights of any network; see ``read_content``."""
    return checked_tensors(read_content(data, where=where), where=where)


def download(url: str, *, reason: str, setting: str) -> dict[str, Tensor]:
    """Return the tensors that torchvision publishes at ``url``, from its cache or by download.

    Args:
        url: of the file.
        reason: why it is needed, as a clause for the error.
        setting: the one that takes a file instead, for the error.

    Raises:
        ModelError: the file can be neither downloaded nor read.
    """
    try:
        found: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, progress=False, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"{reason}, but {url} cannot be fetched ({error}). "
            f"Download it elsewhere and give the file in {setting}, or leave it empty."
        ) from error
    return found


def load_published(url: str) -> tuple[dict[str, Tensor], str]:
    """Return weights that torchvision publishes, from its cache or by download, and their SHA-256.

    The file is checked against the start of the digest, which is part of the address.
    """
    tensors = download(url, reason="prediction.architecture is set", setting="prediction.weights")
    path = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlparse(url).path).name
    return tensors, hashlib.sha256(path.read_bytes()).hexdigest()


def checked_tensors(content: Any, *, where: str) -> dict[str, Tensor]:
    """Return tensors by name; other content, or values that are not finite, is a ModelError."""
    if not isinstance(content, dict):
        raise ModelError(f"{where}: holds no named weights. {_REMEDY}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{where}: {name!r} is not a tensor. {_REMEDY}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{where}: {name} has values that are not finite. Train it again.")
    return content
