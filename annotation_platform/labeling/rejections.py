"""What annotators are told about images whose last labels were rejected."""

from annotation_platform.schema.tables import ReviewedLabels
from annotation_platform.storage.round_tables import RoundTables

_REJECTED = "A reviewer rejected the last labels of this image: "


def rejections(tables: RoundTables) -> dict[str, str]:
    """Return the note for each image whose latest labels a reviewer rejected, by its id."""
    reviewed = tables.read_all(ReviewedLabels).sort_values("round_id", kind="stable")
    last = reviewed.drop_duplicates("image_id", keep="last")
    rejected = last[last["decision"] == "rejected"]
    why = _REJECTED + rejected["comment"]
    return dict(zip(rejected["image_id"], why, strict=True))
