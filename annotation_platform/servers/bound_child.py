"""Replace this process by a program that ends when its parent does.

Run by path, with the parent's process id, the program and its arguments. This file imports nothing
of the package, so that the start stays fast.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent (on Linux), then become the program."""
    parent = int(sys.argv[1])
    # A parent in the background may ignore SIGTERM, and the program would inherit that.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        # The binding survives exec. The parent may have ended before the binding was made.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(0)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
