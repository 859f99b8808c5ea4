"""Which split an image belongs to: drawn once for its group of look-alikes, and kept for ever."""

import hashlib
from collections.abc import Iterable

import pandas as pd

from annotation_platform.params import SplitPolicy
from annotation_platform.schema.tables import SPLITS, make_table


def draw_splits(
    groups: Iterable[str], known: pd.DataFrame, policy: SplitPolicy, *, seed: int, round_id: str
) -> pd.DataFrame:
    """Return the ``splits`` rows for those of ``groups`` that have none in ``known``.

    New groups are taken in an order that only their names and the seed decide; each goes to the
    split that is furthest below its share. So the shares hold from the first round on, a group
    that was drawn keeps its split, and the order in which images arrived does not matter.

    Args:
        groups: group ids, repeats allowed.
        known: a ``splits`` table with every group drawn so far.
        policy: the shares, which add up to one.
        seed: changes the order of drawing.
        round_id: written beside what is drawn now.
    """
    drawn = set(known["group_id"])
    new = sorted(set(groups) - drawn, key=lambda group: _order(group, seed))
    shares = {"train": policy.train, "val": policy.val, "test": policy.test}
    counts = {split: int((known["split"] == split).sum()) for split in SPLITS}
    rows: list[dict[str, object]] = []
    for group in new:
        total = sum(counts.values()) + 1
        split = max(SPLITS, key=lambda name: shares[name] * total - counts[name])
        counts[split] += 1
        rows.append({"round_id": round_id, "group_id": group, "split": split})
    return make_table("splits", rows)


def _order(group: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
