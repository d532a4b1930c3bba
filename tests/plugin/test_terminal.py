"""The header and the sections on remote devices, as text."""

from __future__ import annotations

import io
from typing import Callable, List

import pytest
from _pytest.terminal import TerminalReporter

from pytest_tvmrpc.options import Options
from pytest_tvmrpc.records import Attempt, RemoteFacts, Run, TestRecord
from pytest_tvmrpc.reporting.tally import Sums
from pytest_tvmrpc.reporting.terminal import (
    header,
    rerun_line,
    table,
    two_seconds,
    write_durations,
    write_section,
)
from pytest_tvmrpc.wording import percent, printable, seconds, significant, size

RunPytest = Callable[..., pytest.RunResult]


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 s"),
        (14e-6, "14 us"),
        (999.4e-6, "999 us"),
        (999.6e-6, "1.0 ms"),
        (0.0012, "1.2 ms"),
        (0.0996, "99.6 ms"),
        (0.12, "120 ms"),
        (0.9994, "999 ms"),
        (0.99951, "1.0 s"),
        (3.4, "3.4 s"),
        (119.9, "119.9 s"),
        (119.99, "2 min 0 s"),
        (725, "12 min 5 s"),
    ],
)
def test_seconds(duration_s: float, text: str) -> None:
    """A duration has a unit in which it is short."""
    assert seconds(duration_s) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12.3 * 2**20, "12.3 MiB"),
        (2**20 - 1, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (3000 * 2**40, "3000.0 TiB"),
    ],
)
def test_size(count: float, text: str) -> None:
    """A number of bytes has a unit in which it is short."""
    assert size(int(count)) == text


def test_what_was_measured_well() -> None:
    """Three digits that count, and the sign for a millionth where there is one."""
    shown = [seconds(value, 3, "\N{MICRO SIGN}") for value in (1.2, 14.24e-6, 9.996e-3, 0.9996)]
    assert shown == ["1.20 s", "14.2 \N{MICRO SIGN}s", "10.0 ms", "1.00 s"]
    assert [significant(value, 3) for value in (0.5, 9.994, 9.996, 99.96, 12345)] == [
        *("0.50", "9.99", "10.0", "100", "12,345")
    ]
    assert [size(value, 3) for value in (804, 1250, 50e6)] == ["804 B", "1.22 KiB", "47.7 MiB"]
    assert [percent(0.164, 0), percent(0.008, 0), percent(0.008)] == ["16 %", "1 %", "0.8 %"]


NO_DEVICE = "no device 'jetson' became free within 60 s: 4 are busy; wait longer"
J1, J2 = "jetson@10.0.0.7:9090", "jetson@10.0.0.8:9090"


class Output(io.StringIO):
    """What pytest writes to; a terminal if it says so."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture(name="reporter")
def _reporter(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> TerminalReporter:
    for name in ("PY_COLORS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pytestconfig.option, "color", "auto")
    monkeypatch.setenv("COLUMNS", "80")
    return TerminalReporter(pytestconfig, Output())


def written(reporter: TerminalReporter) -> List[str]:
    """The lines that a reporter has written."""
    output = reporter._tw._file
    assert isinstance(output, Output)
    return output.getvalue().splitlines()


def record(name: str, *attempts: Attempt) -> TestRecord:
    """A test with these attempts."""
    return TestRecord(f"tests/test_conv.py::{name}", "gw0", list(attempts))


def attempt(number: int, verdict: str, device: str, message: str = "", **facts: float) -> Attempt:
    """An attempt on one device; on none, if it is only a key."""
    key, _, address = device.partition("@")
    values = {"key": key, "device": device if address else "", **facts}
    devices = [RemoteFacts.from_json(values)]
    return Attempt(number, verdict, 10.0, 3.1, message, devices=devices)


PASSED = record("test_add", attempt(1, "passed", J1, queued_s=0.4, held_s=30.0, call_s=3.4))
IN_VAIN = record("test_wait", attempt(1, "infra", "jetson", NO_DEVICE, queued_s=60.0))
AGAIN = record(
    "test_conv",
    attempt(1, "lost", J1, "connection lost; expected an answer; look at its log"),
    attempt(2, "passed", J2),
)


def test_nothing_remote(reporter: TerminalReporter) -> None:
    """Nothing is said when there is nothing to say."""
    for style in ("short", "full", "none"):
        write_section(reporter, Run(), [], style)
        write_section(reporter, Run(tests=[record("test", Attempt(1, "skipped"))]), [], style)
    write_durations(reporter, Run(), 10)
    write_durations(reporter, Run(tests=[PASSED]), 0)
    assert written(reporter) == []


def test_one_device(reporter: TerminalReporter) -> None:
    """One line for the device; it is its own total. What did not happen has no column."""
    write_section(reporter, Run(10.0, 110.0, tests=[PASSED]), [])
    assert written(reporter) == [
        "================================ remote devices ================================",
        "device                tests  passed  failed  busy  wait p50/p95   call",
        "jetson@10.0.0.7:9090      1       1       0   30%    400/400 ms  3.4 s",
    ]


def test_tests_that_were_not_run(reporter: TerminalReporter) -> None:
    """They are told first, with what stopped them, and have a row of their own."""
    write_section(reporter, Run(10.0, 110.0, tests=[PASSED, IN_VAIN]), [])
    assert written(reporter) == [
        "================================ infrastructure ================================",
        f"1 test was not run: {NO_DEVICE}",
        "    key jetson; no device was given; waited 60.0 s",
        "    tests/test_conv.py::test_wait",
        "================================ remote devices ================================",
        "device                tests  passed  failed  infra  busy  wait p50/p95   call",
        "jetson (none given)       1       0       0      1    0%   60.0/60.0 s    0 s",
        "jetson@10.0.0.7:9090      1       1       0      0   30%    400/400 ms  3.4 s",
        "total                     2       1       0      1   30%    0.4/60.0 s  3.4 s",
    ]


def test_many_tests_with_one_reason(reporter: TerminalReporter) -> None:
    """They are one paragraph with the first names, whoever had the device and however long."""
    none = "none after {0}.5 s: {0} pending; ada{0} has it"
    tests = [
        record(f"test_{n}", attempt(1, "infra", "jetson", none.format(n), queued_s=n))
        for n in range(1, 301)
    ]
    other = [record("test_x", attempt(1, "infra", "rpi4", none.format(3), queued_s=3))]
    write_section(reporter, Run(tests=[*other, *tests]), [], "none")
    assert written(reporter)[1:] == [
        f"300 tests were not run: {none.format(1)}",
        "    key jetson; no device was given; waited 1.0 s to 5 min 0 s",
        *(f"    tests/test_conv.py::test_{n}" for n in range(1, 6)),
        "    ... and 295 more",
        f"1 test was not run: {none.format(3)}",
        "    key rpi4; no device was given; waited 3.0 s",
        "    tests/test_conv.py::test_x",
    ]


def test_full_leaves_no_test_out(reporter: TerminalReporter) -> None:
    """Every name and every column, and a line for each key if there are several."""
    tests = [record(f"test_{n}", attempt(1, "infra", "jetson", "none")) for n in range(9)]
    tests.append(record("test_x", attempt(1, "passed", "rpi4@10.0.0.9:9090")))
    write_section(reporter, Run(tests=tests), [], "full")
    lines = written(reporter)
    assert sum("test_conv.py::test_" in line for line in lines) == 9
    (head,) = (line for line in lines if line.startswith("device"))
    assert head.replace("wait p50/p95", "wait").split()[1:] == [
        *("tests", "passed", "failed", "error", "infra", "skipped", "flaky", "lost", "busy"),
        *("wait", "connect", "upload", "call", "device", "uploaded", "sent", "received"),
    ]
    rows = [line.split()[:2] for line in lines[lines.index(head) + 1 :]]
    assert [row[0] for row in rows] == ["jetson", "rpi4@10.0.0.9:9090", "jetson", "rpi4", "total"]


def test_none_hides_no_trouble(reporter: TerminalReporter) -> None:
    """There is no table; what was not run, and the notes, are told."""
    write_section(reporter, Run(tests=[PASSED, AGAIN, IN_VAIN]), ["it ended:\n  why"], "none")
    assert written(reporter)[4:] == [
        "================================ remote devices ================================",
        "it ended:",
        "      why",
    ]


def test_infra_that_counts_as_skipped(reporter: TerminalReporter) -> None:
    """It is told as well; a test that was skipped for another reason is not."""
    tests = [
        record("test_wait", attempt(1, "skipped", "jetson", NO_DEVICE, queued_s=60.0)),
        record("test_own", attempt(1, "skipped", J1, "not today")),
    ]
    write_section(reporter, Run(tests=tests), [])
    lines = written(reporter)
    assert f"1 test was not run: {NO_DEVICE}" in lines
    assert not any("test_own" in line for line in lines)


def test_lost_on_every_attempt(reporter: TerminalReporter) -> None:
    """The devices that were tried are told, and how often."""
    test = record(
        "test", attempt(1, "lost", J1, "one", queued_s=0.1), attempt(2, "infra", J2, "two")
    )
    write_section(reporter, Run(tests=[test]), [], "none")
    assert written(reporter)[1:] == [
        "1 test was not completed: two",
        f"    key jetson; tried {J1}, {J2}; 2 attempts; waited 0 s to 100 ms",
        "    tests/test_conv.py::test",
    ]


def test_reruns(reporter: TerminalReporter) -> None:
    """A test that ran again has a line with each device, what it did, and the end."""
    tests = [record(f"test_{n}", *AGAIN.attempts) for n in range(12)]
    write_section(reporter, Run(tests=tests), [])
    lines = written(reporter)
    assert lines[1] == (
        f"tests/test_conv.py::test_0 RERUN ({J1}: connection lost; after 3.1 s) -> passed on {J2}"
    )
    assert lines[10:13] == [
        lines[1].replace("test_0", "test_9"),
        "... and 2 more tests ran again (--rpc-summary=full)",
        "",
    ]
    assert lines[13].split()[:5] == ["device", "tests", "passed", "failed", "flaky"]
    assert rerun_line(AGAIN, is_full=True).count("look at its log") == 1


@pytest.mark.parametrize("address", ["10.0.0.7:9090", "192.168.100.107:19090", "board-7.lan:9090"])
def test_short_fits(address: str) -> None:
    """The short table is not wider than 80 columns, whatever happened."""
    row = Sums(f"jetson@{address}", "", *[9999] * 8, waits=[119.0] * 2, busy=1.0, call_s=5999.0)
    head, *lines = table([row, row], is_full=False, width=80)
    assert {len(line) for line in (head, *lines)} == {len(head)}
    assert len(head) <= 80
    assert {"tests", "failed", "error", "infra", "flaky", "wait"} <= set(head.split())


FEW = ("device", "tests", "passed", "failed", "busy", "wait", "p50/p95", "call")
ALL = (*FEW[:4], "error", "infra", "skipped", "flaky", *FEW[4:])


def test_a_wide_terminal() -> None:
    """Nothing is left out where there is room; a narrower one loses what is missed the least."""
    row = Sums("jetson@192.168.100.107:19090", "", *[9999] * 8, waits=[119.0] * 2, call_s=5999.0)
    wide = len(table([row], is_full=False, width=1000)[0])
    found = [table([row], is_full=False, width=width)[0] for width in range(60, wide + 1)]
    assert tuple(found[-1].split()) == ALL
    assert len({len(head) for head in found}) > 3
    for width, head in enumerate(found, 60):
        assert len(head) <= width or tuple(head.split()) == ALL
        for name in set(ALL) - set(head.split()):  # it would not have found room
            cell = seconds(5999.0) if name == "call" else "9999"
            assert len(head) + 1 + max(len(name), len(cell)) > width


def test_a_name_that_does_not_fit() -> None:
    """A name is never cut: one has to find the board. Nor do columns go that make no room."""
    name = f"jetson@[{'2001:0db8:85a3:' * 6}]:9090"
    head, line = table([Sums(name)], is_full=False, width=80)
    assert line.split()[0] == name
    assert tuple(head.split()) == FEW


@pytest.mark.parametrize(("columns", "is_whole"), [("80", False), ("200", True)])
def test_the_width_is_that_of_the_terminal(
    reporter: TerminalReporter, monkeypatch: pytest.MonkeyPatch, columns: str, is_whole: bool
) -> None:
    """A table that 80 columns do not hold is whole where there are more."""
    monkeypatch.setattr(reporter.config.get_terminal_writer(), "fullwidth", int(columns))
    board = "jetson@rack-7-slot-3.boards.example:19090"
    tests = [record("a", *AGAIN.attempts), record("b", attempt(1, "passed", board))]
    tests += [record(verdict, attempt(1, verdict, J1)) for verdict in ("error", "skipped")]
    write_section(reporter, Run(10.0, 110.0, tests=tests), [])
    (head,) = (line for line in written(reporter) if line.startswith("device"))
    assert {"failed", "error", "flaky", "wait"} <= set(head.split())
    assert ("skipped" in head.split()) is is_whole


@pytest.mark.parametrize(
    ("test", "colour"),
    [(PASSED, "32"), (AGAIN, "33"), (record("f", attempt(1, "failed", J1)), "31")],
)
def test_colours(
    test: TestRecord, colour: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Green is good, yellow was lost or not run, red has failed; and none without a terminal."""
    monkeypatch.setattr(pytestconfig.option, "color", "yes")
    reporter = TerminalReporter(pytestconfig, Output(is_terminal=True))
    write_section(reporter, Run(tests=[test]), [])
    (line,) = (line for line in written(reporter) if f"m{J1} " in line)
    assert line.startswith(f"\x1b[{colour}m")
    assert line.endswith("\x1b[0m")


def test_what_a_device_says_does_not_move_the_cursor(reporter: TerminalReporter) -> None:
    """Control characters in messages and names are shown as escapes."""
    test = record("test\x1b[2J", attempt(1, "infra", "jetson", "bad\r\x1b[31m"))
    write_section(reporter, Run(tests=[test]), ["note \x07"])
    assert all(line.isprintable() for line in written(reporter))
    assert printable("gr\u00fcn \ud800\n") == "gr\u00fcn \\ud800\\n"


def test_durations(reporter: TerminalReporter) -> None:
    """The slowest tests first, with what took the time; names of any length stand at the end."""
    slow = record(
        "test_" + "x" * 120,
        attempt(1, "lost", J1, queued_s=1.0, connect_s=0.02, upload_s=1.2, call_s=2.0),
        attempt(2, "passed", J2, queued_s=11.0, connect_s=0.01, call_s=0.8, device_s=0.41),
    )
    never = record("test_never", Attempt(1, "infra", 0.0, 4.0))
    write_durations(reporter, Run(tests=[PASSED, slow, never]), 2)
    assert written(reporter) == [
        "============================ slowest 2 remote tests ============================",
        "total   queue  connect  upload   call  device  attempts  test, device",
        f"6.2 s  12.0 s  30.0 ms   1.2 s  2.8 s  410 ms         2  {slow.nodeid}, {J1}, {J2}",
        f"4.0 s     0 s      0 s     0 s    0 s     0 s         1  {never.nodeid}, no device",
    ]


@pytest.mark.parametrize(
    ("least_s", "most_s", "text"),
    [
        (0.0, 0.0, "0/0 ms"),
        (0.0123, 0.34, "12/340 ms"),
        (0.4, 0.9996, "0.4/1.0 s"),
        (0.04, 12.0, "0.0/12.0 s"),
        (30.0, 720.0, "0.5/12.0 min"),
    ],
)
def test_two_seconds(least_s: float, most_s: float, text: str) -> None:
    """Two durations share the unit of the greater one."""
    assert two_seconds(least_s, most_s) == text


def test_header() -> None:
    """The header says what will be used, and that nothing has started yet."""
    assert header(Options()) == [
        "rpc: tracker and 1 server start when a test asks for a device (keys: local)"
    ]
    assert header(Options(keys=("board-a", "board-b"))) == [
        "rpc: tracker and 2 servers start when a test asks for a device (keys: board-a, board-b)"
    ]
    assert header(Options(("::1", 9190), ("jetson",))) == ["rpc: tracker [::1]:9190, keys: jetson"]


@pytest.mark.parametrize("arguments", [(), ("-n", "0")])
def test_header_is_in_the_output(run: RunPytest, arguments: "tuple[str, ...]") -> None:
    """pytest prints the header once."""
    result = run("--rpc-key=a", *arguments)
    assert result.stdout.str().count("rpc: tracker and 1 server start") == 1
