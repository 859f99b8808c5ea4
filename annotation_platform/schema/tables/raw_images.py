"""Arrivals as they landed."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, count, optional_text, text


class RawImages(Table, name="raw_images", version=2):
    """One row per landed object."""

    round_id = shared.ROUND_ID.as_key()
    source_key = shared.SOURCE_KEY.as_key()
    arrival_version = shared.ARRIVAL_VERSION.as_key()
    image_id = shared.LANDED_IMAGE_ID
    parent_id = shared.PARENT_ID
    frame_index = shared.FRAME_INDEX
    timestamp_seconds = shared.TIMESTAMP_SECONDS
    byte_size = count("size of the landed bytes", unit="bytes")
    problem = text("why it or its metadata could not be read; empty if they could")
    source = shared.SOURCE
    captured_at = shared.CAPTURED_AT
    latitude = shared.LATITUDE
    longitude = shared.LONGITUDE
    device = shared.DEVICE
    licence = shared.LICENCE
    consent = shared.CONSENT
    other_metadata = shared.OTHER_METADATA
    sidecar_sha256 = optional_text("SHA-256 of its sidecar as it landed", pattern=shared.SHA256)
