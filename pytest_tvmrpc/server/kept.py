"""The end of what a session printed, and the answers to its questions about it. Reads no pipe."""

from __future__ import annotations

import mmap
import os
import struct
from typing import Callable, Tuple

KEPT_NBYTES = 1 << 20
"""How much of what was printed last a client can still ask for."""

QUESTION = struct.Struct("=QQ")
"""A session's to its supervisor: any number, and the offset in the output that it wants."""

ANSWER = struct.Struct("=QQQQ")
"""The number again; where the content begins and where all the output ends; bytes that follow."""

AT_THE_END = (1 << 64) - 1
"""The offset that asks where the end is, and has what is in the pipe taken first."""

PIECE_NBYTES = 32 * 1024
"""The most content of one answer; a socket takes it without blocking."""


class Kept:
    """The last bytes of an output.

    Mapped, so that they go back to the system with the session, whatever else the server has.

    Args:
        begin: the offset of what will be added first.

    Raises:
        OSError: there is no memory for it.
    """

    def __init__(self, begin: int) -> None:
        self._begin = self._end = begin
        self._ring = mmap.mmap(-1, KEPT_NBYTES)

    def add(self, part: bytes) -> None:
        """Appends what is no longer than all that is kept; the oldest goes where it has to."""
        at = self._end % KEPT_NBYTES
        first, rest = part[: KEPT_NBYTES - at], part[KEPT_NBYTES - at :]
        self._ring[at : at + len(first)] = first
        self._ring[: len(rest)] = rest
        self._end += len(part)
        self._begin = max(self._begin, self._end - KEPT_NBYTES)

    def answer(self, connection: int, drain: Callable[[], object]) -> bool:
        """Answers one question of the session's process; whether there may be more one day.

        A process that breaks the rules only harms itself: what it does not take now, it never gets.

        Args:
            connection: a descriptor of a socket to it that does not block.
            drain: adds what is in the pipe.
        """
        try:
            question = os.read(connection, QUESTION.size)
            if len(question) != QUESTION.size:
                return False
            number, offset = QUESTION.unpack(question)
            if offset == AT_THE_END:
                drain()
            begin, content = self._read(offset)
            os.write(connection, ANSWER.pack(number, begin, self._end, len(content)) + content)
        except BlockingIOError:
            return True
        except OSError:  # it is gone
            return False
        return True

    def _read(self, offset: int) -> Tuple[int, bytes]:
        """A piece from this offset on, or from the oldest byte that is left; and its offset."""
        begin = min(max(offset, self._begin), self._end)
        at = begin % KEPT_NBYTES
        nbytes = min(PIECE_NBYTES, self._end - begin, KEPT_NBYTES - at)
        return begin, self._ring[at : at + nbytes]

    def close(self) -> None:
        """Gives the memory back."""
        self._ring.close()
