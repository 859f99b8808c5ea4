"""The arguments that every step of a labelling round takes."""

from dataclasses import dataclass
from datetime import datetime

from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.policy import Policy
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class LabelingContext:
    """A round and what publishing its tasks needs.

    Attributes:
        round_id: the round.
        labeling: the back end in which people annotate.
        lake: the tables, journals and images.
        policy: the current policy.
        now: the time, UTC.
    """

    round_id: str
    labeling: LabelingBackend
    lake: Lake
    policy: Policy
    now: datetime
