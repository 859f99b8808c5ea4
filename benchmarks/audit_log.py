"""What the audit log costs.

    python benchmarks/audit_log.py

Processor time, in one process and a folder: a line of the log of uses, chained and without a chain;
checking the chain; noting an event, and that a policy is the same, behind so many events already.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from annotation_platform.audit_log.events import Event, EventLog
from annotation_platform.audit_log.recording import record_policy
from annotation_platform.ingestion.lake import LakeUsage, open_lake
from annotation_platform.policy import read_policy
from annotation_platform.settings import PROJECT_ROOT
from annotation_platform.storage.audited import AccessLog
from annotation_platform.storage.chain import check_chain

LINES = 20_000
EVENTS = 2_000
KEY = "ledger/answers/round-0001/000001.jsonl"


def who() -> dict[str, str]:
    """Return what a run says of itself."""
    return {
        "author": "sensor labeling_complete_sensor",
        "reason": "merge_round of round-0001",
        "run": "0" * 36,
        "asset": "human_labels",
    }


def write_unchained(path: Path) -> None:
    """Append a line that knows nothing of the one before it."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"at": at, "action": "get", "key": KEY, **who()}).encode() + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line)
    os.close(handle)


def microseconds(do: Callable[[], object], times: int) -> float:
    """Return the processor time that one of so many takes."""
    begin = time.process_time()
    for _ in range(times):
        do()
    return (time.process_time() - begin) / times * 1e6


def main() -> None:
    """Measure in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        log = AccessLog(root / "audit", who)
        chained = microseconds(lambda: log.write("get", KEY), LINES)
        bare = microseconds(lambda: write_unchained(root / "bare.jsonl"), LINES)
        print(f"a use: {chained:.0f} µs chained, {bare:.0f} µs without a chain")
        begin = time.process_time()
        found = check_chain(log.lines(), appended=True)
        seconds = time.process_time() - begin
        print(f"verify: {found.lines / seconds:,.0f} lines a second")
        lake = open_lake(root / "lake", root / "landing", usage=LakeUsage(audit=log))
        policy = read_policy(PROJECT_ROOT / "params.yaml")
        for _ in range(EVENTS):
            EventLog(lake.store).append([Event("people", "somebody")], now=datetime.now(UTC))
        record_policy(policy, lake, used_for="a benchmark", now=datetime.now(UTC))

        def noted_again() -> None:
            record_policy(policy, lake, used_for="a benchmark", now=datetime.now(UTC))

        def event() -> None:
            EventLog(lake.store).append([Event("people", "somebody")], now=datetime.now(UTC))

        print(f"behind {EVENTS} events: {microseconds(event, 200):.0f} µs for one more,")
        print(f"  {microseconds(noted_again, 200):.0f} µs to see that the policy is the same")


if __name__ == "__main__":
    main()
