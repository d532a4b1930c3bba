"""The lines at the start of a run, and its sections on remote devices at the end.

Only formatting: what is shown was measured elsewhere. Colours are the terminal reporter's. Plain
ASCII, as logs of CI systems and consoles abroad show nothing else for certain.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, Iterable, NamedTuple, Sequence

from ..wording import printable, seconds, size

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from ..options import Options
    from ..records import Run, TestRecord
    from .tally import Sums, Tally

FIRST = 5
"""How many of many equal things are shown where the style is short."""

SHORT_MESSAGE = 80
"""Characters of a message in a line about something that went well in the end."""


def header(options: Options) -> list[str]:
    """What pytest prints before the first test."""
    keys = ", ".join(options.keys)
    if options.tracker is not None:
        from ..network import format_address

        return [f"rpc: tracker {format_address(*options.tracker)}, keys: {keys}"]
    servers = options.servers * len(options.keys)
    plural = "" if servers == 1 else "s"
    return [
        f"rpc: tracker and {servers} server{plural} start when a test asks for a device "
        f"(keys: {keys})"
    ]


def write_section(
    reporter: TerminalReporter, run: Run, notes: Sequence[str], style: str = "short"
) -> None:
    """The sections at the end; nothing when nothing remote ran.

    Args:
        reporter: pytest's own.
        run: all that is known of it.
        notes: texts about programs of ours that failed or ended, a paragraph each.
        style: ``short``, ``full``, or ``none``: no table, and no word on what went well in the
            end; tests that were not run, and the notes, are told all the same.
    """
    is_full = style == "full"
    _write_infrastructure(reporter, run, is_full)
    has_table = style != "none" and any(test.keys for test in run.tests)
    if not has_table and not notes:
        return
    reporter.write_sep("=", "remote devices")
    if has_table:
        _write_reruns(reporter, run, is_full)
        from .tally import tally

        _write_table(reporter, tally(run), is_full)
    write_notes(reporter, notes)


def write_notes(reporter: TerminalReporter, notes: Sequence[str]) -> None:
    """What the user should read, a paragraph each."""
    for note in notes:
        first, *rest = note.splitlines() or [""]
        reporter.write_line(printable(first), red=True)
        for line in rest:
            reporter.write_line(f"    {printable(line)}")


# --- tests that say nothing about the code --------------------------------------------------------


def _write_infrastructure(reporter: TerminalReporter, run: Run, is_full: bool) -> None:
    groups: dict[tuple[str, object], list[TestRecord]] = {}
    for test in filter(is_infra, run.tests):
        message = test.attempts[-1].message or "no reason is known"
        # Times, places and who holds what differ from test to test where the reason is the same.
        alike = re.sub(r"\d+(\.\d+)?( (us|ms|s|min)\b)?", "", message.partition("; ")[0])
        groups.setdefault((alike, test.keys), []).append(test)
    if not groups:
        return
    reporter.write_sep("=", "infrastructure", yellow=True)
    for tests in sorted(groups.values(), key=len, reverse=True):
        for number, line in enumerate(paragraph(tests, is_full)):
            reporter.write_line(printable(line), yellow=number == 0)


def is_infra(test: TestRecord) -> bool:
    """Whether it was stopped by the farm, not by the code; it may count as skipped."""
    last = test.attempts[-1]
    in_vain = any(not facts.device for facts in last.devices)
    return last.verdict == "infra" or (last.verdict == "skipped" and in_vain)


def paragraph(tests: Sequence[TestRecord], is_full: bool) -> list[str]:
    """What is said of tests that were stopped by the same thing; the first line sums it up."""
    attempts = [attempt for test in tests for attempt in test.attempts]
    facts = [facts for attempt in attempts for facts in attempt.shares]
    tried = list(dict.fromkeys(name for attempt in attempts for name in attempt.names))
    done = "completed" if tried else "run"
    many = f"{len(tests)} tests were" if len(tests) > 1 else "1 test was"
    lines = [f"{many} not {done}: {tests[0].attempts[-1].message or 'no reason is known'}"]
    known = []
    keys = tests[0].keys
    if keys:
        known.append(f"{'key' if len(keys) == 1 else 'keys'} {', '.join(keys)}")
        known.append(f"tried {_first(tried, is_full)}" if tried else "no device was given")
    if len(attempts) > len(tests):
        known.append(f"{len(attempts)} attempts")
    if facts:
        known.append(f"waited {_range([one.queued_s for one in facts])}")
    if known:
        lines.append(f"    {'; '.join(known)}")
    shown = tests if is_full else tests[:FIRST]
    lines += [f"    {test.nodeid}" for test in shown]
    if len(shown) < len(tests):
        lines.append(f"    ... and {len(tests) - len(shown)} more")
    return lines


def _first(names: Sequence[str], is_full: bool) -> str:
    shown = names if is_full else names[:FIRST]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _range(durations_s: Sequence[float]) -> str:
    least, most = seconds(min(durations_s)), seconds(max(durations_s))
    return least if least == most else f"{least} to {most}"


# --- tests that ran again -------------------------------------------------------------------------


def _write_reruns(reporter: TerminalReporter, run: Run, is_full: bool) -> None:
    again = [
        test
        for test in run.tests
        if len(test.attempts) > 1 and not is_infra(test)  # those were told of above
    ]
    shown = again if is_full else again[: 2 * FIRST]
    for test in shown:
        good = test.verdict == "passed"
        reporter.write_line(printable(rerun_line(test, is_full)), yellow=good, red=not good)
    if len(shown) < len(again):
        reporter.write_line(
            f"... and {len(again) - len(shown)} more tests ran again (--rpc-summary=full)"
        )
    if again:
        reporter.write_line("")


def rerun_line(test: TestRecord, is_full: bool) -> str:
    """Each attempt after which it ran again, where and why, and what became of the test.

    Those that were not lost are the reruns of pytest-rerunfailures.
    """
    steps = []
    for attempt in test.attempts:
        if attempt.verdict == "lost" or attempt is not test.attempts[-1]:
            message = attempt.message if is_full else _gist(attempt.message)
            where = ", ".join(attempt.names) or "no device"
            after = seconds(attempt.duration_s)
            steps.append(f"RERUN ({where}: {message or 'lost'}; after {after})")
    last = test.attempts[-1]
    where = f" on {', '.join(last.names)}" if last.names else ""
    return f"{test.nodeid} {' '.join(steps)} -> {test.verdict}{where}"


# --- the table ------------------------------------------------------------------------------------


class Column(NamedTuple):
    """One column of the table: its head, what stands in it, and when it is there."""

    head: str
    cell: Callable[[Sums], str]
    in_short: bool = True
    only_if: Callable[[Sums], float] | None = None  # left out in short style if all are 0


COLUMNS = (
    Column("tests", lambda row: str(row.tests)),
    Column("passed", lambda row: str(row.passed)),
    Column("failed", lambda row: str(row.failed)),
    Column("error", lambda row: str(row.error), only_if=lambda row: row.error),
    Column("infra", lambda row: str(row.infra), only_if=lambda row: row.infra),
    Column("skipped", lambda row: str(row.skipped), only_if=lambda row: row.skipped),
    Column("flaky", lambda row: str(row.flaky), only_if=lambda row: row.flaky),
    Column("lost", lambda row: str(row.lost), in_short=False),
    Column("busy", lambda row: f"{row.busy:.0%}"),
    Column("wait p50/p95", lambda row: two_seconds(row.wait_p50_s, row.wait_p95_s)),
    Column("connect", lambda row: seconds(row.connect_s), in_short=False),
    Column("upload", lambda row: seconds(row.upload_s), in_short=False),
    Column("call", lambda row: seconds(row.call_s)),
    Column("device", lambda row: seconds(row.device_s), in_short=False),
    Column("uploaded", lambda row: size(row.upload_nbytes), in_short=False),
    Column("sent", lambda row: size(row.bytes_sent), in_short=False),
    Column("received", lambda row: size(row.bytes_received), in_short=False),
)

DISPENSABLE = ("skipped", "call", "passed", "busy")
"""Columns that go, in this order, when the short table does not fit into the terminal."""


def _width(reporter: TerminalReporter) -> int:
    return reporter.config.get_terminal_writer().fullwidth


def _write_table(reporter: TerminalReporter, sums: Tally, is_full: bool) -> None:
    rows = list(sums.devices)
    keys = sums.keys if is_full and len(sums.keys) > 1 else []
    totals = [sums.total] if len(rows) > 1 else []
    head, *lines = table([*rows, *keys, *totals], is_full, _width(reporter))
    reporter.write_line(head)
    for line, row in zip(lines, [*rows, *keys]):
        text = printable(line)
        if row.failed or row.error:
            reporter.write_line(text, red=True)
        elif row.infra or row.lost or row.flaky:
            reporter.write_line(text, yellow=True)
        else:
            reporter.write_line(text, green=True)
    for line in lines[len(rows) + len(keys) :]:
        reporter.write_line(line, bold=True)


def table(rows: Sequence[Sums], is_full: bool, width: int) -> list[str]:
    """The sums as aligned lines, their head first.

    If short ones do not fit, columns that can be missed go, and no more than it takes; none if it
    is of no use.
    """
    columns = [
        column
        for column in COLUMNS
        if is_full
        or (column.in_short and (column.only_if is None or any(map(column.only_if, rows))))
    ]
    names = ["device", *(row.name for row in rows)]
    lines = _columns(names, columns, rows, "  ")
    if is_full or len(lines[0]) <= width:
        return lines

    def without(missed: Sequence[str]) -> list[str]:
        return _columns(names, [one for one in columns if one.head not in missed], rows, " ")

    missed = next(
        (
            DISPENSABLE[:count]
            for count in range(len(DISPENSABLE) + 1)
            if len(without(DISPENSABLE[:count])[0]) <= width
        ),
        (),
    )
    for head in reversed(missed):  # the last one to go may have made room for others
        rest = tuple(one for one in missed if one != head)
        if len(without(rest)[0]) <= width:
            missed = rest
    return without(missed)


def _columns(
    names: Sequence[str], columns: Iterable[Column], rows: Sequence[Sums], gap: str
) -> list[str]:
    cells = [[column.head, *map(column.cell, rows)] for column in columns]
    return aligned([*zip(names, *cells)], gap)


def aligned(lines: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """Cells as lines of one width: the first ones to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        gap.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]


# --- the slowest tests ----------------------------------------------------------------------------


def write_durations(reporter: TerminalReporter, run: Run, count: int) -> None:
    """The slowest remote tests with what took the time; nothing if `count` is 0 or none ran.

    Args:
        reporter: pytest's own.
        run: all that is known of it.
        count: how many tests to show.
    """
    if count < 1 or not run.tests:
        return
    slowest = sorted(run.tests, key=_test_s, reverse=True)[:count]
    plural = "" if len(slowest) == 1 else "s"
    reporter.write_sep("=", f"slowest {len(slowest)} remote test{plural}")
    head = ("total", "queue", "connect", "upload", "call", "device", "attempts")
    lines = aligned([head, *map(_durations, slowest)])
    # Names are of any length: at the end of the line they move nothing.
    reporter.write_line(f"{lines[0]}  test, device")
    for line, test in zip(lines[1:], slowest):
        names = dict.fromkeys(name for attempt in test.attempts for name in attempt.names)
        where = ", ".join(names) or "no device"
        reporter.write_line(printable(f"{line}  {test.nodeid}, {where}"))


def _durations(test: TestRecord) -> tuple[str, ...]:
    facts = [facts for attempt in test.attempts for facts in attempt.shares]
    return (
        seconds(_test_s(test)),
        seconds(sum(one.queued_s for one in facts)),
        seconds(sum(one.connect_s for one in facts)),
        seconds(sum(one.upload_s for one in facts)),
        seconds(sum(one.call_s for one in facts)),
        seconds(sum(one.device_s for one in facts)),
        str(len(test.attempts)),
    )


def _test_s(test: TestRecord) -> float:
    return sum(attempt.duration_s for attempt in test.attempts)


# --- words ----------------------------------------------------------------------------------------


def two_seconds(least_s: float, most_s: float) -> str:
    """Two durations in the unit of the greater one: ``0.4/12.0 s``."""
    if most_s < 0.9995:
        return f"{least_s * 1e3:.0f}/{most_s * 1e3:.0f} ms"
    if most_s < 119.95:
        return f"{least_s:.1f}/{most_s:.1f} s"
    return f"{least_s / 60:.1f}/{most_s / 60:.1f} min"


def _gist(message: str) -> str:
    """The fact, without what was expected and what to do, which stand behind it."""
    text = message.partition("; ")[0]
    return text if len(text) <= SHORT_MESSAGE else f"{text[: SHORT_MESSAGE - 3]}..."
