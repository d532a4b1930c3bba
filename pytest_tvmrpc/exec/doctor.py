"""Checks each hop from here to a call on a device, and says which one fails and what to do.

Repairs nothing, and leaves no session behind.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from .. import network
from .asking import DEFAULT_PORT, duration, ends_with_its_reader
from .console import help_formatter, program_name, terminal_width

if TYPE_CHECKING:
    from .checks import Step

_MARGIN = 35
"""The column in which the facts begin."""

_COLOURS = {"ok": "32", "FAILED": "31;1", "skipped": "2"}
_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("doctor"),
        formatter_class=help_formatter,
        usage="tvmrpc doctor [--tracker HOST:PORT] [--key KEY] [options]\n"
        "       tvmrpc doctor HOST:PORT [--key KEY] [options]",
        description="Checks the way to a device hop by hop: name, port, tracker, queue, the "
        "server's address, handshake, dialect, files, calls and speed. At the first hop that "
        "fails it says what to do. Works with TVM's trackers and servers, too.",
        epilog="Exit status: 0 if all is well, 1 if not. Examples: `tvmrpc doctor --tracker "
        "farm.example:9190 --key jetson` takes a device as a test would; `tvmrpc doctor "
        "10.0.0.5:9090` tries a server that belongs to no tracker.",
    )
    parser.add_argument("server", nargs="?", metavar="HOST:PORT", help="a server without tracker")
    parser.add_argument(
        "--tracker",
        metavar="HOST:PORT",
        help="the tracker; without it and without a server, TVM_TRACKER_HOST and "
        "TVM_TRACKER_PORT, else 127.0.0.1:9190",
    )
    parser.add_argument(
        "--key", default="", help="the device's key; without it, any that the tracker has"
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for a device that is in use (default: %(default)g)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="the longest that any other check may take (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no time to wait; expected seconds above 0")
    return seconds


@ends_with_its_reader
def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Make the checks; 0 if all is well."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.server and options.tracker:
        parser.error("give a server or --tracker, not both")
    try:
        address = _address(options)
    except ValueError as error:
        parser.error(str(error))
    report = _JsonReport() if options.json else _Report()
    try:
        is_well = _examine(address, options, report)
    except KeyboardInterrupt:
        report.end(is_well=False)
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    report.end(is_well=is_well)
    return 0 if is_well else 1


def _address(options: argparse.Namespace) -> Tuple[str, int]:
    if options.server:
        return network.parse_address(options.server)
    if options.tracker:
        return network.parse_address(options.tracker, DEFAULT_PORT)
    host = os.environ.get("TVM_TRACKER_HOST") or network.LOOPBACK
    return network.parse_address(f"[{host}]:{os.environ.get('TVM_TRACKER_PORT') or DEFAULT_PORT}")


def _examine(address: Tuple[str, int], options: argparse.Namespace, report: _Report) -> bool:
    import contextlib

    from .checks import examine  # with the client: 30 ms that --help need not take
    from .server_checks import SESSION_S, ServerChecks

    with contextlib.ExitStack() as stack:
        tracker = None
        checks = []
        if not options.server:
            from .tracker_checks import TrackerChecks

            tracker = TrackerChecks(*address, options.key, options.timeout, options.wait, SESSION_S)
            stack.callback(tracker.close)
            checks += tracker.checks()
            server = ServerChecks("", 0, "", options.timeout, tracker)
        else:
            server = ServerChecks(*address, options.key, options.timeout, None)
        stack.callback(server.close)
        return examine([*checks, *server.checks()], report.show)


class _Report:
    """Prints each step as soon as it is made."""

    def __init__(self) -> None:
        self._width = terminal_width(default=100)
        self._is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._not_made: List[str] = []

    def show(self, step: Step) -> None:
        """One line, or more where the facts are long; those behind a failure have one together."""
        if step.outcome.value == "skipped" and not step.facts:
            self._not_made.append(step.name)
            return
        self._print(step)

    def _print(self, step: Step) -> None:
        took = duration(step.took_s) if step.took_s else ""
        outcome = f"{step.outcome.value:<7}"
        if self._is_coloured:
            outcome = f"\033[{_COLOURS[step.outcome.value]}m{outcome}\033[0m"
        first, *more = self._folded(step.facts) or [""]
        print(f"{outcome}  {took:>10}  {step.name:<12}  {first}".rstrip(), flush=True)
        for line in more:
            print(" " * _MARGIN + line)
        for number, line in enumerate(self._folded(step.advice)):
            mark = "what to do:" if number == 0 else ""
            print(f"{mark:>{_MARGIN - 2}}  {line}", flush=True)

    def _folded(self, text: str) -> List[str]:
        import textwrap

        return textwrap.wrap(
            text, max(self._width - _MARGIN, 30), break_long_words=False, break_on_hyphens=False
        )

    def end(self, *, is_well: bool) -> None:
        """The last lines."""
        if self._not_made:
            from .checks import Outcome, Step

            self._print(Step("not made", Outcome.SKIPPED, ", ".join(self._not_made)))
        print("all is well" if is_well else "not well: see the line that says FAILED", flush=True)


class _JsonReport(_Report):
    """Prints all steps as one object, at the end."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: List[Step] = []

    def show(self, step: Step) -> None:
        self._steps.append(step)

    def end(self, *, is_well: bool) -> None:
        steps = [step._asdict() for step in self._steps]
        print(json.dumps({"ok": is_well, "steps": steps}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
