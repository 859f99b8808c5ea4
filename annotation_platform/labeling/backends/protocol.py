"""What the platform needs of a labelling back end: publish tasks, collect annotations, delete.

``docs/how-to/add-a-labelling-back-end.md`` shows a whole one.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from annotation_platform.labeling.annotations import Payload
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

    ``payload`` is what the back end stores, exactly as it came, and ``proposed`` the
    pre-annotations that it was begun from; None if nothing was shown. The ledger keeps both;
    ``registry.decode`` returns the regions in them, in pixels of the stored image.
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
    payload: Payload
    weights_sha256: str = ""
    proposed: Payload | None = None


@dataclass(frozen=True)
class Progress:
    """How many tasks and annotations a back end holds of a round, whether they count or not.

    ``annotations`` is at least the number of submissions that were not skipped: a round with
    fewer annotations than places is surely not done. With fewer ``tasks`` than were published,
    some are lost; None where the back end cannot tell.
    """

    tasks: int | None
    annotations: int


class LabelingBackend(ABC):
    """A back end in which people annotate. It has a name, and publishes, collects and deletes.

    The other methods are capabilities. Their defaults suit a back end without accounts, web
    pages or cheap counts; one that has them overrides the method.
    """

    takes_reviews: ClassVar[bool] = True
    """Whether reviewers may be asked here; outside vendors are not."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The back end's name, as tables record it and ``registry.BACKENDS`` lists it."""

    @abstractmethod
    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        copies: Sequence[TaskCopy],
        *,
        closed: Collection[Place] = (),
    ) -> Mapping[Place, str]:
        """Make exactly one task for each copy and return the back end's id by (task_id, place).

        Publishing again, after the whole or half of it, adds what is missing and nothing else.
        ``closed`` places need no further annotation: their tasks stay as they are, and one that
        is gone is not made again and has the id ``""``.
        """

    @abstractmethod
    def collect(self, round_id: str) -> list[Submission]:
        """Return every annotation that people submitted in this round, skips included.

        Drafts and predictions are not submissions. A round that was never published gives none.
        """

    @abstractmethod
    def delete(self, images: Collection[str]) -> int:
        """Delete every task that shows one of these images, with all its annotations.

        Returns how many tasks there were, in all rounds. Only an erasure calls it.
        """

    def annotators(self) -> list[str]:
        """Return the identities (e-mail addresses) of those whom places can be assigned to.

        By default none is known: anybody may annotate any place.
        """
        return []

    def people_for(self, round_id: str, task_ids: Sequence[str]) -> dict[str, list[str]]:  # noqa: ARG002
        """Return by task whom its places can be assigned to; empty where people are not known."""
        return dict.fromkeys(task_ids, self.annotators())

    def backend_of(self, task_id: str) -> str:  # noqa: ARG002  there may be several
        """Return the name of the back end that holds a task."""
        return self.name

    def held_places(self, round_id: str) -> Collection[Place] | None:  # noqa: ARG002
        """Return the places whose tasks the back end holds now: one that is missing was deleted.

        By default None: the back end cannot tell, and no task counts as deleted.
        """
        return None

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and annotations a round has; by default every one is read."""
        return Progress(None, sum(not each.skipped for each in self.collect(round_id)))

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an annotation is made, edited or deleted.

        By default every annotation is read; a back end with a cheaper way overrides it.
        """
        seen = sorted(
            (each.annotation, each.updated_at.isoformat()) for each in self.collect(round_id)
        )
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def check_person(self, name: str) -> None:  # noqa: B027  by default there are no accounts
        """Raise a LabelingError if a person's account cannot be deleted; by default it can."""

    def delete_person(self, name: str) -> int:  # noqa: ARG002  by default there are no accounts
        """Delete a person's account, and their name on every task; their annotations stay.

        Returns at how many places their name was. Only an erasure calls it.
        """
        return 0

    def round_url(self, round_id: str) -> str:  # noqa: ARG002  by default there is no web page
        """Return the address where people annotate this round; empty if there is none."""
        return ""
