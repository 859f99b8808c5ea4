"""What tests of every kind share: an S3 server that lives in this process."""

import atexit
import gc
import os
import shutil
import tarfile
import tempfile
import uuid
from pathlib import Path

import boto3
import pytest
from hypothesis import settings

from tests.session_store import SessionStore, session_folder

# The same examples at every run, so that what passes here passes everywhere; new ones are looked
# for with --hypothesis-profile=default.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


MEMORY = Path("/dev/shm")
ROOM = 6 * 1024**3
"""Bytes that must be free in memory before the tests write there; a whole run takes a third."""

LONG_SECONDS = 900
"""Limit of a long test; the others have that of pyproject.toml."""

ALLOCATIONS = 20_000
"""Allocations between two looks of the garbage collector, which makes 700 the default."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Let the tests write to memory where there is room: they flush thousands of files."""
    gc.disable()  # Nothing that is imported and collected becomes garbage.
    worker = hasattr(config, "workerinput")
    if worker:
        # Processes that share the cores waste them when each starts a thread per core.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if worker or config.option.basetemp or not MEMORY.is_dir():
        return
    if shutil.disk_usage(MEMORY).free >= ROOM:
        config.option.basetemp = tempfile.mkdtemp(prefix="annotation-tests-", dir=MEMORY)
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


def pytest_collection_finish():
    """Let the garbage collector pass over what is imported: that takes a tenth of the time."""
    gc.freeze()
    gc.set_threshold(ALLOCATIONS)
    gc.enable()
    # Undone after pytest's own five collections, for libraries that look for leaks at the end.
    atexit.register(gc.unfreeze)


def pytest_collection_modifyitems(items):
    """Give long tests time for a busy machine; one that names a limit of its own keeps it."""
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """What the processes of this test session share."""
    return SessionStore(session_folder(tmp_path_factory))


@pytest.fixture(scope="session")
def public(store):
    """Return a function that gives a public folder, unpacked once per session if need be."""

    def folder(name):
        archive = DATA / f"{name}.tar.gz"
        if (DATA / name).is_dir():
            return DATA / name
        if not archive.is_file():
            pytest.skip(f"the public test data are not at {DATA}; set ANNOTATION_TEST_DATA")
        return store.once(f"unpacked-{name}", lambda: unpack(archive, store.folder / "unpacked"))

    def unpack(archive, place):
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
        return place / archive.name.removesuffix(".tar.gz")

    return folder


@pytest.fixture(scope="session")
def s3_server():
    """Address of a moto server. It keeps everything in memory and checks no signature."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server, monkeypatch):
    """Name of an empty bucket, the environment set so that everybody finds it."""
    values = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "someone",
        # Drawn, so that whoever finds it somewhere knows that it leaked.
        "AWS_SECRET_ACCESS_KEY": f"CANARY-{uuid.uuid4().hex}",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name
