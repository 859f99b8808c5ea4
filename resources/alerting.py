"""Who is told when something goes wrong."""

from dataclasses import dataclass

import dagster as dg

from annotation_platform.monitoring.alert import Channel
from annotation_platform.monitoring.channels import MailChannel, SlackChannel, WebhookChannel


@dataclass(frozen=True)
class Alerting:
    """The ways to somebody beside the log, and how long a round may stand still."""

    channels: tuple[Channel, ...]
    stalled_hours: float


class AlertingResource(dg.ConfigurableResource[Alerting]):
    """What is empty is not used."""

    webhook: str = ""
    slack: str = ""
    email: str = ""
    smtp: str = ""
    sender: str = ""
    stalled_hours: float = 48.0

    def create_resource(self, context: dg.InitResourceContext) -> Alerting:
        """Return the channels; nothing is connected yet."""
        channels: list[Channel] = []
        if self.webhook:
            channels.append(WebhookChannel(self.webhook))
        if self.slack:
            channels.append(SlackChannel(self.slack))
        if self.smtp:
            channels.append(MailChannel(self.smtp, self.email, self.sender))
        return Alerting(tuple(channels), self.stalled_hours)
