"""The server as a program. Options and defaults are TVM's, but it listens on loopback only.

Runs on a bare Python 3.8 and newer, from a plain copy of the package's folder.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from typing import Optional, Sequence

from .. import background, network
from ..errors import RPCError
from ..server.config import ServerConfig
from ..server.supervisor import Supervisor
from .console import help_formatter, print_address, print_line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_tvmrpc.exec.rpc_server",
        formatter_class=help_formatter,
        description="Serves this machine's devices to tests that run elsewhere, one session after "
        "the other, each in a process and a directory of its own.",
        epilog="Whoever reaches the port can run code on this machine. A board that belongs to a "
        "farm: --host 0.0.0.0 --tracker FARM:9190 --key jetson",
    )
    parser.add_argument(
        "--host",
        default=network.LOOPBACK,
        help="the address to listen on (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port", type=int, default=9090, help="the first port to try; 0: any that is free"
    )
    parser.add_argument(
        "--port-end", type=int, default=9199, help="the port behind the last one to try"
    )
    parser.add_argument("--tracker", metavar="HOST:PORT", help="the tracker to offer the device to")
    parser.add_argument("--key", default="", help="what kind of device this is, e.g. jetson")
    parser.add_argument(
        "--custom-addr",
        metavar="HOST",
        help="the address that the tracker gives to clients, if not the one it sees",
    )
    parser.add_argument("--silent", action="store_true", help="print errors only")
    background.add_options(parser)
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a server until SIGTERM, SIGINT or, when started by a parent, its end."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        config = ServerConfig(
            host=options.host,
            port=options.port,
            port_end=options.port_end,
            key=options.key,
            tracker=network.parse_address(options.tracker) if options.tracker else None,
            custom_addr=options.custom_addr,
        )
        config.check()
    except ValueError as error:
        background.refuse(options.ready_fd, str(error))
        return 2
    try:
        if options.listen_fd is not None:
            listener = socket.socket(fileno=options.listen_fd)
        else:
            listener = network.listen(config.host, config.port, config.port_end)
    except RPCError as error:
        background.refuse(options.ready_fd, str(error))
        return 1
    if not options.silent:
        print_address(listener, "run code on this machine")
    port = listener.getsockname()[1]
    Supervisor(
        config,
        listener,
        _ignore if options.silent else _report,
        lambda: background.announce(options.ready_fd, port),
        options.parent_fd,
    ).run()
    return 0


def _report(line: str) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    print_line(f"{stamp}.{int(now % 1 * 1000):03} INFO {line}", sys.stderr)


def _ignore(line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
