"""Dagster jobs on request: the jobs of its UI and sensors, run by a command or a program."""

import os
import subprocess
import sys

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.labeling.backends.label_studio.running import running_label_studio
from annotation_platform.servers.dagster import write_instance
from annotation_platform.settings import PROJECT_ROOT, Settings, settings_environment


def run_job(name: str, settings: Settings, *, round_id: str = "") -> None:
    """Run a Dagster job to its end, recorded in the Dagster instance of this home.

    The job runs in a process of its own, because the library does not import Dagster. It does the
    same as a run that the UI launches, and needs no server but the labelling back end.

    Args:
        name: the job, such as ``merge_round``.
        settings: the deployment.
        round_id: the round, such as ``round-0001``; empty for a job that has no rounds.

    Raises:
        AnnotationPlatformError: the job failed; the message is that of its first failed step.
    """
    if "DAGSTER_HOME" not in os.environ:
        write_instance(settings.home_path / "dagster")
    ended = subprocess.run(
        [sys.executable, "-m", "resources.run_job", name, round_id],
        cwd=PROJECT_ROOT,
        env={
            **settings_environment(settings),
            **_label_studio_environment(settings),
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {ended.returncode}"
        raise AnnotationPlatformError(
            f"{' '.join(filter(None, (name, round_id)))} failed: {reason}"
        )


def _label_studio_environment(settings: Settings) -> dict[str, str]:
    """Return the variables for this home's Label Studio; empty if they are set or none runs.

    A job that needs Label Studio fails without it; many jobs do not need it.
    """
    is_known = settings.labeling == "simulated" or settings.label_studio_token.get_secret_value()
    if is_known or not (settings.home_path / "servers.json").is_file():
        return {}
    url, token = running_label_studio(settings)
    return {"ANNOTATION_LABEL_STUDIO_URL": url, "ANNOTATION_LABEL_STUDIO_TOKEN": token}
