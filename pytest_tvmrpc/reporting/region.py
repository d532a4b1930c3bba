"""Lines that stay below pytest's own output. Knows nothing of what stands in them.

pytest writes through its terminal writer to a file. `Region` takes the place of that file: it
passes everything on, and while there are lines to show it keeps them below the line that pytest is
at, which may be unfinished, as a row of dots is.
"""

from __future__ import annotations

import io
import math
import os
import re
import select
import shutil
import threading
from typing import Any, Callable, Sequence, TextIO

_STYLE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERASE_BELOW = "\x1b[J"


class Region:
    """A file for a terminal writer, with lines below what is written to it.

    It writes to a duplicate of the file's descriptor, as pytest points the original elsewhere
    while it captures the output of a test.

    Args:
        file: the one whose place is taken.
        cell_len: how many columns a text takes.
    """

    def __init__(self, file: TextIO, cell_len: Callable[[str], int] = len) -> None:
        self._file = file
        self._cell_len = cell_len
        self._lock = threading.RLock()
        self._partial = ""  # of the line that pytest is at
        self._lines: Sequence[str] = ()
        self._is_closed = False
        self._drawn: list[int] = []  # columns of each line on the screen that is ours to redraw
        file.flush()
        try:
            self._descriptor = os.dup(file.fileno())
        except (OSError, AttributeError, io.UnsupportedOperation):
            self._descriptor = -1  # it is no real file; then nobody points it elsewhere either

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)  # encoding, isatty() and all that is not writing

    @property
    def file(self) -> TextIO:
        """The one whose place is taken."""
        return self._file

    def write(self, text: str) -> int:
        """Write above the lines, as to the file itself.

        Raises:
            UnicodeEncodeError: the file's encoding has no such character; nothing was written.
        """
        text.encode(self._encoding, self._file.errors or "strict")
        with self._lock:
            before = self._erased() + self._partial if self._drawn else ""
            self._follow(text)
            self._put(before + text + self._drawing())
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is written at once."""

    def say(self, line: str) -> None:
        """Write a line of ours above the lines, and the one that pytest is at once more below it.

        So a test's name stands before its outcome, also where nothing can be taken back.
        """
        with self._lock:
            if self._is_closed:
                return
            before = self._erased() if self._drawn else "\n" if self._partial else ""
            self._put(f"{before}{line}\n{self._partial}{self._drawing()}")

    def show(self, lines: Sequence[str]) -> None:
        """Have these lines below; none of them is longer than the terminal is wide."""
        with self._lock:
            if self._is_closed or not (lines or self._drawn):
                return
            before = self._erased() + self._partial if self._drawn else ""
            self._lines = tuple(lines)
            self._put(before + self._drawing())

    def close(self) -> None:
        """Take the lines away; may be called twice. What is written later goes to the file."""
        with self._lock:
            self.show(())
            self._is_closed = True
            self._lines = ()
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    @property
    def size(self) -> os.terminal_size:
        """That of the terminal, also while the original descriptor is pointed elsewhere."""
        try:
            return os.get_terminal_size(self._descriptor)
        except OSError:
            return shutil.get_terminal_size()

    # --- the screen -------------------------------------------------------------------------------

    def _follow(self, text: str) -> None:
        """Keep what stands in the line that pytest is at."""
        line = (self._partial + text).rpartition("\n")[2]
        self._partial = line.rpartition("\r")[2]  # what begins anew is written over the rest

    def _drawing(self) -> str:
        """The lines, below the cursor, which is behind the unfinished one."""
        size = self.size
        first = [self._columns(self._partial)] if self._partial else []
        room = size.lines - 1 - sum(_rows(columns, size.columns) for columns in first)
        lines = self._lines[: max(room, 0)]
        if not lines:
            self._drawn = []
            return ""
        self._drawn = [*first, *map(self._columns, lines)]
        return ("\n" if first else "") + "\n".join(lines)

    def _erased(self) -> str:
        """Back to the start of what was drawn, and nothing is there any more.

        Widths are those of now: a terminal that was made narrower has broken the lines anew.
        """
        width = self.size.columns
        up = sum(_rows(columns, width) for columns in self._drawn) - 1
        self._drawn = []
        return "\r" + (f"\x1b[{up}A" if up > 0 else "") + _ERASE_BELOW

    def _columns(self, text: str) -> int:
        return self._cell_len(_STYLE.sub("", text))

    @property
    def _encoding(self) -> str:
        return self._file.encoding or "utf-8"

    def _put(self, text: str) -> None:
        if self._descriptor < 0:
            self._file.write(text)
            self._file.flush()
            return
        rest = text.encode(self._encoding, "backslashreplace")
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # some programs that start others leave their output so
                select.select([], [self._descriptor], [], 1.0)


def _rows(columns: int, width: int) -> int:
    return max(math.ceil(columns / width), 1)
