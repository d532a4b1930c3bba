"""A terminal small enough to be understood: what a person would see after some output."""

from __future__ import annotations

import re
from typing import List

_PIECE = re.compile(r"\x1b\[([\d;]*)([A-Za-z])|\n|\r|[^\x1b\n\r]")


class Screen:
    """Takes output, keeps lines. The lowest `height` of them can be changed, the rest has scrolled.

    Knows line feed, carriage return, moving up and erasing below; colours are left out. Anything
    else is an error.
    """

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.width = width
        self.height = height
        self._rows: List[List[str]] = [[]]
        self._row = 0
        self._column = 0

    def feed(self, text: str) -> Screen:
        """Take in output."""
        end = 0
        for piece in _PIECE.finditer(text):
            assert piece.start() == end, f"not known: {text[end:][:20]!r}"
            end = piece.end()
            if piece[2]:
                self._command(piece[2], piece[1])
            elif piece[0] == "\n":
                self._down()
            elif piece[0] == "\r":
                self._column = 0
            else:
                self._put(piece[0])
        assert end == len(text), f"not known: {text[end:][:20]!r}"
        return self

    @property
    def lines(self) -> List[str]:
        """What stands there, without blanks at the ends of lines."""
        return ["".join(row).rstrip() for row in self._rows]

    def _command(self, name: str, argument: str) -> None:
        if name == "A":
            self._row = max(self._row - int(argument or 1), len(self._rows) - self.height, 0)
        elif name == "J":
            del self._rows[self._row + 1 :]
            del self._rows[self._row][self._column :]
        else:
            assert name == "m", f"not known: CSI {name}"

    def _down(self) -> None:
        self._row += 1
        self._column = 0  # as the driver of a terminal makes CR LF of LF
        if self._row == len(self._rows):
            self._rows.append([])

    def _put(self, char: str) -> None:
        if self._column == self.width:
            self._down()
        row = self._rows[self._row]
        row.extend(" " * (self._column + 1 - len(row)))
        row[self._column] = char
        self._column += 1
