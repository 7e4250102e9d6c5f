"""Replaces itself by a command that dies when its parent does; run by path, imports little.

Usage: tether.py PARENT_PID COMMAND [ARGUMENT ...]

A wrapper instead of a hook between fork and exec: such a hook runs Python in the forked copy of a
process with threads, which may deadlock there.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for SIGKILL at the parent's death, then become the command."""
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died before the kernel was asked.
        if os.getppid() != parent_pid:
            sys.exit("the parent process is gone")
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
