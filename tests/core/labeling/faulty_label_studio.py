"""A Label Studio that misbehaves on demand: real HTTP on the loopback interface, real state.

It answers what the client asks of Label Studio 1.23, with the same shapes, and keeps what it is
kept in memory. Like the original it enforces nothing. What goes wrong is a script: a fault is a
function of one exchange, given for a request by its number or by what it asks for.
"""

import json
import os
import re
import socket
import struct
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "CANARY0123456789abcdef0123456789abcdef01"
PERSONAL_TOKEN = "eyJDQU5BUlk.eyJ1c2VyIjoxfQ.c2lnbmF0dXJl"
ADMINISTRATOR = 1
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Exchange:
    """One request, and what a fault can do about it."""

    def __init__(self, server, handler, number):
        split = urlsplit(handler.path)
        self.server, self.handler, self.number = server, handler, number
        self.method, self.path = handler.command, split.path
        self.query = {key: values[-1] for key, values in parse_qs(split.query).items()}
        self.signed = handler.headers.get("Authorization", "")
        length = int(handler.headers.get("Content-Length", 0))
        self.sent = handler.rfile.read(length)

    def perform(self):
        """Do what is asked and return the status and the JSON to answer."""
        return self.server.perform(self)

    def response(self, status, body, **headers):
        """Answer with a body of bytes, text or JSON."""
        if not isinstance(body, bytes | str):
            body = b"" if body is None else json.dumps(body).encode()
        body = body.encode() if isinstance(body, str) else body
        self.handler.send_response(status)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        defaults = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        for key, value in (defaults | named).items():
            self.handler.send_header(key, value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def hang_up(self):
        """Reset the connection, as a crash or a firewall does."""
        connection = self.handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())
        self.handler.close_connection = True


def obey(exchange):
    """No fault: the request is performed and answered."""
    exchange.response(*exchange.perform())


def says(status, body="", **headers):
    """Answer without doing it."""
    return lambda exchange: exchange.response(status, body, **headers)


LOGIN_PAGE = says(200, "<html>Log in</html>", Content_Type="text/html; charset=utf-8")
HALF_A_DOCUMENT = says(200, '{"tasks": [{"id": 1, ')


def dropped(exchange):
    """Reset before anything is done."""
    exchange.hang_up()


def lost(exchange):
    """Do it, and reset instead of saying so."""
    exchange.perform()
    exchange.hang_up()


def cut(exchange):
    """Do it, and break off in the middle of the answer."""
    status, payload = exchange.perform()
    body = json.dumps(payload).encode()
    exchange.response(status, body[: len(body) // 2], Content_Length=str(len(body) + 1))
    exchange.handler.close_connection = True


def reset_midway(exchange):
    """Do it, and reset in the middle of the answer."""
    status, payload = exchange.perform()
    body = json.dumps(payload).encode()
    exchange.response(status, body[: len(body) // 2], Content_Length=str(len(body) + 1))
    exchange.hang_up()


def hangs(exchange):
    """Send nothing until the server stops or the client disconnects."""
    exchange.handler.connection.settimeout(30)
    exchange.handler.rfile.read(1)
    exchange.handler.close_connection = True


def trickles(exchange):
    """Answer a byte at a time, without end."""
    exchange.handler.send_response(200)
    exchange.handler.send_header("Content-Length", "1000000")
    exchange.handler.end_headers()
    while not exchange.server.stopping.wait(0.02):
        try:
            exchange.handler.wfile.write(b" ")
        except OSError:
            break
    exchange.handler.close_connection = True


def late(seconds):
    """Reset at once, and execute the request only ``seconds`` later."""

    def fault(exchange):
        exchange.server.later(seconds, exchange.perform)
        exchange.hang_up()

    return fault


def delayed(seconds):
    """Take a while."""

    def fault(exchange):
        exchange.server.stopping.wait(seconds)
        obey(exchange)

    return fault


def after(change):
    """Call ``change(server)``, then do as asked."""

    def fault(exchange):
        change(exchange.server)
        obey(exchange)

    return fault


def before_answering(change):
    """Do as asked, and call ``change(server)`` before saying so."""

    def fault(exchange):
        status, payload = exchange.perform()
        change(exchange.server)
        exchange.response(status, payload)

    return fault


def edited(change):
    """Do as asked, and answer with what ``change`` makes of the JSON."""

    def fault(exchange):
        status, payload = exchange.perform()
        exchange.response(status, change(payload))

    return fault


class FaultyLabelStudio:
    """The state of a server, its script and the requests that came.

    Args:
        page_size_max: The longest page it gives, whatever is asked for.
    """

    def __init__(self, page_size_max=10_000):
        self.page_size_max = page_size_max
        self.projects, self.tasks, self.annotations, self.predictions = {}, {}, {}, {}
        self.views, self.storages = {}, {}
        self.users = {ADMINISTRATOR: "admin@example.com"}
        self.tokens = {f"Token {TOKEN}": ADMINISTRATOR}
        self.requests = []
        self.stopping = threading.Event()
        self._script, self._later = [], []
        self._lock = threading.RLock()
        self._last_id, self._clock = 0, BEGINNING
        self._http = None
        self.port = 0

    @property
    def url(self):
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, fault, *, at=None, on=None, times=1):
        """Misbehave in request number ``at``, or the next ``times`` ones that match ``on``.

        ``on`` is a pattern for the method and the path, such as ``POST .*/import``.
        """
        self._script.append([at, on and re.compile(on), times, fault])

    def heal(self):
        """Forget the script."""
        self._script.clear()

    def sign_up(self, name, token):
        """Add a person, who may sign with ``token``; return their number."""
        number = self._new_id()
        self.users[number] = f"{name}@example.org"
        self.tokens[f"Token {token}"] = number
        return number

    def assignments(self):
        """Return the assignments that all projects hold, with repetitions, sorted."""
        with self._lock:
            return sorted((t["data"]["task_id"], t["data"]["place"]) for t in self.tasks.values())

    def annotate(self, task, user, result, **fields):
        """Submit an annotation as a person, and return its number."""
        with self._lock:
            now = self._now()
            number = self._new_id()
            self.annotations[number] = {
                "id": number,
                "task": task,
                "completed_by": user,
                "created_username": f" {self.users.get(user, '')}, {user}",
                "created_at": now,
                "updated_at": now,
                "lead_time": 1.0,
                "was_cancelled": False,
                "result": result,
                "parent_prediction": None,
                "unique_id": None,
                **fields,
            }
            self.tasks[task]["updated_at"] = now
            return number

    def delete_task(self, task):
        """Delete a task with all its annotations."""
        with self._lock:
            self.tasks.pop(task, None)
            for kept in (self.annotations, self.predictions):
                for key in [key for key, value in kept.items() if value["task"] == task]:
                    del kept[key]

    def delete_project(self, project):
        """Delete a project with its tasks."""
        with self._lock:
            for task in [key for key, value in self.tasks.items() if value["project"] == project]:
                self.delete_task(task)
            del self.projects[project]

    def later(self, seconds, act):
        """Call ``act`` after a number of seconds."""
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()
        self._later.append(timer)

    def settle(self):
        """Wait until all that was put off is done."""
        for timer in self._later:
            timer.join()

    def start(self):
        """Listen; on the same port as before if it did already."""
        self.stopping.clear()
        self._http = _Listener(("127.0.0.1", self.port), _handler_of(self))
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.005,), daemon=True).start()

    def stop(self):
        """Listen no more; what was kept is kept."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def respond(self, handler):
        """Take a request, and the fault that the script has for it."""
        with self._lock:
            exchange = Exchange(self, handler, len(self.requests) + 1)
            self.requests.append(exchange)
            fault = self._next_fault(exchange)
        fault(exchange)

    def perform(self, exchange):
        """Do what is asked and return the status and the JSON to answer."""
        user = self.tokens.get(exchange.signed)
        if exchange.path == "/api/token/refresh/":
            return self._refresh(exchange)
        if user is None:
            return 401, {"detail": f"Invalid token: {exchange.signed}"}
        body = json.loads(exchange.sent) if exchange.sent else None
        for method, pattern, act in _ROUTES:
            found = re.fullmatch(pattern, exchange.path)
            if found and method == exchange.method:
                numbers = [int(group) for group in found.groups()]
                with self._lock:
                    try:
                        return act(self, *numbers, query=exchange.query, body=body, user=user)
                    except KeyError as missing:
                        return 404, {"detail": f"No {missing} matches the given query."}
        return 404, {"detail": "Not found."}

    def _next_fault(self, exchange):
        asked = f"{exchange.method} {exchange.path}"
        for entry in self._script:
            at, on, times, fault = entry
            due = exchange.number == at if at else on.fullmatch(asked) is not None
            if times and due:
                entry[2] -= 1
                return fault
        return obey

    def _refresh(self, exchange):
        if json.loads(exchange.sent).get("refresh") != PERSONAL_TOKEN:
            return 401, {"detail": "Token is invalid", "code": "token_not_valid"}
        access = f"access-{self._new_id()}"
        self.tokens[f"Bearer {access}"] = ADMINISTRATOR
        return 200, {"access": access}

    def _new_id(self):
        return self._new_ids(1)[0]

    def _new_ids(self, count):
        with self._lock:
            first, self._last_id = self._last_id + 1, self._last_id + count
            return range(first, first + count)

    def _now(self):
        self._clock += timedelta(microseconds=1)
        return self._clock.isoformat().replace("+00:00", "Z")

    def _by_task(self):
        """Return the annotations of each task."""
        annotations = defaultdict(list)
        for each in self.annotations.values():
            annotations[each["task"]].append(each)
        return annotations

    # What it is asked for, route by route.

    def list_projects(self, *, query, **_):
        found = [p for p in self.projects.values() if query.get("title", "") in p["title"]]
        page, size = int(query.get("page", 1)), int(query.get("page_size", 100))
        some = [self._counted(p) for p in found[(page - 1) * size : page * size]]
        more = f"{self.url}/api/projects/?page={page + 1}" if page * size < len(found) else None
        return 200, {"count": len(found), "next": more, "previous": None, "results": some}

    def make_project(self, *, body, **_):
        number = self._new_id()
        self.projects[number] = {"id": number, **body}
        # The original does not count what it has just made.
        return 201, self.projects[number] | {"task_number": None}

    def show_project(self, project, **_):
        return 200, self._counted(self.projects[project])

    def change_project(self, project, *, body, **_):
        self.projects[project] |= body
        return 200, self._counted(self.projects[project])

    def drop_project(self, project, **_):
        self.projects[project]
        self.delete_project(project)
        return 204, None

    def _counted(self, project):
        tasks = {key for key, task in self.tasks.items() if task["project"] == project["id"]}
        annotations = [each for each in self.annotations.values() if each["task"] in tasks]
        skipped = sum(each["was_cancelled"] for each in annotations)
        shown = [each for each in self.predictions.values() if each["task"] in tasks]
        return project | {
            "task_number": len(tasks),
            "total_annotations_number": len(annotations) - skipped,
            "skipped_annotations_number": skipped,
            "total_predictions_number": len(shown),
        }

    def import_tasks(self, project, *, query, body, **_):
        self.projects[project]
        made = []
        for number, given in zip(self._new_ids(len(body)), body, strict=True):
            self.tasks[number] = {
                "id": number,
                "project": project,
                "data": given["data"],
                "updated_at": self._now(),
                "drafts": 0,
            }
            for prediction in given.get("predictions", []):
                shown = self._new_id()
                self.predictions[shown] = {"id": shown, "task": number, **prediction}
            made.append(number)
        ids = {"task_ids": made} if query.get("return_task_ids") == "true" else {}
        return 201, {"task_count": len(made), **ids}

    def list_tasks(self, *, query, **_):
        project = int(query["project"])
        self.projects[project]
        asked = json.loads(query.get("query", "{}"))
        found = [t for t in self.tasks.values() if t["project"] == project]
        annotations = self._by_task()
        found = [
            task for task in found if _matches(task, annotations[task["id"]], asked.get("filters"))
        ]
        for key in asked.get("ordering", ["tasks:id"]):
            name = key.rsplit(":", 1)[1]
            found.sort(key=lambda task, name=name: task[name], reverse=key.startswith("-"))
        page = int(query.get("page", 1))
        size = min(int(query.get("page_size", 100)), self.page_size_max)
        some = found[(page - 1) * size : page * size]
        if not some and page > 1:
            return 404, {"detail": "Invalid page."}
        return 200, {
            "total": len(found),
            "total_annotations": sum(_counts(annotations[task["id"]])[0] for task in found),
            "total_predictions": 0,
            "tasks": [_shown(task, annotations[task["id"]], query) for task in some],
        }

    def act(self, *, query, body, **_):
        chosen = set(body["selectedItems"]["included"])
        project, annotations = int(query["project"]), self._by_task()
        gone = [
            key
            for key, task in self.tasks.items()
            if key in chosen
            and task["project"] == project
            and _matches(task, annotations[key], body.get("filters"))
        ]
        for key in gone:
            self.delete_task(key)
        return 200, {"processed_items": len(gone)}

    def drop_task(self, task, **_):
        self.tasks[task]
        self.delete_task(task)
        return 204, None

    def list_predictions(self, *, query, **_):
        tasks = {k for k, t in self.tasks.items() if t["project"] == int(query["project"])}
        return 200, [each for each in self.predictions.values() if each["task"] in tasks]

    def submit(self, task, *, body, user, **_):
        self.tasks[task]
        key = body.get("unique_id")
        if key and any(each["unique_id"] == key for each in self.annotations.values()):
            return 409, {"detail": "Annotation with this unique id already exists"}
        number = self.annotate(task, user, **body)
        return 201, self.annotations[number]

    def edit(self, annotation, *, body, **_):
        now = self._now()
        self.annotations[annotation] |= body | {"updated_at": now}
        self.tasks[self.annotations[annotation]["task"]]["updated_at"] = now
        return 200, self.annotations[annotation]

    def drop_annotation(self, annotation, **_):
        self.tasks[self.annotations.pop(annotation)["task"]]["updated_at"] = self._now()
        return 204, None

    def list_users(self, **_):
        return 200, [{"id": key, "email": email} for key, email in self.users.items()]

    def whoami(self, *, user, **_):
        return 200, {"id": user, "email": self.users[user], "active_organization": 1}

    def list_views(self, *, query, **_):
        project = int(query["project"])
        return 200, [view for view in self.views.values() if view["project"] == project]

    def make_view(self, *, body, **_):
        number = self._new_id()
        self.views[number] = {"id": number, **body}
        return 201, self.views[number]

    def list_storages(self, *, query, **_):
        project = int(query["project"])
        return 200, [each for each in self.storages.values() if each["project"] == project]

    def make_storage(self, *, body, **_):
        number = self._new_id()
        self.storages[number] = {"id": number, **body}
        return 201, self.storages[number]


def _counts(annotations):
    skipped = sum(each["was_cancelled"] for each in annotations)
    return len(annotations) - skipped, skipped


def _shown(task, annotations, query):
    names = query.get("include", "").split(",")
    counted = dict(
        zip(("total_annotations", "cancelled_annotations"), _counts(annotations), strict=True)
    )
    shown = {key: value for key, value in (task | counted).items() if key in names}
    if query.get("fields") == "all" and query.get("expand") == "annotations":
        inner = [name.split(".")[1] for name in names if name.startswith("annotations.")]
        shown["annotations"] = [{name: each[name] for name in inner} for each in annotations]
    return shown


def _matches(task, annotations, filters):
    usual, skipped = _counts(annotations)
    facts = {
        "id": task["id"],
        "total_annotations": usual,
        "cancelled_annotations": skipped,
        "annotators": [each["completed_by"] for each in annotations],
        "draft_exists": task["drafts"] > 0,
    }
    for item in (filters or {"items": []})["items"]:
        if not _holds(facts[item["filter"].rsplit(":", 1)[1]], item["operator"], item["value"]):
            return False
    return True


def _holds(fact, operator, value):
    if operator == "empty":
        return value == (not fact)
    if operator == "in":
        return value["min"] <= fact <= value["max"]
    return fact > value if operator == "greater" else fact == value


_ROUTES = [
    ("GET", r"/api/projects/", FaultyLabelStudio.list_projects),
    ("POST", r"/api/projects/", FaultyLabelStudio.make_project),
    ("GET", r"/api/projects/(\d+)/", FaultyLabelStudio.show_project),
    ("PATCH", r"/api/projects/(\d+)/", FaultyLabelStudio.change_project),
    ("DELETE", r"/api/projects/(\d+)/", FaultyLabelStudio.drop_project),
    ("POST", r"/api/projects/(\d+)/import", FaultyLabelStudio.import_tasks),
    ("GET", r"/api/tasks/", FaultyLabelStudio.list_tasks),
    ("DELETE", r"/api/tasks/(\d+)/", FaultyLabelStudio.drop_task),
    ("POST", r"/api/tasks/(\d+)/annotations/", FaultyLabelStudio.submit),
    ("PATCH", r"/api/annotations/(\d+)/", FaultyLabelStudio.edit),
    ("DELETE", r"/api/annotations/(\d+)/", FaultyLabelStudio.drop_annotation),
    ("GET", r"/api/predictions/", FaultyLabelStudio.list_predictions),
    ("POST", r"/api/dm/actions", FaultyLabelStudio.act),
    ("GET", r"/api/dm/views/", FaultyLabelStudio.list_views),
    ("POST", r"/api/dm/views/", FaultyLabelStudio.make_view),
    ("GET", r"/api/users/", FaultyLabelStudio.list_users),
    ("GET", r"/api/current-user/whoami", FaultyLabelStudio.whoami),
    ("GET", r"/api/storages/localfiles/", FaultyLabelStudio.list_storages),
    ("POST", r"/api/storages/localfiles/", FaultyLabelStudio.make_storage),
]


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """The client disconnected: it was killed, or its timeout passed."""


def _handler_of(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are two writes; without this the second waits for the first to be seen.
        disable_nagle_algorithm = True

        def respond(self):
            server.respond(self)

        do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815

        def log_message(self, *args):
            pass

    return Handler


@contextmanager
def running(**options):
    """Yield a server that listens until the end of the block."""
    server = FaultyLabelStudio(**options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def wait_until(true, seconds=10.0):
    """Wait until ``true()``, for at most a number of seconds."""
    ends_at = time.monotonic() + seconds
    while not true() and time.monotonic() < ends_at:
        time.sleep(0.005)
