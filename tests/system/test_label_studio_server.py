"""How a Label Studio of the platform's own starts, fails to start, and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.image_sources import FolderImages
from annotation_platform.labeling.rate_limiter import Timing
from annotation_platform.servers.label_studio import LabelStudioServer

PROJECT_ROOT = Path(__file__).parents[2]


def test_a_taken_port_is_named_with_a_remedy(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        server = LabelStudioServer(
            tmp_path / "data",
            document_root=tmp_path,
            secrets_path=tmp_path / "secrets.json",
            port=port,
        )
        with pytest.raises(SettingsError, match=rf"Port {port} .*--label-studio-port"):
            server.start()
    assert not server.running


def test_a_server_that_ends_early_gives_its_last_words_and_its_log(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "label_studio.sqlite3").write_bytes(b"this is no database" * 100)
    server = LabelStudioServer(data, document_root=tmp_path, secrets_path=tmp_path / "secrets.json")
    with pytest.raises(SettingsError, match=r"not a database.*server\.log"):
        server.start()
    assert not server.running
    # What was drawn for it is kept for the next start, for this user's eyes alone.
    assert json.loads((tmp_path / "secrets.json").read_text())["label_studio"]["token"]
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


START = """
import os, sys, time
from pathlib import Path
from tests.system.prepared_label_studio import PreparedLabelStudio
place = Path(sys.argv[1])
server = PreparedLabelStudio(
    place / "data",
    document_root=place,
    secrets_path=place / "secrets.json",
    database=Path(sys.argv[2]),
).start()
print(server.url, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_server_ends_with_its_parent_and_is_gone_for_its_clients(tmp_path, label_studio_template):
    parent = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path), str(label_studio_template)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
        cwd=PROJECT_ROOT,
        text=True,
    )
    with parent:
        url = parent.stdout.readline().strip()
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200
        parent.send_signal(signal.SIGKILL)
    client = LabelStudioClient(
        url, "0" * 40, images=FolderImages(tmp_path), timing=Timing(retry_seconds=0.01)
    )
    # The kernel's signal and the child's end take a moment: refused is what must come of it.
    deadline = time.monotonic() + 30
    while True:
        try:
            client.collect("round-0001")
        except LabelingError as error:
            if "cannot be reached" in str(error) and "annotation-platform up" in str(error):
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)
