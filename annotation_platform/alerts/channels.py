"""The ways to somebody. What they are sent to is a secret: an address may hold a token."""

import smtplib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from annotation_platform.alerts.alert import Alert
from annotation_platform.errors import AlertError

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class LogChannel:
    """The log of whoever looks."""

    warn: Callable[[str], None] = field(repr=False)
    name: str = "log"

    def send(self, alert: Alert) -> None:
        """Write it as a warning."""
        self.warn(f"{alert.subject}: {alert.sentence} {alert.remedy}")


@dataclass(frozen=True)
class WebhookChannel:
    """Somebody's own receiver: the alert as JSON, its digest as ``Idempotency-Key``."""

    url: str = field(repr=False)
    name: str = "webhook"

    def send(self, alert: Alert) -> None:
        """Post it."""
        _post(self.url, asdict(alert), alert)


@dataclass(frozen=True)
class SlackChannel:
    """An incoming webhook of Slack, or of what understands the same."""

    url: str = field(repr=False)
    name: str = "slack"

    def send(self, alert: Alert) -> None:
        """Post it as a message."""
        text = f"*{_plain(alert.subject)}*: {_plain(alert.sentence)} {_plain(alert.remedy)}"
        _post(self.url, {"text": text}, alert)


@dataclass(frozen=True)
class MailChannel:
    """E-mail through a server: ``smtp://user:password@host:port``, or ``smtps://`` for TLS.

    With ``smtp://`` TLS is used where the server offers it, and a password is sent with TLS alone.
    """

    server: str = field(repr=False)
    to: str
    name: str = "email"

    def send(self, alert: Alert) -> None:
        """Send it to everybody who is to know."""
        message = EmailMessage()
        message["Subject"] = f"{alert.subject}: {alert.kind}"
        message["From"] = "annotation-platform@localhost"
        message["To"] = self.to
        message["Message-ID"] = f"<{alert.digest}@annotation-platform>"
        message.set_content(f"{alert.sentence}\n\n{alert.remedy}\n")
        parts = urlsplit(self.server)
        try:
            if parts.scheme == "smtps":
                client: smtplib.SMTP = smtplib.SMTP_SSL(
                    parts.hostname or "", parts.port or 0, timeout=_TIMEOUT_SECONDS
                )
            else:
                client = smtplib.SMTP(
                    parts.hostname or "", parts.port or 0, timeout=_TIMEOUT_SECONDS
                )
            with client:
                self._speak(client, parts.username, parts.password, message)
        except (OSError, smtplib.SMTPException) as error:
            raise AlertError(f"the mail server took nothing ({type(error).__name__}).") from None

    def _speak(
        self, client: smtplib.SMTP, user: str | None, password: str | None, message: EmailMessage
    ) -> None:
        client.ehlo()
        secure = isinstance(client, smtplib.SMTP_SSL)
        if not secure and client.has_extn("starttls"):
            client.starttls()
            client.ehlo()
            secure = True
        if user:
            if not secure:
                raise AlertError("the mail server offers no TLS, and a password is set. Use it.")
            client.login(unquote(user), unquote(password or ""))
        client.send_message(message)


def _post(url: str, body: dict[str, Any], alert: Alert) -> None:
    try:
        answer = httpx.post(
            url, json=body, headers={"Idempotency-Key": alert.digest}, timeout=_TIMEOUT_SECONDS
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Neither the error's text nor its cause: the address is in them.
        raise AlertError(f"cannot be reached ({type(error).__name__}).") from None
    if not answer.is_success:
        raise AlertError(f"answered {answer.status_code}.")


def _plain(text: str) -> str:
    """Return a text without what Slack reads as a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
