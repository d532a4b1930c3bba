"""The run as the process that reports it knows it: what becomes of its tests at the end."""

from __future__ import annotations

import importlib.util
from typing import Callable

import pytest

from pytest_tvmrpc.reporting import jsonl
from pytest_tvmrpc.reporting.tally import tally

from .farms import Farm, last, read, verdicts

RunPytest = Callable[..., pytest.RunResult]


def test_a_run_that_ends_before_a_test_runs_again(
    plain: pytest.Pytester, run: RunPytest, lasting_farm: Farm
) -> None:
    """Its only attempt was lost, so the farm was to blame: every table and file says infra."""
    plain.makeconftest(
        """
        import pytest

        def pytest_runtest_logreport(report):
            if report.when == "teardown" and report.outcome == "rerun":
                pytest.exit("enough")
        """
    )
    plain.makepyfile(
        """
        from acts import add_one, drop

        def test_good(remote): assert add_one(remote) == 2

        def test_lost(remote): drop(remote)

        def test_never(remote): pass
        """
    )
    files = ("--rpc-report=run.jsonl", "--rpc-html=farm.html", "--rpc-markdown=farm.md")
    result = run(*lasting_farm.arguments, *files, "--rpc-reruns=1")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "*= infrastructure =*",
            "1 test was not completed: the run ended before the test was run again: *",
            "*= remote devices =*",
            "device * infra *",
        ]
    )
    tests = read(plain.path)
    assert {name: verdicts(test) for name, test in tests.items()} == {
        "test_good": ["passed"],
        "test_lost": ["infra"],
    }
    before = "the run ended before the test was run again: "
    assert last(tests["test_lost"]).message.startswith(before)
    sums = tally(jsonl.read(plain.path / "run.jsonl"))
    assert sum(row.tests for row in sums.devices) == 2
    assert (sums.total.passed, sums.total.infra, sums.total.lost) == (1, 1, 0)
    assert sum(row.infra for row in sums.devices) == 1
    assert "### 🔌 Infra: 1" in (plain.path / "farm.md").read_text("utf-8")


def test_a_test_that_others_run_again(
    plain: pytest.Pytester, run_apart: RunPytest, lasting_farm: Farm
) -> None:
    """What pytest-rerunfailures runs again is one test, flaky wherever it is counted."""
    if importlib.util.find_spec("pytest_rerunfailures") is None:
        pytest.skip("not installed: pytest_rerunfailures")
    plain.makepyfile(
        """
        from acts import add_one, is_first

        def test_unsure(remote):
            assert add_one(remote) == 2 + is_first()

        def test_good(remote): assert add_one(remote) == 2
        """
    )
    again = ("-p", "rerunfailures", "--reruns=1")
    files = ("--rpc-report=run.jsonl", "--rpc-markdown=farm.md")
    result = run_apart(*again, *lasting_farm.arguments, *files)
    assert result.parseoutcomes() == {"passed": 2, "rerun": 1}
    lines = [line for line in result.outlines if line.startswith("device ")]
    assert "flaky" in lines[0].split()
    told = jsonl.read(plain.path / "run.jsonl")
    assert [test.flaky for test in told.tests] == [True, False]
    assert verdicts(told.tests[0]) == ["failed", "passed"]
    sums = tally(told)
    assert sums.total.flaky == 1
    assert sum(row.flaky for row in sums.devices) == 1
    text = (plain.path / "run.jsonl").read_text()
    assert [line.count('"$type": "test"') for line in text.splitlines()].count(1) == 2
    assert text.count('"verdict": "passed", "message": "", "flaky": true') == 1
    assert "**1** flaky" in (plain.path / "farm.md").read_text("utf-8")
