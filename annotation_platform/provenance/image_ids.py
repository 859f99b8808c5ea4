"""Find a landed image by its id or a prefix of it."""

from annotation_platform.errors import DataError
from annotation_platform.schema.tables import RawImages
from annotation_platform.storage.erasures import Erasures
from annotation_platform.storage.lake import Lake


def find_image(prefix: str, lake: Lake) -> str:
    """Return the id of the one landed image with this prefix; otherwise raise a DataError."""
    ids = lake.tables.read_all(RawImages)[RawImages.image_id].dropna()
    found = sorted(set(ids[ids.str.startswith(prefix.lower())])) if prefix else []
    if len(found) == 1:
        return str(found[0])
    erased = Erasures(lake.store).find(prefix.lower())
    if not found and erased is not None:
        raise DataError(f"{prefix}: was {erased.sentence}. No data of it is left.")
    if not found:
        raise DataError(
            f'{prefix}: no landed image has this id. `annotation-platform catalog query "SELECT '
            'image_id, source_key FROM raw_images"` lists them.'
        )
    raise DataError(
        f"{prefix}: {len(found)} images have this prefix, among them {found[0]} and {found[1]}. "
        "Give more digits."
    )
