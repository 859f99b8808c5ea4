"""Dagster's webserver and daemon on this machine."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

from annotation_platform.errors import SettingsError
from annotation_platform.servers.child import LOOPBACK, ChildProcess, usable_port
from annotation_platform.settings import PROJECT_ROOT, Settings, settings_environment

_INSTANCE = """\
# Written by the platform. Dagster's own run retries are off: the sensors repeat failed runs after a
# pause, and two mechanisms would race each other.
telemetry:
  enabled: false
run_monitoring:
  enabled: true
concurrency:
  pools:
    default_limit: 1
    granularity: run
  runs:
    max_concurrent_runs: 2
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
"""
_BOOT_SECONDS = 120.0


class DagsterServers:
    """The webserver and the daemon, as children of this process, on the loopback interface.

    Args:
        settings: the deployment; the children get it through their environment.
        secrets: further environment variables of the children, such as tokens.
        port: port of the webserver; 0 takes a free one.
        on_progress: called with a sentence on the progress of the start.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        secrets: dict[str, str],
        port: int = 0,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._port = port
        self._on_progress = on_progress
        self._children: list[ChildProcess] = []

    @property
    def url(self) -> str:
        """The webserver's address; its port is known after the start."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def folder(self) -> Path:
        """The folder DAGSTER_HOME: runs, events, logs."""
        return self._settings.home_path / "dagster"

    def start(self) -> Self:
        """Start both processes and return once the webserver has loaded the definitions.

        Raises:
            SettingsError: the port is taken, a process ended early, or the definitions do not load.
        """
        self._port = usable_port(self._port, remedy="choose another one with --port")
        write_instance(self.folder)
        environment = {
            **settings_environment(self._settings),
            **self._secrets,
            "DAGSTER_HOME": str(self.folder),
            "PYTHONWARNINGS": "ignore",
        }
        workspace = ["-w", str(PROJECT_ROOT / "workspace.yaml")]
        webserver = ["dagster-webserver", "-h", LOOPBACK, "-p", str(self._port), *workspace]
        try:
            self._prepare_storage(environment)
            self._spawn("webserver", webserver, environment)
            self._spawn("daemon", ["dagster-daemon", "run", *workspace], environment)
            self._wait_until_loaded()
        except BaseException:
            # After any failed start, Ctrl-C included, no process is left running.
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop both processes and their children."""
        children, self._children = self._children, []
        for child in children:
            child.stop()

    def check(self) -> None:
        """Raise a SettingsError if one of the two has ended."""
        for child in self._children:
            if not child.running:
                raise SettingsError(
                    f"{child.log_path.stem} ended (exit {child.exit_code}): {child.last_line()} "
                    f"See {child.log_path}."
                )

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        """Return the data of a GraphQL query to the webserver."""
        response = httpx.post(
            f"{self.url}/graphql",
            json={"query": text, "variables": variables},
            trust_env=False,
            timeout=60.0,
        )
        response.raise_for_status()
        data: dict[str, Any] = response.json()["data"]
        return data

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, name: str, command: list[str], environment: dict[str, str]) -> ChildProcess:
        program = str(Path(sys.executable).parent / command[0])
        child = ChildProcess(
            [program, *command[1:]],
            environment=environment,
            folder=PROJECT_ROOT,
            log_path=self.folder / f"{name}.log",
        )
        self._children.append(child)
        return child

    def _prepare_storage(self, environment: dict[str, str]) -> None:
        # Two processes that create the same SQLite tables at the same time disturb each other, and
        # runs that were killed with their servers have to be marked as failed.
        child = self._spawn("storage", ["python", "-m", "resources.instance"], environment)
        child.wait(_BOOT_SECONDS)
        if child.exit_code != 0:
            raise SettingsError(
                f"Dagster cannot prepare its storage in {self.folder}: {child.last_line()} "
                f"See {child.log_path}."
            )
        self._children.remove(child)

    def _wait_until_loaded(self) -> None:
        begun = time.monotonic()
        while (waited := time.monotonic() - begun) < _BOOT_SECONDS:
            self.check()
            try:
                data = self.query(_WORKSPACE)
            except httpx.HTTPError:
                data = {}
            problem = _load_error(data)
            if problem:
                raise SettingsError(f"Dagster cannot load the definitions: {problem}")
            if data.get("workspaceOrError", {}).get("locationEntries"):
                return
            self._on_progress(f"Dagster is starting at {self.url} ({waited:.0f} s)")
            self._children[0].wait(0.5)
        raise SettingsError(
            f"Dagster does not respond at {self.url} after {_BOOT_SECONDS:.0f} s. "
            f"See {self.folder}/webserver.log."
        )


def write_instance(folder: Path) -> None:
    """Write the configuration of a Dagster instance into its folder, readable by its owner only."""
    (folder / ".nux").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "dagster.yaml").write_text(_INSTANCE)
    # Otherwise a dialog that asks for an e-mail address covers the first page.
    (folder / ".nux" / "nux.yaml").write_text("seen: 1\n")


_WORKSPACE = """
{ workspaceOrError { ... on Workspace { locationEntries {
  locationOrLoadError { __typename ... on PythonError { message } } } } } }
"""


def _load_error(data: dict[str, Any]) -> str:
    for entry in data.get("workspaceOrError", {}).get("locationEntries", []):
        loaded = entry["locationOrLoadError"] or {}
        if loaded.get("__typename") == "PythonError":
            return str(loaded["message"]).strip().splitlines()[-1]
    return ""
