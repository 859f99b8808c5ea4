"""Whether the audit logs are as they were written: the events of a lake, the uses noted here."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from annotation_platform.governance.audit_log.events import NOTED, EventLog
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
    """What was found; ``problems`` has the first problem of each log.

    Attributes:
        entries: of events.
        events: how many there are.
        files: of uses.
        uses: how many there are.
        problems: what is not as it was written.
        notes: what was not checked and why, and what is odd; a sentence each.
    """

    entries: int
    events: int
    files: int
    uses: int
    problems: tuple[ChainProblem, ...]
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether all is as it was written, as far as that can be known."""
        return not self.problems


@dataclass(frozen=True)
class _Vouched:
    """What an event says of a log of uses: where it stood."""

    by: Line
    head: LogHead


@dataclass
class _Events:
    """The events as they were read: the last line of each entry, and what they vouch for."""

    chain: Chain
    ends: dict[str, Line]
    vouched: list[_Vouched]


@dataclass
class _Uses:
    """The uses as they were read, and what is needed of them.

    Attributes:
        chain: what checking them found.
        files: their names.
        homes: what the lines call their log.
        digests: of the lines that events vouch for, by number, with the line.
        noted: the lines that note an event of this lake, with what they say.
    """

    chain: Chain
    files: list[str]
    homes: set[str] = field(default_factory=set)
    digests: dict[int, tuple[Line, str]] = field(default_factory=dict)
    noted: list[tuple[Line, dict[str, Any]]] = field(default_factory=list)


def verify_logs(events: EventLog, uses: AccessLog) -> Verdict:
    """Return whether both logs are whole, and whether each has what the other says of it.

    The last events can be cut off, and the last uses since the last event: of the former the log
    of uses tells, of the latter nothing does. What uses on other machines were cannot be checked
    here; a note says of how many events.
    """
    # Events first: what they vouch for was written before them.
    read = _read_events(events)
    here = _read_uses(uses, read.vouched, events.lake)
    problems = [each for each in (read.chain.problem, here.chain.problem) if each is not None]
    notes = [*read.chain.notes, *here.chain.notes]
    if here.chain.problem is None:
        cut_off, unchecked = _unvouched(read.vouched, here, uses.home)
        notes += unchecked
        lost = list(_lost_events(here.noted, read.ends, events))
        if not problems:
            # What an event says that was changed is worth nothing.
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
                what = "is empty: its lines were taken away"
                gone = "is missing: it was written, as entries after it are there"
                outer.append(ChainProblem(key, 0, gone if found is None else what))
                return
            ends[key] = found[-1]
            yield from found

    def seen(line: Line, content: dict[str, Any], _link: ChainLink) -> None:
        head = LogHead.of(content.get("reads_head"))
        if head is not None:
            vouched.append(_Vouched(line, head))

    chain = check_chain(lines(), seen=seen)
    outer += [
        ChainProblem(key, 0, "was added: it is no entry of this log") for key in events.strays()
    ]
    if chain.problem is None and outer:
        chain = replace(chain, problem=outer[0])
    if chain.problem is not None:
        # What a line says that was changed afterwards is worth nothing.
        wrong = (chain.problem.file, chain.problem.line)
        vouched = [each for each in vouched if (each.by.file, each.by.row) != wrong]
    return _Events(chain, ends, vouched)


def _read_uses(uses: AccessLog, vouched: list[_Vouched], lake: str) -> _Uses:
    found = _Uses(check_chain([]), [])
    wanted = {each.head.number for each in vouched}
    first: list[Line] = []

    def lines() -> Iterator[Line]:
        for line in uses.lines():
            if line.row == 1:
                found.files.append(line.file)
                first.append(line)
            yield line

    def seen(line: Line, content: dict[str, Any], link: ChainLink) -> None:
        found.homes.add(str(content.get("home", "")))
        if link.number in wanted:
            found.digests[link.number] = (line, link.sha256)
        if content.get("action") == NOTED and content.get("lake") == lake:
            found.noted.append((line, content))

    found.chain = check_chain(lines(), appended=True, seen=seen)
    if found.chain.begins_late:
        problem = _begins_late(first[0])
        if problem is not None:
            found.chain = replace(found.chain, problem=problem)
    return found


def _begins_late(line: Line) -> ChainProblem | None:
    """Return what is wrong if days were not deleted whole; None if they were."""
    content = parse_line(line.data)
    if content is None or f"{content.get('day')}.jsonl" == line.file:
        return None
    return ChainProblem(
        line.file, line.row, "before this line others are missing: it is not the first of its day"
    )


def _unvouched(
    vouched: list[_Vouched], here: _Uses, home: str
) -> tuple[list[ChainProblem], list[str]]:
    """Return which lines that events vouch for are not there, and what cannot be checked here."""
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
        f"{count} events rest on the log of uses of another home ({name}): verify that there"
        for name, count in sorted(elsewhere.items())
    ]
    if deleted:
        notes.append(f"{deleted} events rest on days of uses that were deleted")
    return problems, notes


def _not_there(vouched: _Vouched, line: Line | None) -> ChainProblem:
    rests = f"the event in {vouched.by.place} rests on its line number {vouched.head.number}"
    if line is None:
        what = f"was cut off or replaced: {rests}, which is not there"
        return ChainProblem(vouched.head.file, 0, what)
    return ChainProblem(
        line.file, line.row, f"this log was replaced: {rests}, which was another one then"
    )


def _lost_events(
    noted: list[tuple[Line, dict[str, Any]]], ends: dict[str, Line], events: EventLog
) -> Iterator[ChainProblem]:
    """Yield the entries of events that are not as the log of uses noted them."""
    for line, content in noted:
        key, sha256 = str(content.get("key")), content.get("sha256")
        if key not in ends:
            # It may have been written since the events were read.
            if not events.has(key):
                yield ChainProblem(key, 0, f"is missing: {line.place} of the log of uses notes it")
        elif digest_of(ends[key].data) != sha256:
            what = f"this line is not as it was when {line.place} of the log of uses noted it"
            yield ChainProblem(key, ends[key].row, what)
