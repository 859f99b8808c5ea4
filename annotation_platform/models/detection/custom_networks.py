"""Custom ONNX and TorchScript files as functions from one image to arrays.

ONNX is data: a graph of known operations. It is read from the bytes whose SHA-256 was checked, no
library of custom operations is loaded, and ONNX Runtime refuses references to other files.
TorchScript is a program, and PyTorch's interpreter is not a sandbox. So the program is checked
before it is loaded: it is refused if it names an operation that accesses files or that runs during
loading, or if a pickle in it loads anything but tensors. This lowers the risk. Because a risk
remains, a person who would run the program has to enter its SHA-256.
"""

import io
import pickletools
import re
import zipfile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from annotation_platform.errors import ModelError, SettingsError
from annotation_platform.models.detection.detector import best_device
from annotation_platform.models.memory import MemoryLimit, enough_memory

if TYPE_CHECKING:
    import torch

Outputs = list[npt.NDArray[Any]]

# Names that a TorchScript program must not contain: access to files, programs and the system.
_FORBIDDEN = re.compile(
    r"\b(?:torch\.(?:save|load|from_file|hub|package|classes|jit)|ops\.(?!torchvision\b|aten\b|prim\b"
    r"|quantized\b)\w+|aten::(?:save|from_file)|(?:aten\.)?(?:save|from_file)\s*\(|__setstate__"
    r"|__import__|open\s*\(|prim\.(?:rpc|load)|rpc_async|rpc_sync)"
)
_HARMLESS_GLOBALS = re.compile(
    r"__torch__\S* \S+|torch \w+Storage|torch\._utils _rebuild_\w+|torch\.jit\._pickle \w+"
    r"|collections OrderedDict"
)
_CODE = re.compile(r"[^/]+/code/.+\.py")


class FileNetwork(Protocol):
    """A custom file as a function from one image to arrays."""

    side: int | None  # of the square that it takes; None: any

    @property
    def device(self) -> str:
        """Device in use: ``cpu`` or ``cuda``."""
        ...

    def __call__(self, square: npt.NDArray[np.float32]) -> Outputs:
        """Return the outputs for one ``(1, 3, S, S)`` image in ``[0, 1]``, without the batch axis.

        A single output has a YOLO layout; three are boxes ``(N, 4)`` as corners, scores, labels.
        """
        ...


class OnnxNetwork:
    """An ONNX graph, run by ONNX Runtime, on the accelerator if its build supports one."""

    def __init__(self, data: bytes, *, where: str) -> None:
        try:
            import onnxruntime as runtime
        except ImportError as error:
            raise SettingsError(
                f"{where} is an ONNX file, and ONNX Runtime is not installed. "
                "Install annotation-platform[onnx]."
            ) from error
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        accelerated = "CUDAExecutionProvider" in runtime.get_available_providers()
        providers = ["CUDAExecutionProvider"] * accelerated + ["CPUExecutionProvider"]
        try:
            self._session = runtime.InferenceSession(data, providers=providers)
        except (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf,
                state.NotImplemented, state.RuntimeException) as error:  # fmt: skip
            raise ModelError(f"{where}: cannot be opened as ONNX: {first_line(error)}") from error
        self.device = "cuda" if accelerated else "cpu"
        self._input = self._session.get_inputs()[0]
        shape = self._input.shape
        if len(shape) not in {3, 4} or len(self._session.get_outputs()) not in {1, 3}:
            raise ModelError(
                f"{where}: the input is {shape}, with {len(self._session.get_outputs())} outputs. "
                "A detector takes an image and has one YOLO output, or boxes, scores and labels."
            )
        self.side = shape[-1] if isinstance(shape[-1], int) else None

    def __call__(self, square: npt.NDArray[np.float32]) -> Outputs:
        """Return the outputs of the graph."""
        image = square if len(self._input.shape) == 4 else square[0]
        outputs = self._session.run(None, {self._input.name: image})
        batched = len(outputs) == 1 or outputs[0].ndim == 3
        return [np.asarray(one[0] if batched else one) for one in outputs]


class ScriptNetwork:
    """A TorchScript program that is checked before it is loaded."""

    def __init__(self, data: bytes, *, where: str) -> None:
        check_script(data, where=where)
        self.side: int | None = None
        self._memory = MemoryLimit(best_device(), 1)
        self._data, self._where = data, where
        self._module, self._loaded_on = self._load(self.device), self.device
        arguments = self._module.forward.schema.arguments
        self._takes_list = len(arguments) > 1 and "List" in str(arguments[1].type)

    def __call__(self, square: npt.NDArray[np.float32]) -> Outputs:
        """Return the outputs of the program; the processor is used if memory is too small."""
        import torch

        def attempt(_images: int, device: str) -> Outputs:
            if device != self._loaded_on:
                # Loaded again: ``to`` would not move the program's constants.
                self._module, self._loaded_on = self._load(device), device
            image = torch.from_numpy(square).to(device)
            with torch.inference_mode():
                result: Any = self._module([image[0]] if self._takes_list else image)
            return _arrays(result)

        with enough_memory("an image", "Use smaller images or a larger machine."):
            return self._memory.run(1, attempt)

    @property
    def device(self) -> str:
        """Device in use."""
        return self._memory.device

    def _load(self, device: str) -> Any:
        import torch

        try:
            loaded: Any = torch.jit.load(  # type: ignore[no-untyped-call]
                io.BytesIO(self._data), map_location=device
            )
        except RuntimeError as error:
            raise ModelError(
                f"{self._where}: cannot be loaded as TorchScript: {first_line(error)}"
            ) from error
        return loaded.eval()


def is_script(data: bytes) -> bool:
    """Return whether these bytes are a TorchScript archive."""
    return bool(_members(data, _CODE))


def check_script(data: bytes, *, where: str) -> None:
    """Raise a ModelError if a TorchScript archive could do more than compute."""
    for name, content in _members(data, _CODE).items():
        found = _FORBIDDEN.search(content.decode("utf-8", errors="replace"))
        if found:
            raise ModelError(
                f"{where}: refused: {name} names {found.group(0)!r}, which no detector needs. "
                "Export the model again without it, or as ONNX."
            )
    for name, content in _members(data, re.compile(r".+\.pkl")).items():
        for loaded in _globals(content, where=f"{where}: {name}"):
            if not _HARMLESS_GLOBALS.fullmatch(loaded):
                raise ModelError(
                    f"{where}: refused: {name} would load {loaded!r}. Export the model as ONNX."
                )


def _arrays(result: Any) -> Outputs:
    """Return a program's outputs as arrays: one of YOLO's, or boxes, scores and labels."""
    # torchvision's programs return their losses first, then a dictionary for each image.
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], list):
        result = result[1]
    if isinstance(result, list) and result and isinstance(result[0], dict):
        return [_array(result[0][name]) for name in ("boxes", "scores", "labels")]
    if isinstance(result, dict):
        return [_array(result[name]) for name in ("boxes", "scores", "labels")]
    if isinstance(result, list | tuple) and len(result) == 3 and result[0].dim() == 2:
        return [_array(one) for one in result]
    first = result[0] if isinstance(result, list | tuple) else result
    return [_array(first)[0]]


def _array(tensor: "torch.Tensor") -> npt.NDArray[Any]:
    return np.asarray(tensor.detach().cpu().numpy())


def _members(data: bytes, wanted: re.Pattern[str]) -> dict[str, bytes]:
    """Return the files of a zip archive whose names match; empty if it is no archive."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if wanted.fullmatch(name)}


def _globals(content: bytes, *, where: str) -> list[str]:
    """Return the ``module name`` pairs that a pickle would load, without loading it."""
    found, words = [], ["", ""]
    try:
        for operation, value, _ in pickletools.genops(content):
            if operation.name in {"GLOBAL", "INST"}:
                found.append(str(value))
            elif operation.name == "STACK_GLOBAL":
                found.append(" ".join(words))
            elif isinstance(value, str):
                words = [words[1], value]
    except ValueError as error:
        raise ModelError(f"{where}: damaged ({error}). Export the model again.") from error
    return found


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, at most 200 characters."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
