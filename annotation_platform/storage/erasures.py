"""The record of erased images: keyed digests, by which they are refused for ever."""

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property

from annotation_platform.errors import NotReadyError
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.pseudonyms import pseudonym_key

PLAN = "erasing/plan.json"
"""The key of the erasure in progress; it is deleted at the end of the erasure."""

_FOLDER = "erasures"


def refuse_meanwhile(store: ObjectStore) -> None:
    """Raise a NotReadyError during an erasure, which could miss new objects."""
    if store.exists(PLAN):
        raise NotReadyError(
            "An erasure is in progress. Wait for it; if it was interrupted, `annotation-platform "
            "image erase --finish` resumes it."
        )


@dataclass(frozen=True)
class Erasure:
    """One erasure: when, why and by whom; ``names`` are the keyed digests of its images."""

    names: tuple[str, ...]
    reason: str
    by: str
    at: datetime

    @property
    def sentence(self) -> str:
        """The date and the reason, for messages."""
        return f"erased on {self.at:%Y-%m-%d}: {self.reason}"


class Erasures:
    """The erasures of a lake, in order. Their images are refused from any source.

    An image is recorded as its HMAC-SHA256 under the lake's own key. With the image and the key it
    can be shown that the image was erased; the record alone does not reveal the image.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._journal = Journal(store, _FOLDER)

    def name(self, image_id: str) -> str:
        """Return the keyed digest that replaces an erased image: 64 hexadecimal digits."""
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
        """Refuse images from now on and return the erasure; refused images are not added twice."""
        new = sorted({self.name(each) for each in images} - set(self._by_name))
        made = Erasure(tuple(new), reason, by, now.astimezone(UTC))
        if new:
            text = json.dumps({**asdict(made), "at": made.at.isoformat()}, ensure_ascii=False)
            self._journal.append(text.encode() + b"\n")
            self.__dict__.pop("_by_name", None)
        return made

    def find(self, image_id: str) -> Erasure | None:
        """Return the erasure of an image; None if it was not erased."""
        # A lake without erasures needs no key.
        return self._by_name.get(self.name(image_id)) if self._by_name else None

    @cached_property
    def _by_name(self) -> dict[str, Erasure]:
        return {name: each for each in self.read() for name in each.names}

    @cached_property
    def _key(self) -> bytes:
        return pseudonym_key(self._store)
