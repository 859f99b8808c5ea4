"""A lake to which nothing is done, and that knows what would have been."""

from dataclasses import dataclass, field

from annotation_platform.storage.forwarding import ForwardingStore


@dataclass(frozen=True)
class DryRunLake(ForwardingStore):
    """An object store that is read as it is; what would be written or taken away is noted."""

    written: dict[str, bytes] = field(default_factory=dict, repr=False)
    removed: set[str] = field(default_factory=set)

    @property
    def changed(self) -> tuple[str, ...]:
        """The keys of what would be another thing, or nothing, in the end; sorted."""
        there = {key for key in self.removed if self.store.exists(key)}
        new = {key for key, data in self.written.items() if not self._is(key, data)}
        return tuple(sorted((new - self.removed) | there))

    def put(self, key: str, data: bytes) -> None:
        """Note ``data`` under ``key``."""
        self.written[key] = data

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:  # noqa: ARG002
        """Note ``data`` under ``key`` if nothing is there; return whether this call did it."""
        if self.exists(key):
            return False
        self.written[key] = data
        return True

    def copy(self, source: str, target: str) -> None:
        """Note what is under ``source`` under ``target`` too, unless something is there."""
        self.create(target, self.get(source))

    def get(self, key: str) -> bytes:
        """Return what would be under ``key``."""
        return self.written[key] if key in self.written else self.store.get(key)

    def exists(self, key: str) -> bool:
        """Return whether there would be something under ``key``."""
        return key in self.written or self.store.exists(key)

    def remove(self, key: str) -> None:
        """Note that ``key`` would go."""
        self.removed.add(key)

    def purge(self, key: str) -> None:
        """Do nothing: what is there now stays."""

    def _is(self, key: str, data: bytes) -> bool:
        return self.store.exists(key) and self.store.get(key) == data
