"""Whether a child process has ended, and how, in words. Starts none and ends none."""

from __future__ import annotations

import os


def has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not reaped."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    import subprocess  # macOS before Python 3.13: only ps can tell without reaping

    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return shown.stdout.strip()[:1] in (b"", b"Z")


def how_ended(code: int) -> str:
    """How a process ended: ``exited with 3``, ``was killed by SIGKILL``.

    Args:
        code: its exit status, or the number of the signal that ended it, negated.
    """
    if code >= 0:
        return f"exited with {code}"
    import signal  # which takes a while

    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
