"""Headless Chromium, driven over its DevTools protocol: real clicks, strokes and keys.

The protocol is at https://chromedevtools.github.io/devtools-protocol/. One page is one connection;
calls wait for their answers, and events are passed over: what is waited for is asked for again.
"""

import base64
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from annotation_platform.servers.child import LOOPBACK, ChildProcess

INSTALL = "apt-get install chromium, or set CHROMIUM to a browser of its kind"

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    # Nothing but our own pages is shown, and in a container there is no sandbox to be had.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)
_PATIENCE_SECONDS = 60.0
_HEARD_SECONDS = 3.0
_ALT, _CTRL, _SHIFT = 1, 2, 8
_MODIFIERS = {"alt": _ALT, "ctrl": _CTRL, "shift": _SHIFT}
_CODES = {"=": 187, "-": 189, "enter": 13}

Point = tuple[float, float]


def chromium_program() -> str | None:
    """Return the browser's path; None if there is none here."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab, with cookies of its own."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to one call of the protocol."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            said = json.loads(self._connection.recv(timeout=_PATIENCE_SECONDS))
            if said.get("id") != number:
                continue
            if "error" in said:
                raise RuntimeError(f"{method}: {said['error']['message']}")
            return said["result"]

    def go(self, url: str) -> None:
        """Open an address and wait until the page is loaded."""
        self.call("Page.navigate", url=url)
        self.wait_for(
            f"location.href != 'about:blank' && document.readyState == 'complete' || {url!r} == ''"
        )

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        said = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise RuntimeError(f"{script}: {said['exceptionDetails']}")
        return said["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Return the value of an expression once it is true."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            # While a page is being replaced, there is nothing to ask.
            with suppress(RuntimeError):
                if value := self.evaluate(script):
                    return value
            if time.monotonic() > deadline:
                shown = self.evaluate("document.body.innerText")
                raise TimeoutError(f"never true: {script}\nThe page shows:\n{shown[:2000]}")
            time.sleep(0.05)

    def wait_until_still(self, script: str, seconds: float = 1.0) -> None:
        """Wait until the value of an expression has not changed for so long."""
        value, since = self.evaluate(script), time.monotonic()
        deadline = since + _PATIENCE_SECONDS
        while time.monotonic() < since + seconds:
            time.sleep(0.05)
            now = self.evaluate(script)
            if now != value:
                value, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError(f"never still: {script}, now {value}")

    def place_of(self, script: str) -> Point:
        """Return the centre of the element that an expression gives, once it can be clicked.

        It can be clicked once it has stopped moving and nothing lies over it, as a dialog does
        that is fading out.
        """
        place = (
            f"(() => {{ const e = {script}; if (!e) return null;"
            " e.scrollIntoView({block: 'nearest'});"
            " const r = e.getBoundingClientRect();"
            " const place = [r.x + r.width / 2, r.y + r.height / 2];"
            " const top = document.elementFromPoint(...place);"
            " return r.width && top && e.contains(top) ? place : null; })()"
        )
        self.wait_for(place)
        self.wait_until_still(place, seconds=0.3)
        x, y = self.wait_for(place)
        return x, y

    def click(self, script: str) -> None:
        """Click the element that an expression gives, once there is one."""
        self.click_at(self.place_of(script))

    def hover_until(self, place: Point, script: str) -> None:
        """Move the mouse at a place until an expression is true.

        A canvas that is just being drawn does not know yet what lies under the mouse.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        steps = itertools.cycle((0, 1))
        while not self.evaluate(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true at {place}: {script}")
            self._mouse("mouseMoved", place[0] + next(steps), place[1])
            time.sleep(0.05)

    def click_at(self, *places: Point) -> None:
        """Click at these places, one after the other."""
        for x, y in places:
            self._mouse("mouseMoved", x, y)
            self._mouse("mousePressed", x, y, buttons=1)
            self._mouse("mouseReleased", x, y)

    def drag(self, *places: Point) -> None:
        """Press at the first place, move over the others and let go at the last."""
        self._mouse("mouseMoved", *places[0])
        self._mouse("mousePressed", *places[0], buttons=1)
        for start, end in itertools.pairwise(places):
            for step in (0.25, 0.5, 0.75, 1.0):
                x, y = (a + (b - a) * step for a, b in zip(start, end, strict=True))
                self._mouse("mouseMoved", x, y, buttons=1)
        self._mouse("mouseReleased", *places[-1])

    def press(self, key: str) -> None:
        """Press a key as Label Studio names it: ``a``, ``shift+3``, ``ctrl+enter``."""
        *held, last = key.split("+")
        modifiers = sum(_MODIFIERS[name] for name in held)
        code = _CODES.get(last, ord(last[0].upper()))
        about = {"key": last, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def press_until(self, key: str, script: str) -> None:
        """Press a key until an expression is true, as people do when nothing has come of it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self.press(key)
            heard = time.monotonic() + _HEARD_SECONDS
            while time.monotonic() < heard:
                if self.evaluate(script):
                    return
                time.sleep(0.05)
        raise TimeoutError(f"never true for all of {key}: {script}")

    def write(self, text: str) -> None:
        """Type text into whatever has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write what is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _mouse(self, kind: str, x: float, y: float, *, buttons: int = 0) -> None:
        self.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="none" if kind == "mouseMoved" and not buttons else "left",
            buttons=buttons,
            clickCount=0 if kind == "mouseMoved" else 1,
        )


class Chromium:
    """A browser without a window; ``with chromium(folder) as browser`` starts and ends it."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path

    @contextmanager
    def page(self, *, width: int = 1440, height: int = 900) -> Iterator[Page]:
        """A tab that knows nothing of the others, and is closed in the end."""
        address = f"ws://{LOOPBACK}:{self._port}{self._path}"
        with connect(address, max_size=None, proxy=None) as connection:
            browser = Page(connection)
            context = browser.call("Target.createBrowserContext")["browserContextId"]
            target = browser.call(
                "Target.createTarget", url="about:blank", browserContextId=context
            )["targetId"]
            tab = f"ws://{LOOPBACK}:{self._port}/devtools/page/{target}"
            with connect(tab, max_size=None, proxy=None) as own:
                page = Page(own)
                page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=False,
                )
                yield page
            browser.call("Target.disposeBrowserContext", browserContextId=context)


@contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """A running browser whose profile lies in an empty folder."""
    program = chromium_program()
    if program is None:
        raise RuntimeError(f"there is no Chromium: {INSTALL}")
    process = ChildProcess(
        [program, *_FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        environment={**os.environ, "HOME": str(folder)},
        folder=folder,
        log_path=folder / "chromium.log",
    )
    try:
        said = folder / "profile" / "DevToolsActivePort"
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not (said.exists() and len(said.read_text().splitlines()) == 2):
            if not process.running or time.monotonic() > deadline:
                raise RuntimeError(f"Chromium did not start: {process.last_line()}")
            process.wait(0.05)
        port, path = said.read_text().splitlines()
        httpx.get(f"http://{LOOPBACK}:{port}/json/version", trust_env=False).raise_for_status()
        yield Chromium(int(port), path)
    finally:
        process.stop()
