"""What the programs that ask a tracker share: its options, durations and tables as text.

Asks nothing itself.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Callable, List, Optional, Sequence, Tuple

from .. import network

if TYPE_CHECKING:
    import argparse

DEFAULT_PORT = 9190

_NO_READER = 141
"""What a shell says of a program that SIGPIPE ended."""

Main = Callable[..., int]


def ends_with_its_reader(main: Main) -> Main:
    """For a program whose output goes to ``| head``: ends with it, without a traceback."""

    @functools.wraps(main)
    def ending(arguments: Optional[Sequence[str]] = None) -> int:
        try:
            status = main(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            # The interpreter flushes stdout at its end, and would complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _NO_READER
        return status

    return ending


def add_tracker_options(parser: argparse.ArgumentParser) -> None:
    """``--host`` and ``--port``, as TVM's query has them."""
    parser.add_argument(
        "--host", default="", help="the tracker's host; else TVM_TRACKER_HOST, else 127.0.0.1"
    )
    parser.add_argument(
        "--port", type=int, default=None, help="its port; else TVM_TRACKER_PORT, else 9190"
    )


def tracker_address(options: argparse.Namespace) -> Tuple[str, int]:
    """The tracker that the options or the environment name.

    Raises:
        ValueError: they name none.
    """
    host = options.host or os.environ.get("TVM_TRACKER_HOST") or network.LOOPBACK
    port = options.port
    if port is None:
        port = os.environ.get("TVM_TRACKER_PORT") or DEFAULT_PORT
    return network.parse_address(f"[{host}]:{port}")


def duration(seconds: float) -> str:
    """A duration, short enough for a column: ``35 us``, ``1.2 ms``, ``4.2 s``, ``3 min 20 s``."""
    if seconds < 0.9995:
        unit = "us" if seconds < 0.0009995 else "ms"
        number = seconds * (1e6 if unit == "us" else 1e3)
        return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller, smaller_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {smaller_name}" if rest else "")
    return f"{whole} s"


def aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    """The rows of a table as lines; the first has the titles. Two blanks between the columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows
    ]
