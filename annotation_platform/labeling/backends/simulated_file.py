"""The SQLite file of the simulated back end: created completely, and upgraded."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from annotation_platform.errors import LabelingError

_BUSY_SECONDS = 30.0
_OLD = "label-studio/1"
_WITH_CODEC = ("copies", "annotations")
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
    codec TEXT NOT NULL,
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
    codec TEXT NOT NULL,
    states INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX annotations_of_a_task ON annotations (backend_task);
CREATE INDEX copies_of_a_task ON copies (task_id);
"""


def open_file(path: Path) -> None:
    """Create the file if it is missing; add the columns that a file of release 0.1.0 lacks.

    Raises:
        LabelingError: the file cannot be created, or is not a labelling file.
    """
    if not path.exists():
        _create(path)
        return
    try:
        with closing(connect(path)) as connection, connection:
            if not _lacks_codecs(connection):
                return
            connection.execute("BEGIN IMMEDIATE")
            # Another process may have added them.
            for table in _WITH_CODEC if _lacks_codecs(connection) else ():
                connection.execute(
                    f"ALTER TABLE {table} ADD COLUMN codec TEXT NOT NULL DEFAULT '{_OLD}'"
                )
    except sqlite3.Error as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: sqlite3.Error) -> LabelingError:
    """Return the error for a file that cannot be used."""
    return LabelingError(f"{path}: {error}. Check that it is a labelling file and writable.")


def _lacks_codecs(connection: sqlite3.Connection) -> bool:
    """Return whether the file is of release 0.1.0."""
    columns = connection.execute("SELECT name FROM pragma_table_info('copies')").fetchall()
    return bool(columns) and "codec" not in {row["name"] for row in columns}


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the file; it must exist."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", _BUSY_SECONDS, uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def _create(path: Path) -> None:
    """Create the file under another name and link it: it appears complete, and only once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(draft)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
        try:
            os.link(draft, path)
        except FileExistsError:
            # Another process created the file first; its file is used.
            pass
        finally:
            draft.unlink()
    except (OSError, sqlite3.Error) as error:
        raise LabelingError(
            f"{path}: cannot be created ({error}). Choose a writable folder."
        ) from error
