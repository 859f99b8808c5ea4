import subprocess
import sys
from pathlib import Path

from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import LocalObjectStore

PROJECT_ROOT = Path(__file__).parents[3]

APPEND = """
import sys
from pathlib import Path
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import LocalObjectStore
journal = Journal(LocalObjectStore(Path(sys.argv[1])), "notes")
for number in range(25):
    print(journal.append(f"{sys.argv[2]} {number}".encode()), flush=True)
"""


def append_in_processes(place, writers):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(place), str(writer)],
            stdout=subprocess.PIPE,
            cwd=PROJECT_ROOT,
            text=True,
        )
        for writer in range(writers)
    ]
    return [process.communicate(timeout=120)[0].split() for process in started]


def test_processes_that_append_at_once_lose_nothing_and_share_no_number(tmp_path):
    numbers = append_in_processes(tmp_path, 4)
    assert sorted(int(number) for each in numbers for number in each) == list(range(1, 101))
    read = Journal(LocalObjectStore(tmp_path), "notes").read()
    assert sorted(read) == sorted(f"{w} {n}".encode() for w in range(4) for n in range(25))
    for writer, own in enumerate(numbers):
        # Each finds what it wrote under the number that it was told, in its own order.
        assert [read[int(number) - 1] for number in own] == [
            f"{writer} {n}".encode() for n in range(25)
        ]


def test_of_two_that_decide_by_the_same_reading_one_wins(tmp_path):
    journal = Journal(LocalObjectStore(tmp_path), "notes")
    journal.append(b"read by both")
    assert journal.create(len(journal) + 1, b"first")
    assert not journal.create(2, b"second")
    assert journal.read() == [b"read by both", b"first"]


def test_what_was_read_is_the_beginning_of_what_is_read_later(tmp_path):
    class PassedBy(LocalObjectStore):
        """Lists a folder as it can be listed while 3 and 4 are made: 3 comes where it has been."""

        def list(self, prefix):
            return (key for key in super().list(prefix) if not key.endswith("000003.jsonl"))

    whole = LocalObjectStore(tmp_path)
    journal = Journal(whole, "notes")
    for number in range(1, 5):
        journal.append(str(number).encode())
    early = Journal(PassedBy(tmp_path), "notes")
    assert early.read() == [b"1", b"2", b"3", b"4"]
    assert early.append(b"5") == 5
    assert journal.read() == [b"1", b"2", b"3", b"4", b"5"]


def test_private_entries_are_for_this_user_alone_and_unfinished_ones_are_not_there(tmp_path):
    journal = Journal(LocalObjectStore(tmp_path), "notes", private=True)
    journal.append(b"whole")
    # As a writer leaves it that was killed.
    (tmp_path / "notes" / ".tmp-half").write_bytes(b"ha")
    assert (tmp_path / "notes" / "000001.jsonl").stat().st_mode & 0o777 == 0o600
    assert journal.read() == [b"whole"]
    assert journal.append(b"next") == 2
