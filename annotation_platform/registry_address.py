"""Addresses of git repositories, with credentials kept apart, and errors from git's output.

A password or token in ``https://user:token@host/path`` is removed from the address. Git receives it
on request through a credential helper that reads this process's environment, so it appears in no
file, no command line and no message.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from annotation_platform.errors import PublishError, SettingsError

_USER, _PASSWORD = "ANNOTATION_GIT_USER", "ANNOTATION_GIT_PASSWORD"
_HELPER = (
    '!f() { test "$1" = get && '
    f'printf "username=%s\\npassword=%s\\n" "${_USER}" "${_PASSWORD}"; }}; f'
)
_ABSENT = re.compile(
    r"not appear to be a git repo|repository .*not found|\b404\b|does not exist", re.IGNORECASE
)
_DENIED = re.compile(
    r"denied|authentication failed|could not read (username|password)|\b40[13]\b"
    r"|host key verification|unauthori[sz]ed|forbidden",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"could not resolve|unable to access|connect|timed out|too slow|no route|hung up|early EOF"
    r"|could not read from remote",
    re.IGNORECASE,
)
_GENERAL = re.compile(r"could not read from remote|correct access rights|repository exists")


class UnreachableError(PublishError):
    """A registry did not respond; a later attempt may succeed."""


@dataclass(frozen=True)
class Address:
    """The address of a repository: ``url`` without credentials, and the credentials."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The address for messages: the URL without its query."""
        return self.url.partition("?")[0]

    def credentials(self) -> dict[str, str]:
        """Return the variables that give git the credentials for this host only; maybe none."""
        if not self.user and not self.password:
            return {}
        parts = urlsplit(self.url)
        key = f"credential.{parts.scheme}://{parts.netloc}.helper"
        return {
            _USER: self.user,
            _PASSWORD: self.password,
            "GIT_CONFIG_COUNT": "2",
            # The empty value disables the user's own helpers, which would store the secret.
            "GIT_CONFIG_KEY_0": key,
            "GIT_CONFIG_VALUE_0": "",
            "GIT_CONFIG_KEY_1": key,
            "GIT_CONFIG_VALUE_1": _HELPER,
        }

    def failed(self, command: str, stderr: bytes, remedy: str = "") -> PublishError:
        """Return the error for a ``git command`` that failed at this address.

        Args:
            command: the git subcommand, such as ``fetch``.
            stderr: git's error output.
            remedy: advice for the case that git's output names none of the usual reasons.
        """
        reason = self._reason(stderr)
        if _ABSENT.search(reason):
            return PublishError(
                f"{self.shown}: no git repository is there ({reason}). Correct ANNOTATION_REGISTRY "
                "or --registry, or create a repository there with `git init --bare`."
            )
        if _DENIED.search(reason):
            return PublishError(
                f"{self.shown}: access to the registry is denied ({reason}). Check your key or "
                "token and its permissions."
            )
        if _UNREACHABLE.search(reason):
            return UnreachableError(
                f"{self.shown}: the registry cannot be reached ({reason}). Check "
                "ANNOTATION_REGISTRY or --registry and the network, and run again."
            )
        return PublishError(
            f"{self.shown}: git {command} failed ({reason}). {remedy or 'Run again.'}"
        )

    def _reason(self, stderr: bytes) -> str:
        """Return git's error lines without credentials, at most 300 characters."""
        text = stderr.decode(errors="replace").replace(self.url, self.shown)
        # A server may send control characters.
        lines = [
            "".join(each for each in line if each.isprintable()).strip().rstrip(".")
            for line in text.splitlines()
        ]
        reasons = [
            re.sub(r"^(fatal|error|remote): +", "", line)
            for line in lines
            if line and not line.startswith(("Warning:", "hint:"))
        ]
        specific = [line for line in reasons if not _GENERAL.search(line)]
        return "; ".join(specific or reasons)[:300] or "git gave no reason"


def is_address(location: str) -> bool:
    """Return whether git treats ``location`` as an address and not as a path.

    Git's rule: a URL, or a colon before the first slash, as in ``git@host:path``.
    """
    return "://" in location or ":" in location.partition("/")[0]


def parse_address(location: str | Path) -> Address:
    """Return the address in ``location`` with its credentials apart; a path becomes absolute.

    In ``https://token@host`` the user is treated as a secret too.

    Raises:
        SettingsError: the URL has a query or a fragment.
    """
    text = str(location)
    if "://" not in text:
        return Address(text if is_address(text) else str(Path(text).expanduser().absolute()))
    parts = urlsplit(text)
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = (unquote(each) for each in login.partition(":"))
    if parts.query or parts.fragment:
        # The message omits both: they may contain a token.
        raise SettingsError(
            f"{parts.scheme}://{host}{parts.path}: the address of a registry must not contain a "
            "query (?) or a fragment (#). Give a token as https://user:token@host/…."
        )
    if parts.scheme in {"http", "https"}:
        return Address(parts._replace(netloc=host).geturl(), user, password)
    # SSH does not accept a password in the address, and the user is not a secret.
    netloc = f"{login.partition(':')[0]}@{host}" if user else host
    return Address(parts._replace(netloc=netloc).geturl())
