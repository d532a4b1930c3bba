"""Prints who has which device, since when, and who waits. Asks a tracker, and no device."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from .. import network
from ..errors import RPCError
from .asking import (
    add_tracker_options,
    aligned,
    duration,
    ends_with_its_reader,
    tracker_address,
)
from .console import help_formatter, program_name

if TYPE_CHECKING:
    from ..client.tracker import TrackerSession
    from ..protocol.farm import Farm

CANNOT_TELL = 3
"""The exit status when the tracker is TVM's, which does not know."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("who"),
        formatter_class=help_formatter,
        description="Prints each device of a farm with its holder, and the line of those who "
        "wait. A user is called what TVMRPC_USER says where he works, or user@host and the "
        "process.",
        epilog="Exit status: 0; 1 if the tracker cannot be asked; 3 if it is TVM's, which does "
        "not know who has what: then the numbers that it does know are printed.",
    )
    add_tracker_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return parser


@ends_with_its_reader
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Print the holders and the line of the tracker that the options or the environment name."""
    options = _parser().parse_args(arguments)
    from ..client.tracker import connect_tracker

    try:
        host, port = tracker_address(options)
        with connect_tracker(host, port) as tracker:
            address = network.format_address(host, port)
            if tracker.kind != "tvmrpc":
                return _summary(tracker, address, is_json=options.json)
            farm = tracker.who()
    except (RPCError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"tracker": address, "kind": "tvmrpc", **_plain(farm)}, indent=2))
    else:
        print(f"tracker {address}\n")
        print("\n".join(lines(farm)))
    return 0


def _summary(tracker: TrackerSession, address: str, *, is_json: bool) -> int:
    """All that a tracker of TVM can tell."""
    if is_json:
        shown = {"tracker": address, "kind": "tvm", "summary": tracker.summary()}
        print(json.dumps(shown, indent=2))
        return CANNOT_TELL
    print(f"tracker {address}\n\n{tracker.text_summary()}")
    print(
        "This tracker is TVM's: it knows how many devices of a key are free, but not who has the "
        "others, since when, or who waits. Start `tvmrpc tracker` in its place to know; TVM's "
        "servers and clients can use it.",
        file=sys.stderr,
    )
    return CANNOT_TELL


def _plain(farm: Farm) -> Dict[str, Any]:
    servers = [
        {**server._asdict(), "holder": server.holder and server.holder._asdict()}
        for server in farm.servers
    ]
    return {"servers": servers, "waiting": [request._asdict() for request in farm.waiting]}


def lines(farm: Farm) -> List[str]:
    """A table of the devices, and one of those who wait, if anybody does."""
    rows = [("device", "state", "since", "holder", "asked from", "limit")]
    for server in sorted(farm.servers, key=lambda server: (server.key, server.host, server.port)):
        holder = server.holder
        since_s = server.since_s if holder is None else holder.since_s
        rows.append(
            (
                f"{server.key}@{server.address}",
                server.state.value,
                duration(since_s),
                holder.user if holder else "",
                holder.peer if holder else "",
                duration(holder.limit_s) if holder and holder.limit_s else "",
            )
        )
    shown = aligned(rows) if farm.servers else ["no device is registered"]
    if farm.waiting:
        waiting = [("waiting for", "place", "user", "asked from", "for", "priority")]
        for request in sorted(farm.waiting, key=lambda request: (request.key, request.position)):
            waiting.append(
                (
                    request.key,
                    str(request.position),
                    request.user,
                    request.peer,
                    duration(request.since_s),
                    f"{request.priority:g}",
                )
            )
        shown += ["", *aligned(waiting)]
    return shown


if __name__ == "__main__":
    sys.exit(main())
