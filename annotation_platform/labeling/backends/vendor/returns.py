"""What a vendor returns: a zip, a folder or one file; ``answers.json`` or COCO. And taking it."""

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
from annotation_platform.labeling.annotations import Payload
from annotation_platform.labeling.backends.vendor.annotations import (
    GivenAnnotation,
    Problem,
    Returned,
    check_annotations,
    check_images,
    load_json,
    read_time,
)
from annotation_platform.labeling.backends.vendor.backend import HandoffLabeling
from annotation_platform.labeling.backends.vendor.codecs import COCO_NAME, native_payload
from annotation_platform.labeling.backends.vendor.package import (
    ANNOTATIONS,
    COCO_ANNOTATIONS,
    round_of_package,
)
from annotation_platform.storage.regular import open_regular

_MAXIMUM_BYTES = 200_000_000


@dataclass(frozen=True)
class Imported:
    """What became of answers that came back.

    Attributes:
        stored: new answers, and corrections of earlier ones.
        known: answers that were there already, just so.
        unanswered: places that the file leaves open.
        problems: why others were not taken, each with its position.
    """

    stored: int
    known: int
    unannotated: int
    problems: list[Problem]


def read_returned(path: Path, *, package: str = "") -> Returned:
    """Return the answers of a returned package: read, but not judged yet.

    A zip or tar is read as a whole or refused as a whole, and never unpacked. In it or in a folder
    there must be one ``answers.json`` or ``answers.coco.json``; a single file may have any name.

    Args:
        path: the zip, folder or file.
        package: the package's id, for answers that do not say it themselves.

    Raises:
        DataError: nothing can be read, or the package is not known or not the one given.
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
            "Return the "
            "file that README.txt describes."
        )
    name, data = next(iter(annotations.items()))
    said = load_json(data, name)
    package = _package(said, name, package)
    if isinstance(said, dict) and "annotations" in said:
        listed = list(_coco_annotations(said, data, name, package))
        crowds = _crowds(said["annotations"], name)
        return Returned(listed, crowds, 0, images, frozenset([package]))
    listed, problems, unannotated = _native_annotations(said, name, package)
    return Returned(listed, problems, unannotated, images, frozenset([package]))


def import_annotations(
    labeling: HandoffLabeling,
    returned: Returned,
    *,
    annotator: str = "",
    skip_wrong: bool = False,
    now: datetime,
) -> Imported:
    """Judge answers that came back and store them: all of them, or none if any is wrong.

    Args:
        labeling: where they are stored.
        returned: from ``read_returned`` or ``read_pybossa``.
        annotator: who answered where an answer does not say it.
        skip_wrong: store the right ones all the same.
        now: when; answers that do not say when they were finished get this time.

    Raises:
        DataError: answers name a package that was never exported.
    """
    problems = list(returned.problems)
    right: dict[str, list[GivenAnnotation]] = {}
    for package in sorted(returned.packages):
        manifest = labeling.package(package)
        annotations = [item for item in returned.annotations if item.package == package]
        problems += check_images(manifest, returned.images)
        taken, wrong = check_annotations(manifest, annotations, annotator=annotator, now=now)
        problems += wrong
        right.setdefault(manifest.round_id, []).extend(taken)
    if problems and not skip_wrong:
        return Imported(0, 0, returned.unannotated, problems)
    stored = {
        round_id: labeling.take(round_id, annotations, now=now)
        for round_id, annotations in right.items()
    }
    count = sum(stored.values())
    known = sum(len(annotations) for annotations in right.values()) - count
    return Imported(count, known, returned.unannotated, problems)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file that came back."""
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
    try:
        with open_regular(path) as (stream, _):
            data = stream.read(_MAXIMUM_BYTES + 1)
    except (DataError, OSError) as error:
        raise DataError(f"{path}: {error}. Nothing was taken.") from error
    if len(data) > _MAXIMUM_BYTES:
        raise DataError(f"{path}: more than {_MAXIMUM_BYTES} bytes. Split it.")
    return data


def _package(said: Any, name: str, given: str) -> str:
    """Return the package that answers are to; a DataError if nobody says it, or two things."""
    if not isinstance(said, dict):
        raise FormatError(name, 0, "no JSON object", "Return the file that README.txt describes.")
    info = said.get("info")
    inside = said.get("package") or (info.get("package") if isinstance(info, dict) else None)
    if inside and given and inside != given:
        raise DataError(f"{name}: it answers package {inside!r:.80}, not {given}.")
    package = str(inside or given)
    round_id = round_of_package(package)
    if said.get("round", round_id) != round_id:
        raise DataError(f"{name}: package {package} is not of {said['round']!r:.40}. Correct it.")
    return package


class _NativeAnnotation(BaseModel):
    """One entry of ``answers.json``; what else it holds is nobody's business."""

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
    said: dict[str, Any], name: str, package: str
) -> tuple[list[GivenAnnotation], list[Problem], int]:
    """Return the answers of ``answers.json``, entries that are none, and how many wait."""
    entries = said.get("answers")
    if not isinstance(entries, list):
        raise FormatError(
            name, 0, "no list of answers", "Return the file that README.txt describes."
        )
    annotations: list[GivenAnnotation] = []
    problems: list[Problem] = []
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
            problems += [Problem(where, _told(each["loc"], each["msg"])) for each in error.errors()]
        except ValueError as error:
            problems.append(Problem(where, str(error)))
    return annotations, problems, unannotated


def _native_annotation(read: _NativeAnnotation, where: str, package: str) -> GivenAnnotation:
    started = read_time(read.started_at) if read.started_at else None
    finished = read_time(read.finished_at) if read.finished_at else None
    seconds = read.lead_time_seconds
    if started and finished and finished < started:
        raise ValueError("it ends before it begins")
    if seconds is None:
        seconds = (finished - started).total_seconds() if started and finished else 0.0
    return GivenAnnotation(
        where=where,
        key=f"place {read.place}",
        package=package,
        task_id=read.task_id,
        places=(read.place,),
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


def _told(place: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, place)) or 'entry'}: {message[:1].lower()}{message[1:]}"


def _coco_annotations(
    said: dict[str, Any], data: bytes, name: str, package: str
) -> Iterator[GivenAnnotation]:
    """Yield one answer for each image that a COCO file lists."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / COCO_ANNOTATIONS
        file.write_bytes(data)
        try:
            # It judges the file as a whole.
            read_coco_boxes(file)
        except FormatError as error:
            raise DataError(str(error).replace(str(file), name)) from error
    drawn: dict[int, list[dict[str, Any]]] = {}
    for each in said["annotations"]:
        drawn.setdefault(each["image_id"], []).append(each)
    for shown in said["images"]:
        content = {
            "images": [shown],
            "categories": said["categories"],
            "annotations": drawn.get(shown["id"], []),
        }
        yield GivenAnnotation(
            where=f"{name}: {shown['file_name']}",
            key="coco",
            package=package,
            task_id="",
            places=(),
            annotator="",
            image=shown["file_name"],
            image_sha256=None,
            width=shown["width"],
            height=shown["height"],
            finished_at=None,
            lead_time_seconds=0.0,
            skipped=False,
            payload=Payload(COCO_NAME, content),
        )


def _crowds(annotations: list[Any], name: str) -> list[Problem]:
    """Return a problem for each region that ``read_coco_boxes`` leaves out."""
    return [
        Problem(f"{name}: annotations[{position}]", "a crowd is no object; draw its members")
        for position, each in enumerate(annotations)
        if each.get("iscrowd")
    ]
