"""The protocol of labelling back ends: publish tasks, collect annotations, delete tasks.

``docs/how-to/add-a-labelling-back-end.md`` shows a complete implementation.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from annotation_platform.schema.annotations import Payload, PreAnnotation
from annotation_platform.schema.ontology import Ontology

AssignmentKey = tuple[str, int]
"""A task id and the number of one of the task's assignments."""


@dataclass(frozen=True)
class Replica:
    """The copy of a task that one annotator receives for one assignment.

    ``purpose`` is ``label``, ``gold`` (which annotators must not be able to recognize) or
    ``review``. ``note`` describes the dispute of a review; for other tasks it gives the reason why
    the last labels were rejected. A replica ``without_predictions`` has no pre-annotations. A
    replica that replaces a used-up one fills that one's assignment, ``fills_assignment``.
    """

    task_id: str
    image_id: str
    assignment: int
    assignee: str
    image_key: str
    width: int
    height: int
    weights_sha256: str = ""
    pre_annotations: tuple[PreAnnotation, ...] = ()
    purpose: str = "label"
    without_predictions: bool = False
    expertise: str = ""
    note: str = ""
    fills_assignment: int = 0

    @property
    def key(self) -> AssignmentKey:
        """The task and the number of the assignment."""
        return self.task_id, self.assignment


@dataclass(frozen=True)
class Submission:
    """The current state of one annotation in the back end.

    ``payload`` is the back end's own content, unchanged. ``pre_annotations`` is the content that
    the annotator started from; None if nothing was shown. The ledger keeps both;
    ``registry.decode`` returns their regions in pixels of the stored image.
    """

    backend: str
    backend_task: str
    annotation: str
    task_id: str
    image_id: str
    assignment: int
    author: str
    created_at: datetime
    updated_at: datetime
    lead_time_seconds: float
    skipped: bool
    payload: Payload
    weights_sha256: str = ""
    pre_annotations: Payload | None = None

    @property
    def key(self) -> AssignmentKey:
        """The task and the number of the assignment."""
        return self.task_id, self.assignment


@dataclass(frozen=True)
class Progress:
    """How many tasks and annotations of a round a back end holds, counted or not.

    ``annotations`` is at least the number of submissions that were not skipped, so a round with
    fewer annotations than assignments is not complete. ``tasks`` below the number of published
    tasks means that some were deleted; None where the back end cannot count them.
    """

    tasks: int | None
    annotations: int


class LabelingBackend(ABC):
    """A back end in which people annotate: it has a name, publishes, collects and deletes.

    The other methods are optional capabilities. Their defaults suit a back end without accounts,
    web pages or cheap counts.
    """

    takes_reviews: ClassVar[bool] = True
    """Whether the back end accepts review tasks; outside vendors do not."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The back end's name in tables and in ``registry.BACKENDS``."""

    @abstractmethod
    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        replicas: Sequence[Replica],
        *,
        closed: Collection[AssignmentKey] = (),
    ) -> Mapping[AssignmentKey, str]:
        """Create exactly one task for each replica and return the back end's id by assignment.

        Publishing again, after a complete or an interrupted call, adds only what is missing.
        Assignments in ``closed`` need no further annotation: their tasks stay as they are, and a
        deleted one is not created again and has the id ``""``.
        """

    @abstractmethod
    def collect(self, round_id: str) -> list[Submission]:
        """Return every annotation submitted in this round, skips included.

        Drafts and predictions are not submissions. An unpublished round has none.
        """

    @abstractmethod
    def delete(self, images: Collection[str]) -> int:
        """Delete every task that shows one of these images, with all its annotations.

        Returns the number of deleted tasks in all rounds. Only an erasure calls it.
        """

    def annotators(self) -> list[str]:
        """Return the identities (e-mail addresses) of people who can have assignments.

        Empty by default: any person may annotate any task.
        """
        return []

    def people_for(self, round_id: str, task_ids: Sequence[str]) -> dict[str, list[str]]:  # noqa: ARG002
        """Return the possible assignees of each task; empty where people are not known."""
        return dict.fromkeys(task_ids, self.annotators())

    def backend_of(self, task_id: str) -> str:  # noqa: ARG002  there may be several
        """Return the name of the back end that holds a task."""
        return self.name

    def held_assignments(self, round_id: str) -> Collection[AssignmentKey] | None:  # noqa: ARG002
        """Return the assignments whose tasks the back end holds now; a missing one was deleted.

        None by default: the back end cannot tell, and no task counts as deleted.
        """
        return None

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and annotations a round has; the default reads every annotation."""
        return Progress(None, sum(not each.skipped for each in self.collect(round_id)))

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an annotation is made, edited or deleted.

        The default reads every annotation; override it where a cheaper way exists.
        """
        seen = sorted(
            (each.annotation, each.updated_at.isoformat()) for each in self.collect(round_id)
        )
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def check_person(self, name: str) -> None:  # noqa: B027  by default there are no accounts
        """Raise a LabelingError if a person's account cannot be deleted; by default it can."""

    def delete_person(self, name: str) -> int:  # noqa: ARG002  by default there are no accounts
        """Delete a person's account and their name on every task; their annotations stay.

        Returns the number of entries that held the name. Only an erasure calls it.
        """
        return 0

    def round_url(self, round_id: str) -> str:  # noqa: ARG002  by default there is no web page
        """Return the address where people annotate this round; empty if there is none."""
        return ""
