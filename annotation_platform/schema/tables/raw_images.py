"""Arrivals as they landed."""

from annotation_platform.schema.tables.shared import (
    CAPTURED_AT,
    CONSENT,
    DEVICE,
    FRAME_INDEX,
    LANDED_IMAGE_ID,
    LATITUDE,
    LICENCE,
    LONGITUDE,
    OTHER_METADATA,
    PARENT_ID,
    ROUND_ID,
    SHA256,
    SOURCE,
    SOURCE_KEY,
    STAMP,
    TIMESTAMP_SECONDS,
)
from annotation_platform.schema.tables.table import Table, count, optional_text, text


class RawImages(Table, name="raw_images", version=2):
    """One row per landed object."""

    round_id = ROUND_ID.as_key()
    source_key = SOURCE_KEY.as_key()
    stamp = STAMP.as_key()
    image_id = LANDED_IMAGE_ID
    parent_id = PARENT_ID
    frame_index = FRAME_INDEX
    timestamp_seconds = TIMESTAMP_SECONDS
    byte_size = count("bytes as they landed", unit="bytes")
    problem = text("why it or its metadata could not be read; empty if they could")
    source = SOURCE
    captured_at = CAPTURED_AT
    latitude = LATITUDE
    longitude = LONGITUDE
    device = DEVICE
    licence = LICENCE
    consent = CONSENT
    other_metadata = OTHER_METADATA
    sidecar_sha256 = optional_text("SHA-256 of its sidecar as it landed", pattern=SHA256)
