"""One page of links: where every round is, whom it waits for, its report and its version.

It listens on the loopback interface alone and only reads.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.registry import labeling_of
from annotation_platform.labeling.reviews import review_round
from annotation_platform.pages import render_page
from annotation_platform.policy import read_policy
from annotation_platform.reporting.round_page import render_round
from annotation_platform.reporting.status import round_states
from annotation_platform.servers.child import LOOPBACK, usable_port
from annotation_platform.settings import Settings
from annotation_platform.storage.lake import Lake

if TYPE_CHECKING:
    from annotation_platform.versioning.remote import DvcRemote

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
}
_HTML = _TYPES[".html"]
_ASKED = {"people": lambda key: key, "reviewers": review_round}
"""What a round waits for, and the project in which they work."""


@dataclass(frozen=True)
class _Response:
    status: int
    kind: str
    body: bytes


class FrontPage:
    """Answers ``/``, ``/rounds/ROUND`` and ``/versions/VERSION/FILE``; see ``front_page``.

    Every page is made anew when it is asked for.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self.port = port
        self.links: dict[str, str] = {}
        """What else there is, by name: addresses that the page shows at its top."""

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.port}"

    def respond(self, path: str) -> _Response:
        """Return what stands under a path; what is not there is 404 and says so."""
        parts = [unquote(part) for part in urlsplit(path).path.split("/") if part]
        try:
            if not parts:
                return _html(self._front())
            if len(parts) == 2 and parts[0] == "rounds":
                return _html(self._round(parts[1]))
            if len(parts) > 2 and parts[0] == "versions":
                return self._versions.file(parts[1], "/".join(parts[2:]))
        except AnnotationPlatformError as error:
            return _Response(404, "text/plain; charset=utf-8", f"{error}\n".encode())
        return _Response(404, "text/plain", b"There is no such page.\n")

    def _front(self) -> str:
        policy = read_policy(self._settings.policy_path)
        rows = round_states(self._lake, drift_gate=policy.drift.gate)[::-1]
        return render_page(
            __package__,
            "front.html.jinja",
            style=_STYLE,
            rows=[{**row, "work_here": self._work_place(row)} for row in rows],
            links=self.links,
            landing=self._settings.landing_url,
        )

    def _work_place(self, row: dict[str, object]) -> str:
        """Return where those work whom a round waits for; nothing where that cannot be said."""
        project = _ASKED.get(str(row["waits_for"]))
        if project is None:
            return ""
        policy = read_policy(self._settings.policy_path)
        try:
            labeling = labeling_of(self._settings, self._lake.store, policy)
            return labeling.round_url(project(str(row["round"])))
        except AnnotationPlatformError:
            # The page is about all rounds: without this link it still says who is waited for.
            return ""

    def _round(self, round_id: str) -> str:
        return render_round(self._lake, round_id, read_policy(self._settings.policy_path))

    @property
    def _lake(self) -> Lake:
        # Pages are asked for every few seconds: the log of uses would hold little else.
        return lake_of(self._settings, audited=False)

    @cached_property
    def _versions(self) -> "_VersionFiles":
        return _VersionFiles(self._settings)


@contextmanager
def front_page(settings: Settings, *, port: int = 0) -> Iterator[FrontPage]:
    """Serve the page from a thread of its own until the block ends; port 0 takes a free one.

    A request that names another host than this machine is refused: no other site's script may read
    here.

    Raises:
        SettingsError: the port is taken.
    """
    page = FrontPage(settings, usable_port(port, remedy="choose another one with --page-port"))
    server = ThreadingHTTPServer((LOOPBACK, page.port), _handler(page))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield page
    finally:
        server.shutdown()
        server.server_close()


def _handler(page: FrontPage) -> type[BaseHTTPRequestHandler]:
    hosts = {f"{name}:{page.port}" for name in (LOOPBACK, "localhost")}

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            """Answer with a page."""
            if self.headers.get("Host", "") in hosts:
                found = page.respond(self.path)
            else:
                found = _Response(403, "text/plain", b"Only this machine's own names.\n")
            self.send_response(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(found.body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("X-Frame-Options", "DENY")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: Any) -> None:
            """Keep no log: what is looked at is nobody's business."""

    return Handler


@dataclass(frozen=True)
class _VersionFiles:
    """The files of published versions, as the remote holds them."""

    settings: Settings
    _listings: dict[str, dict[str, str]] = field(default_factory=dict)

    def file(self, version: str, path: str) -> _Response:
        """Return a file of a version; a PublishError if there is no such version."""
        from annotation_platform.versioning.mirror import open_registry
        from annotation_platform.versioning.registry import read_manifest

        kind = _TYPES.get(PurePosixPath(path).suffix)
        if version not in self._listings:
            registry = open_registry(self.settings.registry_place, self.settings.mirrors_path)
            manifest = read_manifest(registry, f"training-set@v{version}")
            self._listings[version] = self._remote.read_folder(manifest.folder_md5)
        md5 = self._listings[version].get(path)
        if md5 is None or kind is None:
            return _Response(404, "text/plain", b"The version has no such page or image.\n")
        return _Response(200, kind, self._remote.read_intact(md5, path))

    @property
    def _remote(self) -> "DvcRemote":
        from annotation_platform.versioning.mirror import open_registry
        from annotation_platform.versioning.registry import open_remote

        registry = open_registry(self.settings.registry_place, self.settings.mirrors_path)
        return open_remote(registry, self.settings.remote_url)


def _html(text: str) -> _Response:
    return _Response(200, _HTML, text.encode())


_STYLE = """\
.links{display:flex;flex-wrap:wrap;gap:6px 22px;margin:14px 0 0}
.rounds{width:100%}.rounds td{padding:9px 18px 9px 0}
.bar{display:block;margin-left:auto;width:90px;height:6px;margin-top:5px}
.bar .all{fill:var(--line)}.bar .done{fill:var(--link)}
.waits{color:var(--warn);font-weight:600}
"""
