"""Packages for outside vendors: what is asked, the images, and how to answer.

A package is a zip or a folder. Its bytes depend on nothing but what it asks and says: the same
round packed twice gives the same file. It holds no address of anybody, no secret, and nothing
that tells a gold task from others.
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
from annotation_platform.labeling.annotations import FIRST_CODEC
from annotation_platform.labeling.backends.label_studio.results import write_proposals
from annotation_platform.labeling.backends.regions import read_proposals
from annotation_platform.labeling.backends.vendor.readme import readme
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import UPRIGHT_BOXES
from annotation_platform.storage.objects import ObjectStore

PackageForm = Literal["label-studio", "coco", "pybossa"]
"""How a vendor answers: regions as Label Studio says them, a COCO file, or Pybossa's export."""

ANNOTATIONS, COCO_ANNOTATIONS = "answers.json", "answers.coco.json"
"""The files that come back."""

_VENDOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PACKAGE = re.compile(r"(round-\d{4,})-[0-9a-f]{16}")
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class HandoffCopy:
    """One place of a task as the hand-off keeps it: nobody in particular is asked.

    ``proposed`` is the content that ``codec`` reads.
    """

    task_id: str
    image_id: str
    place: int
    image_key: str
    width: int
    height: int
    weights_sha256: str
    expertise: str
    proposed: list[dict[str, Any]]
    codec: str = FIRST_CODEC


@dataclass(frozen=True)
class PackedPlace:
    """One place of a task as the vendor sees it; ``image`` is the image's file.

    ``proposed`` is written as the regions of Label Studio, which ``README.txt`` describes.
    """

    task_id: str
    place: int
    image: str
    image_sha256: str
    width: int
    height: int
    expertise: str
    proposed: list[dict[str, Any]]


@dataclass(frozen=True)
class Manifest:
    """What a package asks: the classes as they were that day, and every place."""

    round_id: str
    vendor: str
    ontology: Ontology
    places: tuple[PackedPlace, ...]

    @cached_property
    def package(self) -> str:
        """The package's id: the round and sixteen digits of the digest of what it asks."""
        text = json.dumps(self._content(), sort_keys=True)
        return f"{self.round_id}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @cached_property
    def place_of(self) -> dict[tuple[str, int], PackedPlace]:
        """Each place by task and number."""
        return {(each.task_id, each.place): each for each in self.places}

    @cached_property
    def places_of(self) -> dict[str, list[PackedPlace]]:
        """The places of each task, by number."""
        return _grouped(self.places, by="task_id")

    @cached_property
    def places_on(self) -> dict[str, list[PackedPlace]]:
        """The places on each image, by the name of its file without folders."""
        return {PurePosixPath(k).name: v for k, v in _grouped(self.places, by="image").items()}

    def to_json(self) -> bytes:
        """Return the manifest as the text that is packed and kept."""
        return json_bytes({"package": self.package, **self._content()})

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Return the manifest that ``to_json`` wrote."""
        said = json.loads(data)
        places = tuple(PackedPlace(**each) for each in said["places"])
        ontology = Ontology.model_validate(said["ontology"])
        return cls(said["round"], said["vendor"], ontology, places)

    def _content(self) -> dict[str, Any]:
        return {
            "round": self.round_id,
            "vendor": self.vendor,
            "ontology": self.ontology.model_dump(mode="json"),
            "places": [asdict(each) for each in self.places],
        }


def build_manifest(
    round_id: str,
    copies: Iterable[HandoffCopy],
    ontology: Ontology,
    *,
    vendor: str,
    store: ObjectStore,
) -> Manifest:
    """Return what a package of these copies asks, sorted by task and place.

    Every image is read once, for the digest of its bytes.

    Raises:
        SettingsError: the vendor's name is none.
    """
    if not _VENDOR.fullmatch(vendor):
        raise SettingsError(
            f"{vendor!r:.60} cannot be a vendor's name. Take up to 40 letters, digits, dots, "
            "dashes and underscores."
        )
    digests: dict[str, str] = {}
    places = []
    for copy in sorted(copies, key=lambda each: (each.task_id, each.place)):
        if copy.image_key not in digests:
            digests[copy.image_key] = hashlib.sha256(store.get(copy.image_key)).hexdigest()
        places.append(
            PackedPlace(
                task_id=copy.task_id,
                place=copy.place,
                image=f"images/{PurePosixPath(copy.image_key).name}",
                image_sha256=digests[copy.image_key],
                width=copy.width,
                height=copy.height,
                expertise=copy.expertise,
                proposed=_shown(copy),
            )
        )
    return Manifest(round_id, vendor, ontology, tuple(places))


def _shown(copy: HandoffCopy) -> list[dict[str, Any]]:
    if copy.codec == FIRST_CODEC:
        return copy.proposed
    return write_proposals(read_proposals(copy.proposed), copy.width, copy.height)


def round_of_package(package: str) -> str:
    """Return the round that a package's id names; anything that is no such id is a DataError."""
    match = _PACKAGE.fullmatch(package)
    if match is None:
        raise DataError(
            f"{package!r:.80} is no package. Its id is in manifest.json, such as "
            "round-0001-0123456789abcdef; pass --package where the answers do not say it."
        )
    return match[1]


def write_package(
    manifest: Manifest,
    copies: Iterable[HandoffCopy],
    store: ObjectStore,
    out: Path,
    *,
    form: PackageForm = "label-studio",
    images_url: str = "",
) -> int:
    """Write a package to ``out``, a zip by its name and a folder otherwise; return its images.

    What is there afterwards is whole, or nothing.

    Args:
        manifest: from ``build_manifest``.
        copies: what it was built from.
        store: the lake's objects, where the images are.
        out: must not exist yet; an empty folder will do.
        form: how the vendor answers.
        images_url: for Pybossa, the address below which the vendor serves ``images/``.

    Raises:
        DataError: there is something at ``out`` already, or an image has changed meanwhile.
        SettingsError: ``out`` cannot be written, or COCO is to carry what is no box.
    """
    others = [
        name for name, shape in manifest.ontology.shape_of.items() if shape not in UPRIGHT_BOXES
    ]
    if form == "coco" and others:
        raise SettingsError(
            f"class {others[0]!r} is no box, and COCO carries boxes here. Export with "
            "--format label-studio."
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} is there already. Name another --out, or move it away.")
    keys = {PurePosixPath(copy.image_key).name: copy.image_key for copy in copies}
    images = {each.image: each.image_sha256 for each in manifest.places}
    files = _files(manifest, keys, images, store, form, images_url)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".zip":
            _write_zip(files, out)
        else:
            _write_folder(files, out)
    except OSError as error:
        raise SettingsError(
            f"{out}: cannot be written ({error.strerror or error}). Name another --out."
        ) from error
    return len(images)


def json_bytes(content: Any) -> bytes:
    """Return JSON as people read it, the same bytes for equal content."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def _files(
    manifest: Manifest,
    keys: dict[str, str],
    images: dict[str, str],
    store: ObjectStore,
    form: PackageForm,
    images_url: str,
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a package, one image in memory at a time."""
    yield "manifest.json", manifest.to_json()
    yield "README.txt", readme(manifest.package, manifest.ontology, form).encode()
    if form == "label-studio":
        yield ANNOTATIONS, json_bytes(_annotations_to_fill_in(manifest))
    elif form == "coco":
        yield "pictures.coco.json", json_bytes(_coco_images(manifest))
    else:
        yield "tasks.json", json_bytes(_pybossa_tasks(manifest, images_url))
    for name, digest in sorted(images.items()):
        key = keys[PurePosixPath(name).name]
        data = store.get(key)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(f"{key} in the lake has changed since its digest was taken. Try again.")
        yield name, data


def _annotations_to_fill_in(manifest: Manifest) -> dict[str, Any]:
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
        {**{name: getattr(each, name) for name in shown}, **blank} for each in manifest.places
    ]
    return {"package": manifest.package, "round": manifest.round_id, "answers": annotations}


def _coco_images(manifest: Manifest) -> dict[str, Any]:
    sizes = {each.image: (each.width, each.height) for each in manifest.places}
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


def _pybossa_tasks(manifest: Manifest, images_url: str) -> list[dict[str, Any]]:
    """Return one task of Pybossa's for all places that show the same, or nearly always one.

    Pybossa keeps people from answering one of its tasks twice, so the places of a task are the
    redundancy of one task there; a blind place, which shows no proposals, is a task of its own.
    """
    alike: dict[tuple[str, str], list[PackedPlace]] = {}
    for each in manifest.places:
        alike.setdefault((each.task_id, json.dumps(each.proposed)), []).append(each)
    base = {"package": manifest.package, "round": manifest.round_id}
    tasks = []
    for places in alike.values():
        info = {**base, **asdict(places[0]), "places": [each.place for each in places]}
        del info["place"]
        info["classes"] = manifest.ontology.names
        if images_url:
            info["image_url"] = f"{images_url.rstrip('/')}/{places[0].image}"
        tasks.append({"info": info, "n_answers": len(places)})
    return tasks


def _write_zip(files: Iterator[tuple[str, bytes]], out: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=out.parent)
    unfinished = Path(name)
    try:
        # Stored, not deflated: images hardly shrink, and no library's version shows.
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


def _grouped(places: Iterable[PackedPlace], *, by: str) -> dict[str, list[PackedPlace]]:
    found: dict[str, list[PackedPlace]] = {}
    for each in sorted(places, key=lambda one: (one.task_id, one.place)):
        found.setdefault(getattr(each, by), []).append(each)
    return found
