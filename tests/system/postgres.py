"""A throw-away PostgreSQL: one folder, one Unix socket in it, no port."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annotation_platform.servers.child import ChildProcess
from tests.system.prepared_label_studio import PostgresDatabase

INSTALL = "apt-get install postgresql"
_PROGRAMS = ("initdb", "postgres", "pg_ctl")
_ACCOUNT = "postgres"
_PATIENCE_SECONDS = 60.0


def missing_programs() -> list[str]:
    """Return the programs that are not installed; ``INSTALL`` says how to get them."""
    return [program for program in _PROGRAMS if _found(program) is None]


@contextmanager
def running_postgres() -> Iterator[PostgresDatabase]:
    """Boot a server with an empty database of one user, and stop it and its data afterwards.

    On Linux it also ends when the *thread* that started it ends, so start it from the main one.
    """
    # The path of a socket has a hundred characters at most, and pytest's folders are deep.
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        database = PostgresDatabase(
            "postgres", "someone", secrets.token_urlsafe(18), host=str(folder)
        )
        (folder / "password").write_text(database.password)
        for path in (folder, folder / "password"):
            path.chmod(0o700)
            if os.geteuid() == 0:
                shutil.chown(path, _ACCOUNT)
        data = folder / "data"
        _run(
            folder, "initdb", "-D", str(data), "--username", database.user, "--no-sync",
            "--pwfile", str(folder / "password"), "--auth", "scram-sha-256",
        )  # fmt: skip
        server = ChildProcess(
            # What is kept ends with the test: nothing waits for the disk.
            _command(
                "postgres", "-D", str(data), "-k", str(folder), "-c", "listen_addresses=",
                "-c", "fsync=off", "-c", "shared_buffers=64MB",
            ),
            environment=_environment(),
            folder=folder,
            log_path=folder / "server.log",
        )  # fmt: skip
        try:
            _wait_until_listening(server, folder / f".s.PGSQL.{database.port}")
            yield database
        finally:
            if server.running:
                # At once, though somebody may still be connected.
                _run(folder, "pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
            server.stop()


def _found(program: str) -> str | None:
    # Debian keeps the programs of each release apart.
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(program) or next(
        (found for place in places if (found := shutil.which(program, path=place))), None
    )


def _command(program: str, *arguments: str) -> list[str]:
    """Return a command; the superuser, as whom PostgreSQL does not run, becomes another one."""
    found = _found(program)
    if found is None:
        raise RuntimeError(f"{program} is not installed: {INSTALL}")
    command = [found, *arguments]
    if os.geteuid() != 0:
        return command
    account = pwd.getpwnam(_ACCOUNT)
    setpriv = shutil.which("setpriv") or "setpriv"
    # Becoming somebody else undoes the tie to the parent, so it is made again.
    return [
        setpriv, "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--init-groups",
        "--pdeathsig", "TERM", "--", *command,
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        _command(*command),
        env=_environment(),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")


def _wait_until_listening(server: ChildProcess, socket: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while server.running and time.monotonic() < deadline:
        # Its folder is empty at first, and the socket is there once connections are taken.
        if socket.exists() and "ready to accept" in server.log_path.read_text():
            return
        time.sleep(0.05)
    state = "does not listen" if server.running else f"ended with {server.exit_code}"
    raise RuntimeError(f"PostgreSQL {state}: {server.last_line()}")
