"""The place where people label."""

from pathlib import Path

import dagster as dg

from annotation_platform.labeling.client import LabelingClient
from annotation_platform.labeling.hints import Hints, Looks
from annotation_platform.labeling.simulated import SimulatedLabeling
from annotation_platform.landing.lake import LandingLake
from annotation_platform.params import Params


class LabelStudioResource(dg.ConfigurableResource[LabelingClient]):
    """A Label Studio server, reached with an access token; it shows the pictures of the lake.

    Where the lake is in S3, endpoint and account come from AWS's own variables.
    """

    url: str
    token: str
    lake: str
    shown: str
    shown_profile: str = ""
    requests_per_second: float | None = None

    def create_resource(self, context: dg.InitResourceContext) -> LabelingClient:
        """Return the client; nothing is connected yet."""
        from annotation_platform.labeling.label_studio import LabelStudioClient
        from annotation_platform.labeling.pictures import picture_place, shown_place

        return LabelStudioClient(
            self.url,
            self.token,
            pictures=picture_place(self.lake),
            shown=shown_place(self.lake, self.shown, self.shown_profile),
            requests_per_second=self.requests_per_second,
        )


class LooksResource(dg.ConfigurableResource[Looks]):
    """How often people's answers are looked at: an interval, and a file of hints that cuts it."""

    hints: str
    poll_seconds: float

    def create_resource(self, context: dg.InitResourceContext) -> Looks:
        """Return the interval and the hints."""
        return Looks(Hints(Path(self.hints)), self.poll_seconds)


class SharedLabelingResource(dg.ConfigurableResource[LabelingClient]):
    """A deployment's own back end, or several where the policy shares rounds with vendors."""

    own: dg.ResourceDependency[LabelingClient]
    lake: dg.ResourceDependency[LandingLake]
    policy: dg.ResourceDependency[Params]

    def create_resource(self, context: dg.InitResourceContext) -> LabelingClient:
        """Return the back ends as one."""
        from annotation_platform.labeling.several import with_vendors

        policy = self.policy
        return with_vendors(self.own, policy.labeling.backends, self.lake.store, seed=policy.seed)


class SimulatedLabelingResource(dg.ConfigurableResource[LabelingClient]):
    """A file in the place of a server, for demonstrations and tests."""

    path: str

    def create_resource(self, context: dg.InitResourceContext) -> LabelingClient:
        """Return the back end that lives in the file."""
        return SimulatedLabeling(Path(self.path))
