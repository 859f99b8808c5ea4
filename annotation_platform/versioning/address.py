"""Addresses of git repositories: what git is told, the secret apart from it, and what git answers.

A password or token in ``https://user:token@host/path`` is taken out: git gets it when it is asked
for it, by this process's environment. So it is in no file, no command line and no message.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from annotation_platform.errors import PublishError, SettingsError
from annotation_platform.versioning.git import clean_environment

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
    """A registry gave no answer, which may be otherwise in a minute."""


@dataclass(frozen=True)
class Address:
    """Where a repository is: ``url`` for git and for people, the secret in neither."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """What may be shown of it."""
        return self.url.partition("?")[0]

    def environment(self) -> dict[str, str]:
        """Return the environment in which git has the secret, for this host and no other."""
        known = clean_environment()
        if not self.user and not self.password:
            return known
        parts = urlsplit(self.url)
        key = f"credential.{parts.scheme}://{parts.netloc}.helper"
        return {
            **known,
            _USER: self.user,
            _PASSWORD: self.password,
            "GIT_CONFIG_COUNT": "2",
            # First nothing: a helper of the user's would write the secret down.
            "GIT_CONFIG_KEY_0": key,
            "GIT_CONFIG_VALUE_0": "",
            "GIT_CONFIG_KEY_1": key,
            "GIT_CONFIG_VALUE_1": _HELPER,
        }

    def failed(self, command: str, stderr: bytes, remedy: str = "") -> PublishError:
        """Return the error for a ``git command`` that failed there.

        Args:
            command: such as ``fetch``.
            stderr: what git said.
            remedy: what to do where git's words tell none of the usual reasons.
        """
        words = self._words(stderr)
        if _ABSENT.search(words):
            return PublishError(
                f"{self.shown}: no git repository is there ({words}). Correct ANNOTATION_REGISTRY "
                "or --registry, or make one there with `git init --bare`."
            )
        if _DENIED.search(words):
            return PublishError(
                f"{self.shown}: access to the registry is denied ({words}). Check your key or "
                "token, and what it may do there."
            )
        if _UNREACHABLE.search(words):
            return UnreachableError(
                f"{self.shown}: the registry cannot be reached ({words}). Check "
                "ANNOTATION_REGISTRY or --registry and the network, and run again."
            )
        return PublishError(
            f"{self.shown}: git {command} failed ({words}). {remedy or 'Run again.'}"
        )

    def _words(self, stderr: bytes) -> str:
        text = stderr.decode(errors="replace").replace(self.url, self.shown)
        # A server may send anything in its lines.
        lines = [
            "".join(each for each in line if each.isprintable()).strip().rstrip(".")
            for line in text.splitlines()
        ]
        told = [
            re.sub(r"^(fatal|error|remote): +", "", line)
            for line in lines
            if line and not line.startswith(("Warning:", "hint:"))
        ]
        return "; ".join([line for line in told if not _GENERAL.search(line)] or told)[:300] or (
            "it gave no reason"
        )


def is_address(place: str) -> bool:
    """Return whether git takes ``place`` for an address and not for a path.

    As git has it, that is a URL, or a colon before the first slash: ``git@host:path``.
    """
    return "://" in place or ":" in place.partition("/")[0]


def parse_address(place: str | Path) -> Address:
    """Return the address that ``place`` writes, its secret apart; a path is the address of itself.

    In ``https://token@host`` the user is taken for a secret too.
    """
    text = str(place)
    if "://" not in text:
        return Address(text if is_address(text) else str(Path(text).expanduser().absolute()))
    parts = urlsplit(text)
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = (unquote(each) for each in login.partition(":"))
    if parts.query or parts.fragment:
        # Without them: a token may stand there.
        raise SettingsError(
            f"{parts.scheme}://{host}{parts.path}: an address of a registry has no part behind a ? "
            "or #. Give a token as https://user:token@host/…."
        )
    if parts.scheme in {"http", "https"}:
        return Address(parts._replace(netloc=host).geturl(), user, password)
    # SSH takes no password from anybody, and a user is no secret there.
    kept = f"{login.partition(':')[0]}@{host}" if user else host
    return Address(parts._replace(netloc=kept).geturl())
