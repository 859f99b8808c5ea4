"""The labelling back end, and the schedule on which it is polled."""

from pathlib import Path

import dagster as dg

from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.backends.registry import check_backend, labeling_of
from annotation_platform.labeling.change_signals import ChangeSignals, PollSchedule
from annotation_platform.settings import Settings


class PollScheduleResource(dg.ConfigurableResource[PollSchedule]):
    """The poll schedule of the back end: an interval that a file of change signals cuts short."""

    change_signals: str
    poll_seconds: float

    def create_resource(self, context: dg.InitResourceContext) -> PollSchedule:
        """Return the interval and the change signals."""
        return PollSchedule(ChangeSignals(Path(self.change_signals)), self.poll_seconds)


def labeling_resource(settings: Settings) -> dg.ResourceDefinition:
    """Return the back end that the settings name; by policy it shares tasks with other back ends.

    It has no configuration, so a launch can change neither the address nor the token, and neither
    is shown. A missing setting, such as a token, raises an error when the back end is used.

    Raises:
        SettingsError: no back end has the name.
    """
    check_backend(settings.labeling)

    def make(context: dg.InitResourceContext) -> LabelingBackend:
        resources = context.resources
        return labeling_of(settings, resources.lake.store, resources.policy)

    return dg.ResourceDefinition(
        make,
        description=f"The labelling back end {settings.labeling}, shared with others by policy.",
        required_resource_keys={"lake", "policy"},
    )
