"""The one way in which the server's process forks. Not what the child is for."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Callable, NoReturn, Sequence

_PARENTS_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
"""What the parent hears of by a pipe, whose end a fork has, too."""


def fork_child(run: Callable[[], object], close: Sequence[int]) -> int:
    """Starts a process that does `run`, and ends; its number.

    Until the child has handlers of its own, a signal to it would be written into the pipe of its
    parent, which would take it for one of its own and end. So it is held back until then.

    Args:
        run: what it does, without the parent's signals and with none of these blocked.
        close: descriptors of the parent that it must not keep.

    Raises:
        OSError: no process can be started now.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PARENTS_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _run_and_exit(run, close)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _run_and_exit(run: Callable[[], object], close: Sequence[int]) -> NoReturn:
    status = 1
    try:
        _leave_the_parent(close)
        run()
        status = 0
    except BaseException:  # of the child alone: it must not come back as a second parent
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _leave_the_parent(close: Sequence[int]) -> None:
    """The usual signals, whatever those were that the parent began with; none of its files."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    for descriptor in close:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
