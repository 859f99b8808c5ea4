"""The locations of a deployment that an erasure covers, and the lock that allows one at a time."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from annotation_platform.errors import NotReadyError, SettingsError
from annotation_platform.governance.erasure.locations import Locations
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.registry import labeling_of
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import read_policy
from annotation_platform.settings import PROJECT_ROOT, Settings, settings_environment
from annotation_platform.versioning.git import Git


def local_locations(
    settings: Settings, registry: Git, remote_url: str, *, reach: Callable[[str], Git]
) -> Locations:
    """Return every location of a deployment that can hold a trace of an image or a person.

    Args:
        settings: the deployment.
        registry: the registry with the versions.
        remote_url: location of their files; empty: the location that the versions record.
        reach: opens another registry by path or address.
    """
    lake, models = lake_of(settings), ModelRegistry(settings.models_path)
    return Locations(
        lake=lake,
        registry=registry,
        remote_url=remote_url,
        labeling=labeling_of(settings, lake.store, read_policy(settings.policy_path)),
        models={**models.cards(), **models.classifiers.cards()},
        home=settings.home_path,
        reach=reach,
        events=lambda images: _clear_events(settings, images),
    )


@contextmanager
def one_erasure(settings: Settings) -> Iterator[None]:
    """Keep every other process of this home from working on the same erasure.

    Raises:
        NotReadyError: another process is working on it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(settings.home_path / "erasing.lock", timeout=1):
            yield
    except Timeout:
        raise NotReadyError("Another process is working on an erasure. Wait for it.") from None


def _clear_events(settings: Settings, images: frozenset[str]) -> int:
    """Remove previews of images from Dagster's events; return the number of changed events."""
    # A process of its own, because the library does not import Dagster.
    ended = subprocess.run(
        [sys.executable, "-m", "resources.event_images"],
        cwd=PROJECT_ROOT,
        env={**settings_environment(settings), "PYTHONWARNINGS": "ignore"},
        input="\n".join(sorted(images)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines()
        raise SettingsError(lines[-1] if lines else "Dagster's events could not be cleared.")
    return int(ended.stdout.strip().splitlines()[-1])
