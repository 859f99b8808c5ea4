"""Label Studio's webhooks while the platform runs: received as change signals, kept registered.

They only trigger the next poll early. If they cannot be sent, one message says so and polling
continues.
"""

import asyncio
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from annotation_platform.errors import AnnotationPlatformError, LabelingError, SettingsError
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.webhooks import (
    SECRET_HEADER,
    check_webhooks,
    register_webhooks,
)
from annotation_platform.labeling.change_signals import ChangeSignals
from annotation_platform.labeling.reviews import review_round
from annotation_platform.servers.serving import served
from annotation_platform.settings import SHORTEST_SECRET, Settings

_REGISTER_SECONDS = 15.0
_PATIENCE_SECONDS = 10.0
_LARGEST_PROJECT = 2**63
_NO_PROJECT = 0
_WAITING = 128
"""Connections that may wait: annotators may finish at the same time."""


@contextmanager
def change_signal_receiver(
    *,
    secret: str,
    on_change: Callable[[int], None],
    host: str = "127.0.0.1",
    port: int = 0,
    longest_body: int = 1_000_000,
    timeout_seconds: float = 5.0,
) -> Iterator[int]:
    """Receive webhooks until the block ends; yield the port.

    The response to a POST, at any path, is 204 for a change signal; 401 without the secret, 411
    without a length, 413 if the body is too long, and 400 if it is not a webhook of Label Studio.
    Other methods get 501. No body is stored, and nothing is logged: requests come from strangers.

    Args:
        secret: the expected value of ``SECRET_HEADER``; at least 16 characters of ASCII.
        on_change: called with the project number of each signal, 0 if it is unnamed, from several
            threads at once. It must be quick, because an annotator waits, and safe to repeat.
        host: the address to listen on.
        port: the port to listen on; 0 chooses a free one.
        longest_body: in bytes. Webhooks created by hand may send whole annotations: a longer body
            gets 413, and polling finds the annotation.
        timeout_seconds: for each wait for bytes of a body.

    Raises:
        SettingsError: the secret is too short or not ASCII, or the port is taken.
    """
    if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
        raise SettingsError(
            f"The secret of webhooks must be at least {SHORTEST_SECRET} printable ASCII "
            "characters. Create one: python -c 'import secrets; print(secrets.token_hex(20))'."
        )
    try:
        listener = socket.create_server((host, port), backlog=_WAITING)
    except OSError as error:
        raise SettingsError(
            f"Webhooks cannot be received at {host}:{port} ({error}). Set ANNOTATION_WEBHOOK_PORT "
            "to a free port, and ANNOTATION_WEBHOOK_HOST to an address of this machine."
        ) from error

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        status = _refusal(request, secret, longest_body)
        if status is None:
            project = await _project(request, timeout_seconds)
            status = 400 if project is None else 204
            if project is not None:
                await run_in_threadpool(on_change, project)
        await Response(status_code=status, headers={"Connection": "close"})(scope, receive, send)

    with served(application, listener):
        yield int(listener.getsockname()[1])


def _refusal(request: Request, secret: str, longest_body: int) -> int | None:
    """Return the status with which a request is refused unread; None if its body is to be read."""
    if request.method != "POST":
        return 501
    given = request.headers.get(SECRET_HEADER, "").encode("latin-1", "replace")
    # Checked before anything else of the request, and in constant time.
    if not hmac.compare_digest(given, secret.encode()):
        return 401
    length = request.headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit()):
        return 411
    return 413 if int(length) > longest_body else None


async def _project(request: Request, timeout_seconds: float) -> int | None:
    """Return the project number in a webhook, 0 if it has none; None for other bodies."""
    stream, body = request.stream(), b""
    try:
        while chunk := await asyncio.wait_for(anext(stream, b""), timeout_seconds):
            body += chunk
        content: Any = json.loads(body)
    except (ValueError, RecursionError, TimeoutError, ClientDisconnect):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("action"), str):
        return None
    project = content.get("project")
    if project is None:
        return _NO_PROJECT
    number = project.get("id") if isinstance(project, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return number if 0 < number < _LARGEST_PROJECT else None


@contextmanager
def received_change_signals(settings: Settings) -> Iterator[str]:
    """Receive webhooks as change signals until the block ends; yield the secret they must hold.

    The secret is that of the settings, or one that is generated now and stored only in this
    process and in Label Studio. Without ``ANNOTATION_WEBHOOK_URL`` no server is started and the
    secret is empty.

    Raises:
        SettingsError: the port is taken.
    """
    if not settings.webhook_url:
        yield ""
        return
    secret = settings.webhook_secret.get_secret_value() or secrets.token_hex(20)
    signals = ChangeSignals(settings.change_signals_path)
    with change_signal_receiver(
        secret=secret,
        on_change=lambda _: signals.give(),
        host=settings.webhook_host,
        port=settings.webhook_port,
    ):
        yield secret


@contextmanager
def registered_webhooks(
    http: LabelStudioHttp,
    lake: LandingLake,
    *,
    url: str,
    secret: str,
    say: Callable[[str], None],
    register_seconds: float = _REGISTER_SECONDS,
) -> Iterator[None]:
    """Keep one webhook registered for each project of the lake's rounds until the block ends.

    Runs in other processes create projects, so a thread registers new ones. The webhooks stay
    registered afterwards; the next start replaces them.

    Args:
        http: the server, as its administrator.
        lake: the lake of the rounds.
        url: address of the receiver as the server reaches it; empty registers nothing.
        secret: the secret that the receiver expects.
        say: called once per problem, from any thread, with a message.
        register_seconds: seconds between two registrations of new projects.
    """
    if not url:
        yield
        return
    reported = ""
    try:
        check_webhooks(http, url, secret)
    except LabelingError as error:
        reported = str(error)
        say(reported)
    stopped = threading.Event()

    def keep_registered(reported: str) -> None:
        while not stopped.is_set():
            try:
                rounds = lake.manifests.rounds()
                titles = {*rounds, *map(review_round, rounds)}
                register_webhooks(http, titles, url=url, secret=secret)
            except AnnotationPlatformError as error:
                # The next turn tries again, and polling does not need webhooks.
                if str(error) != reported:
                    reported = str(error)
                    say(reported)
            stopped.wait(register_seconds)

    keeper = threading.Thread(target=keep_registered, args=(reported,), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stopped.set()
        keeper.join(_PATIENCE_SECONDS)
