"""A real S3 server that checks signatures: Debian's ``radosgw`` on a Ceph cluster of one.

One monitor, one OSD that keeps its objects in memory and the gateway: about 130 MB while empty.
Everything lies in one folder and listens on the loopback interface.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from annotation_platform.servers import bound_child
from annotation_platform.servers.child import LOOPBACK, ChildProcess, usable_port

INSTALL = "apt-get install ceph-mon ceph-osd radosgw"  # the other two come with these
_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
_PATIENCE_SECONDS = 60.0

# No signature is checked inside the cluster, only by the gateway. Without keys there is nothing to
# encrypt with either, which the gateway insists on unless "ms mon client mode" says crc.
_CONFIG = """\
[global]
fsid = {fsid}
mon host = v2:{loopback}:{monitor_port}
public addr = {loopback}
cluster addr = {loopback}
ms bind msgr1 = false
ms mon client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
client mount timeout = {patience}

mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
run dir = {folder}
crash dir = {folder}
# The path of a socket has a hundred characters at most, and pytest's folders are deep.
admin socket =

log to stderr = true
log file =
mon cluster log file =
debug rocksdb = 0

osd objectstore = memstore
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
mon allow pool size one = true
# A monitor gives up on a disk that is nearly full; this one needs next to nothing.
mon data avail crit = 0
# It collects changes for a second by default, and each of the gateway's pools is one.
paxos propose interval = 0.1

[mon.a]
public addr = v2:{loopback}:{monitor_port}

[client.rgw]
rgw frontends = beast endpoint={loopback}:{gateway_port}
rgw thread pool size = 32
# Told to end when its cluster is gone, as after a killed test, it would hang for two minutes.
rgw exit timeout secs = 5
"""


@dataclass(frozen=True)
class S3Server:
    """Where a running S3 server answers, and as whom; the secret does not show when printed."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


def missing_programs() -> list[str]:
    """Return the programs that are not installed; ``INSTALL`` says how to get them."""
    return [program for program in _PROGRAMS if shutil.which(program) is None]


@contextmanager
def running_radosgw(folder: Path) -> Iterator[S3Server]:
    """Boot an empty S3 server of one user in an empty folder, and stop it afterwards.

    On Linux it also ends when the *thread* that started it ends, so start it from the main one.
    """
    monitor_port, gateway_port = (usable_port(0, remedy="free some ports") for _ in range(2))
    cluster = _Cluster(folder)
    cluster.configure(monitor_port, gateway_port)
    with ExitStack() as stack:
        cluster.run("ceph-mon", "--mkfs", "-i", "a")
        monitor = cluster.start("ceph-mon", "-f", "-i", "a")
        stack.callback(monitor.stop)
        _wait_until_listening(monitor, monitor_port)

        identity = str(uuid.uuid4())
        cluster.run("ceph", "osd", "new", identity)
        cluster.run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", identity)
        stack.callback(cluster.start("ceph-osd", "-f", "-i", "0").stop)

        user = cluster.run(
            "radosgw-admin", "user", "create", "--uid", "tester", "--display-name", "Tester"
        )
        gateway = cluster.start("radosgw", "-f", "-n", "client.rgw")
        stack.callback(gateway.stop)
        _wait_until_listening(gateway, gateway_port)

        (key,) = json.loads(user)["keys"]
        yield S3Server(f"http://{LOOPBACK}:{gateway_port}", key["access_key"], key["secret_key"])


class _Cluster:
    """The programs of one cluster, which share a configuration file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        # Not the whole environment: CEPH_ARGS and its like would point at another cluster.
        self._environment = {
            "PATH": os.environ["PATH"],
            "CEPH_CONF": str(self._folder / "ceph.conf"),
        }

    def configure(self, monitor_port: int, gateway_port: int) -> None:
        """Write the configuration, and the folders it names."""
        for name in ("mon", "osd", "rgw"):
            (self._folder / name).mkdir(parents=True)
        text = _CONFIG.format(
            fsid=uuid.uuid4(),
            loopback=LOOPBACK,
            monitor_port=monitor_port,
            gateway_port=gateway_port,
            folder=self._folder,
            patience=int(_PATIENCE_SECONDS / 2),
        )
        (self._folder / "ceph.conf").write_text(text)

    def start(self, *command: str) -> ChildProcess:
        """Start a daemon; its output goes to a file named after it."""
        return ChildProcess(
            _resolved(command),
            environment=self._environment,
            folder=self._folder,
            log_path=self._folder / f"{command[0]}.log",
        )

    def run(self, *command: str) -> str:
        """Run a program to its end and return what it printed."""
        done = subprocess.run(
            # Cut off from its cluster by a killed test, it would wait for ever.
            [sys.executable, "-P", bound_child.__file__, str(os.getpid()), *_resolved(command)],
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout


def _resolved(command: Sequence[str]) -> list[str]:
    """Return a command with the whole path of its program."""
    program = shutil.which(command[0])
    if program is None:
        raise RuntimeError(f"{command[0]} is not installed: {INSTALL}")
    return [program, *command[1:]]


def _wait_until_listening(daemon: ChildProcess, port: int) -> None:
    """Return once the daemon takes connections at its port."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while daemon.running and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port)) == 0:
                return
        time.sleep(0.05)
    state = "does not listen" if daemon.running else f"ended with {daemon.exit_code}"
    raise RuntimeError(f"{daemon.log_path.stem} {state}: {daemon.last_line()}")
