"""The resources of a deployment, built from its settings."""

import dagster as dg
from pydantic import SecretStr

from annotation_platform.registry_address import is_address
from annotation_platform.settings import PROJECT_ROOT, Settings
from resources.alerting import AlertingResource
from resources.labeling import PollScheduleResource, labeling_resource
from resources.models import ModelRegistryResource
from resources.pages import PagesResource
from resources.publishing import VersionStoreResource
from resources.storage import (
    LakeResource,
    LandingEventsResource,
    PolicyResource,
    TableIOManager,
)

_REGISTRY = "ANNOTATION_REGISTRY"
_ALERT_WEBHOOK = "ANNOTATION_ALERT_WEBHOOK"
_ALERT_SLACK = "ANNOTATION_ALERT_SLACK"
_ALERT_SMTP = "ANNOTATION_ALERT_SMTP"


def build_resources(settings: Settings) -> dict[str, object]:
    """Return the resources of a deployment, by the names that assets and sensors use."""
    lake = LakeResource(
        lake=settings.lake_url,
        landing=settings.landing_url,
        cache=str(settings.cache_path),
        audit=str(settings.audit_path),
        receipts=settings.receipts,
        shown=settings.shown_url,
        runner=settings.runner,
    )
    policy = PolicyResource(path=str(settings.policy_path))
    return {
        "io_manager": TableIOManager(lake=lake),
        "lake": lake,
        "landing_events": LandingEventsResource(
            url=settings.landing_queue, landing=settings.landing_url
        ),
        "policy": policy,
        "labeling": labeling_resource(settings),
        "poll_schedule": PollScheduleResource(
            change_signals=str(settings.change_signals_path),
            poll_seconds=settings.labeling_poll_seconds,
        ),
        "alerting": AlertingResource(
            webhook=_secret(_ALERT_WEBHOOK, settings.alert_webhook),
            slack=_secret(_ALERT_SLACK, settings.alert_slack),
            email=settings.alert_email,
            sender=settings.alert_from,
            smtp=_secret(_ALERT_SMTP, settings.alert_smtp),
            stalled_hours=settings.alert_stalled_hours,
        ),
        "pages": PagesResource(url=settings.pages_url.rstrip("/")),
        "models": ModelRegistryResource(folder=str(settings.models_path)),
        "versions": VersionStoreResource(
            # Dagster shows configuration to all users, and an address can hold a token.
            registry=dg.EnvVar(_REGISTRY)
            if is_address(settings.registry)
            else settings.registry_place,
            remote_url=settings.remote_url,
            source_root=str(PROJECT_ROOT),
            mirrors=str(settings.mirrors_path),
        ),
    }


def _secret(variable: str, value: SecretStr) -> str:
    """Return a reference to a secret, not its value: Dagster shows configuration to all users.

    It is empty if the secret is not set: the definitions load without it.
    """
    return dg.EnvVar(variable) if value.get_secret_value() else ""
