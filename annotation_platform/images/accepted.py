"""The images that cleaning accepted."""

from annotation_platform.schema.tables import CleanedImages, Frame
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.round_tables import RoundTables


def accepted_images(tables: RoundTables) -> Frame[CleanedImages]:
    """Return the accepted images of all rounds."""
    return only_accepted(tables.read_all(CleanedImages))


def only_accepted(images: Frame[CleanedImages]) -> Frame[CleanedImages]:
    """Return the rows of accepted images, with a new index."""
    return images[images[CleanedImages.outcome] == Outcome.ACCEPTED].reset_index(drop=True)
