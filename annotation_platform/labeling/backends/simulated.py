"""The back end of simulated annotators: one SQLite file, shared by any number of processes.

Annotations and pre-annotations are stored as content of the codec ``regions/1``. Rows of release
0.1.0 hold Label Studio's regions and the name of that codec.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.protocol import (
    AssignmentKey,
    LabelingBackend,
    Progress,
    Replica,
    Submission,
)
from annotation_platform.labeling.backends.regions import NAME, shown_regions
from annotation_platform.labeling.backends.simulated_file import connect, open_file, unusable
from annotation_platform.labeling.stored_names import to_stored
from annotation_platform.schema.annotations import Payload
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.objects import ObjectStore

if TYPE_CHECKING:
    from annotation_platform.settings import Settings

_OPEN_ASSIGNMENTS = """
SELECT * FROM copies WHERE assignee IN ('', :author)
AND NOT EXISTS (
    SELECT 1 FROM annotations given
    WHERE given.backend_task = copies.backend_task AND (given.author = :author OR NOT given.skipped)
)
AND NOT EXISTS (
    SELECT 1 FROM annotations given JOIN copies other USING (backend_task)
    WHERE given.author = :author AND NOT given.skipped
    AND other.round_id = copies.round_id AND other.task_id = copies.task_id
)
ORDER BY backend_task
"""


@dataclass(frozen=True)
class OpenAssignment:
    """An assignment that a person may take; ``pre_annotations`` holds the shown labels."""

    backend_task: str
    round_id: str
    task_id: str
    assignment: int
    image_id: str
    image_key: str
    width: int
    height: int
    pre_annotations: Payload
    purpose: str
    note: str


class SimulatedLabeling(LabelingBackend):
    """A labelling back end in one SQLite file, for simulated annotators.

    Like Label Studio it enforces nothing: repeated, unassigned and invalid annotations are stored,
    and the platform has to cope with them.

    Args:
        path: the file; it is created, with its folder, if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        open_file(path)

    @property
    def name(self) -> str:
        """The back end's name, as tables record it."""
        return "simulated"

    def annotators(self) -> list[str]:
        """Return the added annotators, sorted by name."""
        with self._connected() as connection:
            rows = connection.execute("SELECT name FROM annotators ORDER BY name").fetchall()
        return [str(row["name"]) for row in rows]

    def add_annotator(self, name: str) -> None:
        """Add a possible assignee; adding one again changes nothing."""
        with self._connected(writing=True) as connection:
            connection.execute("INSERT OR IGNORE INTO annotators VALUES (?)", (name,))

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        replicas: Sequence[Replica],
        *,
        closed: Collection[AssignmentKey] = (),
    ) -> Mapping[AssignmentKey, str]:
        """Create exactly one task for each replica and return its id by assignment.

        Publishing again adds what is missing, except ``closed`` assignments; existing tasks stay as
        they were first published.
        """
        wanted = [replica for replica in replicas if replica.key not in closed]
        rows = [_row(round_id, replica) for replica in wanted]
        with self._connected(writing=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO rounds VALUES (?, ?)", (round_id, ontology.model_dump_json())
            )
            connection.executemany(
                "INSERT INTO copies (round_id, task_id, place, image_id, assignee, image_key,"
                " width, height, weights_sha256, proposed, codec, purpose, blind, expertise, note)"
                " VALUES (:round_id, :task_id, :place, :image_id, :assignee, :image_key,"
                " :width, :height, :weights_sha256, :proposed, :codec, :purpose, :blind,"
                " :expertise, :note)"
                " ON CONFLICT (round_id, task_id, place) DO NOTHING",
                rows,
            )
            found = connection.execute(
                "SELECT task_id, place, backend_task FROM copies WHERE round_id = ?", (round_id,)
            ).fetchall()
        ids = {(row["task_id"], row["place"]): str(row["backend_task"]) for row in found}
        assignments = [replica.key for replica in replicas]
        return {assignment: ids.get(assignment, "") for assignment in assignments}

    def held_assignments(self, round_id: str) -> set[AssignmentKey]:
        """Return the assignments whose tasks were not deleted."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT task_id, place FROM copies WHERE round_id = ?", (round_id,)
            ).fetchall()
        return {(row["task_id"], row["place"]) for row in rows}

    def collect(self, round_id: str) -> list[Submission]:
        """Return every annotation of a round, skips included, in the order of their arrival."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT *, copies.codec AS shown_codec FROM annotations JOIN copies"
                " USING (backend_task) WHERE round_id = ? ORDER BY annotation",
                (round_id,),
            ).fetchall()
        return [_submission(self.name, row) for row in rows]

    def delete(self, images: Collection[str]) -> int:
        """Delete the tasks of images with their annotations; return how many tasks."""
        parameters = [(image,) for image in sorted(images)]
        with self._connected(writing=True) as connection:
            # Deleted data is overwritten, not only marked as free.
            connection.execute("PRAGMA secure_delete = ON")
            connection.executemany(
                "DELETE FROM annotations WHERE backend_task IN"
                " (SELECT backend_task FROM copies WHERE image_id = ?)",
                parameters,
            )
            before = connection.total_changes
            connection.executemany("DELETE FROM copies WHERE image_id = ?", parameters)
            return connection.total_changes - before

    def delete_person(self, name: str) -> int:
        """Delete a person; their annotations stay, with the author ``unknown``."""
        with self._connected(writing=True) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            before = connection.total_changes
            connection.execute("DELETE FROM annotators WHERE lower(name) = lower(?)", (name,))
            for table, column, instead in (
                ("annotations", "author", "unknown"),
                ("copies", "assignee", ""),
            ):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE lower({column}) = lower(?)",
                    (instead, name),
                )
            return connection.total_changes - before

    def open_assignments(self, author: str) -> list[OpenAssignment]:
        """Return the assignments that ``author`` may take, in the order of publication.

        They are assigned to the author or open. An assignment with an annotation is not listed, nor
        is one that the author skipped or whose task they annotated in another assignment.
        """
        with self._connected() as connection:
            rows = connection.execute(_OPEN_ASSIGNMENTS, {"author": author}).fetchall()
        return [_open_assignment(row) for row in rows]

    def submit(
        self,
        backend_task: str,
        author: str,
        result: Sequence[Mapping[str, Any]],
        lead_time_seconds: float,
        *,
        skipped: bool = False,
        annotation: str | None = None,
        now: datetime | None = None,
    ) -> str:
        """Store an annotation, or a new state of one, and return its id.

        Args:
            backend_task: the task's id, from ``publish`` or ``open_assignments``.
            author: the annotator; an edit keeps the first author.
            result: content of the codec ``regions/1``, stored as it is.
            lead_time_seconds: the time spent; an edit adds to the time before.
            skipped: whether the author skipped the task.
            annotation: the annotation to edit; None creates one.
            now: the time, for replays; by default the present.

        Raises:
            LabelingError: the task, or the annotation of it, does not exist.
        """
        when = (now or datetime.now(UTC)).astimezone(UTC).isoformat()
        values = {"task": backend_task, "author": author, "when": when, "skipped": int(skipped),
                "seconds": lead_time_seconds, "result": json.dumps(list(result)),
                "codec": NAME, "annotation": annotation}  # fmt: skip
        with self._connected(writing=True) as connection:
            known = "SELECT 1 FROM copies WHERE backend_task = ?"
            if connection.execute(known, (backend_task,)).fetchone() is None:
                raise LabelingError(
                    f"{self._path}: no task {backend_task}. Take it from open_assignments()."
                )
            if annotation is None:
                cursor = connection.execute(
                    "INSERT INTO annotations (backend_task, author, created_at, updated_at,"
                    " lead_time_seconds, skipped, result, codec)"
                    " VALUES (:task, :author, :when, :when, :seconds, :skipped, :result, :codec)",
                    values,
                )
                return str(cursor.lastrowid)
            cursor = connection.execute(
                "UPDATE annotations SET updated_at = :when, skipped = :skipped, result = :result,"
                " codec = :codec, states = states + 1,"
                " lead_time_seconds = lead_time_seconds + :seconds"
                " WHERE annotation = :annotation AND backend_task = :task",
                values,
            )
            if cursor.rowcount != 1:
                raise LabelingError(
                    f"{self._path}: task {backend_task} has no annotation {annotation}. "
                    "Take its id from collect()."
                )
            return annotation

    def delete_annotation(self, annotation: str) -> None:
        """Delete an annotation if it exists, as any member of Label Studio may."""
        with self._connected(writing=True) as connection:
            connection.execute("DELETE FROM annotations WHERE annotation = ?", (annotation,))

    def delete_task(self, backend_task: str) -> None:
        """Delete a task and its annotations if it exists, as any member of Label Studio may."""
        with self._connected(writing=True) as connection:
            connection.execute("DELETE FROM annotations WHERE backend_task = ?", (backend_task,))
            connection.execute("DELETE FROM copies WHERE backend_task = ?", (backend_task,))

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and annotations a round has, without skips."""
        with self._connected() as connection:
            row = connection.execute(
                "SELECT count(DISTINCT backend_task) AS tasks,"
                " count(annotation) FILTER (WHERE NOT skipped) AS answers"
                " FROM copies LEFT JOIN annotations USING (backend_task) WHERE round_id = ?",
                (round_id,),
            ).fetchone()
        return Progress(int(row["tasks"]), int(row["answers"]))

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an annotation is made or edited."""
        with self._connected() as connection:
            row = connection.execute(
                "SELECT count(DISTINCT backend_task) AS tasks, count(annotation) AS annotations,"
                " coalesce(sum(states), 0) AS states,"
                " coalesce(max(annotation), 0) AS newest"
                " FROM copies LEFT JOIN annotations USING (backend_task) WHERE round_id = ?",
                (round_id,),
            ).fetchone()
        newest = f"the newest is {row['newest']}"
        states = f"{row['annotations']} annotations in {row['states']} states"
        return f"{row['tasks']} tasks, {states}, {newest}"

    @contextmanager
    def _connected(self, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection; all of its changes are stored, or none."""
        try:
            # Opened each time: a connection must not cross a fork, and opening takes 0.1 ms.
            with closing(connect(self._path)) as connection, connection:
                if writing:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.Error as error:
            raise unusable(self._path, error) from error


def from_settings(settings: "Settings", store: ObjectStore) -> SimulatedLabeling:  # noqa: ARG001
    """Return the simulated back end of a deployment: a file in its home."""
    return SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")


def _row(round_id: str, replica: Replica) -> dict[str, object]:
    row = to_stored(asdict(replica))
    row.pop("proposed")
    shown = shown_regions(replica.pre_annotations)
    about = {"proposed": json.dumps(shown.content), "codec": shown.codec}
    return {**row, "round_id": round_id, **about}


def _submission(backend: str, row: sqlite3.Row) -> Submission:
    return Submission(
        backend=backend,
        backend_task=str(row["backend_task"]),
        annotation=str(row["annotation"]),
        task_id=row["task_id"],
        image_id=row["image_id"],
        assignment=row["place"],
        author=row["author"],
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        lead_time_seconds=row["lead_time_seconds"],
        skipped=bool(row["skipped"]),
        payload=Payload(row["codec"], json.loads(row["result"])),
        weights_sha256=row["weights_sha256"],
        pre_annotations=Payload(row["shown_codec"], json.loads(row["proposed"])),
    )


def _open_assignment(row: sqlite3.Row) -> OpenAssignment:
    return OpenAssignment(
        backend_task=str(row["backend_task"]),
        round_id=row["round_id"],
        task_id=row["task_id"],
        assignment=row["place"],
        image_id=row["image_id"],
        image_key=row["image_key"],
        width=row["width"],
        height=row["height"],
        pre_annotations=Payload(row["codec"], json.loads(row["proposed"])),
        purpose=row["purpose"],
        note=row["note"],
    )
