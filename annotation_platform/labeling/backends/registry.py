"""The places where people label, as a deployment's settings and policy name them."""

from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from annotation_platform.settings import Settings


def labeling_of(settings: Settings, lake: Lake, policy: Params) -> LabelingBackend:
    """Return where people label, for a person's command; nothing is connected yet.

    Raises:
        SettingsError: Label Studio is asked for and no token is there.
    """
    from annotation_platform.labeling.backends.several import with_vendors

    own = _own(settings)
    return with_vendors(own, policy.labeling.backends, lake.store, seed=policy.seed)


def _own(settings: Settings) -> LabelingBackend:
    if settings.labeling == "simulated":
        from annotation_platform.labeling.backends.simulated import SimulatedLabeling

        return SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
    from annotation_platform.labeling.backends.label_studio.pictures import (
        picture_place,
        shown_place,
    )
    from annotation_platform.servers.up import running_label_studio

    url, token = running_label_studio(settings)
    return LabelStudioClient(
        url,
        token,
        pictures=picture_place(settings.lake_url),
        shown=shown_place(settings.lake_url, settings.shown_url, settings.shown_profile),
        requests_per_second=settings.label_studio_requests_per_second,
    )
