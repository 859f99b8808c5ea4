"""Become another program that ends when its parent does.

Run by path: the parent's process id first, then the program and its arguments. It knows nothing
of this package, so that nothing of it is imported into what it becomes.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent (on Linux), then become the program."""
    parent = int(sys.argv[1])
    # Whoever starts us in the background may have it ignored, and so would the program.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        # The binding outlives exec. The parent may have gone before it was made.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(0)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
