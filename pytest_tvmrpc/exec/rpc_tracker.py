"""The tracker as a program. Options and defaults are TVM's, but it listens on loopback only."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Optional, Sequence

from .. import background
from ..errors import RPCError
from ..protocol import tracker as wire
from ..tracker.launch import ARGUMENTS
from .console import print_address
from .program import listening_parser, log_to_stderr, open_listener

if TYPE_CHECKING:
    import argparse


def _parser() -> argparse.ArgumentParser:
    description = "Keeps track of which devices are free and who waits for one."
    return listening_parser("rpc_tracker", ARGUMENTS, description=description)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run a tracker until SIGTERM, SIGINT or, when started by a parent, its end."""
    options = _parser().parse_args(arguments)
    try:
        listener = open_listener(options)
    except RPCError as error:
        background.refuse(options.ready_fd, str(error))
        return 1
    from ..tracker.service import (
        YOUNG_S,
        serve,
    )  # asyncio; 40 ms that --help and a refusal need not take

    log_to_stderr(options)
    port = listener.getsockname()[1]
    stop_key = wire.make_match_key("tracker", os.urandom(8))  # for whoever started us, if anybody

    def on_ready() -> None:
        print_address(listener, "use every device that registers here", silent=options.silent)
        background.announce(options.ready_fd, port, stop_key=stop_key)

    serve(
        listener,
        on_ready,
        parent_fd=options.parent_fd,
        stop_key=stop_key,
        unused_s=options.timeout,
        # One that was started from Python is new; any other may be somebody's who has just ended.
        young_s=YOUNG_S if options.parent_fd is None else 0.0,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
