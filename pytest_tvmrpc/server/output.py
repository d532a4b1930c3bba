"""What a session prints: passed on up to a limit, and its end kept for the client. Reads no lines.

A session writes into a pipe that is always read. Were it given the server's own output, whoever
does not read that would stop the kernels, and a kernel that prints for ever would fill the disk.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from .kept import Kept

_PART_NBYTES = 65536
_MOST_PARTS = 16
"""Parts in a pipe, at most: a session can enlarge its own to 1 MiB."""

_AT_ONCE_NBYTES = 4096
"""What a pipe that is ready to be written takes without blocking."""

_TAIL_NBYTES = 2048
_TAIL_LINES = 8


class SessionOutput:
    """The pipe between a session and the server's stderr.

    Args:
        limit_nbytes: how much is passed on; what comes later is counted.

    Raises:
        OSError: there are no descriptors for it.

    Attributes:
        writer: the session's end; closed by `started`.
        nbytes: what was printed in all.
        dropped_nbytes: what of it was not passed on.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._left_nbytes = limit_nbytes
        self.nbytes = self.dropped_nbytes = 0
        self._tail = b""
        self._kept: Optional[Kept] = None

    def fileno(self) -> int:
        """The end to be watched; -1 once it is closed."""
        return self._reader

    def started(self) -> None:
        """The session's process has its end; ours is closed, so that there is an end of it all."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def take(self) -> bool:
        """Passes on what is there, or a part of it; whether there may be more one day."""
        try:
            part = os.read(self._reader, _PART_NBYTES)
        except BlockingIOError:
            return True
        if not part:
            return False
        self._keep(part)
        self._tail = (self._tail + part)[-_TAIL_NBYTES:]
        passed = _write(part[: self._left_nbytes])
        self._left_nbytes -= passed
        self.dropped_nbytes += len(part) - passed
        return True

    def _keep(self, part: bytes) -> bool:
        """Adds it to what is kept; whether there is anything to keep it in."""
        try:
            if self._kept is None:
                from .kept import Kept  # here: an idle server's memory is counted

                self._kept = Kept(self.nbytes)
            self._kept.add(part)
        except (ImportError, OSError, MemoryError):  # it is passed on all the same
            pass
        self.nbytes += len(part)
        return self._kept is not None

    def answer(self, connection: int) -> bool:
        """Answers a question of the session's process; whether there may be more one day."""
        if self._reader < 0 or not self._keep(b""):
            return False
        assert self._kept is not None
        return self._kept.answer(connection, self._drain)

    def _drain(self) -> None:
        """Takes all that is in the pipe, though not from who goes on writing."""
        for _ in range(_MOST_PARTS):
            before = self.nbytes
            if not self.take() or self.nbytes == before:
                return

    def close(self) -> None:
        """Takes what is still in the pipe, though not from who goes on writing. Callable twice."""
        self.started()
        if self._reader >= 0:
            for _ in range(2):  # a pipe holds one part
                self.take()
            os.close(self._reader)
            self._reader = -1
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def last_lines(self) -> str:
        """What was printed last, as the end of a message; empty if nothing was."""
        lines = self._tail.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        return "; it printed last:\n" + "\n".join(lines) if lines else ""


def _write(content: bytes) -> int:
    """Writes to stderr as much as it takes now; who does not read us shall not stop us."""
    written = 0
    try:
        while written < len(content) and select.select([], [2], [], 0)[1]:
            written += os.write(2, content[written : written + _AT_ONCE_NBYTES])
    except (OSError, ValueError):  # closed, or its disk is full
        return written
    return written
