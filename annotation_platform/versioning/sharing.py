"""Which registries have published to a remote, so that none takes away what another needs.

Each notes itself beside the objects, with the last commit that it published. While it publishes,
the commit is left open. A registry that holds the commit of a note holds all that was published
until then, whatever name the note has for it: it may be the same one, by another address.
"""

import hashlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from annotation_platform.errors import AnnotationPlatformError, PublishError
from annotation_platform.versioning.address import is_address
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.remote import DvcRemote


@dataclass(frozen=True)
class Note:
    """A registry that has published to a remote."""

    registry: str  # address without secrets, or path
    host: str  # of a path; empty for an address
    commit: str  # the last published; empty while it is not known

    @property
    def shown(self) -> str:
        """What messages call the registry."""
        return f"{self.registry} on {self.host}" if self.host else self.registry

    @property
    def name(self) -> str:
        """The name of the note: one a registry."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:16] + ".json"


def record_registry(remote: DvcRemote, registry: Git, commit: str) -> None:
    """Note in a remote that a registry publishes there, and the last commit it published."""
    if remote.url.startswith(("http://", "https://")):
        # Nothing can be listed there, so there is no gc either that could take anything away.
        return
    note = _note_of(registry, commit)
    data = json.dumps(asdict(note), sort_keys=True).encode()
    if remote.read_note(note.name) != data:
        remote.write_note(note.name, data)


def recorded_registries(remote: DvcRemote) -> list[Note]:
    """Return the notes of a remote by name; one that cannot be read is a PublishError."""
    found = []
    for name in remote.notes():
        try:
            found.append(Note(**json.loads(remote.read_note(name) or b"")))
        except (ValueError, TypeError) as error:
            raise PublishError(
                f"{remote.url}: the note registries/{name} cannot be read. Find out which registry "
                "wrote it and publish from there, or remove it."
            ) from error
    return sorted(found, key=lambda each: each.shown)


def notes_named(remote: DvcRemote, registries: Sequence[str]) -> list[Note]:
    """Return the notes of registries that are named as messages name them.

    Raises:
        PublishError: one is not noted, or is a path on several machines; it names those there are.
    """
    notes = recorded_registries(remote)
    found = []
    for registry in registries:
        exact = [each for each in notes if each.shown == registry]
        several = exact or [each for each in notes if each.registry == registry]
        if len(several) != 1:
            known = ", ".join(repr(each.shown) for each in several or notes) or "none"
            problem = "is on several machines" if several else "is not noted there"
            raise PublishError(f"{remote.url}: {registry!r} {problem}. Noted: {known}.")
        found += several
    return found


def delete_registries(remote: DvcRemote, notes: Sequence[Note]) -> None:
    """Take away the notes of registries that are no more, so that nobody asks for them."""
    for each in notes:
        remote.remove_note(each.name)


def other_registries(
    remote: DvcRemote,
    registry: Git,
    at_hand: Sequence[Git],
    reach: Callable[[str], Git],
    *,
    forgotten: Sequence[Note] = (),
) -> list[Git]:
    """Return the other registries whose versions may need objects of a remote.

    Those are the ones at hand, and the noted ones whose last commit none of them holds.

    Args:
        remote: where the notes are.
        registry: one's own.
        at_hand: others that are known to use the remote.
        reach: opens a registry by path or address.
        forgotten: notes of registries whose versions are no more.

    Raises:
        PublishError: a noted registry cannot be read, or is not what the note says: then it is
            not known what is needed.
    """
    others, own = list(at_hand), _note_of(registry, "")
    for note in recorded_registries(remote):
        if (
            note.name == own.name
            or note in forgotten
            or any(note.commit and each.publishes(note.commit) for each in (registry, *others))
        ):
            continue
        problem = "it is on another machine"
        if note.host in {"", own.host or socket.gethostname()}:
            try:
                other = reach(note.registry)
            except AnnotationPlatformError as error:
                problem = str(error)
            else:
                if not note.commit or other.publishes(note.commit):
                    others.append(other)
                    continue
                problem = f"it no longer has the commit {note.commit[:12]} that it published"
        raise PublishError(
            f"{remote.url}: {note.shown} publishes there too, and what it needs is not known: "
            f"{problem.rstrip('.')}. Name it as it is reached from here (--also-registry), or, if "
            f"its versions are no more, --forget {note.shown!r}."
        )
    return others


def _note_of(registry: Git, commit: str) -> Note:
    where = registry.where
    return Note(where, "" if is_address(where) else socket.gethostname(), commit)
