"""Requests to a Label Studio server: authentication, retries, and errors that say what to do."""

import random
import time
import weakref
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.retry_after import asked_seconds

TOKEN_VARIABLE = "ANNOTATION_LABEL_STUDIO_TOKEN"
URL_VARIABLE = "ANNOTATION_LABEL_STUDIO_URL"

# The server did not act on a request that it answers with one of these, or may do it again.
_PASSING = frozenset({429, 500, 502, 503, 504})
_LONGEST_WAIT_SECONDS = 30.0


class RefusedError(LabelingError):
    """The server understood a request and refused it; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UncertainError(LabelingError):
    """A request that must not be repeated blindly broke off: the server may have done it."""


class LabelStudioHttp:
    """One server and one identity on it.

    Args:
        url: Address of the server, with or without a slash at its end.
        token: A legacy token or a personal access token. Never printed, never in a message.
        timeout_seconds: For connecting, and for each wait for bytes.
        attempts: How often a repeatable request is tried before it counts as failed.
        retry_seconds: The first wait between two attempts; each further one is twice as long,
            up to 30 s and with jitter, unless the server asks for a wait of its own.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_seconds: float = 30.0,
        attempts: int = 4,
        retry_seconds: float = 0.5,
    ) -> None:
        self.url = url.strip().rstrip("/")
        self._token = token.strip()
        self._access_token = ""
        self._attempts = attempts
        self._retry_seconds = retry_seconds
        self._client = open_client(self.url, timeout_seconds=timeout_seconds)
        # Whoever holds this need not close it: its connections go when it goes.
        weakref.finalize(self, self._client.close)

    def get(self, path: str, **query: Any) -> Any:
        """Return the decoded JSON at ``path``."""
        return self._json("GET", path, query=query, repeatable=True)

    def post(self, path: str, body: Any, *, repeatable: bool = False, **query: Any) -> Any:
        """Return the JSON that the server answers to ``body``; None if it answers nothing.

        Unless ``repeatable``, an answer that never came is an ``UncertainError``.
        """
        return self._json("POST", path, body=body, query=query, repeatable=repeatable)

    def patch(self, path: str, body: Any) -> Any:
        """Return the JSON that the server answers to a change, which may be sent twice."""
        return self._json("PATCH", path, body=body, repeatable=True)

    def delete(self, path: str) -> None:
        """Delete what is at ``path``; that it is gone already is a ``RefusedError`` (404)."""
        self._json("DELETE", path, repeatable=True)

    def pages(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield every result of a list that the server pages with ``next``."""
        page = 1
        while True:
            answer = self.get(path, page=page, page_size=200, **query)
            yield from answer["results"]
            if not answer.get("next"):
                return
            page += 1

    def _json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
        repeatable: bool,
    ) -> Any:
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                answer = self._send(method, path, body, query)
            except httpx.ConnectError as error:
                raise unreachable(self.url, error) from error
            except httpx.HTTPError as error:
                if not repeatable:
                    raise UncertainError(self._broke_off(method, path, error)) from error
                if last:
                    raise LabelingError(self._broke_off(method, path, error)) from error
                self._pause(attempt, "")
                continue
            # Too many requests means that this one was not looked at: it may be sent again.
            if answer.status_code in _PASSING and (repeatable or answer.status_code == 429):
                if last:
                    break
                self._pause(attempt, answer.headers.get("Retry-After", ""))
                continue
            if answer.status_code in _PASSING:
                raise UncertainError(self._busy(method, path, answer.status_code))
            return self._decoded(answer, method, path)
        raise LabelingError(self._busy(method, path, answer.status_code))

    def _send(
        self, method: str, path: str, body: Any, query: dict[str, Any] | None
    ) -> httpx.Response:
        """Return the answer to one request, signed; an expired access token is renewed once."""
        answer = self._client.request(
            method, path, json=body, params=query, headers=self._authorization()
        )
        if answer.status_code == 401 and self._access_token:
            self._access_token = ""
            answer = self._client.request(
                method, path, json=body, params=query, headers=self._authorization()
            )
        return answer

    def _authorization(self) -> dict[str, str]:
        # What is no token would come back in the message of whoever refuses the header.
        if not self._token or not self._token.isascii() or not self._token.isprintable():
            raise LabelingError(
                f"No usable token for Label Studio at {self.url}. Set {TOKEN_VARIABLE} to a token "
                "from its account page; `annotation-platform up` makes one by itself."
            )
        # A personal access token is a JSON Web Token (three parts) and buys short-lived ones.
        if self._token.count(".") != 2:
            return {"Authorization": f"Token {self._token}"}
        if not self._access_token:
            answer = self._client.post("/api/token/refresh/", json={"refresh": self._token})
            if answer.status_code not in _PASSING:
                found = self._decoded(answer, "POST", "/api/token/refresh/")
                self._access_token = str(found["access"])
            else:
                raise httpx.ReadError("the token could not be exchanged")
        return {"Authorization": f"Bearer {self._access_token}"}

    def _decoded(self, answer: httpx.Response, method: str, path: str) -> Any:
        status = answer.status_code
        if status in {401, 403}:
            raise RefusedError(
                f"Label Studio at {self.url} refused {method} {path} ({status}): the token is "
                f"wrong, expired or lacks the right. Set {TOKEN_VARIABLE} to a token from its "
                "account page.",
                status,
            )
        if answer.is_redirect:
            raise LabelingError(
                f"{self.url} redirects to {_place(answer.headers.get('Location', ''))}. "
                f"Set {URL_VARIABLE} to the address at which Label Studio itself answers."
            )
        if status >= 400:
            raise RefusedError(
                f"Label Studio at {self.url} refused {method} {path} ({status}): {_reason(answer)}",
                status,
            )
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            kind = "a web page" if "html" in answer.headers.get("Content-Type", "") else "no JSON"
            raise LabelingError(
                f"{self.url}{path} answered with {kind} instead of Label Studio's data; a proxy or "
                f"a login page may stand in between. Check {URL_VARIABLE}."
            ) from error

    def _pause(self, attempt: int, retry_after: str) -> None:
        backoff = self._retry_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        time.sleep(min(max(backoff, asked_seconds(retry_after)), _LONGEST_WAIT_SECONDS))

    def _broke_off(self, method: str, path: str, error: httpx.HTTPError) -> str:
        return (
            f"Label Studio at {self.url} did not answer {method} {path} "
            f"({type(error).__name__}). Try again; what it already did is not done twice."
        )

    def _busy(self, method: str, path: str, status: int) -> str:
        return (
            f"Label Studio at {self.url} answers {status} to {method} {path}. "
            "Try again later; if it stays so, its log says why."
        )


def unreachable(url: str, error: httpx.HTTPError) -> LabelingError:
    """Return the error for a server that cannot be connected to."""
    return LabelingError(
        f"Label Studio at {url} cannot be reached ({error}); nothing is lost. Start it with "
        f"`annotation-platform up`, or set {URL_VARIABLE} to where it runs."
    )


def open_client(url: str, *, timeout_seconds: float) -> httpx.Client:
    """Return a plain HTTP client for ``url``, which keeps cookies and follows no redirect.

    Raises:
        SettingsError: ``url`` is no http or https address.
    """
    try:
        parts = urlsplit(url)
        host, usable = parts.hostname, parts.scheme in {"http", "https"} and (parts.port or 1) > 0
    except ValueError:
        host, usable = None, False
    if not host or not usable:
        raise SettingsError(
            f"{URL_VARIABLE}: {url!r} is no address. Write it like http://127.0.0.1:8080."
        )
    # A proxy of the environment is for the world outside, not for a server on this machine.
    loopback = host in {"127.0.0.1", "localhost", "::1"}
    return httpx.Client(base_url=url, timeout=timeout_seconds, trust_env=not loopback)


def _place(location: str) -> str:
    """Return an address without its query, which may hold a secret."""
    return location.split("?", 1)[0] or "nowhere"


def _reason(answer: httpx.Response) -> str:
    """Return what the server says about a refusal, on one line of at most 300 characters."""
    try:
        said = answer.json()
    except ValueError:
        return "it gave no reason"
    if isinstance(said, dict):
        said = said.get("validation_errors") or said.get("detail") or said
    return " ".join(str(said).split())[:300]
