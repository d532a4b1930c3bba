"""Under pytest-xdist: one tracker in the controller, leases in the workers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Callable

import pytest

pytest.importorskip("xdist")

Run = Callable[..., pytest.RunResult]

MANY = """
    import pytest

    @pytest.mark.parametrize("number", range({count}))
    def test_many(remote, number):
        assert remote.get_function("rpc.test.addone")(number) == number + 1
"""


@pytest.mark.parametrize("workers", ["1", "2", "4"])
def test_workers_share_the_devices(plain: pytest.Pytester, run_apart: Run, workers: str) -> None:
    """Any number of workers on two devices: each test once, one section, sums that add up."""
    plain.makepyfile(MANY.format(count=8))
    result = run_apart("-n", workers, "--rpc-servers=2")
    result.assert_outcomes(passed=8)
    text = result.stdout.str()
    assert text.count("rpc: tracker and 2 servers start") == 1
    assert text.count("= remote devices =") == 1
    rows = [line.split() for line in result.outlines if line.startswith("local@127.0.0.1:")]
    assert sum(int(row[1]) for row in rows) == 8
    assert sum(int(row[2]) for row in rows) == 8
    if len(rows) > 1:  # one worker may have had the same device for all
        result.stdout.fnmatch_lines(["total * 8 * 8 * 0 *"])


def test_more_workers_than_devices(plain: pytest.Pytester, run_apart: Run) -> None:
    """Workers wait for each other at a single device."""
    plain.makepyfile(MANY.format(count=6))
    result = run_apart("-n", "3")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["local@127.0.0.1:* 6 * 6 * 0 *"])


def test_keys_are_the_same_in_all_workers(plain: pytest.Pytester, run_apart: Run) -> None:
    """Parametrised over the keys in their order, in the controller's words."""
    plain.makepyfile(MANY.format(count=2))
    result = run_apart("-n", "2", "-v", "--rpc-key=b", "--rpc-key=a")
    result.assert_outcomes(passed=4)
    found = sorted(set(re.findall(r"test_many\[\S+\]", result.stdout.str())))
    assert found == [f"test_many[{key}-{number}]" for key in "ab" for number in range(2)] or (
        found == [f"test_many[{number}-{key}]" for number in range(2) for key in "ab"]
    )
    result.stdout.fnmatch_lines(["a@* 2 * 2 *", "b@* 2 * 2 *", "total * 4 * 4 *"])


def test_a_run_without_remote_tests_starts_no_program(
    plain: pytest.Pytester, run_apart: Run
) -> None:
    """With workers, nothing but the controller's own waiting is there."""
    plain.makeconftest(
        """
        import pytest_tvmrpc.background as background

        def refuse(*arguments, **options):
            raise AssertionError("started")

        background.Program.__init__ = refuse
        """
    )
    plain.makepyfile("def test_local(): pass")
    result = run_apart("-n", "2")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*remote devices*")


def test_a_worker_that_crashes_frees_its_device(plain: pytest.Pytester, run_apart: Run) -> None:
    """The worker that replaces it gets the only device; the test counts as failed, once."""
    plain.makepyfile(
        """
        import os

        def test_a(remote): pass
        def test_crash(remote): os._exit(9)
        def test_b(remote): assert remote.get_function("rpc.test.addone")(1) == 2
        def test_c(remote): pass
        """
    )
    result = run_apart("-n", "1", "--rpc-queue-timeout=20")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*crashed while running*test_crash*it had local@*", "local@* 4 * 3 * 1 *"]
    )
    assert result.stdout.str().count("crashed while running") == 1


def test_stop_at_the_first_failure(plain: pytest.Pytester, run_apart: Run) -> None:
    """-x ends workers, tracker and servers."""
    plain.makepyfile(
        "def test_a(remote): assert 0\n" + MANY.format(count=20).replace("\n    ", "\n")
    )
    result = run_apart("-n", "2", "-x")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*= remote devices =*"])


def test_properties(plain: pytest.Pytester, run_apart: Run) -> None:
    """The JUnit file has them with workers, too."""
    plain.makepyfile(MANY.format(count=2))
    run_apart("-n", "2", "--junitxml=out.xml")
    cases = list(ElementTree.parse(plain.path / "out.xml").iter("testcase"))
    assert len(cases) == 2
    names = (
        *("key", "device", "attempts", "queued_s", "connect_s", "upload_s", "call_s", "device_s"),
        *("calls", "bytes_sent", "bytes_received"),
    )
    for case in cases:
        found = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        assert set(found) == {f"rpc.{name}" for name in names}
        assert int(str(found["rpc.calls"])) > 0


def test_each(plain: pytest.Pytester, run_apart: Run) -> None:
    """--dist each: a test counts once for each worker."""
    plain.makepyfile("def test_a(remote): pass")
    result = run_apart("--dist=each", "--tx=2*popen")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["local@* 2 * 2 *"])
