"""Label Studio's webhooks while the platform runs: received as change signals, kept registered.

They only trigger the next poll early. If they cannot be sent, one message says so and polling
continues.
"""

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from annotation_platform.errors import AnnotationPlatformError, LabelingError
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.webhooks import (
    ChangeSignalReceiver,
    check_webhooks,
    register_webhooks,
)
from annotation_platform.labeling.change_signals import ChangeSignals
from annotation_platform.labeling.reviews import review_round
from annotation_platform.settings import Settings

_REGISTER_SECONDS = 15.0
_PATIENCE_SECONDS = 10.0


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
    with ChangeSignalReceiver(
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
