"""Returned annotations, judged against their package."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from annotation_platform.errors import DataError, FormatError
from annotation_platform.labeling.backends.registry import count_regions, decode
from annotation_platform.labeling.backends.vendor.package import PackageManifest, PackedAssignment
from annotation_platform.schema.annotations import Canvas, Payload
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.regular import open_regular

_LONGEST_NAME = 200
_DEEPEST = 40
_EMAIL = re.compile(r"\S+@\S+\.\S+")
# Wrong clocks and time zones differ by hours, not by days.
_AHEAD = timedelta(days=1)


@dataclass(frozen=True)
class AnnotationProblem:
    """A problem of a returned annotation, and its position."""

    where: str
    problem: str


@dataclass(frozen=True)
class ReturnedAnnotation:
    """A returned annotation, not judged yet.

    Attributes:
        where: file and position, for messages.
        key: distinguishes it from the person's other annotations of the task, but not corrections.
        package: its package id.
        task_id: empty where only ``image`` identifies the task.
        assignments: the assignments that it may fill; empty for any of the task.
        annotator: the vendor's own id of the person; empty if missing.
        image: the image's file; empty if missing.
        image_sha256: digest of the annotated image; None where the format has none.
        width, height: size of the image in pixels.
        finished_at: None if missing.
        lead_time_seconds: 0 if missing.
        skipped: whether the person skipped the task.
        payload: the drawn regions or choices, unchanged, and the codec that reads them.
    """

    where: str
    key: str
    package: str
    task_id: str
    assignments: tuple[int, ...]
    annotator: str
    image: str
    image_sha256: str | None
    width: int
    height: int
    finished_at: datetime | None
    lead_time_seconds: float
    skipped: bool
    payload: Payload


@dataclass(frozen=True)
class Returned:
    """The content of a returned file.

    Attributes:
        annotations: in the order of the file.
        problems: of entries that are not annotations.
        unannotated: entries that are not annotated yet.
        images: the SHA-256 of each returned image, by file name.
        packages: the packages in the file, with or without annotations.
    """

    annotations: list[ReturnedAnnotation]
    problems: list[AnnotationProblem]
    unannotated: int
    images: dict[str, str]
    packages: frozenset[str]


def check_annotations(
    manifest: PackageManifest,
    annotations: Iterable[ReturnedAnnotation],
    *,
    annotator: str = "",
    now: datetime,
) -> tuple[list[ReturnedAnnotation], list[AnnotationProblem]]:
    """Return the valid annotations, completed, and the problems of the others.

    The author of a valid one is the vendor's name and the vendor's id of the person, so people of
    two vendors never have the same name; its task and possible assignments are filled in. Every
    region must give a label under the classes of the package. A repeated annotation is invalid.

    Args:
        manifest: the package as it was exported.
        annotations: the annotations of this package.
        annotator: the annotator where an annotation does not name one.
        now: times more than a day later are refused.
    """
    valid: list[ReturnedAnnotation] = []
    problems: list[AnnotationProblem] = []
    seen: dict[tuple[str, str, str], str] = {}
    for given in annotations:
        item, wrong = _completed(manifest, given, annotator)
        if item is not None:
            wrong += _problems(manifest, item, now)
            identity = (item.task_id, item.annotator, item.key)
            if identity in seen:
                wrong.append(f"the same person annotates it at {seen[identity]} too")
            seen.setdefault(identity, item.where)
        problems += [AnnotationProblem(given.where, each) for each in wrong]
        if item is not None and not wrong:
            valid.append(item)
    return valid, problems


def check_images(manifest: PackageManifest, images: dict[str, str]) -> list[AnnotationProblem]:
    """Return a problem for each returned image that differs from the one that was sent."""
    return [
        AnnotationProblem(name, "not the image that was sent, byte for byte")
        for name, digest in sorted(images.items())
        if name in manifest.assignments_on
        and manifest.assignments_on[name][0].image_sha256 != digest
    ]


def read_time(text: str) -> datetime:
    """Return an ISO 8601 time, as UTC if it has no offset; a ValueError for anything else."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r:.60} is not a time like 2026-05-01T12:00:00+02:00") from error


def read_whole(path: Path, *, maximum_bytes: int, remedy: str) -> bytes:
    """Return the bytes of a regular file; anything else, or a larger file, is a DataError."""
    try:
        with open_regular(path) as (stream, _):
            data = stream.read(maximum_bytes + 1)
    except (DataError, OSError) as error:
        raise DataError(f"{path}: {error}. Nothing was imported.") from error
    if len(data) > maximum_bytes:
        raise DataError(f"{path}: more than {maximum_bytes} bytes. {remedy}")
    return data


def load_json(data: bytes, where: str) -> Any:
    """Return the content of a JSON file; a FormatError if it is not valid.

    NaN, infinity and nesting deeper than any annotation needs are not valid here.
    """
    try:
        return parse_json(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise FormatError(where, 0, "not UTF-8 text", "Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        problem = f"not JSON ({error.msg})"
        raise FormatError(where, error.lineno, problem, "Export the file again.") from error
    except (ValueError, RecursionError) as error:
        problem = f"not JSON that can be used ({str(error)[:80]})"
        raise FormatError(where, 0, problem, "Export the file again.") from error


def parse_json(text: str) -> Any:
    """Return the content of a JSON text; a ValueError or RecursionError if it is not valid."""
    content = json.loads(text, parse_constant=_refuse_constant)
    level = [content]
    for _ in range(_DEEPEST):
        inner = (each for each in level if isinstance(each, list | dict))
        level = [
            value
            for each in inner
            for value in (each.values() if isinstance(each, dict) else each)
            if isinstance(value, list | dict)
        ]
        if not level:
            return content
    raise ValueError(f"nested more than {_DEEPEST} deep")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _completed(
    manifest: PackageManifest, given: ReturnedAnnotation, annotator: str
) -> tuple[ReturnedAnnotation | None, list[str]]:
    """Return the annotation with task, assignments and author; None if its task is not known."""
    wrong = []
    person = given.annotator or annotator
    if not person:
        wrong.append("it names no annotator; fill in annotator, or pass --annotator")
    elif len(person) > _LONGEST_NAME or not person.isprintable():
        wrong.append(f"{person!r:.60} cannot be a person's id")
    elif _EMAIL.search(person):
        wrong.append("the annotator is an e-mail address; use an id that identifies no person")
    task_id, problem = _task(manifest, given)
    if problem:
        return None, [*wrong, problem]
    known = [each.assignment for each in manifest.assignments_of[task_id]]
    unknown = sorted(set(given.assignments) - set(known))
    if unknown:
        return None, [*wrong, f"place {unknown[0]} of task {task_id!r} is not in the package"]
    assignments = given.assignments or tuple(known)
    author = f"{manifest.vendor}:{person}"
    return replace(given, task_id=task_id, assignments=assignments, annotator=author), wrong


def _task(manifest: PackageManifest, given: ReturnedAnnotation) -> tuple[str, str]:
    """Return the task of an annotation, or why it is not known."""
    if given.task_id:
        if given.task_id in manifest.assignments_of:
            return given.task_id, ""
        return "", f"task {given.task_id!r:.120} is not in the package"
    on_image = manifest.assignments_on.get(PurePosixPath(given.image).name, [])
    tasks = sorted({each.task_id for each in on_image})
    if len(tasks) == 1:
        return tasks[0], ""
    if tasks:
        return "", f"{given.image!r:.120} belongs to several tasks; return answers.json"
    return "", f"image {given.image!r:.120} is not in the package"


def _problems(manifest: PackageManifest, item: ReturnedAnnotation, now: datetime) -> list[str]:
    packed = manifest.assignment_of[item.task_id, item.assignments[0]]
    wrong = _image_problems(packed, item)
    if item.finished_at is not None and item.finished_at > now + _AHEAD:
        wrong.append(f"it was finished in the future, at {item.finished_at.isoformat()}")
    if not (math.isfinite(item.lead_time_seconds) and item.lead_time_seconds >= 0):
        wrong.append(f"{item.lead_time_seconds} seconds is not a valid lead time")
    if item.skipped and count_regions(item.payload):
        wrong.append("it is skipped but has regions")
    return wrong + _region_problems(item.payload, packed, manifest.ontology)


def _image_problems(packed: PackedAssignment, item: ReturnedAnnotation) -> list[str]:
    wrong = []
    if item.image_sha256 not in (None, packed.image_sha256):
        wrong.append(
            f"its image has SHA-256 {item.image_sha256!r:.14}…, "
            f"{packed.image_sha256[:12]}… was sent"
        )
    if (item.width, item.height) != (packed.width, packed.height):
        wrong.append(
            f"its image has {item.width} × {item.height} pixels, "
            f"{packed.width} × {packed.height} was sent"
        )
    return wrong


def _region_problems(payload: Payload, packed: PackedAssignment, ontology: Ontology) -> list[str]:
    """Return the problems of regions if any gives no label; notes alone are not problems."""
    decoded = decode(payload, Canvas(packed.width, packed.height, ontology))
    return decoded.problems if decoded.refused else []
