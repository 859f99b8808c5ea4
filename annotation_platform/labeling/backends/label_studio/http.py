"""Requests to a Label Studio server: authentication, retries, and actionable errors."""

import random
import ssl
import time
import weakref
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.responses import (
    parsed_json,
    refusal_reason,
    without_query,
)
from annotation_platform.labeling.rate_limiter import RateLimiter
from annotation_platform.retry_after import asked_seconds

TOKEN_VARIABLE = "ANNOTATION_LABEL_STUDIO_TOKEN"
URL_VARIABLE = "ANNOTATION_LABEL_STUDIO_URL"

TIMEOUT_SECONDS = 30.0
_LONGEST_BACKOFF_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
# A request without a response within the timeout is sent once more, not four times.
_SILENCES = 2
# One response may take this many timeouts, even if bytes keep arriving.
_TIMEOUTS_PER_RESPONSE = 10
_READINGS = 3

Shaped = TypeVar("Shaped")


class RefusedError(LabelingError):
    """The server refused a request; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UncertainError(LabelingError):
    """An interrupted request that must not simply be repeated: the server may have executed it."""


@dataclass(frozen=True)
class _Response:
    """A complete response of the server."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in {408, 429} or self.status >= 500

    @property
    def untouched(self) -> bool:
        """Whether the server did not process the request, so that it may be sent again."""
        return self.status == 429


@dataclass(frozen=True)
class _Numbered:
    id: int


NUMBERED = TypeAdapter(_Numbered)
"""The shape of any object of Label Studio: its number."""


class LabelStudioHttp:
    """One server and one identity on it.

    Args:
        url: address of the server, with or without a final slash.
        token: a legacy token or a personal access token; never printed, and in no message.
        timeout_seconds: for each wait for bytes, and, up to 10 s, for connecting; a complete
            response may take ten times as long.
        attempts: how often a repeatable request is sent before it fails.
        retry_seconds: the first wait between two attempts; each further one is twice as long, up to
            30 s and with jitter, unless the server asks for a longer one.
        longest_wait_seconds: if the server asks (``Retry-After``) for a longer wait, the request
            fails at once, with an error that gives the wait.
        requests_per_second: the most requests that this object sends; None is unlimited. The limit
            is not shared between objects or processes.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        attempts: int = 4,
        retry_seconds: float = 0.5,
        longest_wait_seconds: float = 30.0,
        requests_per_second: float | None = None,
    ) -> None:
        self.url = url.strip().rstrip("/")
        self._token = token.strip()
        self._access_token = ""
        self._attempts = attempts
        self._retry_seconds = retry_seconds
        self._longest_wait = longest_wait_seconds
        self._longest_response = _TIMEOUTS_PER_RESPONSE * timeout_seconds
        self._limiter = RateLimiter(requests_per_second)
        self._client = open_client(self.url, timeout_seconds=timeout_seconds)
        # The connections are closed with this object; its owner need not close it.
        weakref.finalize(self, self._client.close)

    def get(self, path: str, **query: Any) -> Any:
        """Return the decoded JSON at ``path``."""
        return self._json("GET", path, query=query, repeatable=True)

    def read(self, shape: TypeAdapter[Shaped], path: str, **query: Any) -> Shaped:
        """Return the JSON at ``path`` as ``shape``; a LabelingError if it has another shape."""
        return self.shaped(shape, self.get(path, **query), path)

    def post(self, path: str, body: Any, *, repeatable: bool = False, **query: Any) -> Any:
        """Return the JSON response to ``body``; None if it is empty.

        Unless ``repeatable``, a lost response is an ``UncertainError``.
        """
        return self._json("POST", path, body=body, query=query, repeatable=repeatable)

    def patch(self, path: str, body: Any) -> Any:
        """Return the JSON response to a change, which may be sent twice."""
        return self._json("PATCH", path, body=body, repeatable=True)

    def delete(self, path: str) -> None:
        """Delete the object at ``path``; a ``RefusedError`` (404) if it does not exist."""
        self._json("DELETE", path, repeatable=True)

    def pages(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Return every result of a list that the server pages with ``next``.

        Raises:
            LabelingError: the list changed during each of three readings, so that none was
                complete.
        """
        for _ in range(_READINGS):
            found: list[dict[str, Any]] = []
            counts = set()
            page, more = 1, True
            while more:
                response = self.read(_PAGE, path, page=page, page_size=200, **query)
                found += response.results
                counts.add(response.count)
                page, more = page + 1, bool(response.next)
            # Numbered pages shift when an entry is deleted, and would then skip another entry.
            if counts == {len(found)}:
                return found
        raise LabelingError(
            f"{self.url}{path} lists {response.count} entries, but {len(found)} could be read: it "
            "keeps changing. Try again."
        )

    def shaped(self, shape: TypeAdapter[Shaped], response: Any, path: str) -> Shaped:
        """Return a response as ``shape``; a LabelingError if it has another shape."""
        try:
            return shape.validate_python(response)
        except ValidationError as error:
            # The position and the reason alone: the value may be personal.
            first = error.errors(include_input=False, include_url=False)[0]
            position = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise LabelingError(
                f"{self.url}{path} returned JSON that is not Label Studio's ({position}: "
                f"{first['msg']}). Check {URL_VARIABLE}, and that it is Label Studio 1.23."
            ) from None

    def _json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
        repeatable: bool,
        signed: bool = True,
    ) -> Any:
        silences = 0
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                response = self._send(method, path, body, query, signed=signed)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise unreachable(self.url, error) from error
            except httpx.HTTPError as error:
                if not repeatable:
                    raise UncertainError(self._broke_off(method, path, error)) from error
                silences += isinstance(error, httpx.TimeoutException)
                if last or silences == _SILENCES:
                    raise LabelingError(self._broke_off(method, path, error)) from error
                self._pause(attempt, 0.0)
                continue
            if not response.passing:
                return self._decoded(response, method, path)
            if last:
                break
            wait = asked_seconds(response.headers.get("Retry-After", ""))
            if wait > self._longest_wait:
                break
            # Finding the outcome of an uncertain request needs the wait as well.
            self._pause(attempt, wait)
            if not (repeatable or response.untouched):
                break
        if repeatable or response.untouched:
            raise LabelingError(self._busy(method, path, response))
        raise UncertainError(self._busy(method, path, response))

    def _send(
        self, method: str, path: str, body: Any, query: dict[str, Any] | None, *, signed: bool
    ) -> _Response:
        """Return the response to one request; an expired access token is renewed once."""
        if not signed:
            return self._exchange(method, path, body, query, {})
        response = self._exchange(method, path, body, query, self._authorization())
        if response.status == 401 and self._access_token:
            self._access_token = ""
            response = self._exchange(method, path, body, query, self._authorization())
        return response

    def _exchange(
        self,
        method: str,
        path: str,
        body: Any,
        query: dict[str, Any] | None,
        headers: dict[str, str],
    ) -> _Response:
        self._limiter.wait()
        ends_at = time.monotonic() + self._longest_response
        pieces = []
        with self._client.stream(
            method, path, json=body, params=query, headers=headers
        ) as response:
            for piece in response.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > ends_at:
                    raise httpx.ReadTimeout("the response does not end")
        return _Response(response.status_code, response.headers, b"".join(pieces))

    def _authorization(self) -> dict[str, str]:
        if not _is_token(self._token):
            raise LabelingError(
                f"No usable token for Label Studio at {self.url}. Set {TOKEN_VARIABLE} to a token "
                "from its account page; `annotation-platform up` creates one by itself."
            )
        # A personal access token is a JSON Web Token (three parts), exchanged for short-lived ones.
        if self._token.count(".") != 2:
            return {"Authorization": f"Token {self._token}"}
        if not self._access_token:
            path = "/api/token/refresh/"
            exchanged = {"refresh": self._token}
            response = self._json("POST", path, body=exchanged, repeatable=True, signed=False)
            access = self.shaped(_ACCESS, response, path).access
            if not _is_token(access):
                raise LabelingError(f"{self.url}{path} returned no token. Check {URL_VARIABLE}.")
            self._access_token = access
        return {"Authorization": f"Bearer {self._access_token}"}

    def _decoded(self, response: _Response, method: str, path: str) -> Any:
        status = response.status
        if status in {401, 403}:
            raise RefusedError(
                f"Label Studio at {self.url} refused {method} {path} ({status}): the token is "
                f"wrong, expired or lacks the right. Set {TOKEN_VARIABLE} to a token from its "
                "account page.",
                status,
            )
        if 300 <= status < 400:
            raise LabelingError(
                f"{self.url} redirects to {without_query(response.headers.get('Location', ''))}. "
                f"Set {URL_VARIABLE} to the address of Label Studio itself."
            )
        if status >= 400:
            raise RefusedError(
                f"Label Studio at {self.url} refused {method} {path} ({status}): "
                f"{self._without_secrets(refusal_reason(response.body))}",
                status,
            )
        if not response.body:
            return None
        try:
            return parsed_json(response.body)
        except (ValueError, RecursionError) as error:
            kind = "a web page" if "html" in response.headers.get("Content-Type", "") else "no JSON"
            raise LabelingError(
                f"{self.url}{path} returned {kind} instead of Label Studio's data; a proxy or "
                f"a login page may be in between. Check {URL_VARIABLE}."
            ) from error

    def _pause(self, attempt: int, wait: float) -> None:
        backoff = self._retry_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        time.sleep(max(min(backoff, _LONGEST_BACKOFF_SECONDS), wait))

    def _without_secrets(self, text: str) -> str:
        for secret in filter(None, (self._token, self._access_token)):
            text = text.replace(secret, "…")
        return text

    def _broke_off(self, method: str, path: str, error: httpx.HTTPError) -> str:
        return (
            f"Label Studio at {self.url} did not respond to {method} {path} "
            f"({type(error).__name__}). Try again; completed work is not repeated."
        )

    def _busy(self, method: str, path: str, response: _Response) -> str:
        wait = asked_seconds(response.headers.get("Retry-After", ""))
        when = f"in {wait:.0f} s, as it requests" if wait > self._longest_wait else "later"
        return (
            f"Label Studio at {self.url} responds with {response.status} to {method} {path}. "
            f"Try again {when}; if the problem remains, read its log."
        )


@dataclass(frozen=True)
class _Access:
    access: str


@dataclass(frozen=True)
class _Page:
    results: list[dict[str, Any]]
    count: int
    next: str | None = None


_ACCESS = TypeAdapter(_Access)
_PAGE = TypeAdapter(_Page)


def unreachable(url: str, error: httpx.HTTPError) -> LabelingError:
    """Return the error for a server that cannot be connected to."""
    return LabelingError(
        f"Label Studio at {url} cannot be reached ({error}); no data is lost. Start it with "
        f"`annotation-platform up`, or set {URL_VARIABLE} to where it runs."
    )


def open_client(url: str, *, timeout_seconds: float) -> httpx.Client:
    """Return a plain HTTP client for ``url``, which keeps cookies and follows no redirect.

    Raises:
        SettingsError: ``url`` is not an http or https address, or holds a password.
    """
    try:
        parts = urlsplit(url)
        host, usable = parts.hostname, parts.scheme in {"http", "https"} and (parts.port or 1) > 0
        # It would be in every message, and would be sent instead of the token.
        if "@" in parts.netloc:
            raise SettingsError(
                f"{URL_VARIABLE}: the address must hold no user and password. Put a token into "
                f"{TOKEN_VARIABLE} instead."
            )
    except ValueError:
        host, usable = None, False
    if not host or not usable:
        raise SettingsError(
            f"{URL_VARIABLE}: {url!r} is not an address. Write it like http://127.0.0.1:8080."
        )
    # The environment's proxy is not used for a server on this machine.
    loopback = host in {"127.0.0.1", "localhost", "::1"}
    timeout = httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS))
    trusted = _certificates(not loopback)
    return httpx.Client(base_url=url, timeout=timeout, trust_env=not loopback, verify=trusted)


@cache
def _certificates(trust_env: bool) -> ssl.SSLContext:
    """Return the trusted certificates: reading them takes longer than a request."""
    return httpx.create_ssl_context(trust_env=trust_env)


def _is_token(text: str) -> bool:
    # An invalid header value would be repeated in an error message.
    return bool(text) and text.isascii() and text.isprintable()
