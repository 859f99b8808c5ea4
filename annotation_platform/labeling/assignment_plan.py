"""Who is asked what: the places of a round, fixed in the lake before anybody is asked."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class AnnotationRequest:
    """A task that needs so many more answers, of people with this expertise (empty: anybody).

    One that is answered ``outside`` is assigned to nobody: who works there is not known. The
    first of the answers are ``instead_of`` places whose copies are used up. With ``blind`` none of
    its places shows proposals.
    """

    image_id: str
    annotations: int
    purpose: str = "label"
    expertise: str = ""
    outside: bool = False
    instead_of: tuple[int, ...] = ()
    blind: bool = False


@dataclass(frozen=True)
class Place:
    """One of a task's copies, the place it fills, and whom it is meant for; empty is anybody."""

    image_id: str
    place: int
    assignee: str
    purpose: str
    expertise: str
    blind: bool
    stands_for: int


@dataclass(frozen=True)
class Plan:
    """The places of a round so far, in the order of asking.

    ``guideline`` and ``asked_at`` are of the first wave: a round keeps the classes and guidelines
    it began with.
    """

    places: list[Place]
    guideline: str
    asked_at: datetime | None
    waves: int


class PlacePlan:
    """The plan of one round: waves of places, each fixed once. Addresses stand in it."""

    def __init__(self, store: ObjectStore, round_id: str) -> None:
        self._journal = Journal(store, f"plans/{round_id}", private=True)

    def read(self) -> Plan:
        """Return all places; a round that asked nobody has none."""
        waves = [json.loads(entry) for entry in self._journal.read()]
        places = [Place(**place) for wave in waves for place in wave["places"]]
        if not waves:
            return Plan([], "", None, 0)
        asked_at = datetime.fromisoformat(waves[0]["asked_at"])
        return Plan(places, waves[0]["guideline"], asked_at, len(waves))

    def waves(self) -> list[tuple[datetime, list[Place]]]:
        """Return each wave: when it was asked, and its places."""
        waves = [json.loads(entry) for entry in self._journal.read()]
        return [
            (datetime.fromisoformat(wave["asked_at"]), [Place(**each) for each in wave["places"]])
            for wave in waves
        ]

    def add(self, known: Plan, places: Sequence[Place], *, guideline: str, now: datetime) -> Plan:
        """Add places to a plan as it was read; if somebody else did meanwhile, theirs stand."""
        wave = {
            "asked_at": now.isoformat(),
            "guideline": guideline,
            "places": [asdict(place) for place in places],
        }
        self._journal.create(known.waves + 1, json.dumps(wave).encode())
        return self.read()


def assign_places(
    wanted: Sequence[AnnotationRequest],
    people: Iterable[str],
    *,
    taken: Sequence[Place] = (),
    involved: Mapping[str, set[str]] | None = None,
    qualified: Mapping[str, set[str]] | None = None,
    blind_share: float = 0.0,
    seed: int = 0,
) -> list[Place]:
    """Return a place for every answer wanted, numbered on from those that are taken.

    Each goes to whoever has the fewest places so far, nobody gets an image twice, and only those
    who have the expertise are asked for it. Where there are too few of them for a task, all its
    places are open to anybody who has it: the first to come answers.

    Args:
        wanted: in the order of asking.
        people: e-mail addresses.
        taken: places that exist already.
        involved: by image, those who answered it already, assigned or not.
        qualified: by expertise, who has it.
        blind_share: of the other places, in ``[0, 1]``; which ones is drawn by ``seed``, image and
            place.
        seed: of that draw.
    """
    everybody = sorted(set(people))
    load = Counter(place.assignee for place in taken)
    busy = defaultdict(set, {image: set(names) for image, names in (involved or {}).items()})
    last: Counter[str] = Counter()
    for place in taken:
        busy[place.image_id].add(place.assignee)
        last[place.image_id] = max(last[place.image_id], place.place)
    assigned = []
    for task in wanted:
        able = (qualified or {}).get(task.expertise, set()) if task.expertise else everybody
        free = [name for name in everybody if name in able and name not in busy[task.image_id]]
        free.sort(key=lambda name: load[name])
        enough = len(free) >= task.annotations and not task.outside
        chosen = free[: task.annotations] if enough else [""] * task.annotations
        fills = [*task.instead_of, *[0] * (task.annotations - len(task.instead_of))]
        for name, instead_of in zip(chosen, fills, strict=True):
            number = last[task.image_id] + 1
            load[name] += 1
            busy[task.image_id].add(name)
            last[task.image_id] = number
            assigned.append(
                Place(
                    image_id=task.image_id,
                    place=number,
                    assignee=name,
                    purpose=task.purpose,
                    expertise=task.expertise,
                    blind=task.blind or _draw(f"{seed}/{task.image_id}/{number}") < blind_share,
                    stands_for=instead_of or number,
                )
            )
    return assigned


def _draw(text: str) -> float:
    """Return a number in ``[0, 1)`` that is as good as random and the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
