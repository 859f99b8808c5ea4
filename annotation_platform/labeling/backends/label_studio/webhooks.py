"""Hints from Label Studio that something changed: a reason to look at once, and never the truth.

What a round holds is asked of Label Studio itself, every few seconds, hint or no hint. So a webhook
that is lost, comes twice, late, out of order or from a forger does no harm: at worst somebody looks
once too often.

Label Studio 1.23 sends a webhook within the annotator's own request, waits one second, tries once
and signs nothing; what tells it from a stranger's is a header of our own, given when the webhook is
made. It can be made for a project only: for an organisation the server answers 404. What is sent is
the name of the action alone, since a hint needs no more and people's answers need not travel. Every
member of the organisation can read the header in the server's list of webhooks, and so can forge a
hint, which does no harm either.

A receiver at a private or loopback address is refused when the webhook is made and again when it is
sent (``SSRF_PROTECTION_ENABLED``, ``USE_DEFAULT_BANNED_SUBNETS``). Do not switch the protection off
for it: leave the webhook out there, polling is enough, or put the receiver at a public address.
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
"""The header in which Label Studio repeats the secret."""

_LARGEST_PROJECT = 2**63

_PATH = "/api/webhooks/"
_PROJECTS_PATH = "/api/projects/"
# What can complete a round, or take something from it.
_ACTIONS = [
    "ANNOTATIONS_CREATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "TASKS_DELETED",
]
_NO_PROJECT = 0


class ChangeSignalReceiver:
    """Takes Label Studio's webhooks and calls ``on_hint`` with a project's number, 0 for unnamed.

    ``with ChangeSignalReceiver(...) as receiver:`` starts and stops it; so do ``start`` and
    ``stop``. To a
    POST, whatever its path, it answers 204 for a hint; 401 without the secret, 411 without a
    length, 413 if the body is too long, and 400 if it is no news of Label Studio's. Nothing of a
    body is kept.

    Args:
        secret: What ``SECRET_HEADER`` must hold; at least 16 characters of ASCII.
        on_hint: Called with each hint, from several threads at once. It must be quick, because
            an annotator waits, and harmless to repeat.
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        longest_body: In bytes. A webhook that somebody made by hand may send whole answers: what
            is too long is answered by 413, and polling finds it.
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
        if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
            raise SettingsError(
                f"The secret of webhooks must be at least {SHORTEST_SECRET} printable ASCII "
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
                "Set ANNOTATION_WEBHOOK_PORT to a free port, and ANNOTATION_WEBHOOK_HOST to an "
                "address of this machine."
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
        self._on_hint(project)
        return 204


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Annotators finish at the same moment, and each would wait.
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a caller who goes away in the middle."""


def _project(news: Any) -> int | None:
    """Return the number of the project that news name, 0 if none; None if they are no news."""
    if not isinstance(news, dict) or not isinstance(news.get("action"), str):
        return None
    project = news.get("project")
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
    """Raise a LabelingError if Label Studio sends no webhooks to ``url``; none is made."""
    try:
        # There is no project 0: the address is judged, and then nothing is made.
        http.post(_PATH, _webhook(0, url, secret))
    except (RefusedError, UncertainError) as error:
        if not isinstance(error, RefusedError) or error.status != 400 or "'url'" in str(error):
            raise _refused(http, url, secret, error) from None


def register_webhooks(
    http: LabelStudioHttp, titles: Collection[str], *, url: str, secret: str
) -> None:
    """Have Label Studio send one webhook, and no second, for each project with one of the titles.

    Of ours are those that go to ``url`` or hold ``SECRET_HEADER``: one of them is made to be as it
    should, the others are deleted. Those of other people stay as they are, and one of ours
    that somebody switched off stays off. Takes two requests where there is nothing to do.

    Args:
        http: The server, and its administrator.
        titles: Projects that are not there yet are left out.
        url: Where the server reaches the receiver.
        secret: What the receiver expects.

    Raises:
        LabelingError: The server cannot be reached, or refuses to send webhooks to ``url``. The
            secret is not in the message.
    """
    listed = http.pages(_PROJECTS_PATH, include="id,title")
    projects = http.shaped(_PROJECTS, listed, _PROJECTS_PATH)
    there = http.read(_WEBHOOKS, _PATH)
    for project in projects:
        if project.title not in titles:
            continue
        ours = [
            hook
            for hook in there
            if hook.project == project.id and (hook.url == url or SECRET_HEADER in hook.headers)
        ]
        try:
            _ensure(http, ours, _webhook(project.id, url, secret))
        except (RefusedError, UncertainError) as error:
            # Cut off from its cause: a server that repeats what it was sent repeats the secret.
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
    """Make one of our webhooks of a project as it should be, and delete the others."""
    for hook in ours[1:]:
        try:
            http.delete(f"{_PATH}{hook.id}/")
        except RefusedError as error:
            # Somebody else may have deleted it.
            if error.status != 404:
                raise
    if not ours:
        http.post(_PATH, wanted)
        return
    now = {key: getattr(ours[0], key) for key in wanted}
    if {**now, "actions": sorted(now["actions"])} != wanted:
        # A change leaves out no field: Label Studio takes missing actions for none.
        http.patch(f"{_PATH}{ours[0].id}/", wanted)


def _refused(http: LabelStudioHttp, url: str, secret: str, error: LabelingError) -> LabelingError:
    """Return what to say of an error in making a webhook, without the secret."""
    # What follows the question mark may be a secret too.
    shown = url.split("?", 1)[0]
    if isinstance(error, RefusedError) and error.status == 403:
        return LabelingError(
            f"Label Studio at {http.url} refuses (403) to send webhooks to {shown}, as it does "
            "where an address is private to it (SSRF_PROTECTION_ENABLED, "
            "USE_DEFAULT_BANNED_SUBNETS): leave that protection on and set ANNOTATION_WEBHOOK_URL "
            "to a public address, or to nothing; answers are found by polling all the same."
        )
    said = (
        "its answer repeats what it was sent and is not shown."
        if secret[:8] in str(error)
        else str(error)
    )
    return LabelingError(
        f"Label Studio at {http.url} makes no webhook to {shown}: {said} Check "
        "ANNOTATION_WEBHOOK_URL; answers are found by polling all the same."
    )
