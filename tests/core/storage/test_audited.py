"""The log of uses: one chain, whoever writes it, over midnight and after a writer was killed."""

import json
import os
import pickle
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from annotation_platform.errors import SettingsError
from annotation_platform.storage.audited import AccessLog, AccessLoggedStore
from annotation_platform.storage.chain import check_chain
from annotation_platform.storage.objects import LocalObjectStore

PROJECT_ROOT = Path(__file__).parents[3]

WRITE = """
import sys
from pathlib import Path
from annotation_platform.storage.audited import AccessLog
log = AccessLog(Path(sys.argv[1]), lambda: {"author": sys.argv[2]})
for number in range(int(sys.argv[3])):
    log.write("get", f"{sys.argv[2]}/{number}")
    print(number, flush=True)
"""


def who():
    return {"author": "ada"}


def at(*moment):
    """A log's clock that stands still."""
    return lambda: datetime(*moment, tzinfo=UTC)


def check(folder):
    return check_chain(AccessLog(folder, who).lines(), appended=True)


def write_in_process(folder, name, times):
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder), name, str(times)],
        stdout=subprocess.PIPE,
        cwd=PROJECT_ROOT,
        text=True,
    )


def test_every_use_is_a_line_that_names_who_and_the_line_before(tmp_path):
    store = AccessLoggedStore(
        LocalObjectStore(tmp_path / "lake"), AccessLog(tmp_path / "audit", who)
    )
    store.put("tables/é.parquet", b"1")
    store.copy("tables/é.parquet", "tables/copy.parquet")
    assert store.get("tables/copy.parquet") == b"1"
    store.exists("tables/copy.parquet")
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["number"], line["action"], line["key"], line["author"]) for line in lines] == [
        (1, "put", "tables/é.parquet", "ada"),
        (2, "get", "tables/é.parquet", "ada"),
        (3, "create", "tables/copy.parquet", "ada"),
        (4, "get", "tables/copy.parquet", "ada"),
    ]
    assert [line.get("day") for line in lines] == [path.stem, None, None, None]
    assert path.stat().st_mode & 0o777 == 0o600
    assert check(tmp_path / "audit").problem is None


def test_processes_that_write_at_once_make_one_chain_and_lose_nothing(tmp_path):
    writers = [write_in_process(tmp_path, f"writer {number}", 200) for number in range(4)]
    for writer in writers:
        writer.communicate(timeout=120)
    found = check(tmp_path)
    assert (found.problem, found.lines, found.notes) == (None, 800, [])
    keys = [json.loads(line.data)["key"] for line in AccessLog(tmp_path, who).lines()]
    for number in range(4):
        own = [key for key in keys if key.startswith(f"writer {number}/")]
        assert own == [f"writer {number}/{each}" for each in range(200)]


def test_a_writer_that_is_killed_leaves_a_chain_that_goes_on(tmp_path):
    written = 0
    for times in range(1, 6):
        writer = write_in_process(tmp_path, "killed", 1_000_000)
        for _ in range(37 * times):
            writer.stdout.readline()
            written += 1
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        AccessLog(tmp_path, who).write("get", "afterwards")
        found = check(tmp_path)
        assert found.problem is None
        assert found.lines >= written + times


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_half_written_line_stays_and_the_next_one_vouches_for_it(tmp_path, left):
    log = AccessLog(tmp_path, who)
    for key in "abc":
        log.write("get", key)
    (path,) = tmp_path.glob("*.jsonl")
    data = path.read_bytes()
    last = data.rstrip(b"\n").rindex(b"\n") + 1
    path.write_bytes(data[: last + left] if left > 0 else data[: -1 + left])
    assert check(tmp_path).notes == [f"{path.name}:3 is incomplete: its writer was stopped"]
    log.write("get", "d")
    found = check(tmp_path)
    assert (found.problem, found.lines) == (None, 4)
    assert found.notes == [f"{path.name}:3 is truncated: its writer was stopped"]


def test_the_chain_goes_on_over_midnight_and_from_whatever_day_is_kept(tmp_path):
    for day in (1, 2, 3):
        log = AccessLog(tmp_path, who, at(2026, 5, day))
        for key in "ab":
            log.write("get", key)
    days = [tmp_path / f"2026-05-0{day}.jsonl" for day in (1, 2, 3)]
    assert sorted(tmp_path.glob("*.jsonl")) == days
    found = check(tmp_path)
    assert (found.problem, found.lines, found.last.number) == (None, 6, 6)
    days[0].unlink()
    found = check(tmp_path)
    assert (found.problem, found.first, found.lines) == (None, 3, 4)
    # A day out of the middle is missed.
    AccessLog(tmp_path, who, at(2026, 5, 4)).write("get", "c")
    days[2].unlink()
    problem = check(tmp_path).problem
    assert (problem.file, problem.line) == ("2026-05-04.jsonl", 1)
    assert "missing before it: 5 to 6" in problem.what


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_clock_that_is_set_back_does_not_part_the_chain(tmp_path, forgotten):
    for day in (1, 2, 1):
        if forgotten:
            (tmp_path / ".end").unlink(missing_ok=True)
        AccessLog(tmp_path, who, at(2026, 5, day)).write("get", str(day))
    assert [line.place for line in AccessLog(tmp_path, who).lines()] == [
        "2026-05-01.jsonl:1", "2026-05-02.jsonl:1", "2026-05-02.jsonl:2"
    ]  # fmt: skip
    assert check(tmp_path).problem is None


def test_lines_from_before_the_chain_are_kept_and_the_chain_begins_after_them(tmp_path):
    older = '{"at": "2026-05-01T10:00:00+00:00", "action": "get", "key": "a", "run": "1"}\n'
    for day in (1, 2):
        (tmp_path / f"2026-05-0{day}.jsonl").write_text(older * 2)
    for day in (2, 3):
        AccessLog(tmp_path, who, at(2026, 5, day)).write("get", "b")
    found = check(tmp_path)
    assert (found.problem, found.first, found.last.number, found.lines) == (None, 1, 2, 6)
    assert found.notes == ["4 lines are older than the chain"]


def test_the_head_is_the_last_line_of_the_newest_day(tmp_path):
    assert AccessLog(tmp_path, who).head() is None
    for day in (1, 2):
        AccessLog(tmp_path, who, at(2026, 5, day)).write("get", "a" * 10_000)
    head = AccessLog(tmp_path, who).head()
    assert (head.file, head.number, head.sha256) == (
        "2026-05-02.jsonl", 2, check(tmp_path).last.sha256
    )  # fmt: skip
    # Another home's log is another one, and a copy that went to a worker is the same.
    assert head.home != AccessLog(tmp_path / "other", who).home
    assert pickle.loads(pickle.dumps(AccessLog(tmp_path, who))).home == head.home


def test_where_nothing_can_be_written_the_lake_is_not_used(tmp_path):
    (tmp_path / "audit").write_text("a file")
    store = AccessLoggedStore(
        LocalObjectStore(tmp_path / "lake"), AccessLog(tmp_path / "audit", who)
    )
    with pytest.raises(SettingsError, match=r"audit.* cannot be written"):
        store.put("a", b"1")
    assert not (tmp_path / "lake").exists()


def test_on_a_full_disk_nothing_is_half_written(tmp_path):
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from annotation_platform.errors import SettingsError\n"
        "from annotation_platform.storage.audited import AccessLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "log = AccessLog(Path(sys.argv[1]), lambda: {})\n"
        "try:\n"
        "    for number in range(100): log.write('get', str(number))\n"
        "except SettingsError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 1
    assert ".jsonl" in done.stderr
    found = check(tmp_path)
    assert (found.problem, found.notes) == (None, [])
    written = found.lines
    assert written > 3
    AccessLog(tmp_path, who).write("get", "room again")
    assert check(tmp_path).lines == written + 1
