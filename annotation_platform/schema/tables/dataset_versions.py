"""Published versions."""

from annotation_platform.schema.tables.shared import ROUND_ID
from annotation_platform.schema.tables.table import Table, count, flag, text


class DatasetVersions(Table, name="dataset_version"):
    """The version that a round's release published or confirmed."""

    round_id = ROUND_ID.as_key()
    version = text("MAJOR.MINOR.PATCH", pattern=r"^\d+\.\d+\.\d+$")
    tag = text("git tag in the registry")
    commit = text("git commit in the registry")
    folder_md5 = text("DVC's digest of the folder", pattern=r"^[0-9a-f]{32}\.dir$")
    images = count("images in the version")
    boxes = count("boxes in the version")
    train_images = count("images of the train split")
    val_images = count("images of the val split")
    test_images = count("images of the test split")
    new_version = flag("false: the content was published before under this version")
