"""What was erased, so that it is not taken in again: keyed digests that tell nobody what it was."""

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property

from annotation_platform.errors import NotReadyError
from annotation_platform.labeling.ledger import pseudonym_key
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore

PLAN = "erasing/plan.json"
"""The key of what is under way: it says what goes until it is gone, and then goes, too."""

_FOLDER = "erasures"


def refuse_meanwhile(store: ObjectStore) -> None:
    """Raise a NotReadyError while an erasure is under way: what is written now it could miss."""
    if store.exists(PLAN):
        raise NotReadyError(
            "An erasure is under way. Wait for it; if it was interrupted, `annotation-platform "
            "image erase --finish` resumes it."
        )


@dataclass(frozen=True)
class Erasure:
    """That something was erased: when, why and by whom; ``names`` stand for its images."""

    names: tuple[str, ...]
    reason: str
    by: str
    at: datetime

    @property
    def sentence(self) -> str:
        """When and why, for people."""
        return f"erased on {self.at:%Y-%m-%d}: {self.reason}"


class Erasures:
    """The erasures of a lake, first to last. Their images are refused wherever they come from.

    An image is known by its HMAC-SHA256 under the lake's own key: whoever holds the image and
    the key can tell that it was erased, and nobody can tell from the record what it showed.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._journal = Journal(store, _FOLDER)

    def name(self, image_id: str) -> str:
        """Return what stands for an image where it is erased: 64 hexadecimal digits, keyed."""
        return hmac.new(self._key, f"image {image_id}".encode(), hashlib.sha256).hexdigest()

    def read(self) -> list[Erasure]:
        """Return every erasure, in order."""
        return [
            Erasure(
                tuple(each["names"]), each["reason"], each["by"], datetime.fromisoformat(each["at"])
            )
            for each in map(json.loads, self._journal.read())
        ]

    def add(self, images: Iterable[str], *, reason: str, by: str, now: datetime) -> Erasure:
        """Refuse images from now on; those that are refused already are not named again."""
        new = sorted({self.name(each) for each in images} - set(self._by_name))
        made = Erasure(tuple(new), reason, by, now.astimezone(UTC))
        if new:
            text = json.dumps({**asdict(made), "at": made.at.isoformat()}, ensure_ascii=False)
            self._journal.append(text.encode() + b"\n")
            self.__dict__.pop("_by_name", None)
        return made

    def find(self, image_id: str) -> Erasure | None:
        """Return the erasure of an image; None if it was not erased."""
        # Where nothing ever was, no key is asked for.
        return self._by_name.get(self.name(image_id)) if self._by_name else None

    @cached_property
    def _by_name(self) -> dict[str, Erasure]:
        return {name: each for each in self.read() for name in each.names}

    @cached_property
    def _key(self) -> bytes:
        return pseudonym_key(self._store)
