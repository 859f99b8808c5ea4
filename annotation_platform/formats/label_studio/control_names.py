"""Names in the labelling configuration, which the regions of an annotation refer to."""

IMAGE_NAME = "image"
"""The name of the image in the configuration; results carry it as ``to_name``."""

UNSURE_NAME = "unsure"
"""The name of the control for unsure annotators, and of its only choice."""

NOTE_NAME = "note"
"""The name in a task's data of the reviewer's comment on its last labels."""

CONFLICTS_NAME, DECISION_NAME, REASON_NAME, COMMENT_NAME = (
    "conflicts",
    "decision",
    "reason",
    "comment",
)
"""The names in a review: the conflicts, the decision, the reason and the comment."""

ACCEPT, REJECT = "accept", "reject"
"""The two decisions of a review."""
