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
    return argparse.HelpFormatter(prog, width=max(terminal_width() - 2, 40))


def terminal_width(default: int = 80) -> int:
    """Columns of the terminal; what COLUMNS says, or `default`, if there is none."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):  # no terminal, or no number
        return default


def program_name(module: str) -> str:
    """What the user typed: ``tvmrpc server``, or ``python -m pytest_tvmrpc.exec.rpc_server``."""
    name = f"pytest_tvmrpc.exec.{module}"
    started = getattr(sys.modules.get("__main__"), "__spec__", None)
    if started is not None and started.name == name:
        return f"python -m {name}"
    if sys.argv[0].endswith(".pyz"):
        return os.path.basename(sys.argv[0])
    word = module[4:] if module.startswith("rpc_") else module.replace("_rpc_tracker", "")
    return "tvmrpc " + word.replace("_", "-")


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


def print_address(listener: socket.socket, danger: str, *, silent: bool = False) -> None:
    """Prints ``bind to HOST:PORT`` as TVM does, and a warning if others reach it.

    Args:
        danger: what others can do then.
        silent: whether only the warning is printed.
    """
    host, port = listener.getsockname()[:2]
    if not silent:
        print_line(f"bind to {network.format_address(host, port)}", sys.stdout)
    if not is_loopback(host):
        print_line(
            f"warning: whoever reaches this port can {danger}; "
            "do this only in a network in which everybody is trusted",
            sys.stderr,
        )
