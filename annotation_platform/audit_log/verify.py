"""Verify the audit logs: the events of a lake, and the access log of this machine."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from annotation_platform.audit_log.events import RECORDED, EventLog
from annotation_platform.storage.audited import AccessLog, LogHead
from annotation_platform.storage.chain import (
    Chain,
    ChainLink,
    ChainProblem,
    Line,
    check_chain,
    digest_of,
    parse_line,
)


@dataclass(frozen=True)
class Verdict:
    """The result of a verification; ``problems`` has the first problem of each log.

    Attributes:
        entries: number of entries of events.
        events: number of events.
        files: number of files of the access log.
        uses: number of recorded accesses.
        problems: lines or files that are not as they were written.
        notes: a sentence for each unchecked part, with the reason, and for each anomaly.
    """

    entries: int
    events: int
    files: int
    uses: int
    problems: tuple[ChainProblem, ...]
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether both logs are as they were written, as far as can be verified."""
        return not self.problems


@dataclass(frozen=True)
class _Vouched:
    """The last line of an access log that an event records."""

    by: Line
    head: LogHead


@dataclass
class _Events:
    """The events as read: the last line of each entry, and the lines that they vouch for."""

    chain: Chain
    ends: dict[str, Line]
    vouched: list[_Vouched]


@dataclass
class _Uses:
    """The access log as read.

    Attributes:
        chain: the result of the chain check.
        files: names of its files.
        homes: names of the log in its lines.
        digests: line and digest of each line that an event vouches for, by number.
        recorded: lines that record an event of this lake, with their content.
    """

    chain: Chain
    files: list[str]
    homes: set[str] = field(default_factory=set)
    digests: dict[int, tuple[Line, str]] = field(default_factory=dict)
    recorded: list[tuple[Line, dict[str, Any]]] = field(default_factory=list)


def verify_logs(events: EventLog, uses: AccessLog) -> Verdict:
    """Verify both logs, and that each holds the lines that the other one records.

    A log can be truncated at its end. Truncated events are detected through the access log;
    accesses after the last event are not protected. Access logs of other machines cannot be checked
    here; a note has the number of events that depend on them.
    """
    # Events first: the lines that they vouch for were written before them.
    read = _read_events(events)
    here = _read_uses(uses, read.vouched, events.lake)
    problems = [each for each in (read.chain.problem, here.chain.problem) if each is not None]
    notes = [*read.chain.notes, *here.chain.notes]
    if here.chain.problem is None:
        cut_off, unchecked = _unvouched(read.vouched, here, uses.home)
        notes += unchecked
        lost = list(_lost_events(here.recorded, read.ends, events))
        if not problems:
            # The content of a changed event proves nothing.
            problems = (lost or cut_off)[:1]
        elif problems[0].or_next:
            problems = lost[:1] or problems
    return Verdict(
        len(read.ends),
        read.chain.lines,
        len(here.files),
        here.chain.lines,
        tuple(problems),
        tuple(notes),
    )


def _read_events(events: EventLog) -> _Events:
    ends: dict[str, Line] = {}
    vouched: list[_Vouched] = []
    outer: list[ChainProblem] = []

    def lines() -> Iterator[Line]:
        for key, found in events.read():
            if not found:
                empty = "is empty: its lines were removed"
                gone = "is missing: later entries show that it was written"
                outer.append(ChainProblem(key, 0, gone if found is None else empty))
                return
            ends[key] = found[-1]
            yield from found

    def seen(line: Line, content: dict[str, Any], _link: ChainLink) -> None:
        head = LogHead.of(content.get("reads_head"))
        if head is not None:
            vouched.append(_Vouched(line, head))

    chain = check_chain(lines(), seen=seen)
    added = "was added: it is not an entry of this log"
    outer += [ChainProblem(key, 0, added) for key in events.strays()]
    if chain.problem is None and outer:
        chain = replace(chain, problem=outer[0])
    if chain.problem is not None:
        # The content of a changed line proves nothing.
        wrong = (chain.problem.file, chain.problem.line)
        vouched = [each for each in vouched if (each.by.file, each.by.row) != wrong]
    return _Events(chain, ends, vouched)


def _read_uses(uses: AccessLog, vouched: list[_Vouched], lake: str) -> _Uses:
    found = _Uses(check_chain([]), [])
    numbers = {each.head.number for each in vouched}
    first: list[Line] = []

    def lines() -> Iterator[Line]:
        for line in uses.lines():
            if line.row == 1:
                found.files.append(line.file)
                first.append(line)
            yield line

    def seen(line: Line, content: dict[str, Any], link: ChainLink) -> None:
        found.homes.add(str(content.get("home", "")))
        if link.number in numbers:
            found.digests[link.number] = (line, link.sha256)
        if content.get("action") == RECORDED and content.get("lake") == lake:
            found.recorded.append((line, content))

    found.chain = check_chain(lines(), appended=True, seen=seen)
    if found.chain.begins_late:
        problem = _begins_late(first[0])
        if problem is not None:
            found.chain = replace(found.chain, problem=problem)
    return found


def _begins_late(line: Line) -> ChainProblem | None:
    """Return the problem if a day was deleted in part; None if whole days were deleted."""
    content = parse_line(line.data)
    if content is None or f"{content.get('day')}.jsonl" == line.file:
        return None
    return ChainProblem(
        line.file, line.row, "lines before this one are missing: it is not the first of its day"
    )


def _unvouched(
    vouched: list[_Vouched], here: _Uses, home: str
) -> tuple[list[ChainProblem], list[str]]:
    """Return the missing lines that events vouch for, and notes on lines of other machines."""
    problems = []
    elsewhere: dict[str, int] = defaultdict(int)
    deleted = 0
    for each in vouched:
        if each.head.home not in {home, *here.homes}:
            elsewhere[each.head.home] += 1
        elif each.head.number < here.chain.first:
            deleted += 1
        else:
            line, sha256 = here.digests.get(each.head.number, (None, ""))
            if sha256 != each.head.sha256:
                problems.append(_not_there(each, line))
    notes = [
        f"{count} events depend on the access log of another home ({name}): verify that there"
        for name, count in sorted(elsewhere.items())
    ]
    if deleted:
        notes.append(f"{deleted} events depend on deleted days of the access log")
    return problems, notes


def _not_there(vouched: _Vouched, line: Line | None) -> ChainProblem:
    event = f"the event in {vouched.by.place} depends on its line number {vouched.head.number}"
    if line is None:
        message = f"was truncated or replaced: {event}, which is missing"
        return ChainProblem(vouched.head.file, 0, message)
    return ChainProblem(
        line.file, line.row, f"this log was replaced: {event}, which had other content then"
    )


def _lost_events(
    recorded: list[tuple[Line, dict[str, Any]]], ends: dict[str, Line], events: EventLog
) -> Iterator[ChainProblem]:
    """Yield the entries of events that differ from their records in the access log."""
    for line, content in recorded:
        key, sha256 = str(content.get("key")), content.get("sha256")
        if key not in ends:
            # It may have been written after the events were read.
            if not events.has(key):
                yield ChainProblem(key, 0, f"is missing: {line.place} of the access log records it")
        elif digest_of(ends[key].data) != sha256:
            message = f"this line differs from its record in {line.place} of the access log"
            yield ChainProblem(key, ends[key].row, message)
