"""An ASGI application, served over HTTP from a thread of this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_PATIENCE_SECONDS = 5


@contextmanager
def served(application: ASGIApp, listener: socket.socket) -> Iterator[None]:
    """Serve an application on a listening socket until the block ends; requests are not logged."""
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            access_log=False,
            lifespan="off",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_PATIENCE_SECONDS,
            ws="none",
        )
    )
    with listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(2 * _PATIENCE_SECONDS)
