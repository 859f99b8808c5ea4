"""A place where simulated people label: one SQLite file, shared by any number of processes.

Annotations and pre-annotations are stored as content of the codec ``regions/1``. Files of release
0.1.0 hold Label Studio's regions instead; those rows keep them, under the codec that reads them.
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
from annotation_platform.labeling.annotations import Payload
from annotation_platform.labeling.backends.protocol import (
    LabelingBackend,
    Place,
    Progress,
    Submission,
    TaskCopy,
)
from annotation_platform.labeling.backends.regions import NAME, shown_regions
from annotation_platform.labeling.backends.simulated_file import connect, open_file, unusable
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.objects import ObjectStore

if TYPE_CHECKING:
    from annotation_platform.settings import Settings

_OPEN_PLACES = """
SELECT * FROM copies WHERE assignee IN ('', :author)
AND NOT EXISTS (
    SELECT 1 FROM annotations said
    WHERE said.backend_task = copies.backend_task AND (said.author = :author OR NOT said.skipped)
)
AND NOT EXISTS (
    SELECT 1 FROM annotations said JOIN copies other USING (backend_task)
    WHERE said.author = :author AND NOT said.skipped
    AND other.round_id = copies.round_id AND other.task_id = copies.task_id
)
ORDER BY backend_task
"""


@dataclass(frozen=True)
class OpenPlace:
    """A place that somebody may answer; ``proposed`` holds the pre-annotations that are shown."""

    backend_task: str
    round_id: str
    task_id: str
    place: int
    image_id: str
    image_key: str
    width: int
    height: int
    proposed: Payload
    purpose: str
    note: str


class SimulatedLabeling(LabelingBackend):
    """A labelling back end in one SQLite file, for people who are programs.

    Like Label Studio it enforces nothing: who answers twice, out of turn or with nonsense is
    stored, and the platform has to cope.

    Args:
        path: the file; it is made, with its folder, if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        open_file(path)

    @property
    def name(self) -> str:
        """The back end's name, as tables record it."""
        return "simulated"

    def annotators(self) -> list[str]:
        """Return those who were added, sorted by name."""
        with self._connected() as connection:
            rows = connection.execute("SELECT name FROM annotators ORDER BY name").fetchall()
        return [str(row["name"]) for row in rows]

    def add_annotator(self, name: str) -> None:
        """Let somebody have places assigned; adding them again changes nothing."""
        with self._connected(writing=True) as connection:
            connection.execute("INSERT OR IGNORE INTO annotators VALUES (?)", (name,))

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        copies: Sequence[TaskCopy],
        *,
        closed: Collection[Place] = (),
    ) -> Mapping[Place, str]:
        """Make exactly one task for each copy and return its id by (task_id, place).

        Doing it again adds what is missing, but for ``closed`` places; what is there stays as it
        was first published.
        """
        asked = [copy for copy in copies if (copy.task_id, copy.place) not in closed]
        rows = [_row(round_id, copy) for copy in asked]
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
        places = [(copy.task_id, copy.place) for copy in copies]
        return {place: ids.get(place, "") for place in places}

    def held_places(self, round_id: str) -> set[Place]:
        """Return the places whose tasks were not deleted."""
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
        """Take away the tasks of images, and the answers to them; return how many tasks."""
        wanted = [(image,) for image in sorted(images)]
        with self._connected(writing=True) as connection:
            # What is deleted is written over, not only marked as free.
            connection.execute("PRAGMA secure_delete = ON")
            connection.executemany(
                "DELETE FROM annotations WHERE backend_task IN"
                " (SELECT backend_task FROM copies WHERE image_id = ?)",
                wanted,
            )
            before = connection.total_changes
            connection.executemany("DELETE FROM copies WHERE image_id = ?", wanted)
            return connection.total_changes - before

    def delete_person(self, name: str) -> int:
        """Let nobody of this name be there; their answers stay, as those of ``unknown``."""
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

    def open_places(self, author: str) -> list[OpenPlace]:
        """Return the places that ``author`` may answer, in the order in which they were published.

        They are assigned to the author or to nobody. A place that holds an answer is taken; one
        that the author skipped, or whose task they answered at another place, is not shown again.
        """
        with self._connected() as connection:
            rows = connection.execute(_OPEN_PLACES, {"author": author}).fetchall()
        return [_open_place(row) for row in rows]

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
        """Store an answer, or the new state of one, and return the annotation's id.

        Args:
            backend_task: the task over here, from ``publish`` or ``open_places``.
            author: who says it; an edit keeps the first author.
            result: content of the codec ``regions/1``, stored as it is.
            lead_time_seconds: spent on it; an edit adds to what was spent before.
            skipped: the author did not want to answer.
            annotation: the annotation to edit; none makes a new one.
            now: when, for callers that replay; by default the present.

        Raises:
            LabelingError: there is no such task, or no such annotation of it.
        """
        when = (now or datetime.now(UTC)).astimezone(UTC).isoformat()
        said = {"task": backend_task, "author": author, "when": when, "skipped": int(skipped),
                "seconds": lead_time_seconds, "result": json.dumps(list(result)),
                "codec": NAME, "annotation": annotation}  # fmt: skip
        with self._connected(writing=True) as connection:
            known = "SELECT 1 FROM copies WHERE backend_task = ?"
            if connection.execute(known, (backend_task,)).fetchone() is None:
                raise LabelingError(
                    f"{self._path}: no task {backend_task}. Take it from open_places()."
                )
            if annotation is None:
                cursor = connection.execute(
                    "INSERT INTO annotations (backend_task, author, created_at, updated_at,"
                    " lead_time_seconds, skipped, result, codec)"
                    " VALUES (:task, :author, :when, :when, :seconds, :skipped, :result, :codec)",
                    said,
                )
                return str(cursor.lastrowid)
            cursor = connection.execute(
                "UPDATE annotations SET updated_at = :when, skipped = :skipped, result = :result,"
                " codec = :codec, states = states + 1,"
                " lead_time_seconds = lead_time_seconds + :seconds"
                " WHERE annotation = :annotation AND backend_task = :task",
                said,
            )
            if cursor.rowcount != 1:
                raise LabelingError(
                    f"{self._path}: task {backend_task} has no annotation {annotation}. "
                    "Take its id from collect()."
                )
            return annotation

    def delete_annotation(self, annotation: str) -> None:
        """Forget an annotation, as anybody may in Label Studio; if it is there."""
        with self._connected(writing=True) as connection:
            connection.execute("DELETE FROM annotations WHERE annotation = ?", (annotation,))

    def delete_task(self, backend_task: str) -> None:
        """Forget a task and what was said to it, as anybody may in Label Studio; if it is there."""
        with self._connected(writing=True) as connection:
            connection.execute("DELETE FROM annotations WHERE backend_task = ?", (backend_task,))
            connection.execute("DELETE FROM copies WHERE backend_task = ?", (backend_task,))

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and annotations a round has, skipped ones apart."""
        with self._connected() as connection:
            row = connection.execute(
                "SELECT count(DISTINCT backend_task) AS tasks,"
                " count(annotation) FILTER (WHERE NOT skipped) AS answers"
                " FROM copies LEFT JOIN annotations USING (backend_task) WHERE round_id = ?",
                (round_id,),
            ).fetchone()
        return Progress(int(row["tasks"]), int(row["answers"]))

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an annotation comes or is edited."""
        with self._connected() as connection:
            row = connection.execute(
                "SELECT count(DISTINCT backend_task) AS tasks, count(annotation) AS annotations,"
                " coalesce(sum(states), 0) AS states,"
                " coalesce(max(annotation), 0) AS newest"
                " FROM copies LEFT JOIN annotations USING (backend_task) WHERE round_id = ?",
                (round_id,),
            ).fetchone()
        newest = f"the newest is {row['newest']}"
        said = f"{row['annotations']} annotations in {row['states']} states"
        return f"{row['tasks']} tasks, {said}, {newest}"

    @contextmanager
    def _connected(self, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection; of what is written with it all or nothing is stored."""
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


def _row(round_id: str, copy: TaskCopy) -> dict[str, object]:
    row = asdict(copy)
    row.pop("proposals")
    shown = shown_regions(copy.proposals)
    about = {"proposed": json.dumps(shown.content), "codec": shown.codec}
    return {**row, "round_id": round_id, **about}


def _submission(backend: str, row: sqlite3.Row) -> Submission:
    return Submission(
        backend=backend,
        backend_task=str(row["backend_task"]),
        annotation=str(row["annotation"]),
        task_id=row["task_id"],
        image_id=row["image_id"],
        place=row["place"],
        author=row["author"],
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        lead_time_seconds=row["lead_time_seconds"],
        skipped=bool(row["skipped"]),
        payload=Payload(row["codec"], json.loads(row["result"])),
        weights_sha256=row["weights_sha256"],
        proposed=Payload(row["shown_codec"], json.loads(row["proposed"])),
    )


def _open_place(row: sqlite3.Row) -> OpenPlace:
    return OpenPlace(
        backend_task=str(row["backend_task"]),
        round_id=row["round_id"],
        task_id=row["task_id"],
        place=row["place"],
        image_id=row["image_id"],
        image_key=row["image_key"],
        width=row["width"],
        height=row["height"],
        proposed=Payload(row["codec"], json.loads(row["proposed"])),
        purpose=row["purpose"],
        note=row["note"],
    )
