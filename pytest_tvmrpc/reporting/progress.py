"""What happens on the devices while tests run, as lines on the terminal. No line outlives the run.

On a terminal there is a live line for each device; elsewhere, when tests have waited for a while,
a plain line now and then. A thread of its own asks the tracker who has the devices.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping

from ..wording import printable
from .region import Region
from .waits import (
    Holding,
    Watch,
    describe_farm,
    describe_summary,
    elapsed,
    short_name,
    user_of,
    waiting_line,
)

if TYPE_CHECKING:
    import pytest
    from _pytest.terminal import TerminalReporter

    from ..protocol.farm import Farm

    Address = tuple[str, int]
    Answer = Farm | Mapping[str, Any]  # of a tracker of ours, or of TVM's

FIRST_S = 10.0
"""How long a test waits before it is told of in a plain line."""

EVERY_S = 30.0
"""How long until the next one."""

ASK_S = 5.0
"""How long an answer of the tracker is good for a live line."""

ANSWER_S = 2.0
"""How long an answer may take; at the end of a run, this is waited for at most."""

SHOWN_S = 1.0
"""How long a test waits before a live line tells of it: most waits are over sooner."""

REDRAW_S = 0.5
SETTLE_S = 0.1  # no more than ten pictures a second, however fast the tests are

WITHOUT_RICH = (
    "rpc: the live lines of --rpc-progress need rich: pip install 'pytest-tvmrpc[progress]'; "
    "there will be a plain line now and then"
)


class Progress:
    """Lines about devices and waiting tests, from `start` to `stop`.

    Register it as a plugin, too: then it makes way for the debugger.

    Args:
        tracker: where the run's devices come from; None as long as that is not known.
        first_s: how long a test waits before a plain line tells of it.
        every_s: how long until the next one.
        ask: asks the tracker at an address, within some seconds.
    """

    def __init__(
        self,
        tracker: Callable[[], Address | None],
        *,
        first_s: float = FIRST_S,
        every_s: float = EVERY_S,
        ask: Callable[[Address, float], Answer] | None = None,
    ) -> None:
        self._tracker = tracker
        self._first_s = first_s
        self._every_s = every_s
        self._ask = ask or ask_tracker
        self._watch = Watch()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._paused = False
        self._thread: threading.Thread | None = None
        self._reporter: TerminalReporter | None = None
        self._region: Region | None = None
        self._is_live = False
        self._said = -every_s
        self._asked = -ASK_S
        self._farm: dict[str, str] = {}

    def start(self, reporter: TerminalReporter) -> None:
        """Begin. Call it while pytest does not capture, as at the start of the session."""
        cell_len: Callable[[str], int] = len
        self._is_live = is_live(reporter)
        if self._is_live:
            try:
                from rich.cells import cell_len
            except ImportError:
                self._is_live = False
                reporter.write_line(WITHOUT_RICH, yellow=True)
        self._reporter = reporter
        writer = reporter._tw
        self._region = Region(writer._file, cell_len)
        writer._file = self._region
        self._thread = threading.Thread(target=self._run, name="tvmrpc-progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End: no line of ours is left, pytest writes as before. May be called twice.

        Call it before pytest says how the run ended, and whatever the way out was.
        """
        self._stopping.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        region, self._region = self._region, None
        if thread is None or region is None or self._reporter is None:
            return
        region.close()  # first, as the thread may be waiting for the tracker
        if self._reporter._tw._file is region:
            self._reporter._tw._file = region.file
        thread.join()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take in an event, in any thread; those that are not of leases are left out."""
        if event.get("kind", "lease") != "lease":
            return
        with self._lock:
            self._watch.hear(event, time.monotonic())
        self._wake.set()

    def pytest_enter_pdb(self, config: pytest.Config) -> None:
        """The terminal is the debugger's."""
        self._paused = True
        if self._region is not None:
            self._region.show(())

    def pytest_leave_pdb(self, config: pytest.Config) -> None:
        """It is ours again."""
        self._paused = False
        self._wake.set()

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        region = self._region
        assert region is not None
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                pause_s = self._draw(region) if self._is_live else self._tell(region)
                self._wake.wait(pause_s)
                if self._is_live:
                    self._stopping.wait(SETTLE_S)
        except Exception as error:  # whatever it is: the display may fail, the run may not
            self._end_of(region, error)

    def _end_of(self, region: Region, error: Exception) -> None:
        try:
            region.show(())
            region.say(f"rpc: --rpc-progress ends here: {type(error).__name__}: {error}")
        except OSError:
            return  # nobody reads the output any more; pytest finds that out by itself

    def _tell(self, region: Region) -> float | None:
        """Plain lines, if they are due; how long until the next, None: until somebody waits."""
        now = time.monotonic()
        with self._lock:
            waits = list(self._watch.waits)
        if not waits or self._paused:
            return None
        due = max(waits[0].since + self._first_s, self._said + self._every_s)
        if now < due:
            return due - now
        self._learn()
        for line in self._waiting(time.monotonic()):
            region.say(f"rpc: {line}")
        self._said = now
        return self._every_s

    def _draw(self, region: Region) -> float | None:
        """The live lines; how long they are good, None: until something happens."""
        now = time.monotonic()
        with self._lock:
            devices = dict(self._watch.devices)
            waits = list(self._watch.waits)
        if self._paused or not (devices or waits):
            return None
        if waits and now - waits[0].since > SHOWN_S and now - self._asked > ASK_S:
            self._learn()
            self._asked = time.monotonic()
        has_colour = self._reporter is not None and self._reporter._tw.hasmarkup
        waiting = self._waiting(now, SHOWN_S)
        lines = live_lines(devices, waiting, now, region.size, has_colour=has_colour)
        if not self._paused:
            region.show(lines)
        return REDRAW_S

    def _waiting(self, now: float, least_s: float = 0.0) -> list[str]:
        with self._lock:
            groups = self._watch.waits_by_keys()
        return [
            printable(waiting_line(waits, self._about(keys), now))
            for keys, waits in groups.items()
            if now - waits[0].since >= least_s
        ]

    def _about(self, keys: tuple[str, ...]) -> list[str]:
        """What the tracker said of these keys; what it said of all of them is said once."""
        known = [(key, self._farm[key]) for key in keys if key in self._farm]
        if len({text for _, text in known}) <= 1:
            return [text for _, text in known[:1]]
        return [f"{key} {text}" for key, text in known]

    def _learn(self) -> None:
        """Ask the tracker about the keys for which tests wait."""
        with self._lock:
            groups = self._watch.waits_by_keys()
            ours = self._watch.held
        tests: dict[str, list[str]] = {}
        for keys, waits in groups.items():
            for key in keys:
                tests.setdefault(key, []).extend(wait.nodeid for wait in waits)
        address = self._tracker()
        if address is None or self._stopping.is_set():
            return
        from ..client.user import default_user
        from ..errors import RPCError
        from ..network import format_address

        try:
            answer = self._ask(address, ANSWER_S)
        except (RPCError, OSError, ValueError) as error:
            silent = f"the tracker {format_address(*address)} does not answer: {error}"
            self._farm = dict.fromkeys(tests, silent)
            return
        if isinstance(answer, Mapping):
            self._farm = {key: describe_summary(answer, key) for key in tests}
        else:
            user = user_of(default_user())
            self._farm = {
                key: describe_farm(answer, key, ours, nodeids, user)
                for key, nodeids in tests.items()
            }


def ask_tracker(address: Address, timeout_s: float) -> Answer:
    """Who has what, of a tracker of ours; how much is free, of TVM's.

    Raises:
        RPCError: it does not answer in time, or not as a tracker does.
    """
    from ..client.tracker import connect_tracker

    with connect_tracker(*address, timeout=timeout_s) as tracker:
        return tracker.who() if tracker.kind == "tvmrpc" else tracker.summary()


def is_live(reporter: TerminalReporter) -> bool:
    """Whether there is a terminal, and nobody but pytest writes to it."""
    option = reporter.config.option
    others = (
        getattr(option, "capture", "") == "no",
        getattr(option, "usepdb", False),
        getattr(option, "trace", False),
    )
    is_terminal = reporter._tw._file.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return is_terminal and not any(others)


def live_lines(
    devices: Mapping[str, Holding | None],
    waiting: list[str],
    now: float,
    size: os.terminal_size,
    *,
    has_colour: bool,
) -> list[str]:
    """A line for each group that waits, then one for each device, as wide as the terminal at most.

    At most half of the terminal: devices that work come first, the rest is a number.
    """
    from rich.cells import cell_len, set_cell_size
    from rich.style import Style

    def styled(text: str, style: str) -> str:
        return Style.parse(style).render(text) if has_colour and text else text

    def cut(text: str, width: int) -> str:
        return text if cell_len(text) <= width else set_cell_size(text, max(width, 0))

    # No table of rich's: that takes 20 ms to draw, many times in a second, of a run's own time.
    width = max(size.columns - 1, 1)
    room = max(size.lines // 2 - len(waiting), 1)
    ordered = sorted(devices.items(), key=lambda item: (item[1] is None, item[0]))
    rows = [(printable(name), *_state(holding, now)) for name, holding in ordered[:room]]
    widths = [max(map(cell_len, column)) for column in zip(*rows)]
    lines = [styled(cut(line, width), "yellow") for line in waiting]
    for (_, holding), row in zip(ordered, rows):
        device, *rest = map(set_cell_size, row, widths)
        style = "dim" if holding is None else "cyan"
        state = cut("".join(f"  {text}" for text in rest), width - widths[0])
        lines.append(styled(cut(device, width), style) + state)
    if len(ordered) > room:
        lines.append(styled(f"... and {len(ordered) - room} more devices", "dim"))
    return lines


def _state(holding: Holding | None, now: float) -> tuple[str, str, str]:
    if holding is None:
        return ("free", "", "")
    name = printable(short_name(holding.nodeid))
    return (name, holding.worker, elapsed(now - holding.since))
