"""Images that somebody wants asked about, or not: recorded beside what the platform chooses."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from annotation_platform.errors import DataError
from annotation_platform.storage.journal import ERASED, Journal
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class SelectionOverride:
    """What somebody decided about an image: ``wanted``, or kept out, from then on."""

    image_id: str
    wanted: bool
    reason: str
    by: str
    at: datetime

    @property
    def sentence(self) -> str:
        """Why an image that is wanted is asked about."""
        return f"wanted by {self.by}: {self.reason}"


class SelectionOverrides:
    """The decisions, by image; the last one on an image holds, and none is ever forgotten."""

    def __init__(self, store: ObjectStore) -> None:
        self._journal = Journal(store, "selection/pins")

    def read(self) -> dict[str, SelectionOverride]:
        """Return the decision that holds for each image that somebody decided about."""
        entries = [json.loads(entry) for entry in self._journal.read()]
        pins = [
            SelectionOverride(**{**each, "at": datetime.fromisoformat(each["at"])})
            for each in entries
            if ERASED not in each
        ]
        return {pin.image_id: pin for pin in pins}

    def set(self, image_id: str, *, wanted: bool, reason: str, by: str, now: datetime) -> None:
        """Decide about an image.

        Raises:
            DataError: no reason is given.
        """
        if not reason.strip():
            raise DataError(f"{image_id}: say why it is pinned: --reason TEXT")
        content = asdict(SelectionOverride(image_id, wanted, reason.strip(), by, now)) | {
            "at": now.isoformat()
        }
        self._journal.append(json.dumps(content, ensure_ascii=False).encode())
