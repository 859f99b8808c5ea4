"""The conflicts of a round, with the label issues that were sent to review."""

from annotation_platform.curation.label_issues import with_suspects
from annotation_platform.schema.tables import (
    Conflicts,
    ConsensusLabels,
    Frame,
    LabelIssues,
    ReviewTasks,
)
from annotation_platform.storage.round_tables import RoundTables


def open_conflicts(tables: RoundTables, round_id: str) -> Frame[Conflicts]:
    """Return the ``conflicts`` of a round and the issues for which images are under review.

    Lakes of v0.1.0 hold these issues in the table itself; they are counted once.
    """
    conflicts, issues, consensus, tasks = (
        tables.read_rounds(table, [round_id])
        for table in (Conflicts, LabelIssues, ConsensusLabels, ReviewTasks)
    )
    is_suspect = tasks[ReviewTasks.kinds].str.contains("suspected ")
    under_review = tasks.loc[is_suspect, ReviewTasks.image_id]
    return with_suspects(
        conflicts, issues[issues[LabelIssues.image_id].isin(under_review)], consensus
    )
