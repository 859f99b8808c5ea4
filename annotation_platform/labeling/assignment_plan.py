"""The assignment plan of a round: who annotates what, fixed in the lake before publishing."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from annotation_platform.labeling.stored_names import from_stored, to_stored
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class AnnotationRequest:
    """A task that needs ``annotations`` more annotations.

    Attributes:
        image_id: the image.
        annotations: the number of annotations to request.
        purpose: ``label``, ``gold`` or ``review``.
        expertise: the skill that annotators need; empty for none.
        outside: whether an outside vendor annotates it; the assignments then have no assignee.
        instead_of: assignments whose replicas are used up; the first annotations fill them.
        without_predictions: whether no assignment of the task shows pre-annotations.
    """

    image_id: str
    annotations: int
    purpose: str = "label"
    expertise: str = ""
    outside: bool = False
    instead_of: tuple[int, ...] = ()
    without_predictions: bool = False


@dataclass(frozen=True)
class Assignment:
    """One annotator's slot in a task.

    ``assignment`` is its number in the task. An empty ``assignee`` leaves it open to any person.
    ``fills_assignment`` is the assignment that it fills: its own number, or that of a used-up one.
    """

    image_id: str
    assignment: int
    assignee: str
    purpose: str
    expertise: str
    without_predictions: bool
    fills_assignment: int


@dataclass(frozen=True)
class Plan:
    """The assignments of a round so far, in the order in which they were planned.

    ``guideline`` and ``asked_at`` are those of the first batch: a round keeps the classes and
    guidelines that it began with. ``batches`` is the number of batches.
    """

    assignments: list[Assignment]
    guideline: str
    asked_at: datetime | None
    batches: int


class AssignmentPlan:
    """The plan of one round: batches of assignments, each written once. It holds addresses."""

    def __init__(self, store: ObjectStore, round_id: str) -> None:
        self._journal = Journal(store, f"plans/{round_id}", private=True)

    def read(self) -> Plan:
        """Return all assignments; none for a round that was not planned."""
        batches = self._entries()
        if not batches:
            return Plan([], "", None, 0)
        assignments = [each for batch in batches for each in _assignments(batch)]
        asked_at = datetime.fromisoformat(batches[0]["asked_at"])
        return Plan(assignments, batches[0]["guideline"], asked_at, len(batches))

    def batches(self) -> list[tuple[datetime, list[Assignment]]]:
        """Return the time and the assignments of each batch."""
        return [
            (datetime.fromisoformat(batch["asked_at"]), _assignments(batch))
            for batch in self._entries()
        ]

    def add(
        self, known: Plan, assignments: Sequence[Assignment], *, guideline: str, now: datetime
    ) -> Plan:
        """Add a batch to ``known``, the plan as it was read, and return the plan.

        If another process added a batch since, that one is kept and this one is dropped.
        """
        batch = {
            "asked_at": now.isoformat(),
            "guideline": guideline,
            "places": [to_stored(asdict(assignment)) for assignment in assignments],
        }
        self._journal.create(known.batches + 1, json.dumps(batch).encode())
        return self.read()

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in self._journal.read()]


def plan_assignments(
    requests: Sequence[AnnotationRequest],
    people: Iterable[str],
    *,
    taken: Sequence[Assignment] = (),
    involved: Mapping[str, set[str]] | None = None,
    qualified: Mapping[str, set[str]] | None = None,
    share_without_predictions: float = 0.0,
    seed: int = 0,
) -> list[Assignment]:
    """Return an assignment for every requested annotation, numbered after those in ``taken``.

    Each goes to the qualified person with the fewest assignments so far who has not annotated the
    image. A task with too few such people has open assignments only: any qualified person may
    take them, first come first served.

    Args:
        requests: in the order of planning.
        people: e-mail addresses.
        taken: existing assignments.
        involved: by image, the people who annotated it already, assigned or not.
        qualified: by expertise, the people who have it.
        share_without_predictions: share in ``[0, 1]`` of the other assignments that show no
            pre-annotations; ``seed``, image and number decide which.
        seed: seed of that choice.
    """
    names = sorted(set(people))
    load = Counter(assignment.assignee for assignment in taken)
    busy = defaultdict(set, {image: set(authors) for image, authors in (involved or {}).items()})
    last: Counter[str] = Counter()
    for assignment in taken:
        busy[assignment.image_id].add(assignment.assignee)
        last[assignment.image_id] = max(last[assignment.image_id], assignment.assignment)
    assigned = []
    for task in requests:
        able = (qualified or {}).get(task.expertise, set()) if task.expertise else names
        free = [name for name in names if name in able and name not in busy[task.image_id]]
        free.sort(key=lambda name: load[name])
        enough = len(free) >= task.annotations and not task.outside
        chosen = free[: task.annotations] if enough else [""] * task.annotations
        fills = [*task.instead_of, *[0] * (task.annotations - len(task.instead_of))]
        for name, instead_of in zip(chosen, fills, strict=True):
            number = last[task.image_id] + 1
            load[name] += 1
            busy[task.image_id].add(name)
            last[task.image_id] = number
            unit = _unit_hash(f"{seed}/{task.image_id}/{number}")
            assigned.append(
                Assignment(
                    image_id=task.image_id,
                    assignment=number,
                    assignee=name,
                    purpose=task.purpose,
                    expertise=task.expertise,
                    without_predictions=task.without_predictions
                    or unit < share_without_predictions,
                    fills_assignment=instead_of or number,
                )
            )
    return assigned


def _assignments(batch: dict[str, Any]) -> list[Assignment]:
    return [Assignment(**from_stored(each)) for each in batch["places"]]


def _unit_hash(text: str) -> float:
    """Return a pseudorandom number in ``[0, 1)`` that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
