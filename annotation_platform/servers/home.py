"""The folders of a home, and its lock: two sets of servers cannot share its databases."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annotation_platform.errors import SettingsError
from annotation_platform.settings import Settings
from annotation_platform.storage.s3 import Bucket, is_s3


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Lock a home for this process until the block ends.

    The lock is a file next to the home, so that the home itself can be replaced. The system
    releases it when the process ends in any way.

    Raises:
        SettingsError: another process holds the lock, or the file cannot be written.
    """
    lock = home.with_name(f".{home.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise SettingsError(
            f"{home}: cannot be written ({error.strerror}). Choose another folder: --home for the "
            "demo, ANNOTATION_HOME otherwise."
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"{home}: another annotation-platform uses this folder. Stop it, or choose another."
            ) from error
        yield


def make_home(settings: Settings) -> list[Path]:
    """Create the folders of a home that are missing, and return them.

    Raises:
        SettingsError: a folder cannot be created, or a bucket cannot be used.
    """
    for url in (settings.landing_url, settings.lake_url):
        if is_s3(url):
            Bucket(url).check()
    folders = [settings.home_path]
    if not is_s3(settings.landing_url):
        folders.append(settings.landing_path)
    if not is_s3(settings.lake_url):
        folders.append(settings.lake_path / "images")
    made = [folder for folder in folders if not folder.is_dir()]
    try:
        for folder in made:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{error.filename}: cannot be created ({error.strerror}). Set ANNOTATION_HOME to a "
            "folder that you can write."
        ) from error
    return made
