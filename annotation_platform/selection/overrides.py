"""Include and exclude lists: manual overrides of the selection, recorded in a journal."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from annotation_platform.errors import DataError
from annotation_platform.storage.journal import ERASED, Journal
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class SelectionOverride:
    """The override of an image: included if ``wanted``, otherwise excluded, from then on."""

    image_id: str
    wanted: bool
    reason: str
    by: str
    at: datetime

    @property
    def sentence(self) -> str:
        """The reason for selecting an included image."""
        return f"wanted by {self.by}: {self.reason}"


class SelectionOverrides:
    """The overrides by image; the last one of an image is in force, and none is ever removed."""

    def __init__(self, store: ObjectStore) -> None:
        self._journal = Journal(store, "selection/pins")

    def read(self) -> dict[str, SelectionOverride]:
        """Return the override in force for each image that has one."""
        entries = [json.loads(entry) for entry in self._journal.read()]
        overrides = [
            SelectionOverride(**{**each, "at": datetime.fromisoformat(each["at"])})
            for each in entries
            if ERASED not in each
        ]
        return {override.image_id: override for override in overrides}

    def set(self, image_id: str, *, wanted: bool, reason: str, by: str, now: datetime) -> None:
        """Record an override of an image.

        Raises:
            DataError: no reason is given.
        """
        if not reason.strip():
            raise DataError(f"{image_id}: the override has no reason. Add one with --reason TEXT.")
        content = asdict(SelectionOverride(image_id, wanted, reason.strip(), by, now)) | {
            "at": now.isoformat()
        }
        self._journal.append(json.dumps(content, ensure_ascii=False).encode())
