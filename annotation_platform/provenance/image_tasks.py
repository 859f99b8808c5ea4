"""The assignments of one image in a round, with their annotations and what counted when."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from annotation_platform.labeling.assignment_plan import Assignment, AssignmentPlan
from annotation_platform.labeling.counting import Annotation, Count, Rules, count_annotations
from annotation_platform.labeling.ledger import AnnotationsLedger, Revision
from annotation_platform.labeling.round_decisions import Decision, RoundRecord
from annotation_platform.labeling.skills import Skills
from annotation_platform.labeling.tasks import task_name
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class ImageBatch:
    """A batch of assignments of one image."""

    asked_at: datetime
    assignments: list[Assignment]


@dataclass(frozen=True)
class ImageTask:
    """The assignments of a round for one image, and their annotations."""

    round_id: str
    image_id: str
    batches: list[ImageBatch]
    revisions: list[Revision]
    decisions: list[Decision]
    skills: Skills

    @classmethod
    def read(cls, round_id: str, image_id: str, lake: Lake) -> "ImageTask":
        """Return the task of an image in a round, without batches if it has no assignments.

        The ledger may hold unassigned annotations.
        """
        batches = []
        for asked_at, assignments in AssignmentPlan(lake.store, round_id).batches():
            of_image = [one for one in assignments if one.image_id == image_id]
            if of_image:
                batches.append(ImageBatch(asked_at, of_image))
        ledger = AnnotationsLedger(lake.store).read(round_id)
        revisions = [revision for revision in ledger if revision.submission.image_id == image_id]
        decisions = RoundRecord(lake.store, round_id).read()
        return cls(round_id, image_id, batches, revisions, decisions, Skills(lake.store))

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return task_name(self.round_id, self.image_id)

    def count(self) -> Count:
        """Return which annotations count now: those of a closed round were made before it."""
        last = self.decisions[-1] if self.decisions else None
        entries = last.entries if last is not None and last.action == "closed" else None
        rules = Rules(qualified=self.skills.had, entries=entries)
        return count_annotations(self.revisions, _rows([self.task_id], self.batches), rules)

    def count_then(self, decision: Decision) -> Count:
        """Return the annotations that counted when a decision about the round was made."""
        known = [revision for revision in self.revisions if revision.entry <= decision.entries]
        batches = [batch for batch in self.batches if batch.asked_at <= decision.at]
        rules = Rules(qualified=self.skills.had)
        return count_annotations(known, _rows([self.task_id], batches), rules)

    def count_reviews(self, authors: set[str]) -> Count:
        """Return which reviews of a review round count; ``authors`` may not review."""
        ids = {revision.submission.task_id for revision in self.revisions}
        rules = Rules(qualified=self.skills.had, barred=dict.fromkeys(ids, authors))
        return count_annotations(self.revisions, _rows(ids, self.batches), rules)

    def annotations(self, count: Count) -> Iterator[tuple[list[Revision], Annotation]]:
        """Yield the states of each annotation, in order, and its outcome."""
        outcomes = {annotation.revision.digest: annotation for annotation in count.annotations}
        of: dict[tuple[str, str, datetime], list[Revision]] = {}
        for revision in self.revisions:
            # A back end that is set up again restarts its ids at 1, so the creation time is a part.
            each = revision.submission
            of.setdefault((each.backend, each.annotation, each.created_at), []).append(revision)
        for states in of.values():
            states.sort(key=lambda item: (item.submission.updated_at, item.digest))
            yield states, outcomes[states[-1].digest]


def _rows(task_ids: Iterable[str], batches: Sequence[ImageBatch]) -> pd.DataFrame:
    """Return the assignments of one image as rows for ``count_annotations``."""
    rows = [
        (task_id, one.assignment, one.fills_assignment, one.expertise)
        for task_id in task_ids
        for batch in batches
        for one in batch.assignments
    ]
    columns = [
        *(LabelTasks.task_id, LabelTasks.assignment),
        *(LabelTasks.fills_assignment, LabelTasks.expertise),
    ]
    return pd.DataFrame(rows, columns=columns)
