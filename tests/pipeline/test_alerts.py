"""Every channel sends each alert once, and no alert, log or record holds a secret."""

import json
import socketserver
import threading
import traceback
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
from pydantic import SecretStr

from annotation_platform.definitions import defs
from annotation_platform.errors import AlertError, SettingsError
from annotation_platform.monitoring.alert import Alert
from annotation_platform.monitoring.channels import MailChannel
from annotation_platform.schema.tables import BatchDrift
from annotation_platform.settings import read_settings
from resources.causes import CAUSE
from resources.deployments import build_resources
from sensors.alerts import failure_sensor

SECRET = "CANARY-5f2a9c"
ONE = "round-0001"


class Receiver(BaseHTTPRequestHandler):
    """Stores every request and responds with the status of its server."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Idempotency-Key"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_):
        pass


class MailServer(socketserver.StreamRequestHandler):
    """The part of RFC 5321 that one message needs."""

    def handle(self):
        self.reply("220 here")
        while line := self.rfile.readline().decode().strip():
            if line.upper().startswith("DATA"):
                self.reply("354 go on")
                text = ""
                while (part := self.rfile.readline().decode()) != ".\r\n":
                    text += part
                self.server.seen.append(text)
            if line.upper().startswith("QUIT"):
                self.reply("221 bye")
                return
            self.reply("250 good")

    def reply(self, text):
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def serving(server):
    server.seen, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def web():
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Receiver)) as server:
        yield server


@pytest.fixture
def mail():
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer)) as server:
        yield server


@pytest.fixture
def tick(platform, web, mail, monkeypatch):
    """Return a tick of the sensor that sends its alerts to three receivers on this machine."""
    address = f"http://127.0.0.1:{web.server_port}"
    secrets = {
        "alert_webhook": f"{address}/hook?token={SECRET}",
        "alert_slack": f"{address}/slack/{SECRET}",
        "alert_smtp": f"smtp://127.0.0.1:{mail.server_address[1]}",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(f"ANNOTATION_{name.upper()}", value)
    platform.settings = platform.settings.model_copy(
        update={
            **{name: SecretStr(value) for name, value in secrets.items()},
            "alert_email": "ada@example.org",
            "alert_stalled_hours": 1e-9,
        }
    )
    cursor = None

    def run_tick():
        nonlocal cursor
        result = platform.tick(failure_sensor, cursor)
        cursor = result.cursor
        assert SECRET not in f"{result.skip_reason} {cursor}"
        return result.skip_reason.skip_message

    return run_tick


def fail(platform, cause):
    run = dg.DagsterRun(
        job_name="merge_round", tags={"dagster/partition": ONE, CAUSE: f"{ONE}:{cause}"}
    )
    platform.instance.add_run(run)
    platform.instance.report_run_failed(run, "a disk is full")


def test_failed_runs_checks_and_drift_are_sent_once(platform, tick, web, mail):
    assert tick() == "Nothing new."
    fail(platform, "a")
    fail(platform, "a")  # a second try for the same cause
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("training_set"),
        check_name="no_group_in_two_splits",
        passed=False,
        metadata={},
        severity=dg.AssetCheckSeverity.ERROR,
        description="2 groups are in two splits",
    )
    platform.instance.report_runless_asset_event(evaluation)
    row = {"round_id": ONE, "effect": 0.9, "p_value": 0.001, "batch_images": 9,
           "reference_images": 30, "feature": "brightness", "drifted": True,
           "detail": "40 against <120>"}  # fmt: skip
    calm = {**row, "feature": "width", "drifted": False}
    platform.lake.tables.write(BatchDrift, ONE, BatchDrift.from_rows([row, calm]))

    message = tick()
    assert "merge_round failed" in message
    assert (
        "no_group_in_two_splits of training_set does not hold: 2 groups are in two splits"
        in message
    )
    assert "brightness: 40 against <120>" in message
    assert "width" not in message
    assert Counter(path[1:5] for path, _, _ in web.seen) == {"hook": 3, "slac": 3}
    assert {body["kind"] for path, _, body in web.seen if "hook" in path} == {
        "run", "check", "drift"
    }  # fmt: skip
    messages = [body["text"] for path, _, body in web.seen if "slack" in path]
    assert any("40 against &lt;120&gt;" in each for each in messages)
    assert len({key for _, key, _ in web.seen}) == 3
    assert len(mail.seen) == 3
    assert all("To: ada@example.org" in each for each in mail.seen)

    assert tick() == "Nothing new."
    assert (len(web.seen), len(mail.seen)) == (6, 3)
    fail(platform, "b")
    assert "merge_round failed" in tick()
    assert (len(web.seen), len(mail.seen)) == (8, 4)


def test_a_failed_channel_sends_later_and_the_other_channels_do_not_repeat(
    platform, tick, web, mail, capfd
):
    fail(platform, "a")
    web.status = 500
    tick()
    tick()
    assert len(web.seen) == 4  # one try per channel and tick
    assert len(mail.seen) == 1
    output = "".join(capfd.readouterr())
    assert "webhook: responded with the status 500." in output
    assert SECRET not in output
    web.status = 200
    tick()
    tick()
    assert len(web.seen) == 6
    assert len(mail.seen) == 1
    records = b"".join(platform.lake.store.get(key) for key in platform.lake.store.list("alerts"))
    assert SECRET.encode() not in records


def test_a_stalled_round_is_reported_once_until_an_annotation_arrives(platform, tick, mail):
    platform.change_policy(review={"sample_share": 1.0})
    platform.land(1)
    platform.start_round()
    assert tick() == "Nothing new."  # it starts to wait now
    assert "It waits for people, without a new annotation for" in tick()
    assert tick() == "Nothing new."
    platform.annotate(ONE)
    assert tick() == "Nothing new."
    assert "It waits for people" in tick()
    platform.run("merge_round", ONE)
    tick()
    assert "It waits for reviewers" in tick()
    assert [each.split("Subject: ")[1].split("\r\n")[0] for each in mail.seen] == [
        f"{ONE}: stalled"
    ] * 3


def test_a_damaged_remote_is_reported(platform, tick, mail):
    platform.land(1)
    platform.start_round()
    platform.annotate(ONE)
    platform.release(ONE, platform.merge(ONE))
    tick()
    before = len(mail.seen)

    def verify():
        # The job of the code location, with the resources of this home.
        found = defs.resolve_job_def("verify_versions").execute_in_process(
            instance=platform.instance,
            resources={**defs.resources, **build_resources(platform.settings)},
            raise_on_error=False,
        )
        return found.success

    assert verify()
    assert tick() == "Nothing new."
    objects = [path for path in Path(platform.settings.remote_url).rglob("*") if path.is_file()]
    image = max(objects, key=lambda path: path.stat().st_size)
    image.chmod(0o644)
    image.write_bytes(image.read_bytes()[:-9])
    assert not verify()
    assert "verify_versions failed" in tick()
    assert len(mail.seen) == before + 1


@pytest.mark.parametrize(
    "server", ["smtp://ada:CANARY/5f@127.0.0.1:25", "smtp://ada:CANARYé@127.0.0.1:{port}"]
)
def test_the_error_of_an_unusable_mail_server_does_not_show_its_password(server, mail):
    port = mail.server_address[1]
    channel = MailChannel(server.format(port=port), "ada@example.org")
    alert = Alert("run", ONE, "a", "It failed.", "Look.")
    with pytest.raises(AlertError) as caught:
        channel.send(alert)
    shown = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in shown.replace(server, "")
    assert "CANARY" not in repr(channel)


def test_mail_settings_go_together_and_their_error_does_not_show_the_value(monkeypatch):
    monkeypatch.setenv("ANNOTATION_ALERT_SMTP", "smtp://ada:CANARY/5f@mail.example.org:587")
    with pytest.raises(SettingsError, match="ANNOTATION_ALERT_SMTP") as caught:
        read_settings()
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    monkeypatch.setenv("ANNOTATION_ALERT_SMTP", "smtp://mail.example.org:587")
    with pytest.raises(SettingsError, match="ANNOTATION_ALERT_EMAIL and ANNOTATION_ALERT_SMTP go"):
        read_settings()
    monkeypatch.setenv("ANNOTATION_ALERT_EMAIL", "ada@example.org")
    assert read_settings().alert_email == "ada@example.org"
