"""What the audit logs say, for people: events, and who read answers."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.governance.audit_log.events import EventLog
from annotation_platform.storage.audited import AccessLog
from annotation_platform.storage.chain import Line, json_object
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import input_key

READS = ("get", "query")
"""The uses of the lake that are reads."""

_ANNOTATIONS = ("ledger/answers/", "tables/human_labels/", "tables/answers/")
_ANY_TABLE = "tables"
_ABOUT_ANNOTATIONS = (b"ledger/", b"tables", b"inputs/")


@dataclass(frozen=True)
class AnnotationRequest:
    """Which lines are asked for; empty: all.

    ``since`` is a moment; a line of that very moment is one.
    """

    since: datetime | None = None
    action: str = ""
    author: str = ""


@dataclass(frozen=True)
class Found:
    """Lines of a log, the newest last, and where those are that cannot be read any more."""

    lines: list[dict[str, Any]]
    unreadable: list[str]


def read_events(lake: Lake, wanted: AnnotationRequest) -> Found:
    """Return the events of a lake; a DataError if nobody of that name is the author of one."""
    lines = [line for _, entry in EventLog(lake.store).read() for line in entry or ()]
    return _choose(lines, wanted)


def read_reads(lake: Lake, log: AccessLog, wanted: AnnotationRequest) -> Found:
    """Return who read answers from this home: the ledger, tables, or kept copies of tables.

    A query may have read any table, so each is one of them. Lines of earlier code have no author.
    A DataError if nobody of that name read any.
    """
    folder = "lineage/human_labels"
    copies = {input_key(PurePosixPath(key).stem) for key in lake.store.list(folder)}
    day = f"{wanted.since.astimezone(UTC):%Y-%m-%d}" if wanted.since else ""
    # Most lines are about images, and taking apart takes longest.
    lines = (
        line
        for line in log.lines(since=day)
        if any(part in line.data for part in _ABOUT_ANNOTATIONS)
    )
    return _choose(lines, wanted, copies=copies)


def parse_moment(text: str) -> datetime:
    """Return the moment that somebody typed, in UTC unless it says otherwise; else a DataError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{text!r} is no time. Give 2026-05-01, or 2026-05-01T12:30.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _choose(
    lines: Iterable[Line], wanted: AnnotationRequest, *, copies: Collection[str] | None = None
) -> Found:
    """Return the lines that are asked for; with ``copies`` only such as read answers."""
    chosen: list[dict[str, Any]] = []
    unreadable, authors = [], set()
    for line in lines:
        content = json_object(line.data)
        at = _moment_of(content)
        if at is None:
            unreadable.append(line.place)
            continue
        if copies is not None and not _reads_annotations(content, copies):
            continue
        authors.add(str(content.get("author", "")))
        if _fits(content, at, wanted):
            chosen.append(content)
    if wanted.author and wanted.author not in authors:
        there = ", ".join(sorted(authors - {""})) or "nobody"
        raise DataError(f"{wanted.author!r} is no author in this log. There is: {there}.")
    return Found(chosen, unreadable)


def _moment_of(content: dict[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(content["at"])
    except (KeyError, TypeError, ValueError):
        return None


def _fits(content: dict[str, Any], at: datetime, wanted: AnnotationRequest) -> bool:
    late = wanted.since is None or at >= wanted.since
    action = wanted.action in {"", content.get("action")}
    return late and action and wanted.author in {"", content.get("author", "")}


def _reads_annotations(content: dict[str, Any], copies: Collection[str]) -> bool:
    key = str(content.get("key", ""))
    is_of_annotations = key.startswith(_ANNOTATIONS) or key == _ANY_TABLE or key in copies
    return content.get("action") in READS and is_of_annotations
