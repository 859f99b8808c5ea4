"""The places where people label, as a deployment's settings and policy name them."""

from annotation_platform.labeling.client import LabelingClient
from annotation_platform.params import Params
from annotation_platform.settings import Settings
from annotation_platform.storage.lake import Lake


def labeling_of(settings: Settings, lake: Lake, policy: Params) -> LabelingClient:
    """Return where people label, for a person's command; nothing is connected yet.

    Raises:
        SettingsError: Label Studio is asked for and no token is there.
    """
    from annotation_platform.labeling.several import with_vendors

    own = _own(settings)
    return with_vendors(own, policy.labeling.backends, lake.store, seed=policy.seed)


def _own(settings: Settings) -> LabelingClient:
    if settings.labeling == "simulated":
        from annotation_platform.labeling.simulated import SimulatedLabeling

        return SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    from annotation_platform.labeling.label_studio import LabelStudioClient
    from annotation_platform.labeling.pictures import picture_place, shown_place
    from annotation_platform.servers.up import running_label_studio

    url, token = running_label_studio(settings)
    return LabelStudioClient(
        url,
        token,
        pictures=picture_place(settings.lake_url),
        shown=shown_place(settings.lake_url, settings.shown_url, settings.shown_profile),
        requests_per_second=settings.label_studio_requests_per_second,
    )
