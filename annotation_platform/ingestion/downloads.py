"""Downloads of images from untrusted web addresses, from a list of allowed hosts only."""

import ipaddress
import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import httpx

from annotation_platform.errors import DataError, SettingsError
from annotation_platform.retry_after import asked_seconds

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TEMPORARY = frozenset({429, 500, 502, 503, 504})
_ATTEMPTS = 4
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Resolve = Callable[..., list[tuple[Any, Any, Any, Any, Any]]]


class _TemporaryError(Exception):
    """A failure that may not occur in the next attempt."""

    def __init__(self, problem: str, wait_seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_seconds = wait_seconds


class Downloads:
    """Downloads files from allowed hosts only.

    A host is resolved once per download, all its addresses must be public, and the connection
    goes to the checked address. Redirects are refused, proxies of the environment are not used,
    and nothing is unpacked.

    Args:
        allowed_hosts: ``host``, with the default port, or ``host:port``; ``*.host`` allows all
            subdomains of a host, but not the host itself. A literal IP address
            (``127.0.0.1:8000``, ``[::1]:8000``) may be private. Empty: no download is allowed.
        maximum_bytes: limit for one file.
        timeout_seconds: limit for connecting, and for each wait for bytes.
        deadline_seconds: limit for one download with all attempts and waits, without the time of
            a name server that does not respond.
        resolve: resolves a host, as ``socket.getaddrinfo`` does.
        sleep: waits between two attempts.
        transport: sends the requests in place of a connection, after the checks.

    Raises:
        SettingsError: an entry of ``allowed_hosts`` is not a host.
    """

    def __init__(
        self,
        allowed_hosts: Collection[str],
        *,
        maximum_bytes: int,
        timeout_seconds: float = 30.0,
        deadline_seconds: float = 300.0,
        resolve: _Resolve = socket.getaddrinfo,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._allowed = {_entry(text) for text in allowed_hosts}
        self._maximum_bytes = maximum_bytes
        self._timeout_seconds, self._deadline_seconds = timeout_seconds, deadline_seconds
        self._resolve, self._sleep = resolve, sleep
        self._transport = transport
        self._tls = httpx.create_ssl_context(trust_env=False)

    def fetch(self, url: str) -> bytes:
        """Return the bytes at an ``http`` or ``https`` address.

        Temporary failures (429, 500, 502 to 504, a broken connection) are tried four times, with
        waits of about 0.5, 1 and 2 s or as the server requests, up to 30 s.

        Raises:
            DataError: the address is not allowed, does not return a complete file in time, or the
                file has too many bytes. The message omits the query, which may be secret.
        """
        parsed = _parse(url)
        until = time.monotonic() + self._deadline_seconds
        try:
            addresses = self._addresses(parsed)
            for attempt in range(_ATTEMPTS):
                try:
                    return self._get(parsed, addresses[attempt % len(addresses)], until)
                except (httpx.TransportError, _TemporaryError) as error:
                    self._pause(attempt, error, until)
        except DataError as error:
            raise DataError(f"{_shown(parsed)}: {error}.") from error
        raise AssertionError("the last attempt returns or raises")

    def _addresses(self, url: httpx.URL) -> list[_Address]:
        """Return the IP addresses of an allowed host; a host that is not allowed is a DataError."""
        host, port = _host(url), _port(url)
        literal = _literal(host)
        ports = {port, None} if port == _DEFAULT_PORTS[url.scheme] else {port}
        names = [host] if literal else [host, *(f"*.{parent}" for parent in _parents(host))]
        if not any((name, each) in self._allowed for name in names for each in ports):
            raise DataError(
                f"{host}, port {port}, is not an allowed host; allow it, or leave the image out"
            )
        if literal:
            return [literal]
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise DataError(f"{host} cannot be resolved ({error}); check its name") from error
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        for address in addresses:
            if not _is_public(address):
                raise DataError(
                    f"{host} has the address {address}, which is not public; if that is intended, "
                    "write the address in place of the host, and allow it"
                )
        if not addresses:
            raise DataError(f"{host} has no address; check its name")
        return list(dict.fromkeys(addresses))

    def _get(self, url: httpx.URL, address: _Address, until: float) -> bytes:
        host, seconds = _host(url), min(self._timeout_seconds, until - time.monotonic())
        timeout = httpx.Timeout(max(0.001, seconds)).as_dict()
        # Not httpx.Client, which parses redirects and logs the whole address.
        transport = self._transport or httpx.HTTPTransport(verify=self._tls, trust_env=False)
        with transport, _cut_at(until) as trace:
            # The connection goes to the checked address; name and certificate stay the host's.
            request = httpx.Request(
                "GET",
                url.copy_with(host=str(address)),
                headers={
                    "Host": url.netloc.decode("ascii"),
                    "User-Agent": "annotation-platform",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                },
                extensions={"timeout": timeout, "trace": trace}
                | ({} if _literal(host) else {"sni_hostname": host}),
            )
            with closing(transport.handle_request(request)) as response:
                _check_response(response, url)
                return self._body(response, until)

    def _body(self, response: httpx.Response, until: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > self._maximum_bytes:
                raise DataError(f"has more than {self._maximum_bytes} bytes; leave it out")
            if time.monotonic() >= until:
                break
        # A body without a declared length also ends when `_cut_at` shuts the connection.
        if time.monotonic() >= until:
            raise _TemporaryError("is too slow")
        return bytes(body)

    def _pause(self, attempt: int, error: Exception, until: float) -> None:
        """Wait before the next attempt; raise the error as a DataError after the last one."""
        if isinstance(error, _TemporaryError):
            problem, requested = str(error), error.wait_seconds
        else:
            problem, requested = f"does not respond ({error or type(error).__name__})", 0.0
        backoff = _FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.5)
        wait = min(max(backoff, requested), _LONGEST_WAIT_SECONDS)
        if time.monotonic() + wait > until:
            raise DataError(
                f"{problem}, and the deadline of {self._deadline_seconds:g} s has passed; "
                "try again later"
            ) from error
        if attempt + 1 == _ATTEMPTS:
            raise DataError(f"{problem}, {_ATTEMPTS} times; try again later") from error
        self._sleep(wait)


def _entry(text: str) -> tuple[str, int | None]:
    """Return host and port of an allowed host; a literal address in its shortest form."""
    wildcard, base = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        # httpx drops the default port of a known scheme.
        url = httpx.URL(f"any://{base}")
    except httpx.InvalidURL:
        url = httpx.URL()
    host = _host(url)
    plain = host and url.path in {"", "/"} and not set(base) & set("/\\?#@*% ")
    if not plain or (wildcard and ("." not in host or _literal(host))):
        raise SettingsError(
            f"Allowed hosts: {text!r} is not a host. Write it like images.example.org, "
            "*.example.org or 127.0.0.1:8000."
        )
    return wildcard + host, url.port


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        # The library's message may contain a part of a password.
        raise DataError(
            "The address cannot be read. Write it like https://host/image.jpg."
        ) from None
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host:
        raise DataError(
            f"{_shown(parsed)}: not an http or https address. Write it like https://host/image.jpg."
        )
    if parsed.userinfo:
        raise DataError(f"{_shown(parsed)}: has a password. Use an address without one.")
    return parsed


def _shown(url: httpx.URL) -> str:
    """Return an address without its query and password, either of which may be secret."""
    path = url.raw_path.partition(b"?")[0]
    return f"{url.scheme}://{url.netloc.decode('ascii')}{path.decode('ascii')[:200]}"


def _host(url: httpx.URL) -> str:
    host = url.raw_host.decode("ascii")
    return str(_literal(host) or host)


def _port(url: httpx.URL) -> int:
    return _DEFAULT_PORTS[url.scheme] if url.port is None else url.port


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _parents(host: str) -> list[str]:
    parts = host.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _is_public(address: _Address) -> bool:
    """Return whether an address is a public one of the internet, in any notation."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    inside = address.ipv4_mapped or address.sixtofour
    if address in _NAT64:
        inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inside:
        return _is_public(inside)
    return address.is_global and address in _GLOBAL_UNICAST


def _check_response(response: httpx.Response, url: httpx.URL) -> None:
    status = response.status_code
    if status in _TEMPORARY:
        raise _TemporaryError(
            f"responds with {status}", asked_seconds(response.headers.get("Retry-After", ""))
        )
    if 300 <= status < 400:
        try:
            target = _host(url.join(response.headers.get("Location", "")))
        except httpx.InvalidURL:
            target = ""
        raise DataError(
            f"redirects to {target or 'no host'}; write the target address if you trust it"
        )
    if status != 200:
        raise DataError(f"responds with {status}; check the address, and that it needs no login")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DataError("is compressed against the request; download it by other means")


@contextmanager
def _cut_at(until: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Shut the connections that the yielded callback receives, at the time ``until``.

    A timeout restarts with every byte, so a slow server could otherwise block for hours.
    """
    sockets: list[socket.socket] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            sockets.append(info["return_value"].get_extra_info("socket"))
        if time.monotonic() >= until:
            raise _TemporaryError("is too slow")

    def cut() -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    finally:
        timer.cancel()
