"""Which adapters a deployment uses, from its settings."""

import dagster as dg

from annotation_platform.settings import PROJECT_ROOT, Settings
from annotation_platform.versioning.address import is_address
from resources.labeling import (
    LabelStudioResource,
    LooksResource,
    SharedLabelingResource,
    SimulatedLabelingResource,
)
from resources.models import ModelRegistryResource
from resources.publishing import VersionStoreResource
from resources.storage import (
    LakeResource,
    LandingEventsResource,
    PolicyResource,
    TableIOManager,
)

_TOKEN = "ANNOTATION_LABEL_STUDIO_TOKEN"
_REGISTRY = "ANNOTATION_REGISTRY"


def build_resources(settings: Settings) -> dict[str, object]:
    """Return the resources of a deployment by the names that assets and sensors ask for."""
    lake = LakeResource(
        lake=settings.lake_url,
        landing=settings.landing_url,
        cache=str(settings.cache_path),
        audit=str(settings.audit_path),
        receipts=settings.receipts,
        shown=settings.shown_url,
        runner=settings.runner,
    )
    policy = PolicyResource(path=str(settings.params_path))
    labeling: LabelStudioResource | SimulatedLabelingResource
    if settings.labeling == "simulated":
        path = settings.home_path / "simulated-labeling.sqlite"
        labeling = SimulatedLabelingResource(path=str(path))
    else:
        labeling = LabelStudioResource(
            url=settings.label_studio_url,
            # Without the variable the definitions load all the same; what needs it says so.
            token=dg.EnvVar(_TOKEN) if settings.label_studio_token.get_secret_value() else "",
            lake=settings.lake_url,
            shown=settings.shown_url,
            shown_profile=settings.shown_profile,
            requests_per_second=settings.label_studio_requests_per_second,
        )
    return {
        "io_manager": TableIOManager(lake=lake),
        "lake": lake,
        "landing_events": LandingEventsResource(
            url=settings.landing_queue, landing=settings.landing_url
        ),
        "policy": policy,
        "labeling": SharedLabelingResource(own=labeling, lake=lake, policy=policy),
        "looks": LooksResource(
            hints=str(settings.hints_path), poll_seconds=settings.labeling_poll_seconds
        ),
        "models": ModelRegistryResource(folder=str(settings.models_path)),
        "versions": VersionStoreResource(
            # What is configured is shown to everybody, and there may be a token in an address.
            registry=dg.EnvVar(_REGISTRY)
            if is_address(settings.registry)
            else settings.registry_place,
            remote_url=settings.remote_url,
            source_root=str(PROJECT_ROOT),
            mirrors=str(settings.mirrors_path),
        ),
    }
