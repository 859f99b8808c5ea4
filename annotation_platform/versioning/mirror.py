"""Registries behind an address: a bare copy here, in which to read, and from which to push.

A copy is brought up to date before it is used. It holds every branch and tag, and never says
anything of its own: a reference moves at the address first, by a push that names the value it
expects there, and only then here. So two publishers in two places make one line of versions, as two
processes in one repository do.
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
from annotation_platform.versioning.address import (
    Address,
    UnreachableError,
    is_address,
    parse_address,
)
from annotation_platform.versioning.git import DEAD_LOCK_SECONDS, Git, run_git
from annotation_platform.versioning.manifest import BRANCH

_ALL = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
_SEEN = "annotation-seen"
# Two pushes at the same moment: one finds the other's lock.
_CONTENDED = re.compile(rb"cannot lock ref|failed to lock|failed to update ref|incorrect old value")
_PUSHES = 5
# A server that says nothing for so long is not there any more.
_PATIENCE = ["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=120"]


@dataclass(frozen=True)
class _Move:
    """A reference, where it is to point, and where it must point until then; None: nowhere."""

    name: str
    new: str
    expected_old: str | None


class Mirror(Git):
    """The copy of a registry behind an address; what is written goes to the address."""

    def __init__(self, folder: Path, address: Address) -> None:
        self.address = address
        super().__init__(folder)

    @property
    def where(self) -> str:
        """The address, without any secret."""
        return self.address.shown

    @property
    def seen_at(self) -> datetime | None:
        """When the copy was last brought up to date; None if it never was."""
        path = self.folder / _SEEN
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None

    def refresh(self) -> None:
        """Make all branches and tags what they are at the address.

        Raises:
            UnreachableError: it cannot be reached.
            PublishError: access is denied, or no repository is there.
        """
        with self._locked():
            self._remove_dead_locks()
            done = self._start((*_PATIENCE, "fetch", "--quiet", "--force", "--prune", "--no-tags",
                                "--no-write-fetch-head", "origin", *_ALL))  # fmt: skip
            if done.returncode != 0:
                raise self.address.failed(
                    "fetch", done.stderr, f"Run again, or remove {self.folder}, which is a copy."
                )
            (self.folder / _SEEN).touch()

    def update_ref(self, name: str, new: str, expected_old: str | None) -> bool:
        """Move a reference at the address, then here; see ``Git.update_ref``."""
        return self._push(_Move(name, new, expected_old))

    def delete_ref(self, name: str, expected_old: str) -> bool:
        """Take a reference away at the address, then here; see ``Git.delete_ref``."""
        return self._push(_Move(name, "", expected_old)) and super().delete_ref(name, expected_old)

    def add_version(
        self, commit: str, expected_old: str | None, tag: str, message: str, at: datetime
    ) -> bool:
        """Move the line of versions on at the address, together with the commit's tag.

        Both go in one push, with all that they rest on, the commit of the code included. That is
        as good as the tag coming last: the server promises to move both or none (``--atomic``),
        which a repository of one's own does not. So a reader never sees a version without a tag.
        """
        made = self.make_tag(tag, commit, message, at)
        if self._push(_Move(BRANCH, commit, expected_old), _Move(f"refs/tags/{tag}", made, None)):
            return True
        if self.value(BRANCH) == (expected_old or ""):
            self.refuse_other_tag(tag, commit)
        return False

    def _push(self, *moves: _Move) -> bool:
        """Move references at the address, all or none; False if somebody was there first."""
        leases = [f"--force-with-lease={each.name}:{each.expected_old or ''}" for each in moves]
        atomic = ["--atomic"] if len(moves) > 1 else []
        wanted = [f"{each.new}:{each.name}" for each in moves]
        for attempt in range(1, _PUSHES + 1):
            done = self._start(
                (*_PATIENCE, "push", "--porcelain", *atomic, *leases, "origin", *wanted)
            )
            if done.returncode == 0:
                with self._locked():
                    for each in moves:
                        # Where a fetch was quicker, what it brought is as new or newer.
                        self._start(("update-ref", each.name, each.new, each.expected_old or ""))
                return True
            self.refresh()
            if all(self._holds(each) for each in moves):
                # It was done, and only the answer was lost.
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
            f"Ask for the right to push {' and '.join(each.name for each in moves)} there.",
        )

    def _holds(self, move: _Move) -> bool:
        current = self.value(move.name)
        if current == move.new:
            return True
        # A branch may have gone on from there; a tag does not.
        on = ("merge-base", "--is-ancestor", move.new, current)
        return bool(move.name.startswith("refs/heads/") and current
                    and self._start(on).returncode == 0)  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return self.address.environment()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _lock(self.folder):
            yield

    def _remove_dead_locks(self) -> None:
        # Whoever holds the mirror is alone with its references: git's locks are dead ones, but for
        # those of a git whose parent was killed and that is about to end.
        for path in [self.folder / "packed-refs.lock", *(self.folder / "refs").rglob("*.lock")]:
            if path.exists() and time.time() - path.stat().st_mtime > DEAD_LOCK_SECONDS:
                path.unlink(missing_ok=True)


def open_registry(
    place: str | Path, mirrors: Path, *, say: Callable[[str], None] | None = None
) -> Git:
    """Return the repository at a path, or the mirror of the one at an address, up to date.

    Args:
        place: path or address; a secret in it stays in memory.
        mirrors: the folder of mirrors; it may be emptied at any time.
        say: told that an address gave no answer and when the mirror was last up to date, and then
            the mirror is returned as it is. Without it, or without a mirror, that is an error.

    Raises:
        SettingsError: the path is no repository.
        PublishError: the address cannot be reached, access is denied, or no repository is there.
    """
    if not is_address(str(place)):
        return Git(Path(place).expanduser().absolute())
    address = parse_address(place)
    mirror = Mirror(_made(mirrors, address), address)
    try:
        mirror.refresh()
    except UnreachableError as error:
        if say is None or mirror.seen_at is None:
            raise
        say(f"{error} What follows was there at {mirror.seen_at.isoformat(timespec='seconds')}.")
    return mirror


def _made(mirrors: Path, address: Address) -> Path:
    """Return the folder of a mirror; without secrets in its name, a new token finds the old one."""
    folder = mirrors / hashlib.sha256(address.url.encode()).hexdigest()[:16]
    with _lock(folder):
        _in(folder, "init", "--quiet", "--bare")
        # Set each time: it may have been interrupted here.
        _in(folder, "config", "remote.origin.url", address.url)
    return folder


def _in(folder: Path, *arguments: str) -> None:
    done = run_git(["-C", str(folder), *arguments])
    if done.returncode != 0:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise SettingsError(f"{folder}: cannot be used ({reason}). Remove it: it is a copy.")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a mirror alone; it is let go of when this process ends, however it ends."""
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
