"""The actor in audit and access logs: the user and the command."""

import os
import pwd
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

COMMAND = ContextVar("COMMAND", default="")
"""The command that this process runs, such as ``annotation-platform round close``.

Its arguments are left out: they may contain an address or a secret.
"""


@dataclass(frozen=True)
class CommandActor:
    """A user of this machine, and the command that they run."""

    author: str
    command: str

    def __call__(self) -> dict[str, str]:
        """Return both under the keys of the logs."""
        return {"author": self.author, "command": self.command}


def command_actor() -> CommandActor:
    """Return the user and the command of this process; without a command, the program's name."""
    return CommandActor(system_user(), COMMAND.get() or Path(sys.argv[0]).name)


def system_user() -> str:
    """Return the name of the operating system's user, or ``uid`` and number without a name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
