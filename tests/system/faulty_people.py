"""People who label, each a process of their own, and the faults that people and networks have.

``python -m tests.system.faulty_people PLAN.json`` makes them all out of one process, together with
collectors that write into the ledger what the back end shows. Whoever is killed is started again.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from annotation_platform.errors import LabelingError
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.image_sources import FolderImages
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.backends.regions import write_regions
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.rounds import fetch_annotations
from annotation_platform.schema.shapes import Label
from annotation_platform.servers.child import ChildProcess
from annotation_platform.storage.lake import Lake

FAULTS = (
    "double",
    "edit",
    "delete",
    "skip",
    "reply lost",
    "killed before",
    "killed after",
    "killed after a skip",
)
_AT_A_TIME = 10
_PROJECT_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Crowd:
    """Who labels what, where, and how badly.

    Attributes:
        place: the simulated back end's file, or Label Studio's address.
        lake: the folder of the lake whose ledger the collectors write.
        logs: a folder in which each person has a file.
        people: by name, their token in Label Studio.
        token: the administrator's, in Label Studio; empty means the simulated back end.
        project: Label Studio's number for the round.
        round_id: the round.
        shared: tasks that several may answer. Their answers are not deleted; see ``_deletable``.
        fault_share: of a person's actions.
        collectors: processes that write the ledger.
        kill_seconds: between two kills from outside, of anybody.
        think_seconds: that a person takes for an answer at most; half of it in the mean.
        seed: of all draws.
    """

    place: str
    lake: str
    logs: str
    people: dict[str, str]
    round_id: str
    token: str = ""
    project: int = 0
    shared: tuple[str, ...] = ()
    fault_share: float = 0.2
    collectors: int = 2
    kill_seconds: float = 0.25
    think_seconds: float = 0.0
    seed: int = 4

    def client(self) -> LabelingBackend:
        """Return the back end as the platform sees it."""
        if self.token:
            images = FolderImages(Path(self.lake))
            return LabelStudioClient(self.place, self.token, images=images)
        return SimulatedLabeling(Path(self.place))

    def open_lake(self) -> Lake:
        """Return the lake."""
        return open_lake(self.lake, Path(self.lake) / "landing")

    def log_path(self, name: str) -> Path:
        """Return the file in which somebody notes what they do."""
        return Path(self.logs) / f"{name}.jsonl"

    def notes(self) -> list[dict[str, str]]:
        """Return what everybody noted so far."""
        lines = [
            line
            for name in self.people
            if self.log_path(name).exists()
            for line in self.log_path(name).read_text().splitlines()
        ]
        return [json.loads(line) for line in lines]


def start(crowd: Crowd, folder: Path) -> ChildProcess:
    """Let everybody work; the process ends with 0 once all is answered. Stop it in any case."""
    Path(crowd.logs).mkdir(parents=True, exist_ok=True)
    plan = folder / "plan.json"
    plan.touch(mode=0o600)
    plan.write_text(json.dumps(asdict(crowd)))
    return ChildProcess(
        [sys.executable, "-m", "tests.system.faulty_people", str(plan)],
        environment={**os.environ, "PYTHONPATH": str(_PROJECT_ROOT), "OMP_NUM_THREADS": "1"},
        folder=_PROJECT_ROOT,
        log_path=folder / "crowd.log",
    )


class SimulatedDesk:
    """The simulated back end as one person uses it."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        self._labeling = SimulatedLabeling(Path(crowd.place))
        self._name = name

    def todo(self) -> list[tuple[str, str]]:
        """Return what the person may answer, and the task of which each is a copy."""
        places = self._labeling.open_assignments(self._name)
        return [(place.backend_task, place.task_id) for place in places]

    def annotate(
        self, task: str, drawn: list, *, skipped: bool = False, annotation: str | None = None
    ):
        """Submit an answer, or edit one; return its id."""
        return self._labeling.submit(
            task, self._name, write_regions(drawn), 12.5, skipped=skipped, annotation=annotation
        )

    def lose(self, task: str, drawn: list) -> None:
        """Submit an answer and never see the reply."""
        self.annotate(task, drawn)

    def delete(self, annotation: str) -> None:
        """Delete an answer."""
        self._labeling.delete_annotation(annotation)


class LabelStudioDesk:
    """Label Studio's HTTP interface as one person uses it, with their own token."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        self._http = httpx.Client(
            base_url=crowd.place,
            headers={"Authorization": f"Token {crowd.people[name]}"},
            timeout=60,
            trust_env=False,
        )
        tabs = self._asked("GET", "/api/dm/views/", params={"project": crowd.project})
        (self._tab,) = [tab["id"] for tab in tabs if tab["data"]["title"] == name]

    def todo(self) -> list[tuple[str, str]]:
        """Return what holds no answer in the person's tab, and the task it is a copy of."""
        query = {"view": self._tab, "page_size": 1000, "fields": "all"}
        shown = self._asked("GET", "/api/tasks/", params=query)["tasks"]
        return [
            (str(task["id"]), task["data"]["task_id"])
            for task in shown
            if all(annotation["was_cancelled"] for annotation in task["annotations"])
        ]

    def annotate(
        self, task: str, drawn: list, *, skipped: bool = False, annotation: str | None = None
    ):
        """Submit an answer, or edit one; return its id."""
        sent = {"result": write_result(drawn, 100, 100), "was_cancelled": skipped}
        if annotation is not None:
            return self._asked("PATCH", f"/api/annotations/{annotation}/", json=sent)["id"]
        sent["lead_time"] = 12.5
        return self._asked("POST", f"/api/tasks/{task}/annotations/", json=sent)["id"]

    def lose(self, task: str, drawn: list) -> None:
        """Submit an answer and hang up before the reply."""
        try:
            hasty = httpx.Timeout(60, read=0.001)
            sent = {"result": write_result(drawn, 100, 100), "lead_time": 12.5}
            self._http.post(f"/api/tasks/{task}/annotations/", json=sent, timeout=hasty)
        except httpx.TransportError:
            # As it was meant to be; whether it arrived is not known.
            pass

    def delete(self, annotation: str) -> None:
        """Delete an answer."""
        self._asked("DELETE", f"/api/annotations/{annotation}/")

    def _asked(self, method: str, path: str, **sent):
        response = self._http.request(method, path, **sent).raise_for_status()
        return response.json() if response.content else {}


class _Person:
    """Somebody in one of their lives; all that outlasts it is what they noted in their file."""

    def __init__(self, crowd: Crowd, name: str, life: int) -> None:
        self._crowd = crowd
        self._desk = LabelStudioDesk(crowd, name) if crowd.token else SimulatedDesk(crowd, name)
        self._draw = random.Random(f"{crowd.seed}/{name}/{life}")
        self._path = crowd.log_path(name)
        self._said: dict[str, str] = {}
        # What was skipped is not shown again: whoever skipped has to remember to come back, also
        # when they deleted what they said at last.
        self._skipped: set[str] = set()
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                self._recall(json.loads(line))

    def work(self, parent: int) -> None:
        """Answer until there is nothing left to answer, or nobody who wants it."""
        while (tasks := self._next()) and os.getppid() == parent:
            for task in tasks[:_AT_A_TIME]:
                self._annotation(task)

    def _next(self) -> list[str]:
        if owed := self._skipped - set(self._said.values()):
            return sorted(owed)
        shown = self._desk.todo()
        self._draw.shuffle(shown)
        # One copy of a task: having answered it, nobody is asked for another.
        return list({copy_of: task for task, copy_of in shown}.values())

    def _annotation(self, task: str) -> None:
        faulty = self._draw.random() < self._crowd.fault_share
        fault = self._draw.choice(FAULTS) if faulty else ""
        time.sleep(self._draw.random() * self._crowd.think_seconds)
        if fault:
            self._note(fault, task)
        if fault == "killed before":
            _die()
        annotation = None
        if fault in {"skip", "killed after a skip"}:
            annotation = self._desk.annotate(task, [], skipped=True)
            if fault == "killed after a skip":
                _die()
            if self._draw.random() < 0.5:
                annotation = None  # a new answer beside the skip, and not the skip taken back
        if fault == "reply lost":
            self._desk.lose(task, self._drawn())
        annotation = self._desk.annotate(task, self._drawn(), annotation=annotation)
        if fault == "killed after":
            _die()
        self._note("said", task, annotation)
        if fault == "double":
            self._note("said", task, self._desk.annotate(task, self._drawn()))
        if fault == "edit":
            edited = self._draw.choice(sorted(self._said))
            self._desk.annotate(self._said[edited], self._drawn(), annotation=edited)
        if fault == "delete" and (mine := self._deletable()):
            gone = self._draw.choice(mine)
            # Noted first: killed in between, nobody could tell it from a loss.
            self._note("deleting", self._said.pop(gone), gone)
            self._desk.delete(gone)

    def _deletable(self) -> list[str]:
        """Return own answers at places that nobody else is asked for.

        At others two people may end up with one place: whoever deletes an answer that counts is
        shown all free places of its task again, and what they annotate there is a repetition.
        """
        return sorted(said for said, task in self._said.items() if task not in self._crowd.shared)

    def _drawn(self) -> list:
        x, y = self._draw.randrange(80), self._draw.randrange(80)
        return [Label.box("cat", x, y, x + 10, y + 10)]

    def _note(self, what: str, task: str, annotation: object = "") -> None:
        note = {"what": what, "task": task, "annotation": str(annotation)}
        with self._path.open("a") as log:
            log.write(json.dumps(note) + "\n")
        self._recall(note)

    def _recall(self, note: dict[str, str]) -> None:
        what, task, annotation = note["what"], note["task"], note["annotation"]
        if what == "said":
            self._said[annotation] = task
        elif what == "deleting":
            self._said.pop(annotation, None)
        elif what in {"skip", "killed after a skip"}:
            self._skipped.add(task)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _collect(crowd: Crowd, parent: int) -> None:
    """Write what people said into the ledger, over and over, until killed."""
    client, lake = crowd.client(), crowd.open_lake()
    stamp = ""
    while os.getppid() == parent:
        try:
            if (shown := client.change_token(crowd.round_id)) != stamp:
                fetch_annotations(crowd.round_id, client, lake, now=datetime.now(UTC))
                stamp = shown
        except LabelingError as error:
            # The server is down, or changed while it was read: the next time is soon.
            print(f"collector: {error}", flush=True)
        time.sleep(0.2)


def _life(crowd: Crowd, name: str, life: int, parent: int) -> None:
    """Be somebody, from birth to exit."""
    if name not in crowd.people:
        _collect(crowd, parent)
        return
    try:
        _Person(crowd, name, life).work(parent)
    except (httpx.TransportError, httpx.HTTPStatusError, LabelingError) as error:
        if isinstance(error, LabelingError) and "locked" not in str(error):
            raise
        # A server that is down, on its way or busy: whoever labels goes away and comes back.
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
        time.sleep(1.0)
        _die()


def _born(crowd: Crowd, name: str, life: int) -> int:
    """Make a process that is somebody, and return its id."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _life(crowd, name, life, parent)
        code = 0
    except BaseException:  # noqa: BLE001 - a child must not return into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main(path: Path) -> int:
    """Make everybody, wait until all people are done, and print how often who was killed."""
    plan = json.loads(path.read_text())
    crowd = Crowd(**{**plan, "shared": tuple(plan["shared"])})
    draw = random.Random(crowd.seed)
    names = [*crowd.people, *(f"collector {n}" for n in range(crowd.collectors))]
    lives, killed = Counter(names), Counter()
    alive = {_born(crowd, name, 0): name for name in names}
    kill_at = time.monotonic() + crowd.kill_seconds
    while set(alive.values()) & set(crowd.people):
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            name = alive.pop(ended)
            if os.WIFSIGNALED(status):
                alive[_born(crowd, name, lives[name])] = name
                lives[name] += 1
            elif status:
                return 1
        elif time.monotonic() > kill_at:
            kill_at += crowd.kill_seconds
            # Collectors are few, and what they do is long.
            role = draw.choice([True, False])
            chosen = [pid for pid, name in sorted(alive.items()) if (name in crowd.people) == role]
            if chosen:
                pid = draw.choice(chosen)
                killed["people" if role else "collectors"] += 1
                os.kill(pid, signal.SIGKILL)
        else:
            time.sleep(0.005)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(json.dumps({"killed from outside": killed, "lives": lives.total()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
