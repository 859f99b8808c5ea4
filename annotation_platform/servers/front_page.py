"""The page of all rounds: the progress of each, its report and its version, over HTTP.

The server listens on the loopback interface only, and only reads.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.registry import labeling_of
from annotation_platform.labeling.reviews import review_round
from annotation_platform.pages import render_page
from annotation_platform.policy import read_policy
from annotation_platform.reporting.round_page import render_round
from annotation_platform.reporting.status import round_states
from annotation_platform.servers.child import LOOPBACK, usable_port
from annotation_platform.servers.serving import served
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
_PROJECTS = {"people": lambda key: key, "reviewers": review_round}
"""The project in which annotators and reviewers work on a round, by what the round waits for."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class FrontPage:
    """Serves ``/``, ``/rounds/ROUND`` and ``/versions/VERSION/FILE``; see ``front_page``.

    Every request renders its page from the current data.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self._versions = _VersionFiles(settings)
        self.port = port
        self.links: dict[str, str] = {}
        """Addresses of other servers by name, which the page shows at its top."""

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.port}"

    def application(self) -> Starlette:
        """Return the pages as an ASGI application, which refuses requests of other hosts."""
        return Starlette(
            routes=[
                Route("/", self._front),
                Route("/rounds/{round_id}", self._round),
                Route("/versions/{version}/{path:path}", self._version_file),
            ],
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._guard)],
            exception_handlers={AnnotationPlatformError: _not_found},
        )

    async def _guard(self, request: Request, respond: RequestResponseEndpoint) -> Response:
        hosts = {f"{name}:{self.port}" for name in (LOOPBACK, "localhost")}
        if request.headers.get("host") in hosts:
            response = await respond(request)
        else:
            response = PlainTextResponse("Only this machine's own names.\n", status_code=403)
        response.headers.update(_HEADERS)
        return response

    def _front(self, _: Request) -> Response:
        policy = read_policy(self._settings.policy_path)
        rows = round_states(self._lake, drift_gate=policy.drift.gate)[::-1]
        page = render_page(
            __package__,
            "front.html.jinja",
            style=_STYLE,
            rows=[{**row, "work_here": self._work_url(row)} for row in rows],
            links=self.links,
            landing=self._settings.landing_url,
        )
        return HTMLResponse(page)

    def _round(self, request: Request) -> Response:
        policy = read_policy(self._settings.policy_path)
        return HTMLResponse(render_round(self._lake, request.path_params["round_id"], policy))

    def _version_file(self, request: Request) -> Response:
        version, path = request.path_params["version"], request.path_params["path"]
        return self._versions.file(version, path)

    def _work_url(self, row: dict[str, object]) -> str:
        """Return the address of the project that a round waits for; empty if it is unknown."""
        project = _PROJECTS.get(str(row["waits_for"]))
        if project is None:
            return ""
        policy = read_policy(self._settings.policy_path)
        try:
            labeling = labeling_of(self._settings, self._lake.store, policy)
            return labeling.round_url(project(str(row["round"])))
        except AnnotationPlatformError:
            # The page is about all rounds and is useful without this link.
            return ""

    @property
    def _lake(self) -> Lake:
        # Pages are loaded every few seconds and would fill the access log.
        return lake_of(self._settings, audited=False)


@contextmanager
def front_page(settings: Settings, *, port: int = 0) -> Iterator[FrontPage]:
    """Serve the page from a thread of its own until the block ends; port 0 takes a free one.

    A request that names another host than this machine is refused, so that no script of another
    site can read the pages. Requests are not logged.

    Raises:
        SettingsError: the port is taken.
    """
    page = FrontPage(settings, usable_port(port, remedy="choose another one with --page-port"))
    with served(page.application(), socket.create_server((LOOPBACK, page.port))):
        yield page


def _not_found(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", status_code=404)


@dataclass(frozen=True)
class _VersionFiles:
    """The files of published versions, as the remote holds them."""

    settings: Settings
    _listings: dict[str, dict[str, str]] = field(default_factory=dict)

    def file(self, version: str, path: str) -> Response:
        """Return a file of a version; raise a PublishError if there is no such version."""
        from annotation_platform.versioning.mirror import open_registry
        from annotation_platform.versioning.registry import read_manifest

        media_type = _TYPES.get(PurePosixPath(path).suffix)
        if version not in self._listings:
            registry = open_registry(self.settings.registry_place, self.settings.mirrors_path)
            manifest = read_manifest(registry, f"training-set@v{version}")
            self._listings[version] = self._remote.read_folder(manifest.folder_md5)
        md5 = self._listings[version].get(path)
        if md5 is None or media_type is None:
            raise HTTPException(404, "The version has no such page or image.")
        return Response(self._remote.read_intact(md5, path), media_type=media_type)

    @property
    def _remote(self) -> "DvcRemote":
        from annotation_platform.versioning.mirror import open_registry
        from annotation_platform.versioning.registry import open_remote

        registry = open_registry(self.settings.registry_place, self.settings.mirrors_path)
        return open_remote(registry, self.settings.remote_url)


_STYLE = """\
.links{display:flex;flex-wrap:wrap;gap:6px 22px;margin:14px 0 0}
.rounds{width:100%}.rounds td{padding:9px 18px 9px 0}
.bar{display:block;margin-left:auto;width:90px;height:6px;margin-top:5px}
.bar .all{fill:var(--line)}.bar .done{fill:var(--link)}
.waits{color:var(--warn);font-weight:600}
"""
