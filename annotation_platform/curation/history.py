"""An image's path through the platform: its events in order, and which may follow which.

An image stands somewhere in its arrival (landed, quarantined, duplicate, clean, imported), and,
of each round that asks about it, somewhere in that round, where it begins as the arrival left it.
So an answer that comes late in one round says nothing about another that has begun by then.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from annotation_platform.errors import DataError


@dataclass(frozen=True)
class Event:
    """One step of an image: its state since, and what made it so.

    ``at`` is None where nothing says when. ``round_id`` is the round it belongs to: where it
    landed or was asked about, and for ``exported`` the round whose labels the version holds.
    ``by`` is a pseudonym, ``policy``, or empty for the platform itself; ``detail`` is one sentence.
    ``not_before`` is known of some events whose time is not.
    """

    state: str
    at: datetime | None
    round_id: str
    by: str
    detail: str
    not_before: datetime | None = None


NOWHERE = ""
"""Where an image stands before its first event."""

LEGAL: Mapping[str, frozenset[str]] = {
    NOWHERE: frozenset({"landed"}),
    "landed": frozenset({"landed", "quarantined", "duplicate", "clean"}),
    "quarantined": frozenset({"landed", "quarantined", "duplicate"}),
    "duplicate": frozenset({"landed", "quarantined", "duplicate"}),
    "clean": frozenset({"imported", "queued", "accepted"}),
    "imported": frozenset({"queued", "accepted", "consensus", "exported"}),
    # Without a person, in a round that asks nobody about the image.
    "accepted": frozenset({"exported"}),
    "queued": frozenset({"queued", "answered", "left", "cancelled"}),
    "answered": frozenset({"queued", "answered", "left", "cancelled", "consensus"}),
    "left": frozenset({"queued", "reopened", "cancelled"}),
    "cancelled": frozenset({"queued", "reopened", "left"}),
    "consensus": frozenset({"consensus", "in review", "reviewed", "exported", "left", "cancelled"}),
    "in review": frozenset({"consensus", "in review", "reviewed", "left", "cancelled"}),
    "reviewed": frozenset({"consensus", "in review", "reviewed", "exported", "left", "cancelled"}),
    "exported": frozenset({"consensus", "in review", "reviewed", "exported", "left", "cancelled"}),
}
"""Where an image may go from where it stands. ``reopened`` leads back to before it was left."""

STAYS: Mapping[str, frozenset[str]] = {
    # The same bytes may land any number of times; the first that is accepted is the image.
    **dict.fromkeys(
        ("clean", "imported"), frozenset({"landed", "clean", "duplicate", "quarantined"})
    ),
    # Nobody waits for these any more: they are kept, and count for nothing.
    **dict.fromkeys(("left", "cancelled"), frozenset({"answered"})),
    # Labels stand, whatever more is asked and said, until they are made anew.
    **dict.fromkeys(
        ("consensus", "in review", "reviewed", "exported"), frozenset({"queued", "answered"})
    ),
}
"""What may happen to an image without moving it from where it stands."""

_ARRIVAL = ("landed", "clean", "imported", "duplicate", "quarantined")
_COURSE = (*_ARRIVAL, "queued", "answered", "left", "cancelled", "reopened", "accepted",
           "consensus", "in review", "reviewed", "exported")  # fmt: skip
_RESTS_ON: Mapping[str, tuple[str, ...]] = {
    "consensus": ("answered", "reopened"),
    "in review": ("consensus",),
    "reviewed": ("in review",),
}
_LEFT = ("left", "cancelled")
_BEGINNING = datetime.min.replace(tzinfo=UTC)
# A version names the second in which it was published, and no part of it.
_SLACK = {"exported": timedelta(seconds=1)}


def in_order(events: Iterable[Event]) -> list[Event]:
    """Return the events of one image in the order in which they must have happened.

    That is by time. One without a time stands as early as what it rests on in its round allows:
    a consensus behind the answers, but before what followed from it; an arrival at the beginning,
    by round. An answer never stands before the round's first question, whatever its clock says.
    The order in which events are given does not matter.
    """
    of_round: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        of_round[event.round_id].append(event)
    times = [pair for each in of_round.values() for pair in _times(each)]
    times.sort(key=lambda pair: _key(*pair))
    return [event for event, _ in times]


def require_legal(image_id: str, events: Sequence[Event]) -> None:
    """Raise a DataError that names the first step of an image that may not follow where it stood.

    Args:
        image_id: the image.
        events: all of it, or its beginning, from ``in_order``.
    """
    arrival = NOWHERE
    of_round: dict[str, str] = {}
    # Where it would stand in a round, had that not been closed or cancelled.
    otherwise: dict[str, str] = {}
    for event in events:
        is_arrival = event.state in _ARRIVAL
        stands = arrival if is_arrival else of_round.get(event.round_id, arrival)
        # Labels that an image landed with can be published whatever a round asks beside them.
        brought = event.state == "exported" and arrival == "imported"
        if event.state in STAYS.get(stands, ()):
            if stands in _LEFT and event.state in LEGAL[otherwise[event.round_id]]:
                otherwise[event.round_id] = event.state
        elif event.state not in LEGAL[stands]:
            if not brought:
                raise DataError(_complaint(image_id, stands, event))
        elif is_arrival:
            arrival = event.state
        else:
            if event.state in _LEFT and stands not in _LEFT:
                otherwise[event.round_id] = stands
            is_back = event.state == "reopened"
            of_round[event.round_id] = otherwise[event.round_id] if is_back else event.state


def _complaint(image_id: str, stands: str, event: Event) -> str:
    when = f" at {event.at.isoformat(timespec='seconds')}" if event.at else ""
    return (
        f"{image_id}: {event.state}{when} in {event.round_id} ({event.detail}), but it was "
        f"{stands or 'nowhere yet'}, which only {', '.join(sorted(LEGAL[stands]))} may follow. "
        f"Run {event.round_id} again from what is missing, or restore its tables."
    )


def _times(events: Sequence[Event]) -> list[tuple[Event, datetime]]:
    """Return the events of one round, each with the time at which it is put."""
    asked = [each.at for each in events if each.state == "queued" and each.at is not None]
    first = min(asked, default=_BEGINNING)
    placed: list[tuple[Event, datetime]] = []
    for event in sorted(events, key=lambda each: _COURSE.index(each.state)):
        at = _end(event)
        if at is None:
            at = _earliest(event, events, placed)
        placed.append((event, max(at, first) if event.state == "answered" else at))
    return placed


def _end(event: Event) -> datetime | None:
    """Return the end of the moment that an event names."""
    return event.at and event.at + _SLACK.get(event.state, timedelta())


def _earliest(
    event: Event, events: Sequence[Event], placed: Sequence[tuple[Event, datetime]]
) -> datetime:
    """Return when an event without a time can have been, at the earliest."""
    earlier = [(each, at) for each, at in placed if each.state != event.state]
    rests_on = [at for each, at in earlier if each.state in _RESTS_ON.get(event.state, ())]
    below = rests_on or [at for _, at in earlier]
    if event.not_before is not None:
        below = [*below, event.not_before]
    later = _COURSE[_COURSE.index(event.state) + 1 :]
    ends = [_end(each) for each in events if each.state in later]
    begins = min(below, default=_BEGINNING)
    followed = [at for at in ends if at is not None and at >= begins]
    return min([max(below, default=_BEGINNING), *followed])


def _key(event: Event, at: datetime) -> tuple[datetime, str, int, datetime, str, str]:
    rank = _COURSE.index(event.state)
    return at, event.round_id, rank, event.at or _BEGINNING, event.by, event.detail
