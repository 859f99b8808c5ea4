"""One look at the landing zone: whether it is time for one, and the round it forms."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from annotation_platform.ingestion.events import LandingEvents
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.ingestion.rounds import plan_round
from annotation_platform.policy import RoundPolicy


@dataclass(frozen=True)
class Watched:
    """What a look led to.

    ``waits_for`` says why there is no new round, empty if one was formed; the place is listed
    again at ``list_at``, or before if an event hints at something new.
    """

    waits_for: str
    list_at: datetime


def watch_landing_zone(
    lake: LandingLake,
    events: LandingEvents,
    policy: RoundPolicy,
    *,
    list_at: datetime | None,
    now: datetime,
    policy_digest: str = "",
) -> Watched:
    """Form the next round from what has landed, if that is enough, by one atomic create.

    Without a queue of events the place is listed every time. With one, it is listed when an event
    came, when waiting alone may have made a round due, and at least every ``listing_seconds``:
    events may be lost. ``list_at`` is what the last look said, None if that is not known. The
    round records ``policy_digest``, the digest of the whole policy.
    """
    hints = events.receive()
    if events.url and not hints.keys and list_at is not None and now < list_at:
        events.forget(hints)
        left = (list_at - now).total_seconds()
        return Watched(f"No event; the next listing is in {left:.0f} s.", list_at)
    taken = lake.manifests.taken()
    plan = plan_round(lake.landed(now=now), taken.objects, policy)
    if plan.objects:
        lake.manifests.create(taken.next_round, plan.objects, policy_digest=policy_digest)
    events.forget(hints)
    # After a round was formed there may be enough for another one.
    wait = 0.0 if plan.objects else plan.poll_again_seconds
    again = min(policy.listing_seconds, policy.listing_seconds if wait is None else wait)
    return Watched(plan.waits_for, now + timedelta(seconds=again))
