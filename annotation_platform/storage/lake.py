"""The lake: an object store with tables and images."""

from dataclasses import dataclass
from pathlib import Path

from annotation_platform.schema.keys import image_key
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.round_tables import RoundTables


@dataclass(frozen=True)
class Lake:
    """All data of the platform.

    Attributes:
        store: the objects, by key.
        runner: the engine that processes images: this machine, or a Ray cluster; see `map_each`
            of ``storage/engine.py``.
    """

    store: ObjectStore
    runner: str = ""

    @property
    def tables(self) -> RoundTables:
        """The tables, by name and round."""
        return RoundTables(self.store)

    def image(self, image_id: str, extension: str) -> bytes:
        """Return the bytes of a cleaned image."""
        return self.store.get(image_key(image_id, extension))

    def image_path(self, image_id: str, extension: str) -> Path:
        """Return a local file with the bytes of a cleaned image."""
        return self.store.local_path(image_key(image_id, extension))
