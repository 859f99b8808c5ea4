"""Arrivals after cleaning."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import (
    Table,
    count,
    number,
    optional_text,
    states,
    text,
)


class CleanedImages(Table, name="cleaned_images", version=2):
    """One row per row of raw_images: accepted, duplicate of which, or quarantined and why."""

    round_id = shared.ROUND_ID.as_key()
    source_key = shared.SOURCE_KEY.as_key()
    arrival_version = shared.ARRIVAL_VERSION.as_key()
    image_id = shared.LANDED_IMAGE_ID
    outcome = states("outcome of cleaning", shared.Outcome)
    reason = text("why it was quarantined, or the kind of duplicate; empty if accepted")
    duplicate_of = optional_text("image_id of the accepted image it repeats", pattern=shared.SHA256)
    similar_to = optional_text(
        "image_id of the most similar accepted image: cropped, stamped, mirrored or turned",
        pattern=shared.SHA256,
    )
    group_id = optional_text(
        "image_id that names its group of near-duplicates", pattern=shared.SHA256
    )
    joins = text("further groups of similar images, comma separated")
    width = count("pixels of the stored image; 0 if it was never decoded", unit="pixels")
    height = count("pixels of the stored image; 0 if it was never decoded", unit="pixels")
    extension = text("true file extension of the stored bytes; empty if nothing was stored")
    stored_sha256 = optional_text("SHA-256 of the stored bytes", pattern=shared.SHA256)
    stored_md5 = optional_text(
        "MD5 of the stored bytes: DVC's name of the file", pattern=shared.MD5
    )
    stored_bytes = count("size of the stored bytes; 0 if nothing was stored", unit="bytes")
    pixel_sha256 = optional_text("SHA-256 of mode, size and pixels", pattern=shared.SHA256)
    perceptual_hash = optional_text("64-bit pHash, 16 hex digits", pattern=r"^[0-9a-f]{16}$")
    sharpness = number("variance of the Laplacian of the grey image", 0)
    brightness = number("mean grey value, 0 to 255", 0, 255)
    entropy = number("Shannon entropy of the histogram of grey values, in bits", 0, 8, unit="bits")
    flags = text("findings and changes, comma separated")
