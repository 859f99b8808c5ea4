"""AWS Lambda on the landing bucket's events: takes objects into the lake as they land.

Optional. The sensor finds everything by itself; with this, the bytes are in the lake before their
round starts. Give the function the platform's environment (``ANNOTATION_LANDING``,
``ANNOTATION_LAKE``, ``ANNOTATION_RECEIPTS``) and subscribe it to ``s3:ObjectCreated:*``. Events
may come twice, late or out of order: every write is conditional.
"""

import json
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.ingestion.events import created_keys
from annotation_platform.ingestion.ingest import store_image
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.ingestion.landing_zone import S3LandingZone
from annotation_platform.settings import read_settings
from annotation_platform.storage.erasures import Erasures


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Store the objects of one event; return their image ids, and what could not be stored."""
    lake = lake_of(read_settings())
    place = lake.landing
    if not isinstance(place, S3LandingZone):
        raise TypeError("ANNOTATION_LANDING must be the s3:// place that the events are of")
    stored, problems = {}, {}
    for bucket, key in created_keys(json.dumps(event)):
        landed = place.find(bucket, key)
        if landed is None:
            continue
        try:
            stored[landed.key] = store_image(
                landed, place, lake.store, lake.receipts, Erasures(lake.store)
            )
        except DataError as error:
            problems[landed.key] = str(error)
    return {"stored": stored, "problems": problems}
