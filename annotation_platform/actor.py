"""Who gives a command, and which: what audit logs write down of it."""

import os
import pwd
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

COMMAND = ContextVar("COMMAND", default="")
"""The command that this process runs, such as ``annotation-platform round close``.

Without its arguments: there may be an address or a secret in them.
"""


@dataclass(frozen=True)
class CommandActor:
    """A user of this machine, and the command that they gave."""

    author: str
    command: str

    def __call__(self) -> dict[str, str]:
        """Return both as the logs have them."""
        return {"author": self.author, "command": self.command}


def command_actor() -> CommandActor:
    """Return who runs this process, and by which command; where there is none, the program."""
    return CommandActor(system_user(), COMMAND.get() or Path(sys.argv[0]).name)


def system_user() -> str:
    """Return the name of the operating system's user; one without a name is a number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
