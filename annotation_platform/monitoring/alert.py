"""What somebody has to see, and the note that they were told."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Protocol

from annotation_platform.errors import AlertError
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class Alert:
    """Something is wrong.

    Attributes:
        kind: ``run``, ``check``, ``drift``, ``pace`` or ``stalled``.
        subject: about what: a round, mostly.
        cause: what makes it another one than an earlier alert of its kind and subject.
        sentence: what is wrong, where, in numbers.
        remedy: what to do.
    """

    kind: str
    subject: str
    cause: str
    sentence: str
    remedy: str

    @property
    def digest(self) -> str:
        """What tells it from others; the wording does not matter."""
        return hashlib.sha256("\n".join((self.kind, self.subject, self.cause)).encode()).hexdigest()


class Channel(Protocol):
    """A way to somebody."""

    @property
    def name(self) -> str:
        """By which it is known that it told something."""

    def send(self, alert: Alert) -> None:
        """Tell it; an AlertError, without any secret, if that cannot be done now."""


def raise_alerts(
    alerts: Iterable[Alert], channels: Sequence[Channel], store: ObjectStore, *, now: datetime
) -> tuple[list[Alert], list[str]]:
    """Tell each alert by each channel, unless it was told by it before.

    What a channel could not tell is told at the next call, and so is what comes after it: a channel
    that fails is not tried again and again. Whoever is killed between the telling and the note
    tells it once more: rather twice than never. Receivers know it by its digest.

    Returns:
        The alerts of which anything was told, and what channels could not do, as sentences.
    """
    told: list[Alert] = []
    problems: dict[str, str] = {}
    for alert in alerts:
        for channel in channels:
            key = f"alerts/{alert.digest}/{channel.name}.json"
            if channel.name in problems or store.exists(key):
                continue
            try:
                channel.send(alert)
            except AlertError as error:
                problems[channel.name] = f"{channel.name}: {error}"
                continue
            note = {**asdict(alert), "at": now.isoformat()}
            store.create(key, json.dumps(note, sort_keys=True).encode() + b"\n")
            if alert not in told:
                told.append(alert)
    return told, list(problems.values())
