"""An object store that reads the objects of some folders once, for the duration of one run."""

from dataclasses import dataclass, field

from annotation_platform.storage.forwarding import ForwardingStore


@dataclass(frozen=True)
class ReadOnceStore(ForwardingStore):
    """An object store that reads each object directly in some folders only once.

    It is for folders whose objects are changed by nothing except the run itself.

    Attributes:
        store: the objects.
        folders: keys of the folders, without a slash at the end.
        held: the objects read or written so far, by key; the stores of one run share it.
    """

    folders: tuple[str, ...]
    held: dict[str, bytes] = field(default_factory=dict, repr=False)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        if not self._is_cached(key):
            return self.store.get(key)
        if key not in self.held:
            self.held[key] = self.store.get(key)
        return self.held[key]

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing any earlier object, in one step."""
        self.store.put(key, data)
        if self._is_cached(key):
            self.held[key] = data

    def exists(self, key: str) -> bool:
        """Return whether there is an object under ``key``."""
        return key in self.held or self.store.exists(key)

    def remove(self, key: str) -> None:
        """Delete the object under ``key`` and its earlier versions, if there are any."""
        self.held.pop(key, None)
        self.store.remove(key)

    def _is_cached(self, key: str) -> bool:
        return key.rpartition("/")[0] in self.folders
