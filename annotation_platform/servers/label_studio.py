"""A Label Studio on this machine: started, watched and stopped by the platform.

For one machine and a few people, with SQLite, which the first boot migrates in about 45 s on a
laptop. A team runs its own server and sets ``ANNOTATION_LABEL_STUDIO_URL`` and
``ANNOTATION_LABEL_STUDIO_TOKEN``.
"""

import importlib.util
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from annotation_platform.errors import SettingsError
from annotation_platform.servers.child import LOOPBACK, ChildProcess, usable_port
from annotation_platform.storage.files import write_file

_SECRETS_KEY = "label_studio"
_BOOT_SECONDS = 300.0

# Label Studio reads settings under bare names too (HOST, PASSWORD, DEBUG, …), so the environment is
# not passed on as a whole.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
    "SYSTEMROOT",
    "AWS_CA_BUNDLE",
)

_CLOSED = {
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    # These two are the defaults; they are set so that an upgrade cannot change them.
    "SSRF_PROTECTION_ENABLED": "true",
    "USE_DEFAULT_BANNED_SUBNETS": "true",
    "COLLECT_ANALYTICS": "False",
    "LATEST_VERSION_CHECK": "False",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",
}

Progress = Callable[[str], None]
"""Called about once a second with a sentence on the progress of a start."""


@dataclass(frozen=True)
class Administrator:
    """The first account of a server; its ``repr`` hides the secrets."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)


class LabelStudioServer:
    """A Label Studio process on the loopback interface, without public sign-up.

    ``with LabelStudioServer(...) as server:`` starts and stops it; so do ``start`` and ``stop``.
    On Linux it also ends with the *thread* that started it, so start it from the main thread.

    Args:
        folder: folder of Label Studio's database and keys; only its owner can read it.
        document_root: the lake, if it is a folder; members see the images in its ``images``
            folder. With None, they see no file of this machine.
        secrets_path: JSON file (mode 0600) with the administrator's password and token under
            ``label_studio``; they are generated on the first boot.
        s3_endpoint: S3 server of records that name none, and the only one with a loopback or
            private address that Label Studio connects to; empty for Amazon.
        port: port on 127.0.0.1; 0 takes a free one.
        on_progress: called with a sentence on the progress of the boot.
    """

    def __init__(
        self,
        folder: Path,
        *,
        document_root: Path | None,
        secrets_path: Path,
        s3_endpoint: str = "",
        port: int = 0,
        on_progress: Progress = lambda _: None,
    ) -> None:
        self._folder = folder.expanduser().absolute()
        self._document_root = document_root.expanduser().absolute() if document_root else None
        self._secrets_path = secrets_path
        self._s3_endpoint = s3_endpoint
        self._port = port
        self.log_path = self._folder / "server.log"
        """File of the server's output, mode 0600."""
        self._on_progress = on_progress
        self._process: ChildProcess | None = None
        self._administrator: Administrator | None = None

    @property
    def url(self) -> str:
        """The server's address; its port is known after the start."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def administrator(self) -> Administrator:
        """The account of the platform itself; it exists after the start."""
        if self._administrator is None:
            raise RuntimeError("the server has not been started")
        return self._administrator

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Boot the server and return once it responds; a running one is left alone.

        Raises:
            SettingsError: Label Studio is not installed, the port is taken, the process ended
                early or does not respond in time, or the secrets do not match its data.
        """
        if self.running:
            return self
        _check_installed()
        self._port = usable_port(self._port, remedy="choose another one with --label-studio-port")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        if self._document_root is not None:
            (self._document_root / "images").mkdir(parents=True, exist_ok=True)
        self._administrator = _administrator(self._secrets_path)
        arguments = [
            "start",
            "--no-browser",
            "--port",
            str(self._port),
            "--internal-host",
            LOOPBACK,
        ]
        self._process = start_process(
            arguments, folder=self._folder, log_path=self.log_path, environment=self._environment()
        )
        try:
            self._wait_until_healthy(self._process)
            self._check_administrator()
        except BaseException:
            # After any failed boot, Ctrl-C included, no process is left running.
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the process and its children, by force after ten seconds."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        environment = {
            # Secrets go through the environment: every user can read a command line.
            "LABEL_STUDIO_USERNAME": self.administrator.email,
            "LABEL_STUDIO_PASSWORD": self.administrator.password,
            "LABEL_STUDIO_USER_TOKEN": self.administrator.token,
            "LABEL_STUDIO_HOST": self.url,
        }
        if self._document_root is not None:
            environment |= {
                "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
                "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self._document_root),
            }
        if self._s3_endpoint:
            environment["LABEL_STUDIO_S3_ENDPOINT"] = self._s3_endpoint
        return environment

    def _wait_until_healthy(self, process: ChildProcess) -> None:
        begun = time.monotonic()
        with httpx.Client(base_url=self.url, trust_env=False, timeout=5.0) as client:
            while (waited := time.monotonic() - begun) < _BOOT_SECONDS:
                if not process.running:
                    raise SettingsError(
                        f"Label Studio ended while starting (exit {process.exit_code}): "
                        f"{process.last_line()} See {self.log_path}."
                    )
                with suppress(httpx.TransportError):
                    if client.get("/health").status_code == 200:
                        return
                self._on_progress(f"Label Studio is starting at {self.url} ({waited:.0f} s)")
                process.wait(0.5)
        raise SettingsError(
            f"Label Studio does not respond at {self.url} after {_BOOT_SECONDS:.0f} s. "
            f"See {self.log_path}."
        )

    def _check_administrator(self) -> None:
        # Label Studio sets password and token only when it creates the administrator.
        response = httpx.get(
            f"{self.url}/api/current-user/whoami",
            headers={"Authorization": f"Token {self.administrator.token}"},
            trust_env=False,
            timeout=30.0,
        )
        if response.status_code != 200:
            raise SettingsError(
                f"Label Studio's data in {self._folder} does not match the secrets in "
                f"{self._secrets_path}. Restore the secrets file that belongs to the data, "
                "or move the data away to start without it."
            )


def _check_installed() -> None:
    if importlib.util.find_spec("label_studio") is None:
        raise SettingsError(
            "Label Studio is not installed in this environment. Install it with "
            "`pip install label-studio==1.23.2`, or set ANNOTATION_LABEL_STUDIO_URL and "
            "ANNOTATION_LABEL_STUDIO_TOKEN to a server that runs elsewhere."
        )


def start_process(
    arguments: list[str], *, folder: Path, log_path: Path, environment: dict[str, str]
) -> ChildProcess:
    """Start Label Studio with these arguments, and with ``folder`` for its data."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    data = {"LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    return ChildProcess(
        [sys.executable, "-P", "-m", "label_studio.server", *arguments],
        environment={**passed_on, **_CLOSED, **data, **environment},
        # Label Studio serves folders with certain names in its working directory.
        folder=folder,
        log_path=log_path,
        umask=0o077,
    )


def _administrator(secrets_path: Path) -> Administrator:
    """Return the administrator of the secrets file; generate and store one if there is none."""
    known = _read_secrets(secrets_path)
    if _SECRETS_KEY not in known:
        known[_SECRETS_KEY] = {
            "email": "admin@example.com",
            "password": secrets.token_urlsafe(18),
            "token": secrets.token_hex(20),
        }
        text = json.dumps(known, indent=2) + "\n"
        write_file(secrets_path, text.encode(), mode=0o600)
    # Also for a file that was created or copied with other permissions.
    secrets_path.chmod(0o600)
    try:
        return Administrator(**known[_SECRETS_KEY])
    except TypeError as error:
        raise SettingsError(
            f"{secrets_path}: {_SECRETS_KEY} is not an email, a password and a token. "
            "Restore the original file, or remove it together with Label Studio's data."
        ) from error


def _read_secrets(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: the secrets cannot be read. Restore a good copy.") from error
    if not isinstance(known, dict):
        raise SettingsError(f"{path}: expected a JSON object. Restore a good copy.")
    return known
