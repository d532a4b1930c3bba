"""Prints the state of a tracker: its servers and queues. Options and environment are TVM's."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Optional, Sequence

from .. import network
from ..errors import RPCError


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Print the state of the tracker that the options or the environment name."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_tvmrpc.exec.query_rpc_tracker",
        description="Prints which servers a tracker knows, and who waits for them.",
    )
    parser.add_argument(
        "--host", default="", help="the tracker's host; else TVM_TRACKER_HOST, else 127.0.0.1"
    )
    parser.add_argument(
        "--port", type=int, default=None, help="its port; else TVM_TRACKER_PORT, else 9190"
    )
    options = parser.parse_args(arguments)
    host = options.host or os.environ.get("TVM_TRACKER_HOST") or network.LOOPBACK
    port_text = str(options.port or os.environ.get("TVM_TRACKER_PORT") or 9190)
    from ..client.tracker import connect_tracker

    try:
        host, port = network.parse_address(f"[{host}]:{port_text}")
        with connect_tracker(host, port) as tracker:
            summary = tracker.text_summary()
    except (RPCError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Tracker address {network.format_address(host, port)}\n\n{summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
