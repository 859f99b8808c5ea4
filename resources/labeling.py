"""Where people annotate, and how often their annotations are looked at."""

from pathlib import Path

import dagster as dg

from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.backends.registry import check_backend, labeling_of
from annotation_platform.labeling.change_signals import ChangeSignals, PollSchedule
from annotation_platform.settings import Settings


class PollScheduleResource(dg.ConfigurableResource[PollSchedule]):
    """How often people's answers are looked at: an interval, and a file of hints that cuts it."""

    hints: str
    poll_seconds: float

    def create_resource(self, context: dg.InitResourceContext) -> PollSchedule:
        """Return the interval and the hints."""
        return PollSchedule(ChangeSignals(Path(self.hints)), self.poll_seconds)


def labeling_resource(settings: Settings) -> dg.ResourceDefinition:
    """Return the back end that a deployment's settings name, shared with others by policy.

    It has no configuration: a launch can change neither the address nor the token, and neither
    is shown. Where something is missing, such as a token, what needs the back end says so.

    Raises:
        SettingsError: no back end has the name.
    """
    check_backend(settings.labeling)

    def make(context: dg.InitResourceContext) -> LabelingBackend:
        parts = context.resources
        return labeling_of(settings, parts.lake.store, parts.policy)

    return dg.ResourceDefinition(
        make,
        description=f"The labelling back end {settings.labeling}, shared with others by policy.",
        required_resource_keys={"lake", "policy"},
    )
