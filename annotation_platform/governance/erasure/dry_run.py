"""A view of an object store that records writes and deletions instead of doing them."""

from dataclasses import dataclass, field

from annotation_platform.storage.forwarding import ForwardingStore


@dataclass(frozen=True)
class DryRunLake(ForwardingStore):
    """An object store for dry runs: reads pass through, writes and deletions are only recorded."""

    written: dict[str, bytes] = field(default_factory=dict, repr=False)
    removed: set[str] = field(default_factory=set)

    @property
    def changed(self) -> tuple[str, ...]:
        """The keys that would be changed, created or deleted; sorted."""
        there = {key for key in self.removed if self.store.exists(key)}
        new = {key for key, data in self.written.items() if not self._is(key, data)}
        return tuple(sorted((new - self.removed) | there))

    def put(self, key: str, data: bytes) -> None:
        """Record ``data`` under ``key``."""
        self.written[key] = data

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:  # noqa: ARG002
        """Record ``data`` under ``key`` unless it exists; return whether this call did it."""
        if self.exists(key):
            return False
        self.written[key] = data
        return True

    def copy(self, source: str, target: str) -> None:
        """Record the bytes of ``source`` under ``target``, unless that exists."""
        self.create(target, self.get(source))

    def get(self, key: str) -> bytes:
        """Return the bytes that ``key`` would have."""
        return self.written[key] if key in self.written else self.store.get(key)

    def exists(self, key: str) -> bool:
        """Return whether ``key`` would exist."""
        return key in self.written or self.store.exists(key)

    def remove(self, key: str) -> None:
        """Record that ``key`` would be deleted."""
        self.removed.add(key)

    def purge(self, key: str) -> None:
        """Do nothing: earlier states stay."""

    def _is(self, key: str, data: bytes) -> bool:
        return self.store.exists(key) and self.store.get(key) == data
