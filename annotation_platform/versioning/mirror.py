"""Mirrors of registries behind an address: bare local copies to read from and to push from.

A mirror is fetched before it is used. It holds every branch and tag and no reference of its own: a
reference moves at the address first, by a push that names the expected value, and only then in the
mirror. So publishers on two machines share one branch of versions, as two processes in one
repository do.
"""

import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from annotation_platform.errors import SettingsError
from annotation_platform.registry_address import (
    Address,
    UnreachableError,
    is_address,
    parse_address,
)
from annotation_platform.versioning.git import (
    DEAD_LOCK_SECONDS,
    Git,
    clean_environment,
    run_git,
)
from annotation_platform.versioning.manifest import BRANCH

_ALL = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
_FETCHED = "annotation-seen"
# One of two simultaneous pushes finds the lock of the other.
_CONTENDED = re.compile(rb"cannot lock ref|failed to lock|failed to update ref|incorrect old value")
_PUSHES = 5
# After 120 seconds below one byte per second, the server is treated as unreachable.
_TIMEOUT = ["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=120"]


@dataclass(frozen=True)
class _Move:
    """A move of a reference at the address."""

    name: str
    new: str  # empty: delete the reference
    expected_old: str | None  # None: the reference must not exist


class Mirror(Git):
    """The local copy of a registry behind an address; writes go to the address first."""

    def __init__(self, folder: Path, address: Address) -> None:
        self.address = address
        super().__init__(folder)

    @property
    def where(self) -> str:
        """The address, without any secret."""
        return self.address.shown

    @property
    def fetched_at(self) -> datetime | None:
        """The time of the last successful fetch; None if there was none."""
        path = self.folder / _FETCHED
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None

    def refresh(self) -> None:
        """Fetch all branches and tags from the address and prune the others.

        Raises:
            UnreachableError: the address cannot be reached.
            PublishError: access is denied, or there is no repository.
        """
        with self._locked():
            self._remove_dead_locks()
            done = self._start((*_TIMEOUT, "fetch", "--quiet", "--force", "--prune", "--no-tags",
                                "--no-write-fetch-head", "origin", *_ALL))  # fmt: skip
            if done.returncode != 0:
                raise self.address.failed(
                    "fetch", done.stderr, f"Run again, or remove {self.folder}, which is a copy."
                )
            (self.folder / _FETCHED).touch()

    def update_ref(self, name: str, new: str, expected_old: str | None) -> bool:
        """Move a reference at the address, then in the mirror; see ``Git.update_ref``."""
        return self._push(_Move(name, new, expected_old))

    def delete_ref(self, name: str, expected_old: str) -> bool:
        """Delete a reference at the address, then in the mirror; see ``Git.delete_ref``."""
        return self._push(_Move(name, "", expected_old)) and super().delete_ref(name, expected_old)

    def add_version(
        self, commit: str, expected_old: str | None, tag: str, message: str, at: datetime
    ) -> bool:
        """Move the branch of versions at the address, together with the commit's tag.

        Both go in one push with every object that they depend on, the commit of the code included.
        This is as safe as creating the tag last: the server guarantees to move both or none
        (``--atomic``), which a local repository does not. A reader never sees a version without
        its tag.
        """
        tag_object = self.make_tag(tag, commit, message, at)
        moves = _Move(BRANCH, commit, expected_old), _Move(f"refs/tags/{tag}", tag_object, None)
        if self._push(*moves):
            return True
        if self.value(BRANCH) == (expected_old or ""):
            self.refuse_other_tag(tag, commit)
        return False

    def _push(self, *moves: _Move) -> bool:
        """Move references at the address, all or none; False if one was moved concurrently."""
        leases = [f"--force-with-lease={each.name}:{each.expected_old or ''}" for each in moves]
        atomic = ["--atomic"] if len(moves) > 1 else []
        refspecs = [f"{each.new}:{each.name}" for each in moves]
        for attempt in range(1, _PUSHES + 1):
            done = self._start(
                (*_TIMEOUT, "push", "--porcelain", *atomic, *leases, "origin", *refspecs)
            )
            if done.returncode == 0:
                with self._locked():
                    for each in moves:
                        # This fails if a concurrent fetch already set this value or a newer one.
                        self._start(("update-ref", each.name, each.new, each.expected_old or ""))
                return True
            self.refresh()
            if all(self._holds(each) for each in moves):
                # The push succeeded and only the response was lost.
                return True
            if any(self.value(each.name) != (each.expected_old or "") for each in moves):
                return False
            if not _CONTENDED.search(done.stdout + done.stderr):
                break
            time.sleep(0.2 * attempt)
        refused = [line.partition("\t")[2] for line in done.stdout.decode(errors="replace")
                   .splitlines() if line.startswith("!")]  # fmt: skip
        raise self.address.failed(
            "push",
            "\n".join(refused).encode() or done.stderr,
            f"Request permission to push {' and '.join(each.name for each in moves)} there.",
        )

    def _holds(self, move: _Move) -> bool:
        current = self.value(move.name)
        if current == move.new:
            return True
        # A branch may have moved on since; a tag does not move.
        ancestry = ("merge-base", "--is-ancestor", move.new, current)
        return bool(move.name.startswith("refs/heads/") and current
                    and self._start(ancestry).returncode == 0)  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {**clean_environment(), **self.address.credentials()}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _lock(self.folder):
            yield

    def _remove_dead_locks(self) -> None:
        # The holder of the mirror's lock is the only writer of its references, so locks of git are
        # dead, except those of a git that outlives its killed parent for a moment.
        for path in [self.folder / "packed-refs.lock", *(self.folder / "refs").rglob("*.lock")]:
            if path.exists() and time.time() - path.stat().st_mtime > DEAD_LOCK_SECONDS:
                path.unlink(missing_ok=True)


def open_registry(
    location: str | Path, mirrors: Path, *, say: Callable[[str], None] | None = None
) -> Git:
    """Return the repository at a path, or the fetched mirror of the one at an address.

    Args:
        location: path or address; a secret in it stays in memory.
        mirrors: the folder of mirrors; it may be emptied at any time.
        say: called with a warning if the address is unreachable; the mirror is then returned as of
            its last fetch. Without it, or without an earlier fetch, that is an error.

    Raises:
        SettingsError: the path is not a repository.
        PublishError: the address is unreachable, access is denied, or there is no repository.
    """
    if not is_address(str(location)):
        return Git(Path(location).expanduser().absolute())
    address = parse_address(location)
    mirror = Mirror(_make_mirror(mirrors, address), address)
    try:
        mirror.refresh()
    except UnreachableError as error:
        if say is None or mirror.fetched_at is None:
            raise
        last_fetch = mirror.fetched_at.isoformat(timespec="seconds")
        say(f"{error} The output shows the registry as of {last_fetch}.")
    return mirror


def _make_mirror(mirrors: Path, address: Address) -> Path:
    """Return the folder of a mirror; its name has no secret, so a new token uses the same one."""
    folder = mirrors / hashlib.sha256(address.url.encode()).hexdigest()[:16]
    with _lock(folder):
        _run_in(folder, "init", "--quiet", "--bare")
        # Set on every call, because an earlier one may have been interrupted before this line.
        _run_in(folder, "config", "remote.origin.url", address.url)
    return folder


def _run_in(folder: Path, *arguments: str) -> None:
    done = run_git(["-C", str(folder), *arguments])
    if done.returncode != 0:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise SettingsError(f"{folder}: cannot be used ({reason}). Remove it: it is a copy.")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of a mirror; the system releases it if the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / "annotation-mirror.lock").open("w")
    except OSError as error:
        raise SettingsError(
            f"{folder}: cannot be written ({error.strerror}). Choose another ANNOTATION_HOME."
        ) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
