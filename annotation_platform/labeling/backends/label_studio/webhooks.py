"""Label Studio's webhooks: registered for each project, as a reason to poll at once.

The content of a round is read from Label Studio itself, every few seconds, with or without signals.
So a webhook that is lost, repeated, late, out of order or forged does no harm: at worst one poll is
unnecessary.

Label Studio 1.23 sends a webhook within the annotator's own request, waits one second, tries once
and signs nothing; a header of ours, set when the webhook is created, authenticates it. Webhooks can
be created for projects only: for an organisation the server returns 404. Only the name of the
action is sent, as a signal needs no more, and annotations stay on the server. Every member of the
organisation can read the header in the server's list of webhooks, and so can forge a signal, which
is harmless.

A receiver at a private or loopback address is refused when the webhook is created and again when it
is sent (``SSRF_PROTECTION_ENABLED``, ``USE_DEFAULT_BANNED_SUBNETS``). Do not switch the protection
off for it: polling without webhooks is sufficient, or put the receiver at a public address.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.http import (
    LabelStudioHttp,
    RefusedError,
    UncertainError,
)

SECRET_HEADER = "X-Annotation-Hint"
"""The header with the secret."""

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
