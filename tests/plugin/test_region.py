"""Lines that stay below pytest's output, as a person sees them."""

from __future__ import annotations

import io
import os
from typing import Iterator

import pytest

from pytest_tvmrpc.reporting.region import Region

from .screen import Screen


class Terminal(io.StringIO):
    """A file that is not one of the operating system's, with the size of a terminal."""

    encoding = "utf-8"
    errors = "strict"

    def isatty(self) -> bool:
        return True

    def seen(self, width: int = 40, height: int = 10) -> list[str]:
        """What a person sees of it."""
        return Screen(width, height).feed(self.getvalue()).lines


@pytest.fixture(name="terminal", autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    return Terminal()


@pytest.fixture(name="region")
def _region(terminal: Terminal) -> Iterator[Region]:
    region = Region(terminal)
    yield region
    region.close()


def test_without_lines_it_is_the_file(terminal: Terminal, region: Region) -> None:
    """Nothing is added to what pytest writes, and what it asks is answered by the file."""
    assert region.write("tests/test_a.py ..") == 18
    region.write("\rcollected 3 items\n")
    region.flush()
    assert terminal.getvalue() == "tests/test_a.py ..\rcollected 3 items\n"
    assert region.isatty()
    assert region.encoding == "utf-8"


def test_lines_stay_below(terminal: Terminal, region: Region) -> None:
    """Whatever is written appears above them, also piece by piece in one line."""
    region.write("first\n")
    region.show(["one", "two"])
    assert terminal.seen() == ["first", "one", "two"]
    for dot in "a.py", " ", ".", "F":
        region.write(dot)
    assert terminal.seen() == ["first", "a.py .F", "one", "two"]
    region.write("  [100%]\nnext\n")
    assert terminal.seen() == ["first", "a.py .F  [100%]", "next", "one", "two"]
    region.show(["three"])
    assert terminal.seen() == ["first", "a.py .F  [100%]", "next", "three"]
    region.show([])
    region.write("last")
    assert terminal.seen() == ["first", "a.py .F  [100%]", "next", "last"]


def test_a_line_that_is_written_again(terminal: Terminal, region: Region) -> None:
    """As pytest counts what it collects, and pytest-xdist its workers."""
    region.show(["one"])
    region.write("\rcollecting 1 item ")
    region.write("\rcollected 22 items")
    region.write("\n")
    assert terminal.seen() == ["collected 22 items", "one"]


def test_an_unfinished_line_that_is_wider_than_the_terminal(
    terminal: Terminal, region: Region
) -> None:
    """It takes several rows, and each is kept; colours take no room."""
    region.write("start\n")
    region.show(["one"])
    for _ in range(40):
        region.write("\x1b[32m..\x1b[0m")
    assert terminal.seen() == ["start", "." * 40, "." * 40, "one"]
    region.write("!\n")
    assert terminal.seen() == ["start", "." * 40, "." * 40, "!", "one"]


def test_the_terminal_becomes_narrow(
    terminal: Terminal, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that the terminal has broken anew are taken away as a whole."""
    region.show(["x" * 30])
    monkeypatch.setenv("COLUMNS", "20")
    before = len(terminal.getvalue())
    region.show([])
    # The 30 columns have become two rows.
    assert terminal.getvalue()[before:] == "\r\x1b[1A\x1b[J"


def test_more_lines_than_the_terminal_has(terminal: Terminal, region: Region) -> None:
    """Only as many are drawn as can be taken away again."""
    region.write("part")
    region.show([str(number) for number in range(30)])
    region.write("ial\n")
    region.show([])
    assert terminal.seen() == ["partial", ""]


def test_a_word_in_between(terminal: Terminal, region: Region) -> None:
    """It gets a line of its own; the line that pytest is at goes on below it."""
    region.say("rpc: one")
    region.write("test_a ")
    region.say("rpc: two")
    assert terminal.seen() == ["rpc: one", "test_a", "rpc: two", "test_a"]
    region.show(["below"])
    region.say("rpc: three")
    region.write("PASSED\n")
    expected = ["rpc: one", "test_a", "rpc: two", "rpc: three", "test_a PASSED", "below"]
    assert terminal.seen() == expected


def test_after_the_end_it_is_the_file_again(terminal: Terminal, region: Region) -> None:
    """The lines are gone, nothing brings them back, and who still has it can write."""
    region.write("a.py .")
    region.show(["one"])
    region.close()
    region.close()
    region.show(["two"])
    region.say("three")
    assert terminal.seen() == ["a.py ."]
    region.write(".\n")
    assert terminal.seen() == ["a.py ..", ""]


def test_what_the_encoding_does_not_have(terminal: Terminal, region: Region) -> None:
    """pytest is told as by the file, and writes it in another way; lines of ours are escaped."""
    terminal.encoding = "ascii"
    with pytest.raises(UnicodeEncodeError):
        region.write("gr\u00fcn")
    assert terminal.getvalue() == ""


def test_it_writes_where_the_terminal_was() -> None:
    """When the descriptor is pointed elsewhere, as while pytest captures, that does not matter."""
    terminal, elsewhere = os.pipe(), os.pipe()
    file = open(terminal[1], "w", encoding="ascii")  # noqa: SIM115 - see below
    file.write("before ")
    region = Region(file)
    try:
        os.dup2(elsewhere[1], file.fileno())
        region.write("captured \n")
        region.show(["gr\u00fcn"])
        assert os.read(terminal[0], 1000) == b"before captured \ngr\\xfcn"
    finally:
        region.close()
        file.close()
        for descriptor in (terminal[0], *elsewhere):
            os.close(descriptor)
