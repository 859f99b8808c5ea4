"""The Label Studio of a deployment: the configured one, or the one that ``up`` started."""

import json

from annotation_platform.errors import SettingsError
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.image_sources import (
    image_source,
    shown_source,
)
from annotation_platform.labeling.rate_limiter import Timing
from annotation_platform.settings import Settings
from annotation_platform.storage.objects import ObjectStore

TOKEN_VARIABLE = "ANNOTATION_LABEL_STUDIO_TOKEN"


def running_label_studio(settings: Settings) -> tuple[str, str]:
    """Return address and token of the Label Studio in use; a SettingsError if there is none."""
    token = settings.label_studio_token.get_secret_value()
    if token:
        return settings.label_studio_url, token
    try:
        servers = json.loads((settings.home_path / "servers.json").read_text())
        secrets = json.loads(settings.secrets_path.read_text())
        return str(servers["label_studio"]), str(secrets["label_studio"]["token"])
    except (OSError, KeyError, ValueError) as error:
        raise SettingsError(
            f"{settings.home_path}: no Label Studio was started here. Run `annotation-platform up` "
            f"first, or set ANNOTATION_LABEL_STUDIO_URL and {TOKEN_VARIABLE}."
        ) from error


def from_settings(settings: Settings, store: ObjectStore) -> LabelStudioClient:  # noqa: ARG001
    """Return the configured Label Studio of a deployment, or the one that ``up`` started.

    Raises:
        SettingsError: no token is set, and no Label Studio was started in this home.
    """
    url, token = running_label_studio(settings)
    return LabelStudioClient(
        url,
        token,
        images=image_source(settings.lake_url),
        shown=shown_source(settings.lake_url, settings.shown_url, settings.shown_profile),
        timing=Timing(requests_per_second=settings.label_studio_requests_per_second),
    )
