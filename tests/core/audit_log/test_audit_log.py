"""The audit log and the access log vouch for each other: `verify` locates any tampering."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from annotation_platform.actor import system_user
from annotation_platform.audit_log import recording
from annotation_platform.audit_log.events import ACTIONS, Event, EventLog
from annotation_platform.audit_log.reading import (
    LogFilter,
    read_events,
    read_reads,
)
from annotation_platform.audit_log.verify import verify_logs
from annotation_platform.errors import DataError
from annotation_platform.ingestion.lake import LakeUsage, open_lake
from annotation_platform.labeling.review_decisions import Decided, record_reviews
from annotation_platform.labeling.round_decisions import RoundRecord, record_decisions
from annotation_platform.policy import parse_policy
from annotation_platform.schema.annotations import Review
from annotation_platform.storage.audited import AccessLog, AccessLoggedStore
from annotation_platform.storage.aws import s3_client
from annotation_platform.storage.chain import ChainLink, digest_of, make_line
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.pseudonyms import pseudonym_of

PROJECT_ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ONE = "round-0001"

APPEND = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from annotation_platform.audit_log.events import Event, EventLog
from annotation_platform.storage.audited import AccessLoggedStore, AccessLog
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.aws import s3_client
home, name, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = AccessLog(home / "audit", lambda: {"author": name})
events = EventLog(AccessLoggedStore(LocalObjectStore(home / "lake"), log))
for number in range(times):
    events.append([Event("people", f"{name} {number}")], now=datetime.now(UTC))
    print(number, flush=True)
"""


class Home:
    """A lake in a folder, with its access log."""

    def __init__(self, root, name="audit", who=lambda: {"author": "ada", "command": "a test"}):
        self.root, self.uses = root, AccessLog(root / name, who)
        self.lake = open_lake(root / "lake", root / "landing", usage=LakeUsage(audit=self.uses))
        # Its accesses are not logged.
        self.unlogged = open_lake(root / "lake", root / "landing")

    def record(self, *subjects):
        """Append events in one entry."""
        EventLog(self.lake.store).append(
            [Event("people", each, "why") for each in subjects], now=NOON
        )

    def verify(self):
        return verify_logs(EventLog(self.unlogged.store), self.uses)

    def problem(self):
        (found,) = self.verify().problems
        return found

    def events(self, **wanted):
        return read_events(self.unlogged, LogFilter(**wanted)).lines

    @property
    def day(self):
        return max((self.root / "audit").glob("*.jsonl"))

    def entry(self, number):
        return self.root / "lake" / "audit" / f"{number:06d}.jsonl"


@pytest.fixture
def home(tmp_path):
    """Four events in three entries, and accesses before, between and after them."""
    made = Home(tmp_path)
    made.lake.store.put("tables/human_labels/round-0001.parquet", b"1")
    made.record("first")
    made.record("second", "third")
    made.lake.store.get("tables/human_labels/round-0001.parquet")
    made.record("fourth")
    return made


def rows(path):
    return path.read_bytes().splitlines(keepends=True)


def test_untouched_logs_are_whole(home):
    found = home.verify()
    assert (found.whole, found.entries, found.events, found.files) == (True, 3, 4, 1)
    assert found.notes == ()
    first, *_, last = home.events()
    assert first == {
        "number": 1, "at": "2026-05-01T12:00:00.000000+00:00", "author": "ada",
        "action": "people", "subject": "first", "reason": "why", "facts": {"command": "a test"},
        "policy": "", "previous": "begin", "reads_head": first["reads_head"],
    }  # fmt: skip
    uses = [json.loads(row) for row in rows(home.day)]
    # Each log records the last line of the other.
    vouched = rows(home.day)[last["reads_head"]["number"] - 1]
    assert digest_of(vouched.rstrip(b"\n")) == last["reads_head"]["sha256"]
    assert (uses[-1]["action"], uses[-1]["key"]) == ("event", "audit/000003.jsonl")
    assert uses[-1]["sha256"] == digest_of(home.entry(3).read_bytes().rstrip(b"\n"))


def test_a_changed_byte_in_any_event_is_located(home):
    lines = [(1, 1), (2, 1), (2, 2), (3, 1)]
    for number, row in lines:
        path = home.entry(number)
        before = rows(path)
        for at in range(0, len(before[row - 1]), 7):
            changed = bytearray(before[row - 1])
            changed[at] ^= 1
            path.write_bytes(b"".join([*before[: row - 1], changed, *before[row:]]))
            problem = home.problem()
            assert (problem.file, problem.line) == (f"audit/{number:06d}.jsonl", row)
            assert str(path).endswith(problem.file)
        path.write_bytes(b"".join(before))
    assert home.verify().whole


def test_a_changed_byte_in_any_access_is_located(home):
    before = rows(home.day)
    # The last line was written after the last event.
    for row in range(1, len(before)):
        for at in range(0, len(before[row - 1]), 7):
            changed = bytearray(before[row - 1])
            changed[at] ^= 1
            home.day.write_bytes(b"".join([*before[: row - 1], changed, *before[row:]]))
            problem = home.problem()
            assert problem.file == home.day.name
            # For the last two lines it can be either.
            assert problem.line == row or (row == len(before) and f":{row}" in problem.what)
    home.day.write_bytes(b"".join(before))
    assert home.verify().whole


@pytest.mark.parametrize(
    ("tamper", "file", "message"),
    [
        pytest.param(lambda h: h.entry(1).unlink(), "audit/000001.jsonl", "missing", id="first"),
        pytest.param(lambda h: h.entry(2).unlink(), "audit/000002.jsonl", "missing", id="middle"),
        pytest.param(lambda h: h.entry(3).unlink(), "audit/000003.jsonl", "missing", id="last"),
        pytest.param(lambda h: h.entry(2).write_bytes(b""), "audit/000002.jsonl", "empty",
                     id="emptied"),
        pytest.param(lambda h: shutil.copy(h.entry(3), h.entry(4)), "audit/000004.jsonl",
                     "added a second time", id="copied"),
        pytest.param(lambda h: h.entry(2).write_bytes(rows(h.entry(2))[0]), "audit/000003.jsonl",
                     "missing before it: 3", id="a line of an entry"),
        pytest.param(lambda h: h.entry(2).write_bytes(b"".join(reversed(rows(h.entry(2))))),
                     "audit/000002.jsonl", "2 comes later", id="swapped"),
        pytest.param(lambda h: (h.entry(3).parent / "notes.txt").write_text("x"),
                     "audit/notes.txt", "added", id="another file"),
    ],
)  # fmt: skip
def test_tampering_with_entries_is_located(home, tamper, file, message):
    tamper(home)
    problem = home.problem()
    assert problem.file == file
    assert message in problem.what


def test_a_rewritten_end_of_the_events_is_located(home):
    (row,) = rows(home.entry(3))
    forged = {**json.loads(row), "reason": "another reason"}
    forged = {key: forged[key] for key in forged if key not in {"number", "previous"}}
    last = ChainLink(3, digest_of(rows(home.entry(2))[1].rstrip(b"\n")))
    home.entry(3).write_bytes(make_line(last, forged) + b"\n")
    problem = home.problem()
    assert (problem.file, problem.line) == ("audit/000003.jsonl", 1)
    assert home.day.name in problem.what


def test_tampering_with_accesses_is_located(home):
    before = rows(home.day)
    last_vouched = home.events()[-1]["reads_head"]["number"]

    def written(*order):
        home.day.write_bytes(b"".join(before[each] for each in order))
        return home.problem()

    everything = range(len(before))
    problem = written(*(each for each in everything if each != 3))
    assert (problem.line, "missing before it: 4" in problem.what) == (4, True)
    problem = written(0, 2, 1, *everything[3:])
    assert (problem.line, "2 comes later" in problem.what) == (2, True)
    problem = written(0, 1, 1, *everything[2:])
    assert (problem.line, "added" in problem.what) == (3, True)
    problem = written(*everything[1:])
    assert (problem.line, "not the first of its day" in problem.what) == (1, True)
    # Up to the last line that an event depends on, truncation is detected, too.
    for kept in range(last_vouched):
        problem = written(*range(kept))
        assert "depends on its line number" in problem.what or "records it" in problem.what
    home.day.write_bytes(b"".join(before[:last_vouched]))
    assert home.verify().whole


def test_a_replaced_access_log_is_detected(home):
    shutil.rmtree(home.day.parent)
    assert "which is missing" in home.problem().what
    # A valid chain that is as long as the real one.
    for _ in range(20):
        home.uses.write("get", "nothing of interest")
    problem = home.problem()
    assert (problem.file, "replaced" in problem.what) == (home.day.name, True)


def test_deleted_days_and_logs_of_other_homes_are_noted(tmp_path):
    for day in (1, 2, 3):
        home = Home(tmp_path)
        home.uses = AccessLog(tmp_path / "audit", home.uses.who,
                             lambda day=day: datetime(2026, 5, day, tzinfo=UTC))  # fmt: skip
        home.lake = open_lake(
            tmp_path / "lake", tmp_path / "landing", usage=LakeUsage(audit=home.uses)
        )
        home.lake.store.put("a", b"1")
        home.record(f"day {day}")
    (tmp_path / "audit" / "2026-05-01.jsonl").unlink()
    found = home.verify()
    assert found.whole
    assert found.notes == (
        "2026-05-02.jsonl:1 is number 4: the lines before it were deleted",
        "1 events depend on deleted days of the access log",
    )
    other = Home(tmp_path, name="other home")
    other.lake.store.put("a", b"1")
    other.record("elsewhere")
    assert home.verify().notes[1:] == (
        f"1 events depend on the access log of another home ({other.uses.home}): verify that there",
        "1 events depend on deleted days of the access log",
    )
    found = other.verify()
    assert (found.whole, found.events) == (True, 4)
    assert [note for note in found.notes if home.uses.home in note]


def test_concurrent_writers_make_one_chain_and_lose_nothing(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(tmp_path), f"writer-{number}", "15"],
            stdout=subprocess.PIPE,
            cwd=PROJECT_ROOT,
        )
        for number in range(4)
    ]
    for writer in writers:
        writer.communicate(timeout=120)
    home = Home(tmp_path)
    found = home.verify()
    assert (found.problems, found.entries, found.events) == ((), 60, 60)
    subjects = [line["subject"] for line in home.events()]
    for number in range(4):
        own = [each for each in subjects if each.startswith(f"writer-{number} ")]
        assert own == [f"writer-{number} {each}" for each in range(15)]


def test_a_writer_of_events_that_is_killed_leaves_both_logs_whole(tmp_path):
    home = Home(tmp_path)
    for times in range(1, 6):
        writer = subprocess.Popen(
            [sys.executable, "-c", APPEND, str(tmp_path), "killed", "100000"],
            stdout=subprocess.PIPE,
            cwd=PROJECT_ROOT,
        )
        for _ in range(3 * times):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        home.record("afterwards")
        assert home.verify().problems == ()
    assert sum(line["subject"] == "afterwards" for line in home.events()) == 5


def test_a_lost_response_of_the_store_does_not_duplicate_an_event(tmp_path):
    class Forgetful(LocalObjectStore):
        """Creates the first object but reports a failure, like S3 with a lost response."""

        lost = 1

        def create(self, key, data, *, private=False):
            made = super().create(key, data, private=private)
            self.lost -= 1
            return made and self.lost < 0

    events = EventLog(Forgetful(tmp_path))
    events.append([Event("people", "once")], now=NOON)
    events.append([Event("people", "twice")], now=NOON)
    assert [key for key, _ in events.read()] == ["audit/000001.jsonl", "audit/000002.jsonl"]


def test_without_an_access_log_the_author_is_the_user_of_the_process(tmp_path):
    lake = open_lake(tmp_path / "lake", tmp_path / "landing")
    EventLog(lake.store).append([Event("people", "a person")], now=NOON)
    (line,) = read_events(lake, LogFilter()).lines
    assert (line["author"], line["reads_head"]) == (system_user(), None)


def test_the_actor_of_a_use_case_is_the_author_of_its_events(home):
    version = {"tag": "set@v1.0.0", "commit": "c", "folder_md5": "m", "images": 2}
    version["new_version"] = True
    recording.record_release(ONE, version, home.lake, now=NOON, actor="ada")
    recording.record_policy(policy(), home.lake, used_for="a test", now=NOON, actor="ben")
    (*_, release, changed) = [
        json.loads(line.data) for _, lines in EventLog(home.lake.store).read() for line in lines
    ]
    assert (release["action"], release["author"]) == ("release", "ada")
    assert (changed["action"], changed["author"]) == ("policy", "ben")


def policy(**sections):
    content = {"ontology": {"classes": [{"id": 1, "name": "cat"}]}, **sections}
    return parse_policy(json.dumps(content), where="a test")


def test_a_new_policy_is_recorded_with_its_changed_settings(home):
    one = policy()
    two = policy(review={"sample_share": 0.5}, ontology={
        "classes": [{"id": 1, "name": "tomcat", "was": ["cat"]}, {"id": 2, "name": "dog"}]
    })  # fmt: skip
    for each in (one, one, two, two, one):
        recording.record_policy(each, home.lake, used_for=f"label_tasks of {ONE}", now=NOON)
        # Other events follow.
        home.record("other")
    first, second, third = home.events(action="policy")
    assert (first["subject"], first["facts"]["settings"]) == (one.digest, None)
    assert (second["subject"], second["facts"]["before"]) == (two.digest, one.digest)
    assert second["facts"]["settings"] == {
        "ontology.classes": [["1"], ["1", "2"]],
        "ontology.classes.1.name": ["cat", "tomcat"],
        "ontology.classes.1.was": [[], ["cat"]],
        "ontology.classes.2.color": [None, ""],
        "ontology.classes.2.id": [None, 2],
        "ontology.classes.2.name": [None, "dog"],
        "ontology.classes.2.shape": [None, "box"],
        "ontology.classes.2.was": [None, []],
        "review.sample_share": [one.review.sample_share, 0.5],
    }
    assert second["reason"] == f"used for label_tasks of {ONE}"
    assert third["facts"]["settings"]["review.sample_share"] == [0.5, one.review.sample_share]
    assert home.verify().whole


def test_keys_renamed_by_a_release_are_no_changed_settings(home):
    earlier = policy(labeling={"vote_margin": 1}).model_dump(mode="json")
    earlier["labeling"]["stop_at_lead"] = earlier["labeling"].pop("vote_margin")
    text = json.dumps(earlier, sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()
    home.lake.tables.lineage.keep(text, kind="json")
    EventLog(home.lake.store).append_if(lambda _: ([Event("policy", digest)], digest), now=NOON)
    now = policy(labeling={"vote_margin": 2})
    recording.record_policy(now, home.lake, used_for=f"label_tasks of {ONE}", now=NOON)
    _, found = home.events(action="policy")
    assert found["facts"]["before"] == digest
    assert found["facts"]["settings"] == {"labeling.vote_margin": [1, 2]}


def test_a_policy_that_did_not_change_writes_nothing_and_lists_nothing(tmp_path):
    class Recorder(LocalObjectStore):
        """Records the requests that it gets."""

        def __init__(self, root):
            super().__init__(root)
            self.requests = []

        def list(self, prefix):
            self.requests.append(f"list {prefix}")
            return super().list(prefix)

        def exists(self, key):
            self.requests.append(f"exists {key}")
            return super().exists(key)

        def get(self, key):
            self.requests.append(f"get {key}")
            return super().get(key)

    home = Home(tmp_path)
    for number in range(300):
        home.record(str(number))
    recorder = Recorder(tmp_path / "lake")
    lake = open_lake(tmp_path / "lake", tmp_path / "landing")
    lake = replace(lake, store=AccessLoggedStore(recorder, home.uses))
    recording.record_policy(policy(), lake, used_for="x", now=NOON)
    recorder.requests.clear()
    recording.record_policy(policy(), lake, used_for="x", now=NOON)
    assert recorder.requests == [
        "exists audit/000301.jsonl", "exists audit/000302.jsonl", "get audit/000301.jsonl"
    ]  # fmt: skip
    # A home without state finds the end by itself.
    recorder.requests.clear()
    EventLog(recorder).append([Event("people", "x")], now=NOON)
    assert home.entry(302).exists()
    assert 10 < len(recorder.requests) < 25


def test_in_s3_an_event_takes_four_requests_at_any_number_of_events(tmp_path, s3_bucket):
    client, uses = s3_client(), AccessLog(tmp_path / "audit", lambda: {"author": "ada"})
    folders = (f"s3://{s3_bucket}/lake", tmp_path / "landing")
    lake = open_lake(*folders, cache=tmp_path / "cache", client=client, usage=LakeUsage(audit=uses))
    for number in range(5):
        EventLog(lake.store).append([Event("people", str(number))], now=NOON)
    recording.record_policy(policy(), lake, used_for="x", now=NOON)
    requests = []
    client.meta.events.register("before-call.s3", lambda model, **_: requests.append(model.name))
    EventLog(lake.store).append([Event("people", "one more")], now=NOON)
    assert requests == ["HeadObject", "HeadObject", "GetObject", "PutObject"]
    requests.clear()
    recording.record_policy(policy(), lake, used_for="x", now=NOON)
    assert requests == ["HeadObject", "HeadObject", "GetObject"]
    unlogged = open_lake(*folders, cache=tmp_path / "cache", client=client)
    found = verify_logs(EventLog(unlogged.store), uses)
    assert (found.problems, found.events) == ((), 7)
    client.delete_object(Bucket=s3_bucket, Key="lake/audit/000007.jsonl")
    (problem,) = verify_logs(EventLog(unlogged.store), uses).problems
    assert (problem.file, "is missing" in problem.what) == ("audit/000007.jsonl", True)


def decided(*reviews):
    return Decided(
        {image: Review(decision, [], comment, []) for image, decision, comment in reviews},
        {image: "annotator-1" for image, *_ in reviews},
        {image: NOON for image, *_ in reviews},
        "",
    )


def test_reviews_decisions_and_releases_are_recorded_once_each(home):
    record = RoundRecord(home.lake.store, ONE)
    record.write("closed", reason="enough", by="bob", now=NOON, entries=1)
    row = {"tag": "set@v1.0.0", "commit": "c", "folder_md5": "m", "images": 3, "new_version": True}
    first = ("a" * 64, "rejected", "too dark")
    second = ("b" * 64, "accepted", "")
    changed = ("a" * 64, "fixed", "brighter")
    for reviews in ([first], [first], [first, second], [changed, second]):
        record_reviews(ONE, decided(*reviews), home.lake, now=NOON)
        record_decisions(ONE, home.lake, now=NOON)
        recording.record_release(ONE, row, home.lake, now=NOON)
        row["new_version"] = False
    record.write("reopened", reason="they came back", by="ada", now=NOON, entries=1)
    record_decisions(ONE, home.lake, now=NOON)
    reviews = [(each["author"], each["subject"][0], each["reason"], each["facts"]["decision"])
               for each in home.events(action="review")]  # fmt: skip
    assert reviews == [
        ("annotator-1", "a", "too dark", "rejected"),
        ("annotator-1", "b", "", "accepted"),
        ("annotator-1", "a", "brighter", "fixed"),
    ]
    rounds = [(each["author"], each["reason"], each["facts"]["decision"])
              for each in home.events(action="round")]  # fmt: skip
    assert rounds == [("bob", "enough", "closed"), ("ada", "they came back", "reopened")]
    (release,) = home.events(action="release")
    assert release["subject"] == "set@v1.0.0"
    assert release["facts"]["new_version"]
    assert (release["author"], release["facts"]["round"]) == ("ada", ONE)
    assert home.verify().whole


def test_people_and_erased_images_appear_under_pseudonyms(home):
    address = "Bob@example.org"
    recording.record_skill(address, "reviewer", home.lake, granted=True, now=NOON)
    recording.record_person(address, "removed", home.lake, now=NOON)
    recording.record_stage(
        "set@v1.0.0", "deprecated", home.lake, reason=" labels\nwrong ", now=NOON
    )
    facts = {"images": 1}
    recording.record_erasure("3fa9c1", home.lake, reason="asked for it", facts=facts, now=NOON)
    skill, person, stage, erasure = home.events()[4:]
    assert skill["subject"] == person["subject"] == pseudonym_of(home.lake.store, address)
    assert (skill["facts"]["skill"], skill["facts"]["granted"]) == ("reviewer", True)
    assert (stage["reason"], stage["facts"]["stage"]) == ("labels wrong", "deprecated")
    assert (erasure["subject"], erasure["reason"]) == ("3fa9c1", "asked for it")
    assert erasure["facts"]["images"] == 1
    assert {each["action"] for each in (skill, person, stage, erasure)} < set(ACTIONS)
    text = b"".join(path.read_bytes() for path in home.root.rglob("*.jsonl"))
    assert b"example.org" not in text.lower()


def test_events_and_reads_are_found_by_time_action_and_author(home):
    bob = Home(home.root, who=lambda: {"author": "bob", "run": "1", "asset": "human_labels"})
    later = NOON + timedelta(hours=1)
    EventLog(bob.lake.store).append([Event("erasure", "x")], now=later)
    assert [line["subject"] for line in home.events(since=later)] == ["x"]
    assert [line["subject"] for line in home.events(author="bob")] == ["x"]
    assert len(home.events(action="people")) == 4
    with pytest.raises(
        DataError, match=r"'eve' is not an author in this log\. Authors: ada, bob\."
    ):
        home.events(author="eve")
    # A copy of a round's human_labels, as read when a version is rebuilt.
    digest = home.lake.tables.lineage.keep(b"a table")
    home.lake.store.create(f"lineage/human_labels/{ONE}/{digest}.json", b"{}")
    bob.lake.store.get(f"inputs/{digest}.parquet")
    bob.lake.store.get(f"lineage/human_labels/{ONE}/{digest}.json")
    bob.lake.store.arrow_filesystem()
    found = read_reads(home.unlogged, home.uses, LogFilter())
    assert [(line["author"], line["action"], line["key"]) for line in found.lines] == [
        ("ada", "get", "tables/human_labels/round-0001.parquet"),
        ("bob", "get", f"inputs/{digest}.parquet"),
        ("bob", "query", "tables"),
    ]
    assert len(read_reads(home.unlogged, home.uses, LogFilter(author="ada")).lines) == 1
    assert read_reads(home.unlogged, home.uses, LogFilter(since=datetime.now(UTC))).lines == []
