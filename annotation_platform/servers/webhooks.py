"""Label Studio's webhooks while the platform runs: received as hints, and kept registered.

They only hasten the next look: where they cannot be sent, one sentence says so and polling goes on.
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

_LOOK_SECONDS = 15.0
_PATIENCE_SECONDS = 10.0


@contextmanager
def received_change_signals(settings: Settings) -> Iterator[str]:
    """Take webhooks as hints until the block ends; yield the secret that they must hold.

    The secret is that of the settings, or one that is drawn now and kept nowhere but in this
    process and in Label Studio. Without ``ANNOTATION_WEBHOOK_URL`` nothing listens, and the secret
    is empty.

    Raises:
        SettingsError: the port is taken.
    """
    if not settings.webhook_url:
        yield ""
        return
    secret = settings.webhook_secret.get_secret_value() or secrets.token_hex(20)
    hints = ChangeSignals(settings.change_signals_path)
    with ChangeSignalReceiver(
        secret=secret,
        on_change=lambda _: hints.give(),
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
    look_seconds: float = _LOOK_SECONDS,
) -> Iterator[None]:
    """Keep one webhook registered for each project of the lake's rounds until the block ends.

    Projects are made by runs, elsewhere, so a thread looks for new ones. They stay registered
    afterwards; the next start replaces them.

    Args:
        http: The server, and its administrator.
        lake: Whose rounds.
        url: Where the server reaches the receiver; empty registers nothing.
        secret: What the receiver expects.
        say: Is told once, from whichever thread, what stands in the way.
        look_seconds: Between two looks.
    """
    if not url:
        yield
        return
    said = ""
    try:
        check_webhooks(http, url, secret)
    except LabelingError as error:
        said = str(error)
        say(said)
    over = threading.Event()

    def keep(said: str) -> None:
        while not over.is_set():
            try:
                rounds = lake.manifests.rounds()
                titles = {*rounds, *map(review_round, rounds)}
                register_webhooks(http, titles, url=url, secret=secret)
            except AnnotationPlatformError as error:
                # The next look is the remedy, and polling needs none of this.
                if str(error) != said:
                    said = str(error)
                    say(said)
            over.wait(look_seconds)

    keeper = threading.Thread(target=keep, args=(said,), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join(_PATIENCE_SECONDS)
