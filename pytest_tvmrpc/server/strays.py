"""Processes that sessions left behind: found, killed and reaped. Not the sessions' own.

A process group is not enough: a daemon leaves it, and becomes a child of the system's first
process when its parent ends. On Linux two things help. A process can claim the orphans among its
descendants, so that the supervisor notices them, and reaps them. And a session is marked by one
of its resource limits, which all that it starts inherits, whatever it closes, leaves or executes:
so nobody is killed who only happens to be our child, or our orphan. Where orphans cannot be
claimed, as in QEMU's emulation of Linux, the marked ones are looked for among all processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Container, Iterator, List, Set

_PR_SET_CHILD_SUBREAPER = 36
_RLIMIT_RTTIME = 15

_MARKS = 1 << 52
"""Microseconds, a hundred years and more: no process meets such a limit of its real time."""

_LIMIT = b"Max realtime timeout"

_AT_ONCE_S = 0.1
"""How long the supervisor stays with it: one that forks all the time is met again later."""


class Strays:
    """This process's claim to the orphans of its sessions; without effect but on Linux.

    Attributes:
        is_adopting: whether orphans become children of this process.
    """

    def __init__(self) -> None:
        self.is_adopting = False

    def adopt(self) -> None:
        """From now on orphans are ours; the system's first process has them all anyway."""
        if not self.is_adopting:
            self.is_adopting = claim_orphans()

    def kill(self, mark: int) -> bool:
        """Ends what bears this mark; whether none is left, or may be in a moment.

        Our children are looked at, which orphans are; without a claim to them, all processes.
        """
        if not self.is_adopting:
            return not (_sees_itself() and _kill_all_once(mark))
        end = time.monotonic() + _AT_ONCE_S
        while _has_children():
            strays = {pid for pid in find_children() if _bears(pid, mark)}
            if not strays:
                return True
            for pid in strays:
                _kill(pid)
            if not [pid for pid in strays if _reap(pid)] or time.monotonic() >= end:
                return False
        return True

    def reap(self, but: Container[int]) -> None:
        """Reaps children that have ended, except those that others wait for."""
        if self.is_adopting and _has_children(ended=True):
            for pid in find_children():
                if pid not in but:
                    _reap(pid)


def new_mark() -> int:
    """One that no session had before, as good as certainly."""
    return _MARKS + int.from_bytes(os.urandom(6), "little")


def bear(mark: int) -> None:
    """Marks this process, and all that it starts from now on."""
    if sys.platform != "linux":
        return
    import ctypes  # and not `resource`, which is 30 kB in every server

    with contextlib.suppress(OSError, AttributeError):  # a C library that goes by another name
        both = (ctypes.c_uint64 * 2)()  # the limit, and how far it may be raised
        library = ctypes.CDLL(None)
        # The limits have 64 bits in both, where there are both; elsewhere in the one there is.
        prlimit = getattr(library, "prlimit64", None) or library.prlimit
        prlimit(0, _RLIMIT_RTTIME, None, both)
        both[0] = mark
        prlimit(0, _RLIMIT_RTTIME, both, None)  # fails if whoever started us set a lower limit


def kill_all(mark: int, limit_s: float) -> None:
    """Kills every process with this mark but this one, whoever its parent is."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and _sees_itself() and _kill_all_once(mark):
        pass


def _kill_all_once(mark: int) -> bool:
    """Whether there was any."""
    me = os.getpid()
    alive = [pid for pid in _processes() if pid != me and _bears(pid, mark) and not _is_dead(pid)]
    for pid in alive:
        _kill(pid)
    return bool(alive)


def claim_orphans() -> bool:
    """Makes this process the parent of its descendants' orphans; whether the system can do so."""
    if sys.platform != "linux" or not _sees_itself():
        return False
    if os.getpid() == 1:
        return True
    import ctypes

    try:
        return int(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0
    except (OSError, AttributeError):  # a C library that goes by another name
        return False


def find_children() -> Set[int]:
    """The numbers of this process's children, those that are not reaped included."""
    tasks = "/proc/self/task"
    children: Set[int] = set()
    try:
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/children", "rb") as file:
                children.update(map(int, file.read().split()))
    except OSError:  # a kernel that does not list them; or a task, which has just ended
        return {pid for pid in _processes() if _parent(pid) == os.getpid()}
    return children


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's by now
        os.kill(pid, signal.SIGKILL)


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:  # somebody did already
        return True


def _has_children(*, ended: bool = False) -> bool:
    """Whether there is any child, or one that has ended: one system call."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return not ended or found is not None


def _sees_itself() -> bool:
    """Whether there is a /proc, and its numbers are those that this process has to do with."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _processes() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return iter(())
    return (int(name) for name in names if name.isdigit())


def _bears(pid: int, mark: int) -> bool:
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            limits = file.read()
    except OSError:  # it is gone
        return False
    return limits.partition(_LIMIT)[2].split()[:1] == [b"%d" % mark]


def _status(pid: int) -> List[bytes]:
    """State, parent and more of a process; nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()  # its name may hold anything
    except OSError:
        return []


def _parent(pid: int) -> int:
    return int((_status(pid) or [b"", b"0"])[1])


def _is_dead(pid: int) -> bool:
    return _status(pid)[:1] in ([], [b"Z"], [b"X"])
