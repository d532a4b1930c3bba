"""Lines on devices and waiting tests, during a run."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from typing import Any, Callable, Iterator, List, Optional

import pytest
from _pytest.terminal import TerminalReporter

from pytest_tvmrpc.errors import DeadlineError, RPCError
from pytest_tvmrpc.protocol.farm import Farm, FarmServer, Holder, State
from pytest_tvmrpc.reporting import progress as module
from pytest_tvmrpc.reporting.progress import Progress, ask_tracker, live_lines
from pytest_tvmrpc.reporting.region import Region
from pytest_tvmrpc.reporting.waits import Holding

from .screen import Screen

WaitUntil = Callable[[Callable[[], object], str], None]

A1 = "jetson@10.0.0.1:9090"
FARM = Farm(
    (
        FarmServer(
            "jetson", "10.0.0.2", 9090, State.BUSY, 3.0, Holder("ada@ws12 pid 4", "h:1", 3.0)
        ),
    ),
    (),
)


class Output(io.StringIO):
    """What pytest writes to; a terminal if it says so."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def event(what: str, device: str = "", nodeid: str = "a.py::test_conv") -> Any:
    """An event as a worker's controller tells it."""
    return {
        "kind": "lease",
        "what": what,
        "key": "jetson",
        "device": device,
        "nodeid": nodeid,
        "at": 0.0,
        "worker": "gw0",
    }


class Started:
    """A `Progress` that goes on, and what it writes."""

    def __init__(self, config: pytest.Config, *, is_terminal: bool) -> None:
        self.output = Output(is_terminal=is_terminal)
        self.reporter = TerminalReporter(config, self.output)
        self.answers: List[Any] = [FARM]
        self.asked = 0
        self.progress: Optional[Progress] = None

    def ask(self, address: Any, timeout_s: float) -> Any:
        self.asked += 1
        answer = self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(self, first_s: float, every_s: float) -> Progress:
        self.progress = Progress(
            lambda: ("10.0.0.9", 9190), first_s=first_s, every_s=every_s, ask=self.ask
        )
        self.progress.start(self.reporter)
        return self.progress

    @property
    def text(self) -> str:
        """What was written, whatever the seconds are on a crowded machine."""
        return re.sub(r"\b\d+ s$", "N s", self.output.getvalue(), flags=re.MULTILINE)

    @property
    def seen(self) -> List[str]:
        """What is on the screen, with N for the seconds."""
        lines = Screen(80, 24).feed(self.output.getvalue()).lines
        return [re.sub(r"\b\d+ s$", "N s", line) for line in lines]


@pytest.fixture(name="plain_output")
def _plain_output(pytestconfig: pytest.Config) -> Iterator[Started]:
    started = Started(pytestconfig, is_terminal=False)
    yield started
    if started.progress is not None:
        started.progress.stop()


@pytest.fixture(name="terminal")
def _terminal(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(module, "SHOWN_S", 0.0)
    # However the outer run was started.
    for name, value in (("capture", "fd"), ("usepdb", False), ("trace", False)):
        monkeypatch.setattr(pytestconfig.option, name, value)
    started = Started(pytestconfig, is_terminal=True)
    yield started
    if started.progress is not None:
        started.progress.stop()


def test_a_plain_line_now_and_then(plain_output: Started, wait_until: WaitUntil) -> None:
    """Where there is no terminal, who waits for long is told of, again and again."""
    progress = plain_output.start(first_s=0.01, every_s=0.01)
    plain_output.reporter.write("a.py .")
    progress.on_event(event("asked"))
    progress.on_event({"kind": "needs", "keys": {}})
    line = "rpc: waiting for jetson: 1 busy (ada@ws12 1); test_conv waits for N s"
    wait_until(lambda: plain_output.text.count(line) >= 2, "the second line")
    progress.on_event(event("given", A1))
    progress.stop()
    lines = plain_output.text.splitlines()
    assert lines[0] == "a.py ."
    assert set(lines[1:-1]) == {line, "a.py ."}
    assert lines[-1] == "a.py ."
    assert plain_output.reporter._tw._file is plain_output.output


def test_no_line_for_a_short_wait(plain_output: Started) -> None:
    """Who waits for less than the first interval is not mentioned, and nobody is asked."""
    progress = plain_output.start(first_s=1000.0, every_s=0.0)
    progress.on_event(event("asked"))
    progress.stop()
    progress.stop()
    assert (plain_output.text, plain_output.asked) == ("", 0)


def test_nobody_is_asked_as_long_as_nobody_waits(plain_output: Started) -> None:
    """Devices that tests have are no reason for a plain line."""
    progress = plain_output.start(first_s=0.0, every_s=0.0)
    progress.on_event(event("given", A1))
    progress.stop()
    assert (plain_output.text, plain_output.asked) == ("", 0)


def test_a_tracker_that_does_not_answer(plain_output: Started, wait_until: WaitUntil) -> None:
    """It is said, and asked again the next time."""
    plain_output.answers = [DeadlineError("no answer within 2 s")]
    progress = plain_output.start(first_s=0.0, every_s=0.01)
    progress.on_event(event("asked"))
    silent = "waiting for jetson: the tracker 10.0.0.9:9190 does not answer: no answer within 2 s; "
    wait_until(lambda: silent in plain_output.text, "the line")
    plain_output.answers[0] = {
        "server_info": [{"key": "server:jetson"}],
        "queue_info": {"jetson": {"free": 0, "pending": 2}},
    }
    wait_until(lambda: "jetson: 0 of 1 free, 2 requests wait; " in plain_output.text, "the answer")


def test_a_display_that_fails(plain_output: Started, wait_until: WaitUntil) -> None:
    """It says so and ends; the run does not."""
    plain_output.answers = [{"server_info": 1}]
    progress = plain_output.start(first_s=0.0, every_s=0.0)
    progress.on_event(event("asked"))
    wait_until(lambda: "rpc: --rpc-progress ends here: TypeError" in plain_output.text, "the word")
    plain_output.reporter.write_line("and on")
    progress.on_event(event("given", A1))
    progress.stop()
    assert plain_output.text.endswith("and on\n")


def test_a_live_line_for_each_device(terminal: Started, wait_until: WaitUntil) -> None:
    """On a terminal the lines stay below, and are gone at the end."""
    progress = terminal.start(first_s=0.0, every_s=0.0)
    terminal.reporter.write("a.py .")
    progress.on_event(event("given", A1))
    progress.on_event(event("given", "jetson@10.0.0.2:9090", "a.py::test_gemm"))
    progress.on_event(event("returned", A1))
    progress.on_event(event("asked", nodeid="a.py::test_relu"))
    expected = [
        "a.py .",
        "waiting for jetson: 1 busy (this run 1); test_relu waits for N s",
        "jetson@10.0.0.2:9090  test_gemm  gw0  N s",
        "jetson@10.0.0.1:9090  free",
    ]
    wait_until(lambda: terminal.seen == expected, f"{expected}, not {terminal.seen}")
    terminal.reporter.write(".")
    assert terminal.seen == ["a.py ..", *expected[1:]]
    progress.stop()
    assert terminal.seen == ["a.py .."]
    terminal.reporter.write_sep("=", "end")
    assert terminal.text.endswith("= end ======================================\n")


def test_the_debugger_has_the_terminal(
    terminal: Started, wait_until: WaitUntil, pytestconfig: pytest.Config
) -> None:
    """While it is there, there are no lines."""
    progress = terminal.start(first_s=0.0, every_s=0.0)
    progress.on_event(event("given", A1))
    wait_until(lambda: terminal.seen[0].startswith(A1), "the line")
    progress.pytest_enter_pdb(pytestconfig)
    assert terminal.seen == [""]
    progress.on_event(event("returned", A1))
    progress.pytest_leave_pdb(pytestconfig)
    wait_until(lambda: terminal.seen == [f"{A1}  free"], "the line again")


@pytest.mark.parametrize(
    ("name", "value"), [("capture", "no"), ("usepdb", True), ("trace", True), ("TERM", "dumb")]
)
def test_others_write_to_the_terminal(
    terminal: Started, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the form is the plain one, which nobody can spoil."""
    assert module.is_live(terminal.reporter)
    if name == "TERM":
        monkeypatch.setenv(name, value)
    else:
        monkeypatch.setattr(terminal.reporter.config.option, name, value)
    assert not module.is_live(terminal.reporter)


def test_without_rich(
    terminal: Started, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once what to install, and the plain form is used."""
    monkeypatch.setitem(sys.modules, "rich.cells", None)
    progress = terminal.start(first_s=0.0, every_s=0.01)
    progress.on_event(event("asked"))
    wait_until(lambda: terminal.text.count("rpc: waiting for jetson") >= 2, "the plain lines")
    assert terminal.text.count("pip install 'pytest-tvmrpc[progress]'") == 1
    assert "\x1b[J" not in terminal.text


def test_live_lines_fit() -> None:
    """None is wider than the terminal, none moves the cursor, and at most half of it is used."""
    devices = {
        f"jetson@10.0.0.{n}:9090": Holding("", f"a.py::t[{'x' * 200}\x1b[2J\n]", "", 0.0)
        for n in range(40)
    }
    size = os.terminal_size((60, 20))
    lines = live_lines({"idle": None, **devices}, ["w" * 200], 5.0, size, has_colour=False)
    assert len(lines) == 11
    assert max(map(len, lines)) == 59
    assert lines[0] == "w" * 59
    assert lines[-1] == "... and 32 more devices"
    assert "idle" not in "".join(lines)
    assert "\x1b" not in "".join(lines)
    coloured = live_lines({"idle": None}, [], 5.0, size, has_colour=True)
    assert coloured[0].startswith("\x1b[2midle\x1b[0m  free")
    wide = live_lines(
        {"b": Holding("", "a.py::t[\u754c\u754c]", "", 0.0)}, [], 5.0, size, has_colour=False
    )
    assert wide == ["b  t[\u754c\u754c]    5 s"]


def test_asking_our_tracker(deadline_s: float) -> None:
    """It is asked with its own messages, and forgotten at once."""
    from pytest_tvmrpc.tracker.launch import Tracker

    with Tracker(port=0, silent=True) as tracker:
        assert ask_tracker(("127.0.0.1", tracker.port), deadline_s) == Farm((), ())


def test_asking_what_is_silent() -> None:
    """An address at which nobody answers ends in an error of ours, in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(RPCError):
        ask_tracker(listener.getsockname(), 0.05)


# --- in a real terminal ---------------------------------------------------------------------------

PLUGIN = """
import os, threading, time
import pytest
from pytest_tvmrpc.reporting.progress import Progress

class Shown:
    def pytest_sessionstart(self, session):
        self.progress = Progress(lambda: None)
        self.progress.start(session.config.pluginmanager.getplugin("terminalreporter"))
        self.lease("given", "a.py::first", "board@1")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session):
        self.progress.stop()

    def lease(self, what, nodeid, device):
        self.progress.on_event(
            dict(kind="lease", what=what, key="k", device=device, nodeid=nodeid, at=0)
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        region = self.progress._region
        self.lease("given", item.nodeid, "board@1")
        end = time.monotonic() + 20
        while not region._drawn and time.monotonic() < end:
            threading.Event().wait(0.01)
        result = yield
        self.lease("returned", item.nodeid, "board@1")
        return result

def pytest_configure(config):
    if os.environ.get("SHOWN") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Shown())
"""

TESTS = """
import os, pytest

@pytest.mark.parametrize("i", range(70))
def test_a(i):
    print("captured")
    os.write(1, b"captured too")
    assert i != 3

def test_end():
    if os.environ.get("HANG"):
        print("hangs")
        import signal, threading
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(60)
"""


def _in_a_terminal(folder: Any, deadline_s: float, *arguments: str, **environment: str) -> str:
    """Everything that a pytest in a folder writes to a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {**os.environ, "TERM": "xterm", "PYTEST_ADDOPTS": "", **environment}
    env.pop("COLUMNS", None)
    env.pop("LINES", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly"]
    process = subprocess.Popen(
        [*command, *arguments], cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    watchdog = threading.Timer(6 * deadline_s, process.send_signal, (signal.SIGKILL,))
    watchdog.start()
    try:
        chunks = []
        while select.select([master], [], [], 6 * deadline_s)[0]:
            try:
                chunks.append(os.read(master, 65536))
            except OSError:  # EIO: the last one that had the other end is gone
                break
        assert process.wait() in (1, 2)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        os.close(master)
        watchdog.join()
    return b"".join(chunks).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "arguments", [(), ("-v",), ("-q", "--tb=no"), ("-v", "-n", "2")], ids=" ".join
)
def test_the_output_of_pytest_is_what_it_was(
    plain: pytest.Pytester, arguments: Any, deadline_s: float
) -> None:
    """With live lines, a terminal shows in the end what it shows without; in between, the lines."""
    plain.makeconftest(PLUGIN)
    plain.makepyfile(TESTS)
    without = _in_a_terminal(plain.path, deadline_s, *arguments)
    shown = _in_a_terminal(plain.path, deadline_s, *arguments, SHOWN="1")
    assert "board@1" in shown
    assert "\x1b[J" not in without
    seen = [Screen(80, 24).feed(text).lines for text in (without, shown)]
    stable, shown_stable = (
        [line.partition(" in ")[0] for line in sorted(lines) if "gw" not in line] for lines in seen
    )
    assert shown_stable == stable
    if "-n" not in arguments:  # there, the order is another one each time
        assert [line.partition(" in ")[0] for line in seen[1]] == [
            line.partition(" in ")[0] for line in seen[0]
        ]


def test_ctrl_c(plain: pytest.Pytester, deadline_s: float) -> None:
    """The terminal is as it was, and pytest says what it always says."""
    plain.makeconftest(PLUGIN)
    plain.makepyfile(TESTS)
    shown = _in_a_terminal(plain.path, deadline_s, "-k", "test_end", SHOWN="1", HANG="1")
    lines = Screen(80, 24).feed(shown).lines
    assert any("KeyboardInterrupt" in line for line in lines)
    assert "board@1" in shown
    assert not any("board@1" in line for line in lines)
    assert "\x1b[?25l" not in shown  # the cursor was never hidden, so it need not come back


def test_the_writer_keeps_its_file_when_another_took_its_place(plain_output: Started) -> None:
    """Who put a file of its own over ours keeps it."""
    progress = plain_output.start(first_s=0.0, every_s=0.0)
    writer = plain_output.reporter._tw
    assert isinstance(writer._file, Region)
    other = writer._file = Output(is_terminal=False)
    progress.stop()
    assert writer._file is other
