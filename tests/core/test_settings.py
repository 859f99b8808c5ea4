"""What a deployment can set, and how a wrong value is refused."""

import os
import subprocess
import sys
import traceback

import dagster as dg
import pytest

from annotation_platform.errors import SettingsError
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.policy import read_policy
from annotation_platform.settings import PROJECT_ROOT, Settings, read_settings, settings_environment
from resources.deployments import build_resources

SECRET = "CANARY-0123456789abcdef"
RATE = "ANNOTATION_LABEL_STUDIO_REQUESTS_PER_SECOND"


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("ANNOTATION_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path))


def test_nothing_needs_to_be_set():
    settings = read_settings()
    assert settings.label_studio_requests_per_second is None
    assert settings.labeling_poll_seconds == 0.0
    assert settings.webhook_url == ""
    assert settings.webhook_secret.get_secret_value() == ""
    assert settings.change_signals_path == settings.home_path / "hints"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *[(RATE, value) for value in ("0", "-1", "nan", "inf", "CANARY")],
        *[("ANNOTATION_LABELING_POLL_SECONDS", value) for value in ("-1", "nan", "inf", "CANARY")],
        *[("ANNOTATION_WEBHOOK_PORT", value) for value in ("0", "65536", "CANARY")],
        *[
            ("ANNOTATION_WEBHOOK_URL", value)
            for value in (
                "CANARY",
                "ftp://CANARY.example.org",
                "https://ada:CANARY@labels.example.org",
                "https://CANARY.example.org:99999",
                "https:///CANARY",
            )
        ],
        *[
            ("ANNOTATION_WEBHOOK_SECRET", value)
            for value in ("CANARY", "CANARY-schlüssel-0123456789", "CANARY\n0123456789abcdef")
        ],
    ],
)
def test_a_wrong_value_names_its_variable_and_is_not_repeated(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable} in the environment") as caught:
        read_settings()
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_an_empty_rate_is_none(monkeypatch):
    monkeypatch.setenv(RATE, "")
    assert read_settings().label_studio_requests_per_second is None


def test_a_child_gets_the_same_settings_and_no_secret_of_webhooks(monkeypatch):
    monkeypatch.setenv("ANNOTATION_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("ANNOTATION_WEBHOOK_URL", "https://labels.example.org/hints")
    for rate in (2.5, None):
        given = Settings(label_studio_requests_per_second=rate, labeling_poll_seconds=300.0)
        environment = settings_environment(given)
        assert SECRET not in environment.values()
        assert SECRET not in repr(given)
        script = (
            "from annotation_platform.settings import read_settings as r; s = r();"
            "print(s.label_studio_requests_per_second, s.labeling_poll_seconds,"
            " s.change_signals_path)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [str(rate), "300.0", str(given.change_signals_path)]


def test_the_rate_and_the_interval_reach_what_asks_label_studio(tmp_path):
    settings = Settings(
        label_studio_token="0" * 40,
        label_studio_requests_per_second=2.5,
        labeling_poll_seconds=300.0,
    )
    parts = build_resources(settings)
    schedule = parts["poll_schedule"].create_resource(None)
    assert (schedule.signals.path, schedule.poll_seconds) == (settings.change_signals_path, 300.0)
    lake = open_lake(str(tmp_path / "lake"), tmp_path / "landing")
    policy = read_policy(PROJECT_ROOT / "params.yaml")
    named = {"labeling": parts["labeling"], "lake": lake, "policy": policy}
    with dg.build_resources(named) as built:
        assert isinstance(built.labeling, LabelStudioClient)
        assert built.labeling.timing.requests_per_second == 2.5


def test_a_back_end_that_is_not_registered_is_refused_when_definitions_load():
    with pytest.raises(SettingsError, match="Choose one of: handoff, label-studio, simulated"):
        build_resources(Settings(labeling="chalk"))
