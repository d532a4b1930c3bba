"""Prints the state of a tracker: its servers and queues. Options and environment are TVM's.

Says no more than TVM's trackers know; `who` does, of ours.
"""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from .. import network
from ..errors import RPCError
from .asking import add_tracker_options, ends_with_its_reader, tracker_address
from .console import help_formatter, program_name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("query_rpc_tracker"),
        formatter_class=help_formatter,
        description="Prints which servers a tracker knows, and how many of each key are free and "
        "asked for. `tvmrpc who` prints who has them.",
    )
    add_tracker_options(parser)
    return parser


@ends_with_its_reader
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Print the state of the tracker that the options or the environment name."""
    options = _parser().parse_args(arguments)
    from ..client.tracker import connect_tracker

    try:
        host, port = tracker_address(options)
        with connect_tracker(host, port) as tracker:
            summary = tracker.text_summary()
    except (RPCError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Tracker address {network.format_address(host, port)}\n\n{summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
