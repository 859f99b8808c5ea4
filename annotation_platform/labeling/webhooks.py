"""Hints from Label Studio that something changed: a reason to look at once, and never the truth.

What a round holds is asked of Label Studio itself, every few seconds, hint or no hint. A hint only
says which project to look at first. So a webhook that is lost, comes twice, late, out of order or
from a forger does no harm: at worst somebody looks once too often.

Label Studio 1.23 sends a webhook within the annotator's own request, waits one second, tries once
and signs nothing; what tells it from a stranger's is a header of our own, given when the webhook is
made: ``POST /api/webhooks/`` with ``{"url": …, "project": …, "headers": {"X-Annotation-Hint":
secret}, "send_for_all_actions": true}``. It must send its payload, which names the project. A
receiver at a private or loopback address is refused when the webhook is made and again when it is
sent (``SSRF_PROTECTION_ENABLED``, ``USE_DEFAULT_BANNED_SUBNETS``). Do not switch the protection off
for it: leave the webhook out there, polling is enough, or put the receiver at a public address.
"""

import hmac
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from annotation_platform.errors import SettingsError

SECRET_HEADER = "X-Annotation-Hint"
"""The header in which Label Studio repeats the secret."""

_SHORTEST_SECRET = 16
_LARGEST_PROJECT = 2**63


class HintReceiver:
    """Takes Label Studio's webhooks and calls ``on_hint`` with the number of a project.

    ``with HintReceiver(...) as receiver:`` starts and stops it; so do ``start`` and ``stop``. To a
    POST, whatever its path, it answers 204 for a hint and for news that concern no project; 401
    without the secret, 411 without a length, 413 if the body is too long, and 400 if it is no news
    of Label Studio's. Nothing of a body is kept.

    Args:
        secret: What ``SECRET_HEADER`` must hold; at least 16 characters of ASCII.
        on_hint: Called with each hint, from several threads at once. It must be quick, because
            an annotator waits, and harmless to repeat.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        longest_body: In bytes. Label Studio sends all tasks of an import in one body: what is too
            long is answered by 413, and polling finds it.
        timeout_seconds: For each wait for bytes of a request.
    """

    def __init__(
        self,
        *,
        secret: str,
        on_hint: Callable[[int], None],
        host: str = "127.0.0.1",
        port: int = 0,
        longest_body: int = 1_000_000,
        timeout_seconds: float = 5.0,
    ) -> None:
        if len(secret) < _SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
            raise SettingsError(
                f"The secret of webhooks must be at least {_SHORTEST_SECRET} printable ASCII "
                "characters. Draw one: python -c 'import secrets; print(secrets.token_hex(20))'."
            )
        self._secret = secret.encode()
        self._on_hint = on_hint
        self._place = (host, port)
        self._longest_body = longest_body
        self._timeout_seconds = timeout_seconds
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on; known once it was started."""
        if self._server is None:
            raise RuntimeError("the receiver was not started")
        return self._server.server_port

    def start(self) -> Self:
        """Listen, in a thread of its own, and return at once."""
        try:
            self._server = _Server(self._place, self._handler())
        except OSError as error:
            raise SettingsError(
                f"Webhooks cannot be received at {self._place[0]}:{self._place[1]} ({error}). "
                "Choose another port."
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = receiver._timeout_seconds

            def do_POST(self) -> None:
                """Take one webhook."""
                status = receiver._take(self)
                self.close_connection = True
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Keep no log: names and paths are a stranger's."""

        return Handler

    def _take(self, request: BaseHTTPRequestHandler) -> int:
        """Return the status that a request is answered with, having called ``on_hint``."""
        given = request.headers.get(SECRET_HEADER, "").encode("latin-1", "replace")
        # Before anything else of it is looked at, and in the same time whatever was given.
        if not hmac.compare_digest(given, self._secret):
            return 401
        length = request.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return 411
        if len(length) > len(str(self._longest_body)) or int(length) > self._longest_body:
            return 413
        try:
            body = request.rfile.read(int(length))
            project = _project(json.loads(body)) if len(body) == int(length) else None
        except (ValueError, RecursionError, TimeoutError):
            return 400
        if project is None:
            return 400
        if project:
            self._on_hint(project)
        return 204


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Annotators finish at the same moment, and each would wait.
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a caller who goes away in the middle."""


def _project(news: Any) -> int | None:
    """Return the number of the project that news are about, 0 if none; None if they are no news."""
    if not isinstance(news, dict) or not isinstance(news.get("action"), str):
        return None
    project = news.get("project")
    if project is None:
        return 0
    number = project.get("id") if isinstance(project, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return number if 0 < number < _LARGEST_PROJECT else None
