"""A Label Studio that starts from a migrated database, or on PostgreSQL."""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation_platform.servers.label_studio import LabelStudioServer, start_process

_DATABASE = "label_studio.sqlite3"
_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class PostgresDatabase:
    """An empty PostgreSQL database, or one of Label Studio; its ``repr`` hides the password.

    ``host`` is a name, an address or the folder of a Unix socket.
    """

    name: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int = 5432


class PreparedLabelStudio(LabelStudioServer):
    """A server whose database is PostgreSQL, or a copy of a folder made by ``make_template``."""

    def __init__(self, folder: Path, *, database: PostgresDatabase | Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self._database = database
        if isinstance(database, Path) and not (folder / _DATABASE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            _copy_database(database, folder)

    def _environment(self) -> dict[str, str]:
        if isinstance(self._database, Path):
            return super()._environment()
        return super()._environment() | {
            "DJANGO_DB": "default",
            "POSTGRE_NAME": self._database.name,
            "POSTGRE_USER": self._database.user,
            "POSTGRE_PASSWORD": self._database.password,
            "POSTGRE_HOST": self._database.host,
            "POSTGRE_PORT": str(self._database.port),
        }


def make_template(folder: Path) -> Path:
    """Create a migrated, empty database in ``folder`` for new servers, and return the folder.

    It holds no account and no key, so servers made from it share no secret. An existing one is
    left unchanged, and an incomplete one is never visible. It takes about 45 s on a laptop.
    """
    if (folder / _DATABASE).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        made = Path(temporary) / "data"
        made.mkdir(mode=0o700)
        log_path = Path(temporary) / "init.log"
        process = start_process(["init", "--quiet"], folder=made, log_path=log_path, environment={})
        try:
            process.wait(_PATIENCE_SECONDS)
        finally:
            process.stop()
        if process.exit_code != 0 or not (made / _DATABASE).exists():
            raise RuntimeError(f"Label Studio created no database: {process.last_line()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        # The database alone: every server generates a key of its own.
        (made / _DATABASE).replace(folder / _DATABASE)
    return folder


def _copy_database(template: Path, folder: Path) -> None:
    source, target = template / _DATABASE, folder / _DATABASE
    if not source.is_file():
        raise RuntimeError(f"{template} holds no migrated database. Create it with make_template.")
    # An incomplete copy must not be used as a database.
    unfinished = target.with_suffix(".copying")
    shutil.copyfile(source, unfinished)
    unfinished.chmod(0o600)
    unfinished.replace(target)
