"""An image's path through the platform: its events in order, and which may follow which.

An image has one state for its arrival (landed, quarantined, duplicate, clean, imported) and one
for each round that has it annotated, which starts from the state of the arrival. So a late
annotation in one round does not affect the state in a later round.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from annotation_platform.errors import DataError


@dataclass(frozen=True)
class ImageEvent:
    """One step of an image: its new state, and the cause.

    Attributes:
        state: the state that the event leads to.
        at: the time, UTC; None where it was not recorded.
        round_id: the round in which the image landed or was annotated; for ``exported`` the round
            whose labels the version holds.
        by: a pseudonym, ``policy``, or empty for the platform itself.
        detail: one sentence.
        not_before: a lower bound of the time, for some events without a time.
    """

    state: str
    at: datetime | None
    round_id: str
    by: str
    detail: str
    not_before: datetime | None = None


NOWHERE = ""
"""The state of an image before its first event."""

LEGAL: Mapping[str, frozenset[str]] = {
    NOWHERE: frozenset({"landed"}),
    "landed": frozenset({"landed", "quarantined", "duplicate", "clean"}),
    "quarantined": frozenset({"landed", "quarantined", "duplicate"}),
    "duplicate": frozenset({"landed", "quarantined", "duplicate"}),
    "clean": frozenset({"imported", "queued", "accepted"}),
    "imported": frozenset({"queued", "accepted", "consensus", "exported"}),
    # Accepted without a person, in a round that has no task for the image.
    "accepted": frozenset({"exported"}),
    "queued": frozenset({"queued", "annotated", "abandoned", "cancelled"}),
    "annotated": frozenset({"queued", "annotated", "abandoned", "cancelled", "consensus"}),
    "abandoned": frozenset({"queued", "reopened", "cancelled"}),
    "cancelled": frozenset({"queued", "reopened", "abandoned"}),
    "consensus": frozenset(
        {"consensus", "in review", "reviewed", "exported", "abandoned", "cancelled"}
    ),
    "in review": frozenset({"consensus", "in review", "reviewed", "abandoned", "cancelled"}),
    "reviewed": frozenset(
        {"consensus", "in review", "reviewed", "exported", "abandoned", "cancelled"}
    ),
    "exported": frozenset(
        {"consensus", "in review", "reviewed", "exported", "abandoned", "cancelled"}
    ),
}
"""The states that may follow a state. ``reopened`` restores the state before ``abandoned``."""

STAYS: Mapping[str, frozenset[str]] = {
    # The same bytes may land any number of times; the first that is accepted is the image.
    **dict.fromkeys(
        ("clean", "imported"), frozenset({"landed", "clean", "duplicate", "quarantined"})
    ),
    # Late annotations of a closed round are stored and not counted.
    **dict.fromkeys(("abandoned", "cancelled"), frozenset({"annotated"})),
    # Labels stay valid, whatever further annotations arrive, until they are resolved again.
    **dict.fromkeys(
        ("consensus", "in review", "reviewed", "exported"), frozenset({"queued", "annotated"})
    ),
}
"""The events that leave a state unchanged."""

_ARRIVAL = ("landed", "clean", "imported", "duplicate", "quarantined")
_COURSE = (*_ARRIVAL, "queued", "annotated", "abandoned", "cancelled", "reopened", "accepted",
           "consensus", "in review", "reviewed", "exported")  # fmt: skip
_DEPENDS_ON: Mapping[str, tuple[str, ...]] = {
    "consensus": ("annotated", "reopened"),
    "in review": ("consensus",),
    "reviewed": ("in review",),
}
_ENDED = ("abandoned", "cancelled")
_BEGINNING = datetime.min.replace(tzinfo=UTC)
# A version records the time of its publication in whole seconds.
_SLACK = {"exported": timedelta(seconds=1)}


def in_order(events: Iterable[ImageEvent]) -> list[ImageEvent]:
    """Return the events of one image in the order in which they must have happened.

    Events are sorted by time. An event without a time is placed as early as the events of its
    round that it depends on allow: a consensus after the annotations but before the events that
    follow from it; an arrival at the beginning, by round. An annotation is never placed before
    the round's first request, whatever its time. The order of ``events`` does not matter.
    """
    of_round: dict[str, list[ImageEvent]] = defaultdict(list)
    for event in events:
        of_round[event.round_id].append(event)
    times = [pair for each in of_round.values() for pair in _times(each)]
    times.sort(key=lambda pair: _key(*pair))
    return [event for event, _ in times]


def require_legal(image_id: str, events: Sequence[ImageEvent]) -> None:
    """Raise a DataError that names the first event of an image that may not follow its state.

    Args:
        image_id: the image.
        events: all events of the image, or the first ones, as ``in_order`` returns them.
    """
    arrival = NOWHERE
    of_round: dict[str, str] = {}
    # The state of a closed or cancelled round had it stayed open.
    otherwise: dict[str, str] = {}
    for event in events:
        is_arrival = event.state in _ARRIVAL
        current = arrival if is_arrival else of_round.get(event.round_id, arrival)
        # Imported labels can be published whether or not a round has the image annotated.
        is_import = event.state == "exported" and arrival == "imported"
        if event.state in STAYS.get(current, ()):
            if current in _ENDED and event.state in LEGAL[otherwise[event.round_id]]:
                otherwise[event.round_id] = event.state
        elif event.state not in LEGAL[current]:
            if not is_import:
                raise DataError(_complaint(image_id, current, event))
        elif is_arrival:
            arrival = event.state
        else:
            if event.state in _ENDED and current not in _ENDED:
                otherwise[event.round_id] = current
            is_back = event.state == "reopened"
            of_round[event.round_id] = otherwise[event.round_id] if is_back else event.state


def _complaint(image_id: str, current: str, event: ImageEvent) -> str:
    following = ", ".join(sorted(LEGAL[current]))
    when = f" at {event.at.isoformat(timespec='seconds')}" if event.at else ""
    return (
        f"{image_id}: {event.state}{when} in {event.round_id} ({event.detail}), but it was "
        f"{current or 'not landed yet'}, which only {following} may follow. "
        f"Run {event.round_id} again from the missing step, or restore its tables."
    )


def _times(events: Sequence[ImageEvent]) -> list[tuple[ImageEvent, datetime]]:
    """Return the events of one round, each with the time that it is sorted by."""
    queued = [each.at for each in events if each.state == "queued" and each.at is not None]
    first = min(queued, default=_BEGINNING)
    placed: list[tuple[ImageEvent, datetime]] = []
    for event in sorted(events, key=lambda each: _COURSE.index(each.state)):
        at = _end(event)
        if at is None:
            at = _earliest(event, events, placed)
        placed.append((event, max(at, first) if event.state == "annotated" else at))
    return placed


def _end(event: ImageEvent) -> datetime | None:
    """Return the latest time that an event's recorded time can mean."""
    return event.at and event.at + _SLACK.get(event.state, timedelta())


def _earliest(
    event: ImageEvent, events: Sequence[ImageEvent], placed: Sequence[tuple[ImageEvent, datetime]]
) -> datetime:
    """Return the earliest possible time of an event without a time."""
    earlier = [(each, at) for each, at in placed if each.state != event.state]
    depends_on = [at for each, at in earlier if each.state in _DEPENDS_ON.get(event.state, ())]
    below = depends_on or [at for _, at in earlier]
    if event.not_before is not None:
        below = [*below, event.not_before]
    later = _COURSE[_COURSE.index(event.state) + 1 :]
    ends = [_end(each) for each in events if each.state in later]
    begins = min(below, default=_BEGINNING)
    followed = [at for at in ends if at is not None and at >= begins]
    return min([max(below, default=_BEGINNING), *followed])


def _key(event: ImageEvent, at: datetime) -> tuple[datetime, str, int, datetime, str, str]:
    rank = _COURSE.index(event.state)
    return at, event.round_id, rank, event.at or _BEGINNING, event.by, event.detail
