"""The channels of alerts. Their addresses are secrets, because an address may hold a token."""

import logging
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from annotation_platform.errors import AlertError
from annotation_platform.monitoring.alert import Alert

_TIMEOUT_SECONDS = 10.0

# httpx logs the address of every request, and addresses may hold tokens.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True)
class LogChannel:
    """The log of the sensor."""

    warn: Callable[[str], None] = field(repr=False)
    name: str = "log"

    def send(self, alert: Alert) -> None:
        """Log the alert as a warning."""
        self.warn(f"{alert.subject}: {alert.sentence} {alert.remedy}")


@dataclass(frozen=True)
class WebhookChannel:
    """A receiver of the user: the alert as JSON, its digest as ``Idempotency-Key``."""

    url: str = field(repr=False)
    name: str = "webhook"

    def send(self, alert: Alert) -> None:
        """Post the alert."""
        _post(self.url, asdict(alert), alert)


@dataclass(frozen=True)
class SlackChannel:
    """An incoming webhook of Slack, or of a compatible service."""

    url: str = field(repr=False)
    name: str = "slack"

    def send(self, alert: Alert) -> None:
        """Post the alert as a message."""
        text = f"*{_plain(alert.subject)}*: {_plain(alert.sentence)} {_plain(alert.remedy)}"
        _post(self.url, {"text": text}, alert)


@dataclass(frozen=True)
class MailChannel:
    """E-mail through a server: ``smtp://user:password@host:port``, or ``smtps://`` for TLS.

    With ``smtp://``, TLS is used if the server offers it, and a password is sent over TLS only.
    The server's certificate has to be valid. If ``sender`` is empty, it is the user if that is an
    address, otherwise an address at the server's host.
    """

    server: str = field(repr=False)
    to: str
    sender: str = ""
    name: str = "email"

    def send(self, alert: Alert) -> None:
        """Send the alert to every recipient."""
        try:
            parts = urlsplit(self.server)
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            sender = self.sender or (user if "@" in user else f"annotations@{parts.hostname}")
            with _connected(parts.scheme, parts.hostname or "", parts.port or 0) as client:
                if user:
                    if not isinstance(client.sock, ssl.SSLSocket):
                        raise AlertError("the server offers no TLS, which a password requires.")
                    client.login(user, password)
                refused = client.send_message(_message(alert, sender, self.to))
        except (OSError, ValueError, smtplib.SMTPException) as error:
            # The error and its text are left out: they may hold parts of the address.
            raise AlertError(
                f"the mail server accepted no message ({type(error).__name__})."
            ) from None
        if refused:
            raise AlertError(f"the mail server refused {len(refused)} recipients.")


def _connected(scheme: str, host: str, port: int) -> smtplib.SMTP:
    """Return a connection, with TLS if the address requires it or the server offers it."""
    context = ssl.create_default_context()
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port, timeout=_TIMEOUT_SECONDS, context=context)
    client = smtplib.SMTP(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        client.ehlo()
        if client.has_extn("starttls"):
            client.starttls(context=context)
    except BaseException:
        client.close()
        raise
    return client


def _message(alert: Alert, sender: str, to: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = f"{alert.subject}: {alert.kind}"
    message["From"] = sender
    message["To"] = to
    message["Message-ID"] = f"<{alert.digest}@annotation-platform>"
    message.set_content(f"{alert.sentence}\n\n{alert.remedy}\n")
    return message


def _post(url: str, body: dict[str, Any], alert: Alert) -> None:
    try:
        response = httpx.post(
            url, json=body, headers={"Idempotency-Key": alert.digest}, timeout=_TIMEOUT_SECONDS
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The error and its text are left out: they hold the address.
        raise AlertError(f"cannot be reached ({type(error).__name__}).") from None
    if not response.is_success:
        raise AlertError(f"responded with the status {response.status_code}.")


def _plain(text: str) -> str:
    """Return a text in which Slack finds no link and no mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
