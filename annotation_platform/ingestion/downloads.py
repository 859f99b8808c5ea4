"""Images from web addresses that other people wrote: only from hosts named on purpose."""

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
_PASSING = frozenset({429, 500, 502, 503, 504})
_ATTEMPTS = 4
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Resolve = Callable[..., list[tuple[Any, Any, Any, Any, Any]]]


class _PassingError(Exception):
    """A failure that may be over at the next attempt."""

    def __init__(self, problem: str, wait_seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.wait_seconds = wait_seconds


class Downloads:
    """Fetches files from hosts on a list, and from nowhere else.

    A host is looked up once for each fetch, every address it has must be a public one, and the
    connection goes to the address that was checked. Redirects are refused, proxies of the
    environment are not used, nothing is unpacked.

    Args:
        allowed_hosts: ``host``, for its default port, or ``host:port``; ``*.host`` stands for
            everything below a host, but not for itself. An entry that is a literal IP address
            (``127.0.0.1:8000``, ``[::1]:8000``) may be a private one. Empty: nothing is fetched.
        maximum_bytes: Of one file.
        timeout_seconds: For connecting, and for each wait for bytes.
        deadline_seconds: For one fetch with all its attempts and waits. A name server that does
            not answer comes on top.
        resolve: Looks up a host, as ``socket.getaddrinfo`` does.
        sleep: Waits between two attempts.
        transport: Sends the requests, instead of a connection. The checks come before it.

    Raises:
        SettingsError: an entry of ``allowed_hosts`` is no host.
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

        What may pass (429, 500, 502 to 504, a broken connection) is tried four times, after about
        0.5, 1 and 2 s or as long as the server asks for, up to 30 s.

        Raises:
            DataError: the address is not allowed, does not answer with a whole file in time, or
                the file has too many bytes. The message leaves out the query, which may be secret.
        """
        parsed = _parse(url)
        until = time.monotonic() + self._deadline_seconds
        try:
            addresses = self._addresses(parsed)
            for attempt in range(_ATTEMPTS):
                try:
                    return self._get(parsed, addresses[attempt % len(addresses)], until)
                except (httpx.TransportError, _PassingError) as error:
                    self._pause(attempt, error, until)
        except DataError as error:
            raise DataError(f"{_shown(parsed)}: {error}.") from error
        raise AssertionError("the last attempt returns or raises")

    def _addresses(self, url: httpx.URL) -> list[_Address]:
        """Return where the host of an address may be reached, if that is allowed."""
        host, port = _host(url), _port(url)
        literal = _literal(host)
        ports = {port, None} if port == _DEFAULT_PORTS[url.scheme] else {port}
        names = [host] if literal else [host, *(f"*.{parent}" for parent in _parents(host))]
        if not any((name, each) in self._allowed for name in names for each in ports):
            raise DataError(
                f"{host}, port {port}, is not among the allowed hosts; allow it or leave the "
                "image out"
            )
        if literal:
            return [literal]
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise DataError(f"{host} cannot be looked up ({error}); check its name") from error
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        for address in addresses:
            if not _is_public(address):
                raise DataError(
                    f"{host} is at {address}, which is no public address; if that is meant, write "
                    "it in place of the host and allow it"
                )
        if not addresses:
            raise DataError(f"{host} has no address; check its name")
        return list(dict.fromkeys(addresses))

    def _get(self, url: httpx.URL, address: _Address, until: float) -> bytes:
        host, seconds = _host(url), min(self._timeout_seconds, until - time.monotonic())
        timeout = httpx.Timeout(max(0.001, seconds)).as_dict()
        # A client would look at the target of a redirect, and write the whole address to the log.
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
        # A body of no declared length ends for whoever shuts the connection, so this comes last.
        if time.monotonic() >= until:
            raise _PassingError("is too slow")
        return bytes(body)

    def _pause(self, attempt: int, error: Exception, until: float) -> None:
        """Wait before the next attempt; the error as a DataError if there is none."""
        if isinstance(error, _PassingError):
            problem, asked = str(error), error.wait_seconds
        else:
            problem, asked = f"does not answer ({error or type(error).__name__})", 0.0
        backoff = _FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.5)
        wait = min(max(backoff, asked), _LONGEST_WAIT_SECONDS)
        if time.monotonic() + wait > until:
            raise DataError(
                f"{problem}, and {self._deadline_seconds:g} s are over; try again later"
            ) from error
        if attempt + 1 == _ATTEMPTS:
            raise DataError(f"{problem}, {_ATTEMPTS} times; try again later") from error
        self._sleep(wait)


def _entry(text: str) -> tuple[str, int | None]:
    """Return host and port of an entry of the list; a literal address in its shortest form."""
    wildcard, base = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    try:
        # Of a scheme that it does not know, httpx leaves the default port in place.
        url = httpx.URL(f"any://{base}")
    except httpx.InvalidURL:
        url = httpx.URL()
    host = _host(url)
    plain = host and url.path in {"", "/"} and not set(base) & set("/\\?#@*% ")
    if not plain or (wildcard and ("." not in host or _literal(host))):
        raise SettingsError(
            f"Allowed hosts: {text!r} is no host. Write it like images.example.org, "
            "*.example.org or 127.0.0.1:8000."
        )
    return wildcard + host, url.port


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        # What the library says of it may hold a part of a password.
        raise DataError(
            "An address that cannot be read. Write it like https://host/image.jpg."
        ) from None
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host:
        raise DataError(
            f"{_shown(parsed)}: not an http or https address. Write it like "
            "https://host/picture.jpg."
        )
    if parsed.userinfo:
        raise DataError(f"{_shown(parsed)}: an address with a password. Use one without.")
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
    """Return whether an address is reached over the internet, whatever form it is written in."""
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
    if status in _PASSING:
        raise _PassingError(
            f"answers {status}", asked_seconds(response.headers.get("Retry-After", ""))
        )
    if 300 <= status < 400:
        try:
            target = _host(url.join(response.headers.get("Location", "")))
        except httpx.InvalidURL:
            target = ""
        raise DataError(
            f"redirects to {target or 'no host'}; write the address it leads to, if you trust it"
        )
    if status != 200:
        raise DataError(f"answers {status}; check the address, and that it needs no login")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DataError("comes compressed though it was not asked to; fetch it by other means")


@contextmanager
def _cut_at(until: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Shut the connections that the callback is told of once ``until`` is over.

    A timeout starts anew with every byte, so that a server could hold one up for hours.
    """
    sockets: list[socket.socket] = []

    def trace(event: str, info: dict[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            sockets.append(info["return_value"].get_extra_info("socket"))
        if time.monotonic() >= until:
            raise _PassingError("is too slow")

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
