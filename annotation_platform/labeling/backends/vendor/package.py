"""Packages for outside vendors: the tasks, the images, and how to return annotations.

A package is a zip or a folder. Its bytes depend on its content alone: the same round packed twice
gives the same file. It holds no addresses of people, no secrets, and nothing that distinguishes
gold tasks from others.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from annotation_platform.errors import DataError, SettingsError
from annotation_platform.formats.label_studio.results import write_pre_annotations
from annotation_platform.labeling.backends.protocol import AssignmentKey
from annotation_platform.labeling.backends.regions import read_pre_annotations
from annotation_platform.labeling.backends.vendor.readme import readme
from annotation_platform.labeling.stored_names import from_stored, to_stored
from annotation_platform.schema.annotations import FIRST_CODEC
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import UPRIGHT_BOXES
from annotation_platform.storage.objects import ObjectStore

PackageForm = Literal["label-studio", "coco", "pybossa"]
"""How a vendor returns annotations: Label Studio regions, a COCO file, or PyBossa's export."""

ANNOTATIONS, COCO_ANNOTATIONS = "answers.json", "answers.coco.json"
"""The files that a vendor returns."""

_VENDOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PACKAGE = re.compile(r"(round-\d{4,})-[0-9a-f]{16}")
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class VendorReplica:
    """One assignment of a task as the lake stores it for vendors, without assignee.

    ``pre_annotations`` is the content that ``codec`` reads.
    """

    task_id: str
    image_id: str
    assignment: int
    image_key: str
    width: int
    height: int
    weights_sha256: str
    expertise: str
    pre_annotations: list[dict[str, Any]]
    codec: str = FIRST_CODEC

    @property
    def key(self) -> AssignmentKey:
        """The task and the number of the assignment."""
        return self.task_id, self.assignment


@dataclass(frozen=True)
class PackedAssignment:
    """One assignment of a task in a package; ``image`` is the name of the image file.

    ``pre_annotations`` are Label Studio regions, which ``README.txt`` describes.
    """

    task_id: str
    assignment: int
    image: str
    image_sha256: str
    width: int
    height: int
    expertise: str
    pre_annotations: list[dict[str, Any]]


@dataclass(frozen=True)
class PackageManifest:
    """The content of a package: the classes at the time of export, and every assignment."""

    round_id: str
    vendor: str
    ontology: Ontology
    assignments: tuple[PackedAssignment, ...]

    @cached_property
    def package(self) -> str:
        """The package's id: the round and sixteen digits of the digest of its content."""
        text = json.dumps(self._content(), sort_keys=True)
        return f"{self.round_id}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @cached_property
    def assignment_of(self) -> dict[tuple[str, int], PackedAssignment]:
        """Each assignment by task and number."""
        return {(each.task_id, each.assignment): each for each in self.assignments}

    @cached_property
    def assignments_of(self) -> dict[str, list[PackedAssignment]]:
        """The assignments of each task, by number."""
        return _grouped(self.assignments, by="task_id")

    @cached_property
    def assignments_on(self) -> dict[str, list[PackedAssignment]]:
        """The assignments on each image, by the name of its file without folders."""
        return {PurePosixPath(k).name: v for k, v in _grouped(self.assignments, by="image").items()}

    def to_json(self) -> bytes:
        """Return the manifest as the JSON that is packed and stored."""
        return json_bytes({"package": self.package, **self._content()})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Return the manifest from JSON that ``to_json`` wrote."""
        content = json.loads(data)
        assignments = tuple(PackedAssignment(**from_stored(each)) for each in content["places"])
        ontology = Ontology.model_validate(content["ontology"])
        return cls(content["round"], content["vendor"], ontology, assignments)

    def _content(self) -> dict[str, Any]:
        return {
            "round": self.round_id,
            "vendor": self.vendor,
            "ontology": self.ontology.model_dump(mode="json"),
            "places": [to_stored(asdict(each)) for each in self.assignments],
        }


def build_manifest(
    round_id: str,
    replicas: Iterable[VendorReplica],
    ontology: Ontology,
    *,
    vendor: str,
    store: ObjectStore,
) -> PackageManifest:
    """Return the manifest of a package of these replicas, sorted by task and assignment.

    Every image is read once, for the digest of its bytes.

    Raises:
        SettingsError: the vendor's name is not valid.
    """
    if not _VENDOR.fullmatch(vendor):
        raise SettingsError(
            f"{vendor!r:.60} cannot be a vendor's name. Use up to 40 letters, digits, dots, "
            "dashes and underscores."
        )
    digests: dict[str, str] = {}
    assignments = []
    for replica in sorted(replicas, key=lambda each: (each.task_id, each.assignment)):
        if replica.image_key not in digests:
            digests[replica.image_key] = hashlib.sha256(store.get(replica.image_key)).hexdigest()
        assignments.append(
            PackedAssignment(
                task_id=replica.task_id,
                assignment=replica.assignment,
                image=f"images/{PurePosixPath(replica.image_key).name}",
                image_sha256=digests[replica.image_key],
                width=replica.width,
                height=replica.height,
                expertise=replica.expertise,
                pre_annotations=_shown(replica),
            )
        )
    return PackageManifest(round_id, vendor, ontology, tuple(assignments))


def _shown(replica: VendorReplica) -> list[dict[str, Any]]:
    if replica.codec == FIRST_CODEC:
        return replica.pre_annotations
    return write_pre_annotations(
        read_pre_annotations(replica.pre_annotations), replica.width, replica.height
    )


def round_of_package(package: str) -> str:
    """Return the round in a package id; a DataError for a text that is not a package id."""
    match = _PACKAGE.fullmatch(package)
    if match is None:
        raise DataError(
            f"{package!r:.80} is not a package id. It is in manifest.json, such as "
            "round-0001-0123456789abcdef; pass --package if the returned file does not name it."
        )
    return match[1]


def write_package(
    manifest: PackageManifest,
    replicas: Iterable[VendorReplica],
    store: ObjectStore,
    out: Path,
    *,
    form: PackageForm = "label-studio",
    images_url: str = "",
) -> int:
    """Write a package to ``out`` and return the number of its images.

    The result is complete, or nothing is written.

    Args:
        manifest: from ``build_manifest``.
        replicas: the replicas that it was built from.
        store: the lake's objects, with the images.
        out: a path that does not exist yet, or an empty folder; a zip by its name, else a folder.
        form: how the vendor returns annotations.
        images_url: for PyBossa, the address below which the vendor serves ``images/``.

    Raises:
        DataError: ``out`` exists already, or an image has changed since ``build_manifest``.
        SettingsError: ``out`` cannot be written, or a class has a shape that COCO does not carry.
    """
    others = [
        name for name, shape in manifest.ontology.shape_of.items() if shape not in UPRIGHT_BOXES
    ]
    if form == "coco" and others:
        raise SettingsError(
            f"class {others[0]!r} is not a box, and COCO packages carry boxes only. Export with "
            "--format label-studio."
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists already. Choose another --out, or move it away.")
    keys = {PurePosixPath(replica.image_key).name: replica.image_key for replica in replicas}
    images = {each.image: each.image_sha256 for each in manifest.assignments}
    files = _files(manifest, keys, images, store, form, images_url)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".zip":
            _write_zip(files, out)
        else:
            _write_folder(files, out)
    except OSError as error:
        raise SettingsError(
            f"{out}: cannot be written ({error.strerror or error}). Choose another --out."
        ) from error
    return len(images)


def json_bytes(content: Any) -> bytes:
    """Return indented JSON, the same bytes for equal content."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def _files(
    manifest: PackageManifest,
    keys: dict[str, str],
    images: dict[str, str],
    store: ObjectStore,
    form: PackageForm,
    images_url: str,
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a package, with one image in memory at a time."""
    yield "manifest.json", manifest.to_json()
    yield "README.txt", readme(manifest.package, manifest.ontology, form).encode()
    if form == "label-studio":
        yield ANNOTATIONS, json_bytes(_empty_annotations(manifest))
    elif form == "coco":
        yield "images.coco.json", json_bytes(_coco_images(manifest))
    else:
        yield "tasks.json", json_bytes(_pybossa_tasks(manifest, images_url))
    for name, digest in sorted(images.items()):
        key = keys[PurePosixPath(name).name]
        data = store.get(key)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(f"{key} in the lake has changed since its digest was taken. Try again.")
        yield name, data


def _empty_annotations(manifest: PackageManifest) -> dict[str, Any]:
    blank = {
        "annotator": "",
        "started_at": "",
        "finished_at": "",
        "lead_time_seconds": None,
        "skipped": False,
        "unsure": False,
        "result": None,
    }
    shown = ("task_id", "place", "image", "image_sha256", "width", "height")
    annotations = [
        {**{name: to_stored(asdict(each))[name] for name in shown}, **blank}
        for each in manifest.assignments
    ]
    return {"package": manifest.package, "round": manifest.round_id, "answers": annotations}


def _coco_images(manifest: PackageManifest) -> dict[str, Any]:
    sizes = {each.image: (each.width, each.height) for each in manifest.assignments}
    return {
        "info": {"package": manifest.package},
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, (name, (width, height)) in enumerate(sorted(sizes.items()), start=1)
        ],
        "categories": [
            {"id": each.id, "name": each.name, "supercategory": ""}
            for each in manifest.ontology.classes
        ],
        "annotations": [],
    }


def _pybossa_tasks(manifest: PackageManifest, images_url: str) -> list[dict[str, Any]]:
    """Return one PyBossa task for all assignments that show the same pre-annotations.

    PyBossa keeps people from annotating one of its tasks twice, so the assignments of a task are
    the redundancy of one PyBossa task. An assignment without pre-annotations is a separate one.
    """
    by_content: dict[tuple[str, str], list[PackedAssignment]] = {}
    for each in manifest.assignments:
        by_content.setdefault((each.task_id, json.dumps(each.pre_annotations)), []).append(each)
    base = {"package": manifest.package, "round": manifest.round_id}
    tasks = []
    for assignments in by_content.values():
        info = {
            **base,
            **to_stored(asdict(assignments[0])),
            "places": [each.assignment for each in assignments],
        }
        del info["place"]
        info["classes"] = manifest.ontology.names
        if images_url:
            info["image_url"] = f"{images_url.rstrip('/')}/{assignments[0].image}"
        tasks.append({"info": info, "n_answers": len(assignments)})
    return tasks


def _write_zip(files: Iterator[tuple[str, bytes]], out: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=out.parent)
    unfinished = Path(name)
    try:
        # Stored, not deflated: images hardly shrink, and bytes do not depend on a library version.
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for inside, data in files:
                info = zipfile.ZipInfo(inside, _FIRST_DAY)
                info.create_system, info.external_attr = 3, 0o644 << 16
                archive.writestr(info, data)
        unfinished.chmod(0o644)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_folder(files: Iterator[tuple[str, bytes]], out: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=".tmp-", dir=out.parent))
    try:
        (unfinished / "images").mkdir()
        for inside, data in files:
            (unfinished / inside).write_bytes(data)
        unfinished.chmod(0o755)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _grouped(
    assignments: Iterable[PackedAssignment], *, by: str
) -> dict[str, list[PackedAssignment]]:
    found: dict[str, list[PackedAssignment]] = {}
    for each in sorted(assignments, key=lambda one: (one.task_id, one.assignment)):
        found.setdefault(getattr(each, by), []).append(each)
    return found
