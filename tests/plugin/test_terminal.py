"""The header and the section on remote devices, as text."""

from __future__ import annotations

from collections import Counter
from typing import Callable

import pytest

from pytest_tvmrpc.options import Options
from pytest_tvmrpc.reporting.facts import DeviceTally
from pytest_tvmrpc.reporting.terminal import header, lines, seconds, size

Run = Callable[..., pytest.RunResult]


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
    ],
)
def test_size(count: float, text: str) -> None:
    """A number of bytes has a unit in which it is short."""
    assert size(int(count)) == text


def test_table_is_aligned() -> None:
    """Names stand left, numbers right; columns are as wide as they must be."""
    rows = [
        DeviceTally("board-a@10.0.0.1:9091", Counter(passed=12), 0.0012, 0.01, 3.4, 1.0, 2**20, 5),
        DeviceTally("total", Counter(passed=12, failed=1), 0.0012, 0.01, 3.4, 1.0, 2**20, 5),
    ]
    head, first, total = lines(rows)
    assert head.split("  ")[0] == "device"
    assert len(head) == len(first) == len(total)
    assert first.split()[:5] == ["board-a@10.0.0.1:9091", "12", "12", "0", "0"]
    assert total.split()[:5] == ["total", "13", "12", "1", "0"]
    assert head.index("sent") + len("sent") == first.index("1.0 MiB") + len("1.0 MiB")
    assert "skipped" not in head


def test_other_outcomes_get_a_column_when_there_are_some() -> None:
    """The outcome columns always add up to the number of tests."""
    head, row = lines([DeviceTally("a@h:1", Counter(passed=1, skipped=2))])
    assert head.split()[1:6] == ["tests", "passed", "failed", "error", "skipped"]
    assert row.split()[1:6] == ["3", "1", "0", "0", "2"]


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
def test_header_is_in_the_output(run: Run, arguments: "tuple[str, ...]") -> None:
    """pytest prints the header once."""
    result = run("--rpc-key=a", *arguments)
    assert result.stdout.str().count("rpc: tracker and 1 server start") == 1


def test_facts_of_any_report_make_the_section(plain: pytest.Pytester, run: Run) -> None:
    """The section is made from the reports alone, with a row for each device and their total."""
    plain.makeconftest(
        """
        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if call.when == "teardown":
                device = "a@10.0.0.1:9091" if "one" in item.name else "b@10.0.0.1:9092"
                report.rpc = [dict(key="a", device=device, queued_s=0.5, bytes_sent=1024)]
            return report
        """
    )
    plain.makepyfile("def test_one(): pass\ndef test_two(): assert 0\ndef test_one_more(): pass")
    result = run()
    result.stdout.fnmatch_lines(
        [
            "*= remote devices =*",
            "device *tests *passed *failed *error *queued *connecting *in calls *on device *sent *",
            "a@10.0.0.1:9091 * 2 * 2 * 0 * 0 * 1.0 s * 0 s * 0 s * 0 s * 2.0 KiB * 0 B",
            "b@10.0.0.1:9092 * 1 * 0 * 1 * 0 * 500 ms *",
            "total * 3 * 2 * 1 * 0 * 1.5 s * 3.0 KiB *",
        ]
    )
    plain.makepyfile("def test_one(): pass")
    assert "remote devices" not in run("-p", "no:terminal").stdout.str()
