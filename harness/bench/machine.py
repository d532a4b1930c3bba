"""This machine, by /proc and a few system calls: cores, memory of processes, who is our child.

Linux only. Starts nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
PR_SET_CHILD_SUBREAPER = 36
RESET_PEAK = "5"  # /proc/PID/clear_refs: VmHWM starts anew at VmRSS


def quiet_core(look_s: float = 0.25) -> int:
    """The core, among those we may use, that was idle the longest during `look_s`."""
    before = _idle_ticks()
    time.sleep(look_s)
    after = _idle_ticks()
    return max(os.sched_getaffinity(0), key=lambda core: after[core] - before[core])


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keeps this thread, and every process started inside, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def memory(pid: int, field: str) -> int:
    """Bytes of a field of /proc/PID/status, such as VmRSS or VmHWM; 0 when the process is gone."""
    return _kilobytes(PROC / str(pid) / "status", field)


def proportional_memory(pid: int) -> int:
    """Bytes of Pss: pages that are shared count in parts."""
    return _kilobytes(PROC / str(pid) / "smaps_rollup", "Pss")


def reset_peak(pid: int) -> None:
    """Lets VmHWM of a process start anew."""
    (PROC / str(pid) / "clear_refs").write_text(RESET_PEAK, encoding="ascii")


def descendants(root: int | None = None) -> set[int]:
    """The processes below `root`, by default below this one."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            parent = _parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    front = [os.getpid() if root is None else root]
    while front:
        below = children.get(front.pop(), [])
        found.update(below)
        front.extend(below)
    return found


def adopt_orphans() -> None:
    """Makes this process the parent of grandchildren whose parent ends, so that we find them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_processes(pids: set[int], patience_s: float = 3.0) -> int:
    """Asks processes below us to end, then makes them; the number that had to be asked."""
    pids = pids & descendants()
    alive = {pid for pid in pids if _is_alive(pid)}
    for number, limit_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + limit_s
        while alive and time.monotonic() < until:
            alive = {pid for pid in alive if _is_alive(pid)}
            time.sleep(0.01)
    return len(pids)


def describe() -> dict[str, object]:
    """The machine and the interpreter, for the report."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in (PROC / "cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _is_alive(pid: int) -> bool:
    """Whether a child or grandchild still runs; reaps it when it has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        status = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _parent(entry: Path) -> int | None:
    try:
        status = (entry / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # it ended while we looked
    return int(status.rpartition(")")[2].split()[1])


def _kilobytes(path: Path, field: str) -> int:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    return 0


def _idle_ticks() -> dict[int, int]:
    ticks = {}
    for line in (PROC / "stat").read_text(encoding="ascii").splitlines():
        name, *counts = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks[int(name[3:])] = int(counts[3])
    return ticks
