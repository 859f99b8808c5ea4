"""Custom detectors: the user's ONNX and TorchScript files, and published networks.

Files are opened according to what their format could execute:

- ONNX is data: a graph of known operations. TorchScript is a program, which is checked before it is
  loaded (``custom_networks.py``). Use only programs that you would run.
- Weights of a published network are tensors, read with ``weights_only``: never code.
- A pickle, a ``torch.package`` and a whole pickled model are refused unopened.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from annotation_platform.errors import ModelError, SettingsError
from annotation_platform.images.decoding import Pixels
from annotation_platform.models.detection.custom_networks import (
    FileNetwork,
    OnnxNetwork,
    Outputs,
    ScriptNetwork,
    first_line,
    is_script,
)
from annotation_platform.models.detection.detector import NetworkDetector, read_weights_file
from annotation_platform.models.detection.yolo_outputs import Letterbox, decode_yolo, letterbox
from annotation_platform.models.protocols import LOWEST_SCORE, Detections, Detector
from annotation_platform.policy import PredictionPolicy
from annotation_platform.schema.geometry import FloatArray, as_boxes, box_areas
from annotation_platform.schema.ontology import Ontology


class FileDetector:
    """A custom network as a ``protocols.Detector``: images are letterboxed, outputs decoded."""

    def __init__(
        self,
        network: FileNetwork,
        *,
        class_names: Sequence[str],
        digest: str,
        side: int,
        where: str,
    ) -> None:
        self.class_names = tuple(dict.fromkeys(name for name in class_names if name))
        self.digest = digest
        self._names = tuple(class_names)
        self._network = network
        self._side = network.side or side
        self._where = where

    @property
    def device(self) -> str:
        """Device in use."""
        return self._network.device

    def predict(
        self, images: Sequence[Pixels], *, minimum_score: float = LOWEST_SCORE
    ) -> list[Detections]:
        """Return the detections of each image, one after the other; see ``protocols.Detector``."""
        return [self._detect(image, minimum_score) for image in images]

    def _detect(self, image: Pixels, minimum: float) -> Detections:
        square, position = letterbox(image, side=self._side)
        values = square.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        outputs = self._network(np.ascontiguousarray(values))
        if len(outputs) == 1:
            return decode_yolo(
                outputs[0],
                position,
                class_names=self._names,
                minimum_score=minimum,
                where=self._where,
            )
        return _read_triple(outputs, position, self._names, minimum, self._where)


def open_detector(
    policy: PredictionPolicy, ontology: Ontology, *, masked: Sequence[str] = ()
) -> Detector:
    """Return the custom detector that ``prediction`` in ``params.yaml`` names.

    It predicts classes of the ontology, and the ``masked`` ones that annotators must not see.

    Raises:
        SettingsError: the file's SHA-256 is not given, or classes are missing or unknown.
        ModelError: the file's SHA-256 differs, or its format is refused.
    """
    known = (*ontology.names, *masked)
    if policy.architecture:
        return _published(policy, known)
    path = Path(policy.weights)
    data = checked_bytes(path, policy.weights_sha256)
    where = str(path)
    if path.suffix == ".onnx":
        network: FileNetwork = OnnxNetwork(data, where=where)
    elif is_script(data):
        network = ScriptNetwork(data, where=where)
    else:
        return _Renamed(NetworkDetector.from_bytes(data, where=where), policy.classes, known)
    names = _mapped(policy.class_names, policy.classes, known)
    return FileDetector(
        network,
        class_names=names,
        digest=policy.weights_sha256,
        side=policy.image_side,
        where=where,
    )


def checked_bytes(path: Path, sha256: str) -> bytes:
    """Return the bytes of a file with this SHA-256; a SettingsError or ModelError otherwise."""
    if not sha256:
        raise SettingsError(
            f"prediction.weights names {path}, but prediction.weights_sha256 is empty. Set it to "
            "the SHA-256 that the file's publisher states (`sha256sum` prints a file's)."
        )
    data = read_weights_file(path)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{path}: refused: its SHA-256 is {found}, prediction.weights_sha256 is {sha256}. "
            "Get the right file; correct the digest only if you know why it changed."
        )
    return data


def _published(policy: PredictionPolicy, ours: Sequence[str]) -> Detector:
    """Return a detector that torchvision publishes, downloaded or from a file of its weights."""
    from torchvision.models import detection, get_model, get_model_weights, list_models

    from annotation_platform.models.tensor_files import load_published, read_tensors

    known = list_models(module=detection)
    if policy.architecture not in known:
        raise SettingsError(
            f"prediction.architecture: torchvision publishes no {policy.architecture!r}. "
            f"It has {', '.join(known)}."
        )
    default = get_model_weights(policy.architecture).DEFAULT
    names = policy.class_names or tuple(default.meta["categories"])
    network = get_model(
        policy.architecture, weights=None, weights_backbone=None, num_classes=len(names)
    )
    if policy.weights:
        data = checked_bytes(Path(policy.weights), policy.weights_sha256)
        tensors, digest = read_tensors(data, where=policy.weights), policy.weights_sha256
    else:
        tensors, digest = load_published(default.url)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"{policy.weights or default.url}: its weights do not fit {policy.architecture} with "
            f"{len(names)} classes: {first_line(error)}"
        ) from error
    return NetworkDetector(
        network,
        architecture=policy.architecture,
        class_names=_mapped(names, policy.classes, ours),
        image_width=0,
        digest=digest,
    )


class _Renamed:
    """A detector of ours whose classes are renamed by ``prediction.classes``."""

    def __init__(
        self, detector: NetworkDetector, classes: Mapping[str, str], ours: Sequence[str]
    ) -> None:
        mapped = _mapped(detector.class_names, classes, ours)
        self._names = dict(zip(detector.class_names, mapped, strict=True))
        self._detector = detector
        self.class_names = tuple(dict.fromkeys(name for name in mapped if name))
        self.digest = detector.digest

    @property
    def device(self) -> str:
        """Device in use."""
        return self._detector.device

    def predict(
        self, images: Sequence[Pixels], *, minimum_score: float = LOWEST_SCORE
    ) -> list[Detections]:
        """Return the detections with renamed classes."""
        found = self._detector.predict(images, minimum_score=minimum_score)
        known = [
            one.of([n for n, name in enumerate(one.class_names) if self._names[name]])
            for one in found
        ]
        return [
            replace(one, class_names=[self._names[name] for name in one.class_names])
            for one in known
        ]


def _mapped(
    names: Sequence[str], classes: Mapping[str, str], ours: Sequence[str]
) -> tuple[str, ...]:
    """Return the class of ours for each class of the detector; empty where there is none."""
    if not names:
        raise SettingsError(
            "prediction.class_names is empty: name the classes of the detector's outputs, in order."
        )
    unknown = sorted(set(classes.values()) - set(ours))
    if unknown:
        raise SettingsError(
            f"prediction.classes: {unknown[0]} is no class of the ontology ({', '.join(ours)})."
        )
    renamed = [classes.get(name, name) for name in names]
    mapped = tuple(name if name in ours else "" for name in renamed)
    if not any(mapped):
        raise SettingsError(
            f"none of the detector's classes ({', '.join(names)}) is in the ontology "
            f"({', '.join(ours)}). Map them in prediction.classes."
        )
    return mapped


def _read_triple(
    outputs: Outputs,
    position: Letterbox,
    names: tuple[str, ...],
    minimum: float,
    where: str,
) -> Detections:
    """Return the boxes of a detector with the outputs boxes, scores and labels, in any order."""
    corners = next((one for one in outputs if one.ndim == 2 and one.shape[-1] == 4), None)
    labels = next((one for one in outputs if one.ndim == 1 and one.dtype.kind in "iu"), None)
    given = next((one for one in outputs if one.ndim == 1 and one.dtype.kind == "f"), None)
    if corners is None or labels is None or given is None or not len(corners) == len(labels):
        raise ModelError(
            f"{where}: the outputs have the shapes {[one.shape for one in outputs]}, instead of "
            "boxes (N, 4), scores (N,) and labels (N,) as integers. Export it with these outputs."
        )
    scores: FloatArray = given.astype(np.float64)
    sound = np.isfinite(scores) & np.isfinite(corners).all(axis=1)
    named = (labels >= 0) & (labels < len(names))
    if (sound & ~named).any():
        raise ModelError(
            f"{where}: it predicts the label {int(labels[sound & ~named][0])}, but {len(names)} "
            "classes are named. Correct prediction.class_names in params.yaml."
        )
    boxes = position.to_image(as_boxes(np.nan_to_num(corners)))

    found = [names[label] if yes else "" for label, yes in zip(labels, named, strict=True)]
    wanted = np.array([bool(name) for name in found], dtype=bool)
    selected = np.flatnonzero(sound & wanted & (scores >= minimum) & (box_areas(boxes) > 0))
    selected = selected[np.argsort(-scores[selected], kind="stable")]
    return Detections(
        boxes[selected],
        np.clip(scores[selected], 0.0, 1.0),
        [found[n] for n in selected],
        dropped=int((~sound).sum()),
    )
