"""What our programs show on a terminal: their help, and the address they listen on."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
from typing import TYPE_CHECKING, Optional, TextIO

from .. import network

if TYPE_CHECKING:
    import socket


def help_formatter(prog: str) -> argparse.HelpFormatter:
    """A formatter as wide as the terminal.

    argparse's own asks shutil for the width whenever an option is added, which loads three
    compression libraries: 0.7 MB that a board's server would keep.
    """
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):  # no terminal, or no number
        columns = 80
    return argparse.HelpFormatter(prog, width=max(columns - 2, 40))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    return host.startswith("127.") or host in ("::1", "localhost")


def print_line(line: str, stream: Optional[TextIO]) -> None:
    """Prints it, or drops it if that cannot be done now.

    Whoever reads our output may have gone or stopped reading, and its disk may be full. A device
    is worth more than the lines about it, so none of this ends a program or keeps it waiting.
    """
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed, or no file of the system's
        if stream is not None and select.select([], [stream], [], 0)[1]:
            print(line, file=stream, flush=True)


def print_address(listener: socket.socket, danger: str) -> None:
    """Prints ``bind to HOST:PORT`` as TVM does, and a warning if others reach it."""
    host, port = listener.getsockname()[:2]
    print_line(f"bind to {network.format_address(host, port)}", sys.stdout)
    if not is_loopback(host):
        print_line(
            f"warning: whoever reaches this port can {danger}; "
            "do this only in a network in which everybody is trusted",
            sys.stderr,
        )
