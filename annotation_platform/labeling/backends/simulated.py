"""A place where simulated people label: one SQLite file, shared by any number of processes."""

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.results import write_proposals
from annotation_platform.labeling.backends.protocol import (
    LabelingBackend,
    Place,
    Progress,
    Submission,
    TaskCopy,
)
from annotation_platform.schema.ontology import Ontology

_BUSY_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE annotators (name TEXT PRIMARY KEY);
CREATE TABLE rounds (round_id TEXT PRIMARY KEY, ontology TEXT NOT NULL);
CREATE TABLE copies (
    backend_task INTEGER PRIMARY KEY AUTOINCREMENT,
    round_id TEXT NOT NULL REFERENCES rounds,
    task_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    image_id TEXT NOT NULL,
    assignee TEXT NOT NULL,
    image_key TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    weights_sha256 TEXT NOT NULL,
    proposed TEXT NOT NULL,
    purpose TEXT NOT NULL,
    blind INTEGER NOT NULL,
    expertise TEXT NOT NULL,
    note TEXT NOT NULL,
    UNIQUE (round_id, task_id, place)
);
CREATE TABLE annotations (
    annotation INTEGER PRIMARY KEY AUTOINCREMENT,
    backend_task INTEGER NOT NULL REFERENCES copies,
    author TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    lead_time_seconds REAL NOT NULL,
    skipped INTEGER NOT NULL,
    result TEXT NOT NULL,
    states INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX annotations_of_a_task ON annotations (backend_task);
CREATE INDEX copies_of_a_task ON copies (task_id);
"""
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
    """A place that somebody may answer; ``proposed`` is Label Studio's list of regions."""

    backend_task: str
    round_id: str
    task_id: str
    place: int
    image_id: str
    image_key: str
    width: int
    height: int
    proposed: list[dict[str, Any]]
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
        if not path.exists():
            _create(path)

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
                " width, height, weights_sha256, proposed, purpose, blind, expertise, note)"
                " VALUES (:round_id, :task_id, :place, :image_id, :assignee, :image_key,"
                " :width, :height, :weights_sha256, :proposed, :purpose, :blind, :expertise,"
                " :note)"
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
                "SELECT * FROM annotations JOIN copies USING (backend_task)"
                " WHERE round_id = ? ORDER BY annotation",
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

    def round_url(self, round_id: str) -> str:  # noqa: ARG002 - the protocol's argument
        """Return an empty address: there is nothing to open in a browser."""
        return ""

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
            result: Label Studio's list of regions, stored as it is.
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
                "annotation": annotation}  # fmt: skip
        with self._connected(writing=True) as connection:
            known = "SELECT 1 FROM copies WHERE backend_task = ?"
            if connection.execute(known, (backend_task,)).fetchone() is None:
                raise LabelingError(
                    f"{self._path}: no task {backend_task}. Take it from open_places()."
                )
            if annotation is None:
                cursor = connection.execute(
                    "INSERT INTO annotations (backend_task, author, created_at, updated_at,"
                    " lead_time_seconds, skipped, result)"
                    " VALUES (:task, :author, :when, :when, :seconds, :skipped, :result)",
                    said,
                )
                return str(cursor.lastrowid)
            cursor = connection.execute(
                "UPDATE annotations SET updated_at = :when, skipped = :skipped, result = :result,"
                " states = states + 1,"
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
            with closing(_connect(self._path)) as connection, connection:
                if writing:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
        except sqlite3.Error as error:
            raise LabelingError(
                f"{self._path}: {error}. Is it a labelling file, and can it be written to?"
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", _BUSY_SECONDS, uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def _create(path: Path) -> None:
    """Make the file beside its place and link it there: it appears whole, and only once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
        try:
            os.link(draft, path)
        except FileExistsError:
            # Another process was first; its file is as good.
            pass
        finally:
            draft.unlink()
    except (OSError, sqlite3.Error) as error:
        raise LabelingError(
            f"{path}: cannot be made ({error}). Name a place that can be written to."
        ) from error


def _row(round_id: str, copy: TaskCopy) -> dict[str, object]:
    row = asdict(copy)
    row.pop("proposals")
    proposed = write_proposals(copy.proposals, copy.width, copy.height)
    return {**row, "round_id": round_id, "proposed": json.dumps(proposed)}


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
        result=json.loads(row["result"]),
        weights_sha256=row["weights_sha256"],
        proposed=json.loads(row["proposed"]),
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
        proposed=json.loads(row["proposed"]),
        purpose=row["purpose"],
        note=row["note"],
    )
