"""A landing zone and a lake, in folders and in S3: what holds for one holds for the other."""

from datetime import UTC, datetime, timedelta

import pytest

from annotation_platform.ingestion.events import LandingEvents
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.ingestion.watch import watch_landing_zone
from annotation_platform.policy import RoundPolicy

EAGER = RoundPolicy(minimum_images=1, settle_seconds=0)
NO_EVENTS = LandingEvents("", "")


def form_round(lake, *, policy=EAGER, after=1.0):
    """Return the round that a look some seconds from now forms, or what it waits for."""
    before = lake.manifests.rounds()
    now = datetime.now(UTC) + timedelta(seconds=after)
    watched = watch_landing_zone(lake, NO_EVENTS, policy, list_at=None, now=now)
    new = [key for key in lake.manifests.rounds() if key not in before]
    return new[0] if new else watched.waits_for


@pytest.fixture
def lake(tmp_path):
    (tmp_path / "landing").mkdir()
    return open_lake(tmp_path / "lake", tmp_path / "landing")


@pytest.fixture
def s3_lake(s3_bucket, tmp_path):
    return open_lake(
        f"s3://{s3_bucket}/lake", f"s3://{s3_bucket}/landing", cache=tmp_path / "cache"
    )


@pytest.fixture(params=["lake", "s3_lake"])
def any_lake(request):
    return request.getfixturevalue(request.param)
