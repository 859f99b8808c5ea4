"""A Ray started for the test loses a worker to ``kill -9``, and no item with it."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from annotation_platform.demo.scenes import draw_batch
from annotation_platform.images.cleaning import clean_round
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.storage.table_files import parquet_bytes
from tests.core.ingestion.conftest import form_round
from tests.invariants import check_same

pytestmark = pytest.mark.long

# A process has one engine for life, so the pass has a process of its own.
PASS = """
import json, os, signal, sys, time
from dataclasses import dataclass

import psutil

from annotation_platform.storage.engine import map_each


@dataclass(frozen=True)
class Square:
    log: str

    def __call__(self, number):
        with open(self.log, "a") as file:
            print(number, os.getpid(), file=file)
        time.sleep(0.02)
        return number * number, os.getpid()


if __name__ == "__main__":
    log, items, kill_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    values, workers, killed = [], [], ""
    for value, worker in map_each(Square(log), range(items), runner="ray"):
        values.append(value)
        workers.append(worker)
        if len(values) == kill_at:
            # The worker that has just answered has items of its own after this one.
            child = next(
                each for each in psutil.Process().children(recursive=True) if each.pid == worker
            )
            killed = " ".join(child.cmdline()).strip()
            child.send_signal(signal.SIGKILL)
    print(json.dumps({"values": values, "workers": workers, "killed": killed}))
"""


def test_a_worker_killed_half_way_loses_nothing(tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'annotation-platform[cluster]'")
    script, log = tmp_path / "ray_pass.py", tmp_path / "calls.txt"
    script.write_text(PASS)
    items, kill_at = 300, 100

    done = subprocess.run(
        [sys.executable, script, log, str(items), str(kill_at)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

    assert done.returncode == 0, done.stderr
    # Before that, Ray says on stdout that a worker died.
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["values"] == [number * number for number in range(items)]
    assert told["killed"].startswith("ray::")
    first, last = told["workers"][kill_at - 1], told["workers"][-1]
    assert first != last
    calls = [line.split() for line in log.read_text().splitlines()]
    again = len(calls) - items
    print(
        f"Killed {told['killed']!r} (process {first}) after {kill_at} of {items} results;"
        f" process {last} went on. All {items} came back, in order; {again} were done twice."
    )
    assert {int(number) for number, _ in calls} == set(range(items))
    # None, when the kill fell between two items; the worker that went on is another either way.
    assert again < items // 2


CLEAN = """
import sys
from pathlib import Path

from annotation_platform.images.cleaning import clean_round
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.policy import CleaningPolicy
from annotation_platform.pipeline.earlier import earlier_rounds
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.storage.table_files import parquet_bytes

if __name__ == "__main__":
    lake = open_lake(sys.argv[1], sys.argv[2], cache=Path(sys.argv[3]))
    raw = lake.tables.read(RawImages, "round-0001")
    earlier = earlier_rounds(CleanedImages, "round-0001", lake)
    cleaned = clean_round(raw, earlier, lake.store, CleaningPolicy(), runner="ray")
    Path(sys.argv[4]).write_bytes(parquet_bytes(cleaned))
"""


def test_a_lake_in_s3_is_cleaned_on_ray_as_it_is_here(s3_bucket, tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'annotation-platform[cluster]'")
    lakes = []
    for name in ("here", "ray"):
        lake = open_lake(f"s3://{s3_bucket}/{name}", tmp_path / "landing", cache=tmp_path)
        lakes.append(lake)
        for file, data in draw_batch(1, 12, seed=0).files.items():
            lake.landing.put(file, data)
        lake.landing.put("broken.jpg", b"\xff\xd8\xff\xe0nothing")
        round_id = form_round(lake)
        lake.tables.write(RawImages, round_id, lake.ingest(round_id, maximum_bytes=10**9))
    here, there = lakes
    raw, earlier = (here.tables.read(RawImages, round_id), CleanedImages.empty())
    expected = parquet_bytes(clean_round(raw, earlier, here.store, CleaningPolicy(), runner=None))
    script, out = tmp_path / "clean.py", tmp_path / "cleaned.parquet"
    script.write_text(CLEAN)
    place = [f"s3://{s3_bucket}/ray", tmp_path / "landing", tmp_path / "cache", out]
    subprocess.run(
        [sys.executable, script, *place],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert out.read_bytes() == expected
    check_same(here, there, "images", "signatures")
