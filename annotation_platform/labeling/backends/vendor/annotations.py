"""Answers from outside, judged against the package that asked for them."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from annotation_platform.errors import FormatError
from annotation_platform.labeling.annotations import Canvas, Payload
from annotation_platform.labeling.backends.registry import count_regions, decode
from annotation_platform.labeling.backends.vendor.package import Manifest, PackedPlace
from annotation_platform.schema.ontology import Ontology

_LONGEST_NAME = 200
_DEEPEST = 40
_EMAIL = re.compile(r"\S+@\S+\.\S+")
# Clocks and time zones are wrong by hours, not by days.
_AHEAD = timedelta(days=1)


@dataclass(frozen=True)
class Problem:
    """What is wrong with an answer, and where it stands."""

    where: str
    problem: str


@dataclass(frozen=True)
class GivenAnnotation:
    """An answer as somebody outside gave it, not judged yet.

    Attributes:
        where: file and position, for messages.
        key: what tells it from other answers of this person to this task, corrections excepted.
        package: the package that it answers.
        task_id: empty where only ``image`` says what it is about.
        places: those it may take; empty for any of the task.
        annotator: the vendor's own id of the person; empty if not said.
        image: the image's file; empty if not said.
        image_sha256: of the image that was seen; None where the format cannot say it.
        width, height: of the image, in pixels.
        finished_at: None if not said.
        lead_time_seconds: 0 if not said.
        skipped: whether the person did not want to answer.
        payload: what was drawn or chosen, as it came, and the codec that reads it.
    """

    where: str
    key: str
    package: str
    task_id: str
    places: tuple[int, ...]
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
    """What came back: the answers, those that cannot even be read, and the images with them.

    Attributes:
        answers: in the order of the file.
        problems: of entries that are no answers.
        unanswered: entries that say that nobody answered them yet.
        images: the SHA-256 of each image that came along, by the name of its file.
        packages: the packages that are answered, if only by saying that nothing is done yet.
    """

    annotations: list[GivenAnnotation]
    problems: list[Problem]
    unannotated: int
    images: dict[str, str]
    packages: frozenset[str]


def check_annotations(
    manifest: Manifest,
    annotations: Iterable[GivenAnnotation],
    *,
    annotator: str = "",
    now: datetime,
) -> tuple[list[GivenAnnotation], list[Problem]]:
    """Return the answers that can be taken, completed, and what is wrong with the others.

    The author of a right one is the vendor's name and the vendor's id of the person, so people of
    two vendors are never the same; its task and the places it may take are filled in. Every
    region must give a label under the classes of the package. The same answer twice is wrong.

    Args:
        manifest: the package as it was exported.
        answers: those of this package.
        annotator: who answered where an answer does not say it.
        now: times more than a day later are refused.
    """
    right: list[GivenAnnotation] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str, str], str] = {}
    for given in annotations:
        item, wrong = _completed(manifest, given, annotator)
        if item is not None:
            wrong += _problems(manifest, item, now)
            identity = (item.task_id, item.annotator, item.key)
            if identity in seen:
                wrong.append(f"the same person answers it at {seen[identity]} too")
            seen.setdefault(identity, item.where)
        problems += [Problem(given.where, each) for each in wrong]
        if item is not None and not wrong:
            right.append(item)
    return right, problems


def check_images(manifest: Manifest, images: dict[str, str]) -> list[Problem]:
    """Return a problem for each image that came back and is not the one that was sent."""
    return [
        Problem(name, "not the image that was sent, byte for byte")
        for name, digest in sorted(images.items())
        if name in manifest.places_on and manifest.places_on[name][0].image_sha256 != digest
    ]


def read_time(text: str) -> datetime:
    """Return an ISO 8601 time, without an offset as UTC; anything else is a ValueError."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r:.60} is no time like 2026-05-01T12:00:00+02:00") from error


def load_json(data: bytes, where: str) -> Any:
    """Return what JSON says; a FormatError if it is none.

    Neither NaN and infinity nor what is nested deeper than anybody's answer are JSON here.
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
    """Return what a JSON text says; a ValueError or a RecursionError if ``load_json`` refuses."""
    said = json.loads(text, parse_constant=_refuse_constant)
    level = [said]
    for _ in range(_DEEPEST):
        inner = (each for each in level if isinstance(each, list | dict))
        level = [
            value
            for each in inner
            for value in (each.values() if isinstance(each, dict) else each)
            if isinstance(value, list | dict)
        ]
        if not level:
            return said
    raise ValueError(f"nested more than {_DEEPEST} deep")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _completed(
    manifest: Manifest, given: GivenAnnotation, annotator: str
) -> tuple[GivenAnnotation | None, list[str]]:
    """Return the answer with its task, places and author; None if its task is not known."""
    wrong = []
    person = given.annotator or annotator
    if not person:
        wrong.append("it does not say who answered; fill in annotator, or pass --annotator")
    elif len(person) > _LONGEST_NAME or not person.isprintable():
        wrong.append(f"{person!r:.60} cannot be a person's id")
    elif _EMAIL.search(person):
        wrong.append("the annotator is an e-mail address; give an id that says nothing")
    task_id, problem = _task(manifest, given)
    if problem:
        return None, [*wrong, problem]
    known = [each.place for each in manifest.places_of[task_id]]
    unknown = sorted(set(given.places) - set(known))
    if unknown:
        return None, [*wrong, f"place {unknown[0]} of task {task_id!r} is not in the package"]
    places = given.places or tuple(known)
    author = f"{manifest.vendor}:{person}"
    return replace(given, task_id=task_id, places=places, annotator=author), wrong


def _task(manifest: Manifest, given: GivenAnnotation) -> tuple[str, str]:
    """Return the task that an answer is about, or what keeps it from being known."""
    if given.task_id:
        if given.task_id in manifest.places_of:
            return given.task_id, ""
        return "", f"task {given.task_id!r:.120} is not in the package"
    on_image = manifest.places_on.get(PurePosixPath(given.image).name, [])
    tasks = sorted({each.task_id for each in on_image})
    if len(tasks) == 1:
        return tasks[0], ""
    if tasks:
        return "", f"{given.image!r:.120} belongs to several tasks; answer in answers.json"
    return "", f"image {given.image!r:.120} is not in the package"


def _problems(manifest: Manifest, item: GivenAnnotation, now: datetime) -> list[str]:
    asked = manifest.place_of[item.task_id, item.places[0]]
    wrong = _image_problems(asked, item)
    if item.finished_at is not None and item.finished_at > now + _AHEAD:
        wrong.append(f"it was finished in the future, at {item.finished_at.isoformat()}")
    if not (math.isfinite(item.lead_time_seconds) and item.lead_time_seconds >= 0):
        wrong.append(f"{item.lead_time_seconds} seconds is no time spent on it")
    if item.skipped and count_regions(item.payload):
        wrong.append("it is skipped, and yet it has regions")
    return wrong + _region_problems(item.payload, asked, manifest.ontology)


def _image_problems(asked: PackedPlace, item: GivenAnnotation) -> list[str]:
    wrong = []
    if item.image_sha256 not in (None, asked.image_sha256):
        wrong.append(
            f"it is about an image of SHA-256 {item.image_sha256!r:.14}…, "
            f"{asked.image_sha256[:12]}… was sent"
        )
    if (item.width, item.height) != (asked.width, asked.height):
        wrong.append(
            f"it is about an image of {item.width} × {item.height} pixels, "
            f"{asked.width} × {asked.height} was sent"
        )
    return wrong


def _region_problems(payload: Payload, asked: PackedPlace, ontology: Ontology) -> list[str]:
    """Return what is wrong with regions if any gives no label; mere remarks are no problem."""
    said = decode(payload, Canvas(asked.width, asked.height, ontology))
    return said.problems if said.refused else []
