"""Vectors of images."""

from annotation_platform.schema.tables.shared import IMAGE_ID, ROUND_ID
from annotation_platform.schema.tables.table import Column, Table, text


class ImageEmbeddings(Table, name="image_embeddings"):
    """One vector per accepted image."""

    round_id = ROUND_ID
    image_id = IMAGE_ID.as_key()
    embedder = text("name and version of the embedder", key=True)
    vector = Column("object", "float32 values of unit length")
