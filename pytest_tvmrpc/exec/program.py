"""What the programs that listen have in common: their options, their socket, their log."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import TYPE_CHECKING, Optional, Sequence

from .. import background, network
from ..arguments import add_arguments
from .console import help_formatter, print_line, program_name

if TYPE_CHECKING:
    from ..arguments import Argument

_MAX_LINE = 1000
"""Characters; what select() says about a pipe holds for 4096 bytes."""


def listening_parser(
    name: str, rows: Sequence[Argument], *, description: str, epilog: Optional[str] = None
) -> argparse.ArgumentParser:
    """A parser of what a program that listens can be told, and of what all of them are told."""
    parser = argparse.ArgumentParser(
        prog=program_name(name),
        formatter_class=help_formatter,
        description=description,
        epilog=epilog,
    )
    add_arguments(parser, rows)
    background.add_options(parser)
    return parser


def open_listener(options: argparse.Namespace) -> socket.socket:
    """The socket that the parent gave, or one that these options describe.

    Raises:
        ConnectError: no port is free, or the address is not one of this machine.
    """
    if options.listen_fd is not None:
        return socket.socket(fileno=options.listen_fd)
    return network.listen(
        options.host, options.port, options.port_end, reuse_addr=options.reuse_addr
    )


def log_to_stderr(options: argparse.Namespace) -> None:
    """A line for each event, or for each error only; lines that nobody reads are dropped."""
    import logging  # which the server does without

    class Lines(logging.Handler):
        """Not logging's own: it waits for whoever reads stderr, and everybody with it."""

        def emit(self, record: logging.LogRecord) -> None:
            for line in self.format(record).splitlines():
                print_line(line[:_MAX_LINE], sys.stderr)

    logging.basicConfig(
        level=logging.ERROR if options.silent else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[Lines()],
    )
