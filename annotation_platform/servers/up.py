"""The command ``up``: Label Studio, Dagster and the page of all rounds on one home."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.image_sources import private_endpoint
from annotation_platform.labeling.backends.label_studio.running import TOKEN_VARIABLE
from annotation_platform.policy import read_policy
from annotation_platform.servers.dagster import DagsterServers
from annotation_platform.servers.front_page import front_page
from annotation_platform.servers.home import locked_home, make_home
from annotation_platform.servers.label_studio import LabelStudioServer
from annotation_platform.servers.webhooks import received_change_signals, registered_webhooks
from annotation_platform.settings import Settings
from annotation_platform.storage.s3 import is_s3
from annotation_platform.versioning.mirror import open_registry
from annotation_platform.versioning.registry import check_registry

_POLL_SECONDS = 1.0


def serve(
    settings: Settings,
    *,
    port: int,
    label_studio_port: int,
    page_port: int,
    say: Callable[[str], None],
    forever: Callable[[DagsterServers], None] | None = None,
) -> None:
    """Run the servers until Ctrl-C, or until ``forever`` returns.

    If ``ANNOTATION_LABEL_STUDIO_TOKEN`` is set, the Label Studio at
    ``ANNOTATION_LABEL_STUDIO_URL`` is used and none is started. If ``ANNOTATION_WEBHOOK_URL`` is
    set, its webhooks are received and trigger the next poll early; polling works without them.

    Raises:
        SettingsError: the home cannot be written, the policy is wrong, a bucket cannot be used, or
            a server does not start.
    """
    policy = read_policy(settings.policy_path)
    # An unusable registry is found now, not at the first release.
    check_registry(open_registry(settings.registry_place, settings.mirrors_path))
    with ExitStack() as stack:
        stack.enter_context(locked_home(settings.home_path))
        make_home(settings)
        secret = stack.enter_context(received_change_signals(settings))
        shown = settings.shown_url if policy.masking.classes else settings.lake_url
        url, token = _label_studio(stack, settings, shown, label_studio_port, say)
        settings = settings.model_copy(update={"label_studio_url": url})
        (settings.home_path / "servers.json").write_text(json.dumps({"label_studio": url}) + "\n")
        rate = settings.label_studio_requests_per_second
        stack.enter_context(
            registered_webhooks(
                LabelStudioHttp(url, token, requests_per_second=rate),
                lake_of(settings),
                url=settings.webhook_url,
                secret=secret,
                say=say,
            )
        )
        page = stack.enter_context(front_page(settings, port=page_port))
        settings = settings.model_copy(update={"pages_url": page.url})
        dagster = stack.enter_context(
            DagsterServers(settings, secrets={TOKEN_VARIABLE: token}, port=port)
        )
        page.links |= {"Dagster": dagster.url, "Label Studio": url}
        say(f"put images into  {settings.landing_url}")
        say(f"label at         {url}")
        say(f"rounds           {page.url}  (all rounds, their reports and versions)")
        say(f"assets           {dagster.url}  (Dagster: every asset and run)")
        rounds = policy.rounds
        say(
            f"A round starts with {rounds.minimum_images} images, or when the first has waited "
            f"{rounds.maximum_wait_seconds:g} s. Ctrl-C stops everything."
        )
        (forever or _until_interrupted)(dagster)


def _label_studio(
    stack: ExitStack, settings: Settings, shown: str, port: int, say: Callable[[str], None]
) -> tuple[str, str]:
    """Return address and token of the Label Studio to use; a started one stops with ``stack``.

    ``shown`` is the folder or S3 prefix of the images that it may show; it reaches no others.
    """
    token = settings.label_studio_token.get_secret_value()
    if token:
        return settings.label_studio_url, token
    say("Label Studio is starting; its first boot takes about a minute …")
    server = stack.enter_context(
        LabelStudioServer(
            settings.home_path / "label-studio",
            document_root=None if is_s3(shown) else Path(shown),
            secrets_path=settings.secrets_path,
            s3_endpoint=private_endpoint() if is_s3(shown) else "",
            port=port,
        )
    )
    say(f"log in as        {server.administrator.email}")
    say(f"its password     in {settings.secrets_path} (label_studio.password)")
    return server.url, server.administrator.token


def _until_interrupted(dagster: DagsterServers) -> None:
    while True:
        dagster.check()
        time.sleep(_POLL_SECONDS)
