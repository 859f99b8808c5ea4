"""What the platform asks of a place where people label, whichever it is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label

Place = tuple[str, int]
"""A task, by its id, and the number of one of its places."""


@dataclass(frozen=True)
class Proposal:
    """A label that is proposed to the annotator; ``score`` is the model's, if a model made it."""

    label: Label
    score: float | None = None


@dataclass(frozen=True)
class TaskCopy:
    """One place of a task: the blind copy that one person answers.

    ``purpose`` is ``label``, ``gold`` (which nobody who answers may tell apart) or ``review``. A
    review says in ``note`` what is in dispute, another task why the last labels were rejected. A
    ``blind`` copy shows no proposals, and then has none. One that replaces a copy that is used up
    ``stands_for`` that one's place.
    """

    task_id: str
    image_id: str
    place: int
    assignee: str
    image_key: str
    width: int
    height: int
    weights_sha256: str = ""
    proposals: tuple[Proposal, ...] = ()
    purpose: str = "label"
    blind: bool = False
    expertise: str = ""
    note: str = ""
    stands_for: int = 0


@dataclass(frozen=True)
class Submission:
    """One annotation as the back end shows it at this moment.

    ``result`` is Label Studio's list of regions, percent coordinates and all: the ledger keeps
    what was said as it was said; ``labeling/backends/label_studio/results.py`` turns it into boxes.
    """

    backend: str
    backend_task: str
    annotation: str
    task_id: str
    image_id: str
    place: int
    author: str
    created_at: datetime
    updated_at: datetime
    lead_time_seconds: float
    skipped: bool
    result: list[dict[str, Any]]
    weights_sha256: str = ""
    proposed: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """How many tasks and annotations a back end holds of a round, whatever they are worth.

    ``annotations`` is at least the number of submissions that were not skipped: a round with
    fewer annotations than places is surely not done. With fewer ``tasks`` than were published,
    some are lost.
    """

    tasks: int
    annotations: int


class LabelingBackend(Protocol):
    """A place where people label: Label Studio, or the simulated one."""

    @property
    def name(self) -> str:
        """The back end's name, as tables record it."""

    def backend_of(self, task_id: str) -> str:  # noqa: ARG002  there may be several
        """Return the name of the back end in which people answer a task."""
        return self.name

    def people_for(self, round_id: str, task_ids: Sequence[str]) -> dict[str, list[str]]:  # noqa: ARG002
        """Return whom the places of each task can be assigned to; nobody if they are not known."""
        return dict.fromkeys(task_ids, self.annotators())

    def annotators(self) -> list[str]:
        """Return the identities (e-mail addresses) of those whom places can be assigned to."""

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        copies: Sequence[TaskCopy],
        *,
        closed: Collection[Place] = (),
    ) -> Mapping[Place, str]:
        """Make exactly one task for each copy and return the back end's id by (task_id, place).

        Doing it again, whole or after half of it, adds what is missing and nothing else. Nobody
        is asked for ``closed`` places any more: their tasks stay as they are, and one that is
        gone is not made again and has the id ``""``.
        """

    def held_places(self, round_id: str) -> Collection[Place]:
        """Return the places whose tasks the back end holds now: one that is missing was deleted."""

    def collect(self, round_id: str) -> list[Submission]:
        """Return every annotation that people submitted in this round, skips included.

        Drafts and predictions are not submissions. A round that was never published gives none.
        """

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and annotations a round has, cheaply."""

    def change_token(self, round_id: str) -> str:
        """Return a text, cheaply, that changes when an answer comes, is edited or deleted."""

    def delete(self, images: Collection[str]) -> int:
        """Take away every task that shows one of these images, with all that was said of it.

        Returns how many tasks there were, in all rounds. Only an erasure does.
        """

    def check_person(self, name: str) -> None:  # noqa: ARG002  most have no account
        """Raise a LabelingError if somebody's account cannot be taken away."""
        return

    def delete_person(self, name: str) -> int:
        """Take somebody's account away, and their name off every task; what they said stays.

        Returns at how many places their name stood. Only an erasure does.
        """

    def round_url(self, round_id: str) -> str:
        """Return the address where people answer this round; empty if there is none."""
