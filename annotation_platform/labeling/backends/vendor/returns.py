"""Reads returned files (a zip, a folder or one file; ``answers.json`` or COCO) and imports them."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.coco import read_coco_boxes
from annotation_platform.ingestion.archives import is_archive, read_archive
from annotation_platform.labeling.backends.vendor.annotations import (
    AnnotationProblem,
    Returned,
    ReturnedAnnotation,
    check_annotations,
    check_images,
    load_json,
    read_time,
    read_whole,
)
from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
from annotation_platform.labeling.backends.vendor.codecs import COCO_NAME, native_payload
from annotation_platform.labeling.backends.vendor.package import (
    ANNOTATIONS,
    COCO_ANNOTATIONS,
    round_of_package,
)
from annotation_platform.schema.annotations import Payload

_MAXIMUM_BYTES = 200_000_000


@dataclass(frozen=True)
class Imported:
    """The outcome of an import.

    Attributes:
        stored: new annotations, and corrections of earlier ones.
        known: annotations that were stored before, unchanged.
        unannotated: assignments that the file leaves open.
        problems: why others were not imported, each with its position.
    """

    stored: int
    known: int
    unannotated: int
    problems: list[AnnotationProblem]


def read_returned(path: Path, *, package: str = "") -> Returned:
    """Return the annotations of a returned package, without judging them.

    A zip or tar is read completely or refused, and never unpacked. In it or in a folder there must
    be exactly one ``answers.json`` or ``answers.coco.json``; a single file may have any name.

    Args:
        path: the zip, folder or file.
        package: the package's id, for files that do not name it.

    Raises:
        DataError: the file cannot be read, or its package is not known or not the given one.
    """
    annotations: dict[str, bytes] = {}
    images: dict[str, str] = {}
    is_alone = path.is_file() and not is_archive(path)
    for name, data in _files(path):
        last = PurePosixPath(name).name
        if last in {ANNOTATIONS, COCO_ANNOTATIONS} or is_alone:
            annotations[name] = data
        elif PurePosixPath(name).parent.name == "images":
            images[last] = hashlib.sha256(data).hexdigest()
    if len(annotations) != 1:
        found = " and ".join(sorted(annotations)) or "none"
        raise DataError(
            f"{path}: expected one {ANNOTATIONS} or {COCO_ANNOTATIONS} in it, found {found}. "
            "Return the file that README.txt describes."
        )
    name, data = next(iter(annotations.items()))
    content = load_json(data, name)
    package = _package(content, name, package)
    if isinstance(content, dict) and "annotations" in content:
        listed = list(_coco_annotations(content, data, name, package))
        crowds = _crowds(content["annotations"], name)
        return Returned(listed, crowds, 0, images, frozenset([package]))
    listed, problems, unannotated = _native_annotations(content, name, package)
    return Returned(listed, problems, unannotated, images, frozenset([package]))


def import_annotations(
    labeling: VendorLabeling,
    returned: Returned,
    *,
    annotator: str = "",
    skip_wrong: bool = False,
    now: datetime,
) -> Imported:
    """Judge returned annotations and store them: all of them, or none if any is invalid.

    Args:
        labeling: the back end that stores them.
        returned: from ``read_returned`` or ``read_pybossa``.
        annotator: the annotator where an annotation does not name one.
        skip_wrong: whether to store the valid ones despite invalid others.
        now: the time; also the finishing time of annotations that have none.

    Raises:
        DataError: annotations name a package that was not exported.
    """
    problems = list(returned.problems)
    accepted: dict[str, list[ReturnedAnnotation]] = {}
    for package in sorted(returned.packages):
        manifest = labeling.package(package)
        annotations = [item for item in returned.annotations if item.package == package]
        problems += check_images(manifest, returned.images)
        valid, invalid = check_annotations(manifest, annotations, annotator=annotator, now=now)
        problems += invalid
        accepted.setdefault(manifest.round_id, []).extend(valid)
    if problems and not skip_wrong:
        return Imported(0, 0, returned.unannotated, problems)
    stored = {
        round_id: labeling.store_annotations(round_id, annotations, now=now)
        for round_id, annotations in accepted.items()
    }
    count = sum(stored.values())
    known = sum(len(annotations) for annotations in accepted.values()) - count
    return Imported(count, known, returned.unannotated, problems)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every returned file."""
    if path.is_dir():
        # Links are refused when they are opened, whatever they lead to.
        for name in sorted(path.rglob("*")):
            if name.is_symlink() or not name.is_dir():
                yield name.relative_to(path).as_posix(), _content(name)
    elif is_archive(path):
        yield from ((arrival.name, arrival.data) for arrival in read_archive(path))
    else:
        yield path.name, _content(path)


def _content(path: Path) -> bytes:
    return read_whole(path, maximum_bytes=_MAXIMUM_BYTES, remedy="Split it.")


def _package(content: Any, name: str, given: str) -> str:
    """Return the package id of a returned file; a DataError if it has none, or two."""
    if not isinstance(content, dict):
        raise FormatError(
            name, 0, "not a JSON object", "Return the file that README.txt describes."
        )
    info = content.get("info")
    inside = content.get("package") or (info.get("package") if isinstance(info, dict) else None)
    if inside and given and inside != given:
        raise DataError(f"{name}: it is of package {inside!r:.80}, not {given}.")
    package = str(inside or given)
    round_id = round_of_package(package)
    if content.get("round", round_id) != round_id:
        raise DataError(
            f"{name}: package {package} is not of round {content['round']!r:.40}. Correct it."
        )
    return package


class _NativeAnnotation(BaseModel):
    """One entry of ``answers.json``; further keys are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    task_id: str = Field(min_length=1)
    place: int
    image: str = ""
    image_sha256: str
    width: int
    height: int
    annotator: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    lead_time_seconds: float | None = Field(default=None, ge=0)
    skipped: bool = False
    unsure: bool = False
    result: list[Any] | None


def _native_annotations(
    content: dict[str, Any], name: str, package: str
) -> tuple[list[ReturnedAnnotation], list[AnnotationProblem], int]:
    """Return the annotations of ``answers.json``, invalid entries, and the number of open ones."""
    entries = content.get("answers")
    if not isinstance(entries, list):
        raise FormatError(
            name, 0, "the list of answers is missing", "Return the file that README.txt describes."
        )
    annotations: list[ReturnedAnnotation] = []
    problems: list[AnnotationProblem] = []
    unannotated = 0
    for position, entry in enumerate(entries):
        where = f"{name}: answers[{position}]"
        try:
            read = _NativeAnnotation.model_validate(entry)
            if read.result is None and not (read.skipped or read.unsure):
                unannotated += 1
            else:
                annotations.append(_native_annotation(read, where, package))
        except ValidationError as error:
            problems += [
                AnnotationProblem(where, _sentence(each["loc"], each["msg"]))
                for each in error.errors()
            ]
        except ValueError as error:
            problems.append(AnnotationProblem(where, str(error)))
    return annotations, problems, unannotated


def _native_annotation(read: _NativeAnnotation, where: str, package: str) -> ReturnedAnnotation:
    started = read_time(read.started_at) if read.started_at else None
    finished = read_time(read.finished_at) if read.finished_at else None
    seconds = read.lead_time_seconds
    if started and finished and finished < started:
        raise ValueError("it was finished before it was started")
    if seconds is None:
        seconds = (finished - started).total_seconds() if started and finished else 0.0
    return ReturnedAnnotation(
        where=where,
        key=f"place {read.place}",
        package=package,
        task_id=read.task_id,
        assignments=(read.place,),
        annotator=read.annotator.strip(),
        image=read.image,
        image_sha256=read.image_sha256,
        width=read.width,
        height=read.height,
        finished_at=finished,
        lead_time_seconds=seconds,
        skipped=read.skipped,
        payload=native_payload(read.result or [], unsure=read.unsure),
    )


def _sentence(assignment: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, assignment)) or 'entry'}: {message[:1].lower()}{message[1:]}"


def _coco_annotations(
    content: dict[str, Any], data: bytes, name: str, package: str
) -> Iterator[ReturnedAnnotation]:
    """Yield one annotation for each image that a COCO file lists."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / COCO_ANNOTATIONS
        file.write_bytes(data)
        try:
            # It checks the whole file.
            read_coco_boxes(file)
        except FormatError as error:
            raise DataError(str(error).replace(str(file), name)) from error
    drawn: dict[int, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        drawn.setdefault(each["image_id"], []).append(each)
    for shown in content["images"]:
        document = {
            "images": [shown],
            "categories": content["categories"],
            "annotations": drawn.get(shown["id"], []),
        }
        yield ReturnedAnnotation(
            where=f"{name}: {shown['file_name']}",
            key="coco",
            package=package,
            task_id="",
            assignments=(),
            annotator="",
            image=shown["file_name"],
            image_sha256=None,
            width=shown["width"],
            height=shown["height"],
            finished_at=None,
            lead_time_seconds=0.0,
            skipped=False,
            payload=Payload(COCO_NAME, document),
        )


def _crowds(annotations: list[Any], name: str) -> list[AnnotationProblem]:
    """Return a problem for each region that ``read_coco_boxes`` leaves out."""
    return [
        AnnotationProblem(
            f"{name}: annotations[{position}]", "a crowd is not an object; draw its members"
        )
        for position, each in enumerate(annotations)
        if each.get("iscrowd")
    ]
