"""The decisions of reviewers, and their record in the audit log."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from annotation_platform.audit_log.events import Event
from annotation_platform.audit_log.recording import record_once
from annotation_platform.schema.annotations import Review
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class Decided:
    """The decisions of reviewers so far, by image.

    ``by`` holds the reviewers' pseudonyms, ``at`` the times; ``digest`` changes with any decision.
    """

    reviews: dict[str, Review]
    by: dict[str, str]
    at: dict[str, datetime]
    digest: str

    def without(self, reviewers: Collection[str]) -> "Decided":
        """Return the decisions without those of these reviewers (pseudonyms)."""
        images = {image for image, name in self.by.items() if name not in reviewers}
        return Decided(
            {image: review for image, review in self.reviews.items() if image in images},
            {image: name for image, name in self.by.items() if image in images},
            {image: time for image, time in self.at.items() if image in images},
            self.digest,
        )


def record_reviews(round_id: str, decided: Decided, lake: Lake, *, now: datetime) -> None:
    """Record new decisions of reviewers on a round, each under a pseudonym."""
    events = {}
    for image, review in sorted(decided.reviews.items()):
        by, at = decided.by[image], decided.at[image].isoformat()
        content = json.dumps([image, by, at, review.decision, review.comment])
        facts = {"round": round_id, "decision": review.decision, "decided_at": at}
        name = f"review {hashlib.sha256(content.encode()).hexdigest()[:16]}"
        events[name] = Event("review", image, review.comment, by, facts)
    record_once(f"rounds/{round_id}/noted", events, lake, now=now)
