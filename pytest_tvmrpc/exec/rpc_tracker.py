"""The tracker as a program. Options and defaults are TVM's, but it listens on loopback only."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import Optional, Sequence

from .. import background, network
from ..errors import RPCError
from .console import help_formatter, print_address


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_tvmrpc.exec.rpc_tracker",
        formatter_class=help_formatter,
        description="Keeps track of which devices are free and who waits for one.",
    )
    parser.add_argument(
        "--host",
        default=network.LOOPBACK,
        help="the address to listen on; anything but loopback lets others use the devices",
    )
    parser.add_argument(
        "--port", type=int, default=9190, help="the first port to try; 0: any that is free"
    )
    parser.add_argument(
        "--port-end", type=int, default=9199, help="the port behind the last one to try"
    )
    parser.add_argument("--silent", action="store_true", help="print errors only")
    background.add_options(parser)
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a tracker until SIGTERM, SIGINT or, when started by a parent, its end."""
    options = _parser().parse_args(arguments)
    try:
        if options.listen_fd is not None:
            listener = socket.socket(fileno=options.listen_fd)
        else:
            listener = network.listen(options.host, options.port, options.port_end)
    except RPCError as error:
        background.refuse(options.ready_fd, str(error))
        return 1
    import logging

    from ..tracker.service import serve  # asyncio; 40 ms that --help and a refusal need not take

    logging.basicConfig(
        level=logging.ERROR if options.silent else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    port = listener.getsockname()[1]

    def on_ready() -> None:
        if not options.silent:
            print_address(listener, "use every device that registers here")
        background.announce(options.ready_fd, port)

    serve(listener, on_ready, parent_fd=options.parent_fd)
    return 0


if __name__ == "__main__":
    sys.exit(main())
