"""Notes for annotators about images whose last labels were rejected."""

from annotation_platform.schema.tables import ReviewedLabels
from annotation_platform.schema.tables.shared import ReviewDecision
from annotation_platform.storage.round_tables import RoundTables

_REJECTED = "A reviewer rejected the last labels of this image: "


def rejections(tables: RoundTables) -> dict[str, str]:
    """Return the note for each image whose latest labels a reviewer rejected, by its id."""
    reviewed = tables.read_all(ReviewedLabels).sort_values(ReviewedLabels.round_id, kind="stable")
    last = reviewed.drop_duplicates(ReviewedLabels.image_id, keep="last")
    rejected = last[last[ReviewedLabels.decision] == ReviewDecision.REJECTED]
    notes = _REJECTED + rejected[ReviewedLabels.comment]
    return dict(zip(rejected[ReviewedLabels.image_id], notes, strict=True))
