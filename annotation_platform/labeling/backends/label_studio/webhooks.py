"""Change signals from Label Studio by webhook: a reason to poll at once, and nothing else.

The content of a round is read from Label Studio itself, every few seconds, with or without signals.
So
a webhook that is lost, repeated, late, out of order or forged does no harm: at worst one poll is
unnecessary.

Label Studio 1.23 sends a webhook within the annotator's own request, waits one second, tries once
and signs nothing; a header of ours, set when the webhook is created, authenticates it. Webhooks can
be
created for projects only: for an organisation the server returns 404. Only the name of the action
    is
sent, as a signal needs no more, and annotations stay on the server. Every member of the
organisation can read the header in the server's list of webhooks, and so can forge a signal, which
is harmless.

A receiver at a private or loopback address is refused when the webhook is created and again when it
is sent (``SSRF_PROTECTION_ENABLED``, ``USE_DEFAULT_BANNED_SUBNETS``). Do not switch the protection
off for it: polling without webhooks is sufficient, or put the receiver at a public address.
"""

import hmac
import json
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.http import (
    LabelStudioHttp,
    RefusedError,
    UncertainError,
)
from annotation_platform.settings import SHORTEST_SECRET

SECRET_HEADER = "X-Annotation-Hint"
"""The header with the secret."""

_LARGEST_PROJECT = 2**63

_PATH = "/api/webhooks/"
_PROJECTS_PATH = "/api/projects/"
# The actions that can complete a round or remove annotations.
_ACTIONS = [
    "ANNOTATIONS_CREATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "TASKS_DELETED",
]
_NO_PROJECT = 0


class ChangeSignalReceiver:
    """Receives webhooks and calls ``on_change`` with the project number, 0 if it is unnamed.

    ``with ChangeSignalReceiver(...) as receiver:`` starts and stops it; so do ``start`` and
    ``stop``. The response to a POST, at any path, is 204 for a change signal; 401 without the
    secret, 411 without a length, 413 if the body is too long, and 400 if it is not a webhook of
    Label Studio. No body is stored.

    Args:
        secret: the expected value of ``SECRET_HEADER``; at least 16 characters of ASCII.
        on_change: called with each signal, from several threads at once. It must be quick, because
            an annotator waits, and safe to repeat.
        host: the address to listen on.
        port: the port to listen on; 0 chooses a free one.
        longest_body: in bytes. Webhooks created by hand may send whole annotations: a longer body
            gets 413, and polling finds the annotation.
        timeout_seconds: for each wait for bytes of a request.
    """

    def __init__(
        self,
        *,
        secret: str,
        on_change: Callable[[int], None],
        host: str = "127.0.0.1",
        port: int = 0,
        longest_body: int = 1_000_000,
        timeout_seconds: float = 5.0,
    ) -> None:
        if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
            raise SettingsError(
                f"The secret of webhooks must be at least {SHORTEST_SECRET} printable ASCII "
                "characters. Create one: python -c 'import secrets; print(secrets.token_hex(20))'."
            )
        self._secret = secret.encode()
        self._on_change = on_change
        self._address = (host, port)
        self._longest_body = longest_body
        self._timeout_seconds = timeout_seconds
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on, after ``start``."""
        if self._server is None:
            raise RuntimeError("the receiver was not started")
        return self._server.server_port

    def start(self) -> Self:
        """Listen, in a thread of its own, and return at once."""
        try:
            self._server = _Server(self._address, self._handler())
        except OSError as error:
            raise SettingsError(
                f"Webhooks cannot be received at {self._address[0]}:{self._address[1]} ({error}). "
                "Set ANNOTATION_WEBHOOK_PORT to a free port, and ANNOTATION_WEBHOOK_HOST to an "
                "address of this machine."
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening."""
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
                """Receive one webhook."""
                status = receiver._take(self)
                self.close_connection = True
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing: request lines come from strangers."""

        return Handler

    def _take(self, request: BaseHTTPRequestHandler) -> int:
        """Return the response status of a request, after calling ``on_change``."""
        given = request.headers.get(SECRET_HEADER, "").encode("latin-1", "replace")
        # Checked before anything else of the request, and in constant time.
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
        self._on_change(project)
        return 204


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Annotators may finish at the same time, and each would wait.
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Ignore a client that disconnects during a request."""


def _project(body: Any) -> int | None:
    """Return the project number in a webhook body, 0 if it has none; None for other bodies."""
    if not isinstance(body, dict) or not isinstance(body.get("action"), str):
        return None
    project = body.get("project")
    if project is None:
        return _NO_PROJECT
    number = project.get("id") if isinstance(project, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return number if 0 < number < _LARGEST_PROJECT else None


@dataclass(frozen=True)
class _Project:
    id: int
    title: str


@dataclass(frozen=True)
class _Webhook:
    id: int
    project: int | None
    url: str
    headers: dict[str, Any]
    send_payload: bool
    send_for_all_actions: bool
    actions: list[str]


_PROJECTS = TypeAdapter(list[_Project])
_WEBHOOKS = TypeAdapter(list[_Webhook])


def check_webhooks(http: LabelStudioHttp, url: str, secret: str) -> None:
    """Raise a LabelingError if Label Studio refuses webhooks to ``url``; none is created."""
    try:
        # There is no project 0: the server validates the address, and creates nothing.
        http.post(_PATH, _webhook(0, url, secret))
    except (RefusedError, UncertainError) as error:
        if not isinstance(error, RefusedError) or error.status != 400 or "'url'" in str(error):
            raise _refused(http, url, secret, error) from None


def register_webhooks(
    http: LabelStudioHttp, titles: Collection[str], *, url: str, secret: str
) -> None:
    """Have Label Studio send exactly one webhook for each project with one of the titles.

    Our webhooks are those that go to ``url`` or hold ``SECRET_HEADER``: one is corrected if needed,
    the others are deleted. Webhooks of other people stay as they are, and one of ours that was
    switched off stays off. Takes two requests if nothing needs to change.

    Args:
        http: the server, and its administrator.
        titles: project titles; missing projects are left out.
        url: the receiver's address for the server.
        secret: the secret that the receiver expects.

    Raises:
        LabelingError: the server cannot be reached, or refuses webhooks to ``url``. The secret is
            not in the message.
    """
    listed = http.pages(_PROJECTS_PATH, include="id,title")
    projects = http.shaped(_PROJECTS, listed, _PROJECTS_PATH)
    existing = http.read(_WEBHOOKS, _PATH)
    for project in projects:
        if project.title not in titles:
            continue
        ours = [
            hook
            for hook in existing
            if hook.project == project.id and (hook.url == url or SECRET_HEADER in hook.headers)
        ]
        try:
            _ensure(http, ours, _webhook(project.id, url, secret))
        except (RefusedError, UncertainError) as error:
            # Without its cause: a server that repeats the request in its response repeats the
            # secret.
            raise _refused(http, url, secret, error) from None


def _webhook(project: int, url: str, secret: str) -> dict[str, Any]:
    return {
        "project": project,
        "url": url,
        "headers": {SECRET_HEADER: secret},
        "send_payload": False,
        "send_for_all_actions": False,
        "actions": _ACTIONS,
    }


def _ensure(http: LabelStudioHttp, ours: Sequence[_Webhook], wanted: dict[str, Any]) -> None:
    """Correct one of our webhooks of a project, or create it, and delete the others."""
    for hook in ours[1:]:
        try:
            http.delete(f"{_PATH}{hook.id}/")
        except RefusedError as error:
            # Another process may have deleted it.
            if error.status != 404:
                raise
    if not ours:
        http.post(_PATH, wanted)
        return
    now = {key: getattr(ours[0], key) for key in wanted}
    if {**now, "actions": sorted(now["actions"])} != wanted:
        # A change holds every field: Label Studio reads missing actions as none.
        http.patch(f"{_PATH}{ours[0].id}/", wanted)


def _refused(http: LabelStudioHttp, url: str, secret: str, error: LabelingError) -> LabelingError:
    """Return the error for a refused webhook, without the secret."""
    # The query may hold a secret too.
    shown = url.split("?", 1)[0]
    if isinstance(error, RefusedError) and error.status == 403:
        return LabelingError(
            f"Label Studio at {http.url} refuses (403) to send webhooks to {shown}, as it does "
            "for private addresses (SSRF_PROTECTION_ENABLED, USE_DEFAULT_BANNED_SUBNETS): leave "
            "that protection on and set ANNOTATION_WEBHOOK_URL to a public address, or empty it; "
            "polling finds annotations without webhooks."
        )
    reason = (
        "its response repeats the secret and is not shown."
        if secret[:8] in str(error)
        else str(error)
    )
    return LabelingError(
        f"Label Studio at {http.url} created no webhook to {shown}: {reason} Check "
        "ANNOTATION_WEBHOOK_URL; polling finds annotations without webhooks."
    )
