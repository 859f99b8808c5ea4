"""Read the audit logs: events, and reads of annotations."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from annotation_platform.audit_log.events import EventLog
from annotation_platform.errors import DataError
from annotation_platform.storage.audited import AccessLog
from annotation_platform.storage.chain import Line, json_object
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import input_key

READS = ("get", "query")
"""The actions of the access log that are reads."""

_ANNOTATIONS = (
    "ledger/answers/",
    "tables/human_labels/",
    "tables/annotations/",
    "tables/answers/",
)
"""Keys of annotations; the last is that of `annotations` in v0.1.0."""
_ANY_TABLE = "tables"
_ABOUT_ANNOTATIONS = (b"ledger/", b"tables", b"inputs/")


@dataclass(frozen=True)
class LogFilter:
    """A filter for lines of a log; empty fields match all lines. ``since`` is inclusive."""

    since: datetime | None = None
    action: str = ""
    author: str = ""


@dataclass(frozen=True)
class FoundEvents:
    """Lines of a log, the newest last, and the locations of unreadable lines."""

    lines: list[dict[str, Any]]
    unreadable: list[str]


def read_events(lake: Lake, log_filter: LogFilter) -> FoundEvents:
    """Return the events of a lake; an unknown author is a DataError."""
    lines = [line for _, entry in EventLog(lake.store).read() for line in entry or ()]
    return _choose(lines, log_filter)


def read_reads(lake: Lake, log: AccessLog, log_filter: LogFilter) -> FoundEvents:
    """Return the reads of annotations from this home: of the ledger, tables or kept copies.

    A query may have read any table, so every query counts. Lines of earlier releases have no
    author. An unknown author is a DataError.
    """
    folder = "lineage/human_labels"
    copies = {input_key(PurePosixPath(key).stem) for key in lake.store.list(folder)}
    day = f"{log_filter.since.astimezone(UTC):%Y-%m-%d}" if log_filter.since else ""
    # Most lines are about images, and parsing is the slowest part.
    lines = (
        line
        for line in log.lines(since=day)
        if any(part in line.data for part in _ABOUT_ANNOTATIONS)
    )
    return _choose(lines, log_filter, copies=copies)


def parse_moment(text: str) -> datetime:
    """Return a time in ISO 8601, in UTC unless it has an offset; other text is a DataError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{text!r} is not a time. Give 2026-05-01, or 2026-05-01T12:30.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _choose(
    lines: Iterable[Line], log_filter: LogFilter, *, copies: Collection[str] | None = None
) -> FoundEvents:
    """Return the lines that match a filter; with ``copies``, only reads of annotations."""
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
        if _fits(content, at, log_filter):
            chosen.append(content)
    if log_filter.author and log_filter.author not in authors:
        there = ", ".join(sorted(authors - {""})) or "none"
        raise DataError(f"{log_filter.author!r} is not an author in this log. Authors: {there}.")
    return FoundEvents(chosen, unreadable)


def _moment_of(content: dict[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(content["at"])
    except (KeyError, TypeError, ValueError):
        return None


def _fits(content: dict[str, Any], at: datetime, log_filter: LogFilter) -> bool:
    in_time = log_filter.since is None or at >= log_filter.since
    action = log_filter.action in {"", content.get("action")}
    return in_time and action and log_filter.author in {"", content.get("author", "")}


def _reads_annotations(content: dict[str, Any], copies: Collection[str]) -> bool:
    key = str(content.get("key", ""))
    is_of_annotations = key.startswith(_ANNOTATIONS) or key == _ANY_TABLE or key in copies
    return content.get("action") in READS and is_of_annotations
