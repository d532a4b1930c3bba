"""Which attempts belong together: a test that is given twice, runs again, or runs elsewhere."""

from __future__ import annotations

import importlib.util
from typing import Callable, List

import pytest

from pytest_tvmrpc.reporting import jsonl

from .farms import Farm, devices, last, read, verdicts

Run = Callable[..., pytest.RunResult]

REPORT = "--rpc-report=run.jsonl"


def records(plain: pytest.Pytester) -> List[List[str]]:
    """The verdicts of each test, one after the other; `read` has one for each name."""
    return [verdicts(test) for test in jsonl.read(plain.path / "run.jsonl").tests]


def test_a_test_that_is_given_twice(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """It failed and it passed: that is no test that passed in its second attempt."""
    plain.makepyfile(
        test_twice="""
        from acts import drop, is_first

        def test_it(remote):
            if is_first("lost"):
                drop(remote)
            assert not is_first()
        """
    )
    arguments = ("--keep-duplicates", "test_twice.py", "test_twice.py", "--rpc-reruns=1")
    result = run(*lasting_farm.arguments, REPORT, *arguments)
    assert result.parseoutcomes() == {"failed": 1, "passed": 1, "rerun": 1}
    assert records(plain) == [["lost", "failed"], ["passed"]]
    result.stdout.no_fnmatch_line("*flaky*")


def test_a_test_that_another_plugin_runs_again(
    plain: pytest.Pytester, run_apart: Run, loading: List[str], lasting_farm: Farm
) -> None:
    """Its attempts belong together, and those of its second copy do as well."""
    if importlib.util.find_spec("pytest_rerunfailures") is None:
        pytest.skip("not installed: pytest_rerunfailures")
    plain.makepyfile(
        test_twice="""
        from acts import is_first

        def test_it(remote):
            assert not is_first("one")
            assert not is_first("two")
            assert not is_first("three")
        """
    )
    arguments = ("--keep-duplicates", "test_twice.py", "test_twice.py", "--reruns=1")
    result = run_apart("-p", "rerunfailures", *lasting_farm.arguments, REPORT, *arguments)
    assert result.parseoutcomes() == {"failed": 1, "passed": 1, "rerun": 2}
    assert records(plain) == [["failed", "failed"], ["failed", "passed"]]


@pytest.mark.parametrize("dist", ["loadscope", "loadfile"])
def test_a_crash_that_xdist_runs_again(plain: pytest.Pytester, run_apart: Run, dist: str) -> None:
    """These ways of --dist report a failure and run the test nevertheless: it has failed."""
    pytest.importorskip("xdist")
    plain.makepyfile(
        """
        import os, pathlib

        def test_crash(remote):
            if not pathlib.Path("crashed").exists():
                pathlib.Path("crashed").touch()
                os._exit(9)

        def test_after(remote): pass
        """
    )
    result = run_apart("-n", "1", "--dist", dist, REPORT)
    assert result.parseoutcomes()["failed"] == 1
    found = records(plain)
    assert ["failed"] in found
    assert all(len(attempts) == 1 for attempts in found)


def test_no_device_the_second_time(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """The attempt counts as each does: a test that was skipped is not one that was lost."""
    plain.makeconftest(
        """
        import pytest
        from acts import is_first

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_setup(item):
            if item.name == "test_quota" and not is_first("quota"):
                pytest.skip("no more today")
        """
    )
    plain.makepyfile(
        """
        from acts import drop, is_first

        def test_quota(remote):
            drop(remote)

        def test_asks_once(request):
            if is_first("asks"):
                drop(request.getfixturevalue("remote"))

        def test_perhaps(remote_device):
            if is_first("perhaps"):
                drop(remote_device())
            assert 0
        """
    )
    result = run(*lasting_farm.arguments, REPORT, "--rpc-reruns=1")
    assert result.parseoutcomes() == {"skipped": 1, "passed": 1, "failed": 1, "rerun": 3}
    tests = read(plain.path)
    assert {name: verdicts(test) for name, test in tests.items()} == {
        "test_quota": ["lost", "skipped"],
        "test_asks_once": ["lost", "passed"],
        "test_perhaps": ["lost", "failed"],
    }
    assert last(tests["test_quota"]).message == "no more today"
    assert [len(devices(test)) for test in tests.values()] == [1, 1, 1]


CRASHING = """
    import os, pathlib, pytest

    def is_first(name):
        path = pathlib.Path(name)
        found = path.exists()
        path.touch()
        return not found

    def test_asks(request):
        is_asking = is_first("asked")
        remote = request.getfixturevalue("remote") if is_asking or AGAIN else None
        if is_asking:
            os._exit(9)
        {then}

    def test_b(remote): pass
"""


@pytest.mark.parametrize("again", [False, True], ids=["asks once", "asks again"])
@pytest.mark.parametrize(
    ("then", "verdict"),
    [("pass", "passed"), ("assert 0, 'wrong'", "failed"), ("pytest.skip('off')", "skipped")],
)
def test_a_crash_of_a_test_that_asks_at_run_time(
    plain: pytest.Pytester, run_apart: Run, again: bool, then: str, verdict: str
) -> None:
    """Its device is told, and it runs again as others do, also if it does without one then."""
    pytest.importorskip("xdist")
    plain.makepyfile(CRASHING.replace("AGAIN", str(again)).format(then=then))
    result = run_apart("-n", "1", REPORT, "--rpc-reruns=1")
    assert result.parseoutcomes()["rerun"] == 1
    test = read(plain.path)["test_asks"]
    assert verdicts(test) == ["lost", verdict]
    assert test.attempts[0].names
    assert test.attempts[0].names[0] in test.attempts[0].message
    assert bool(last(test).names) == again
    if verdict == "failed":
        assert "wrong" in last(test).message
        assert "assert 0" in last(test).details
