"""What programs hold: memory, descriptors, processes, files. Linux only; changes nothing."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from ..bench import machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEGABYTE = 1e6

ALLOWED_NBYTES = 3 << 20
"""How much memory may grow: heaps breathe. One leak of 4 KiB in each of 1,000 rounds is more."""

SETTLE_LIMIT_S = 15.0


class Footprint(NamedTuple):
    """What one program held at one moment.

    Fields: its resident memory in bytes; its open descriptors; the processes below it; the files
    and folders of everybody under the scenario's temporary folder.
    """

    memory: int
    descriptors: int
    processes: int
    files: int


class Watch:
    """One program, before and after.

    Args:
        name: what it is called in the table.
        pid: its process.
        temp: the temporary folder of the scenario.
    """

    def __init__(self, name: str, pid: int, temp: Path) -> None:
        self.name = name
        self.pid = pid
        self._temp = temp
        self._before: Footprint | None = None

    def look(self) -> Footprint:
        """What it holds now."""
        return Footprint(
            machine.memory(self.pid, "VmRSS"),
            len(os.listdir(f"/proc/{self.pid}/fd")),
            len(machine.descendants(self.pid)),
            sum(len(folders) + len(files) for _, folders, files in os.walk(self._temp)),
        )

    def begin(self) -> None:
        """From here on nothing may grow; call it after a warm-up, and with nothing going on."""
        self._before = _settled(self.look)

    def end(self) -> tuple[str, list[str]]:
        """The figures before and after, as text, and what has grown."""
        assert self._before is not None
        before = self._before
        after = _settled(self.look, lambda now: now[1:] <= before[1:])
        grown = [
            f"{self.name}: {what} grew from {old} to {new}"
            for what, old, new, allowed in zip(
                ("memory", "descriptors", "processes", "files"),
                before,
                after,
                (ALLOWED_NBYTES, 0, 0, 0),
                strict=True,
            )
            if new > old + allowed
        ]
        text = (
            f"{self.name} {before.memory / MEGABYTE:.1f} -> {after.memory / MEGABYTE:.1f} MB, "
            f"fds {before.descriptors} -> {after.descriptors}, "
            f"processes {before.processes} -> {after.processes}, "
            f"files {before.files} -> {after.files}"
        )
        return text, grown


def _settled(
    look: Callable[[], Footprint], is_fine: Callable[[Footprint], bool] = lambda now: True
) -> Footprint:
    """What is there when two looks agree: a session that has just ended is still being buried."""
    until = time.monotonic() + SETTLE_LIMIT_S
    last = look()
    while time.monotonic() < until:
        time.sleep(0.2)
        now = look()
        if now[1:] == last[1:] and is_fine(now):
            return now
        last = now
    return last
