"""Ends the session on a device, whoever has it, and waits until the device is free again.

Stops no server, and takes nobody out of the line.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, List, Optional, Sequence

from ..errors import RPCError
from .asking import add_tracker_options, duration, ends_with_its_reader, tracker_address
from .console import help_formatter, program_name

if TYPE_CHECKING:
    from ..client.tracker import TrackerSession
    from ..protocol.farm import FarmServer

_ROUNDING_S = 0.1
_POLL_S = 0.05


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("kick"),
        formatter_class=help_formatter,
        description="Ends the session on a device: its process and all that it started. The "
        "client's next call raises SessionKickedError with the reason. Who waits for the device "
        "gets it then.",
        epilog="Exit status: 0 if somebody was kicked, and the device is free, or the next one's; "
        "1 if not; 2 if it is not clear who is meant. Examples: tvmrpc kick jetson; "
        "tvmrpc kick jetson@10.0.0.5:9090 --reason 'stuck since yesterday'",
    )
    add_tracker_options(parser)
    parser.add_argument(
        "target", metavar="TARGET", help="a device as `tvmrpc who` shows it, its address, or a key"
    )
    parser.add_argument("--reason", default="", help="what the one who is kicked is told")
    parser.add_argument(
        "--all", action="store_true", help="end the sessions on all devices that are meant"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="how long to wait until a device is free again (default: %(default)g)",
    )
    return parser


@ends_with_its_reader
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """End the sessions that the options mean."""
    options = _parser().parse_args(arguments)
    from ..client.tracker import connect_tracker

    try:
        with connect_tracker(*tracker_address(options)) as tracker:
            return _kick(tracker, options)
    except (RPCError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _kick(tracker: TrackerSession, options: argparse.Namespace) -> int:
    from ..errors import TrackerError

    if tracker.kind != "tvmrpc":
        tracker.kick(options.target)  # raises, and says what can be done instead
    servers = tracker.who().servers
    meant = [server for server in servers if options.target in _names(server)]
    if not meant:
        known = ", ".join(sorted(map(_name, servers))) or "no devices at all"
        raise TrackerError(
            f"no device is called {options.target!r}; give a key, HOST:PORT, or a device as "
            f"`tvmrpc who` shows it. The tracker has {known}"
        )
    held = [server for server in meant if server.holder is not None]
    if not held:
        states = ", ".join(f"{_name(server)} is {server.state.value}" for server in meant)
        print(f"nobody to kick: {states}", file=sys.stderr)
        return 1
    if len(held) > 1 and not options.all:
        print(f"error: {options.target} means several; name one, or add --all:", file=sys.stderr)
        for server in held:
            print(f"  {_name(server)}: {_held(server)}", file=sys.stderr)
        return 2
    reason = f"{tracker.user} ended the session with tvmrpc kick"
    reason += f": {options.reason}" if options.reason else ""
    done = [_kick_one(tracker, server, reason, options.wait) for server in held]
    return 0 if all(done) else 1


def _kick_one(tracker: TrackerSession, server: FarmServer, reason: str, wait_s: float) -> bool:
    try:
        tracker.kick(server.address, reason)
    except RPCError as error:
        print(f"error: {_name(server)}: {error}", file=sys.stderr)
        return False
    print(f"kicked {_held(server)}, from {_name(server)}")
    started = time.monotonic()
    while True:
        passed = time.monotonic() - started
        outcome = _outcome(tracker, server, passed)
        if outcome:
            print(f"{_name(server)} {outcome} after {duration(passed)}")
            return True
        if passed > wait_s:
            print(
                f"error: {_name(server)} is not free {duration(wait_s)} later; look at the "
                "server's output, and restart it if it says nothing",
                file=sys.stderr,
            )
            return False
        time.sleep(_POLL_S)


def _outcome(tracker: TrackerSession, before: FarmServer, passed_s: float) -> str:
    """What became of a device; empty as long as the one who was kicked has it."""
    assert before.holder is not None
    now = [
        server
        for server in tracker.who().servers
        if (server.key, server.address) == (before.key, before.address)
    ]
    if not now:
        return "is gone from the tracker"
    # The same holder has had it for longer; answers are rounded, and a moment old.
    user, peer = before.holder.user, before.holder.peer
    held_s = before.holder.since_s + passed_s - _ROUNDING_S
    for other in [server.holder for server in now if server.holder is not None]:
        if (other.user, other.peer) == (user, peer) and other.since_s >= held_s:
            return ""
    holder = now[0].holder
    if holder is not None:
        return f"went to {holder.user}"
    return f"is {now[0].state.value}"


def _name(server: FarmServer) -> str:
    return f"{server.key}@{server.address}"


def _names(server: FarmServer) -> List[str]:
    return [server.key, server.address, _name(server)]


def _held(server: FarmServer) -> str:
    assert server.holder is not None
    return f"{server.holder.user}, who had it for {duration(server.holder.since_s)}"


if __name__ == "__main__":
    sys.exit(main())
