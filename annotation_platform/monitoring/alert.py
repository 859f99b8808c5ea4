"""Alerts, and the record of which channel has sent which alert."""

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
    """A problem that a person has to see.

    Attributes:
        kind: ``run``, ``check``, ``drift``, ``pace`` or ``stalled``.
        subject: what it concerns, mostly a round.
        cause: distinguishes it from earlier alerts of the same kind and subject.
        sentence: the problem, with location and numbers.
        remedy: what to do.
    """

    kind: str
    subject: str
    cause: str
    sentence: str
    remedy: str

    @property
    def digest(self) -> str:
        """SHA-256 of kind, subject and cause; it does not depend on the wording."""
        return hashlib.sha256("\n".join((self.kind, self.subject, self.cause)).encode()).hexdigest()


class Channel(Protocol):
    """A way to send alerts."""

    @property
    def name(self) -> str:
        """Name under which sent alerts are recorded."""

    def send(self, alert: Alert) -> None:
        """Send an alert.

        Raises:
            AlertError: the alert cannot be sent now; the message holds no secret.
        """


def raise_alerts(
    alerts: Iterable[Alert], channels: Sequence[Channel], store: ObjectStore, *, now: datetime
) -> tuple[list[Alert], list[str]]:
    """Send each alert by each channel that has not sent it before.

    A channel that fails is not tried again in this call; the next call sends its remaining alerts.
    An alert is sent twice if the process is killed between sending and recording: at least once,
    rather than at most once. Receivers recognise a repetition by the digest.

    Returns:
        The alerts that a channel has sent now, and the problems of channels, as sentences.
    """
    sent: list[Alert] = []
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
            record = {**asdict(alert), "at": now.isoformat()}
            store.create(key, json.dumps(record, sort_keys=True).encode() + b"\n")
            if alert not in sent:
                sent.append(alert)
    return sent, list(problems.values())
