"""The next round to start, for use without the sensor that polls the landing zone."""

from datetime import datetime

from annotation_platform.errors import NotReadyError
from annotation_platform.ingestion.events import LandingEvents
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.ingestion.watch import watch_landing_zone
from annotation_platform.policy import RoundPolicy
from annotation_platform.schema.tables import LabelTasks


def round_to_start(
    lake: LandingLake, events: LandingEvents, policy: RoundPolicy, *, now: datetime
) -> str:
    """Return the oldest round that is not started; if there is none, form the next round.

    Raises:
        NotReadyError: too few images have landed for a round; the message has the numbers.
    """
    if waiting := _waiting(lake):
        return waiting[0]
    watched = watch_landing_zone(lake, events, policy, list_at=None, now=now)
    if waiting := _waiting(lake):
        return waiting[0]
    raise NotReadyError(f"There is no round to start. {watched.waits_for}")


def _waiting(lake: LandingLake) -> list[str]:
    rounds = lake.manifests.rounds()
    return [key for key in rounds if not lake.tables.exists(LabelTasks, key)]
