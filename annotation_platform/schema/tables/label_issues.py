"""Labels that are probably wrong."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, number, optional_text, states, text


class LabelIssues(Table, name="label_issues", version=2):
    """Labels that are probably wrong and objects that probably lack one, most probable first."""

    round_id = shared.ROUND_ID
    image_id = shared.IMAGE_ID
    issue_id = text("image, kind and running number", key=True)
    kind = states("spurious, swapped, badly_located or overlooked", shared.IssueKind).formerly(
        wrong="spurious", placed="badly_located", missed="overlooked"
    )
    label_id = optional_text("the suspected label; missing for an overlooked object")
    score = number("probability that it is an error", 0, 1)
    class_name = shared.CLASS_NAME
    x1 = shared.X1
    y1 = shared.Y1
    x2 = shared.X2
    y2 = shared.Y2
    suggestion = text("the suggested correction, as a question")
