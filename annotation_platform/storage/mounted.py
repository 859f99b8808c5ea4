"""An object store with one folder in another store: another folder, or another bucket."""

from collections.abc import Iterator
from dataclasses import dataclass

from annotation_platform.storage.forwarding import ForwardingStore
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class MountedStore(ForwardingStore):
    """An object store in which the keys below one folder belong to another store.

    The other store has these keys without the name of the folder. ``list`` yields them for that
    folder and the folders below it. Arrow sees the objects of the first store only.

    Attributes:
        store: the store of all other keys.
        folder: the key of the folder, without a slash at its end.
        other: the store of the keys below ``folder``.
    """

    folder: str
    other: ObjectStore

    def route(self, key: str, access: str = "") -> tuple[ObjectStore, str]:  # noqa: ARG002
        """Return the store that holds ``key``, and its key there."""
        inner = key.removeprefix(f"{self.folder}/")
        return (self.store, key) if inner == key else (self.other, inner)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys in the folder ``prefix`` and below it, sorted."""
        if f"{prefix}/".startswith(f"{self.folder}/"):
            inner = prefix.removeprefix(self.folder).strip("/")
            return (f"{self.folder}/{key}" for key in self.other.list(inner))
        return self.store.list(prefix)
