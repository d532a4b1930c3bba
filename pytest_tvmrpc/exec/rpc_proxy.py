"""The proxy as a program. Options and defaults are TVM's, but there are no web sockets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Optional, Sequence

from .. import background
from ..arguments import settings
from ..errors import RPCError
from ..proxy.launch import ARGUMENTS
from .console import print_address
from .program import listening_parser, log_to_stderr, open_listener

if TYPE_CHECKING:
    import argparse


def _parser() -> argparse.ArgumentParser:
    return listening_parser(
        "rpc_proxy",
        ARGUMENTS,
        description="Brings together clients and servers that cannot connect to one another, but "
        "both to this machine. Servers connect with --through-proxy.",
    )


def _refusal(options: argparse.Namespace) -> str:
    """Why these options cannot be served; empty if they can."""
    if options.web_port:
        return (
            f"--web-port={options.web_port} is not supported, there are no web sockets; leave it "
            "out, and connect over TCP"
        )
    if options.example_rpc:
        return "--example-rpc is not supported, there are no web sockets; leave it out"
    return ""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a proxy until SIGTERM, SIGINT or, when started by a parent, its end."""
    options = _parser().parse_args(arguments)
    refusal = _refusal(options)
    try:
        tracker = settings(ARGUMENTS, vars(options))["tracker"]
    except ValueError as error:
        refusal = str(error)
    if refusal:
        background.refuse(options.ready_fd, refusal)
        return 2
    try:
        listener = open_listener(options)
    except RPCError as error:
        background.refuse(options.ready_fd, str(error))
        return 1
    from ..proxy.service import serve  # asyncio; 40 ms that --help and a refusal need not take

    log_to_stderr(options)
    port = listener.getsockname()[1]

    def on_ready() -> None:
        print_address(listener, "use every server behind it", silent=options.silent)
        background.announce(options.ready_fd, port)

    serve(
        listener,
        on_ready,
        timeout_client_s=options.timeout_client,
        timeout_server_s=options.timeout_server,
        tracker=tracker,
        parent_fd=options.parent_fd,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
