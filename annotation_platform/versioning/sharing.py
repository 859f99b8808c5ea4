"""Records of the registries that publish to a remote, so that none removes objects of another.

Each registry writes a record in the remote, with the last commit that it published; during a
publication the commit is empty. A registry that holds the commit of a record holds everything that
was published until then, whatever name the record has: it may be the same registry under another
address.
"""

import hashlib
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from annotation_platform.errors import AnnotationPlatformError, PublishError
from annotation_platform.registry_address import is_address
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.remote import DvcRemote


@dataclass(frozen=True)
class RegistryRecord:
    """The record of a registry that has published to a remote."""

    registry: str  # address without secrets, or path
    host: str  # host name for a path; empty for an address
    commit: str  # the last published; empty while a publication runs

    @property
    def shown(self) -> str:
        """The name of the registry in messages."""
        return f"{self.registry} on {self.host}" if self.host else self.registry

    @property
    def name(self) -> str:
        """The file name of the record, unique for a registry."""
        return hashlib.sha256(self.shown.encode()).hexdigest()[:16] + ".json"


def record_registry(remote: DvcRemote, registry: Git, commit: str) -> None:
    """Record in a remote that a registry publishes there, and the last commit it published."""
    if remote.url.startswith(("http://", "https://")):
        # Such a remote cannot list its objects, so it has no garbage collection.
        return
    record = _record_of(registry, commit)
    data = json.dumps(asdict(record), sort_keys=True).encode()
    if remote.read_record(record.name) != data:
        remote.write_record(record.name, data)


def recorded_registries(remote: DvcRemote) -> list[RegistryRecord]:
    """Return the records of a remote, sorted by name; a PublishError if one cannot be read."""
    records = []
    for name in remote.records():
        try:
            records.append(RegistryRecord(**json.loads(remote.read_record(name) or b"")))
        except (ValueError, TypeError) as error:
            raise PublishError(
                f"{remote.url}: the record registries/{name} cannot be read. Find the registry "
                "that wrote it and publish from there, or remove the record."
            ) from error
    return sorted(records, key=lambda each: each.shown)


def find_records(remote: DvcRemote, registries: Sequence[str]) -> list[RegistryRecord]:
    """Return the records of registries that are given by their name in messages or their path.

    Raises:
        PublishError: a registry is not recorded, or is a path on several machines; the message
            lists the candidates.
    """
    records = recorded_registries(remote)
    found = []
    for registry in registries:
        exact = [each for each in records if each.shown == registry]
        matches = exact or [each for each in records if each.registry == registry]
        if len(matches) != 1:
            names = ", ".join(repr(each.shown) for each in matches or records) or "none"
            problem = "is on several machines" if matches else "is not recorded there"
            raise PublishError(f"{remote.url}: {registry!r} {problem}. Recorded: {names}.")
        found += matches
    return found


def delete_registries(remote: DvcRemote, records: Sequence[RegistryRecord]) -> None:
    """Remove the records of deleted registries, so that they are not consulted again."""
    for each in records:
        remote.remove_record(each.name)


def other_registries(
    remote: DvcRemote,
    registry: Git,
    at_hand: Sequence[Git],
    reach: Callable[[str], Git],
    *,
    deleted: Sequence[RegistryRecord] = (),
) -> list[Git]:
    """Return the other registries whose versions may need objects of a remote.

    These are the registries at hand, and the recorded ones whose last commit none of them holds.

    Args:
        remote: the remote with the records.
        registry: the own registry.
        at_hand: further registries that use the remote.
        reach: opens a registry by path or address.
        deleted: records of registries whose versions no longer exist.

    Raises:
        PublishError: a recorded registry cannot be read, or lacks the recorded commit; the objects
            that it needs are then unknown.
    """
    others, own = list(at_hand), _record_of(registry, "")
    for record in recorded_registries(remote):
        if (
            record.name == own.name
            or record in deleted
            or any(record.commit and each.publishes(record.commit) for each in (registry, *others))
        ):
            continue
        problem = "it is on another machine"
        if record.host in {"", own.host or socket.gethostname()}:
            try:
                other = reach(record.registry)
            except AnnotationPlatformError as error:
                problem = str(error)
            else:
                if not record.commit or other.publishes(record.commit):
                    others.append(other)
                    continue
                problem = f"it no longer has the commit {record.commit[:12]} that it published"
        raise PublishError(
            f"{remote.url}: {record.shown} publishes there too, and the objects that it needs are "
            f"not known: {problem.rstrip('.')}. Give a path or address that is reachable from here "
            "(--also-registry), or, if its versions no longer exist, "
            f"--deleted-registry {record.shown!r}."
        )
    return others


def _record_of(registry: Git, commit: str) -> RegistryRecord:
    where = registry.where
    return RegistryRecord(where, "" if is_address(where) else socket.gethostname(), commit)
