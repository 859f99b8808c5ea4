"""Which Label Studio a deployment uses: the one that is set, or the one that ``up`` started."""

import json

from annotation_platform.errors import SettingsError
from annotation_platform.settings import Settings

TOKEN_VARIABLE = "ANNOTATION_LABEL_STUDIO_TOKEN"


def running_label_studio(settings: Settings) -> tuple[str, str]:
    """Return address and token of the Label Studio in use; SettingsError if there is none."""
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
