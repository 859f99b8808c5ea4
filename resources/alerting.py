"""The channels of alerts."""

from dataclasses import dataclass

import dagster as dg

from annotation_platform.monitoring.alert import Channel
from annotation_platform.monitoring.channels import MailChannel, SlackChannel, WebhookChannel


@dataclass(frozen=True)
class Alerting:
    """The alert channels in addition to the log, and the hours after which a round has stalled."""

    channels: tuple[Channel, ...]
    stalled_hours: float


class AlertingResource(dg.ConfigurableResource[Alerting]):
    """The configuration of alert channels; an empty address disables its channel."""

    webhook: str = ""
    slack: str = ""
    email: str = ""
    smtp: str = ""
    sender: str = ""
    stalled_hours: float = 48.0

    def create_resource(self, context: dg.InitResourceContext) -> Alerting:
        """Return the channels, without connecting."""
        channels: list[Channel] = []
        if self.webhook:
            channels.append(WebhookChannel(self.webhook))
        if self.slack:
            channels.append(SlackChannel(self.slack))
        if self.smtp:
            channels.append(MailChannel(self.smtp, self.email, self.sender))
        return Alerting(tuple(channels), self.stalled_hours)
