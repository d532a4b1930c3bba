"""Beside other plugins, with any number of workers: their counts are right, and ours."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ElementTree
from typing import Callable, List, Sequence

import pytest

from .farms import Farm, read, verdicts

Run = Callable[..., pytest.RunResult]

REPORTS = ("--rpc-report=run.jsonl", "--junitxml=junit.xml")

PLUGINS = {
    "rerunfailures": "pytest_rerunfailures",
    "timeout": "pytest_timeout",
    "html": "pytest_html",
    "randomly": "pytest_randomly",
    "pytest_cov": "pytest_cov",
}
"""Their names as entry points, and their modules."""


@pytest.fixture(name="run_beside")
def _run_beside(plain: pytest.Pytester, loading: List[str], deadline_s: float) -> Run:
    """``run_beside(["timeout"], "-x")``: pytest with these plugins; skips if one is missing."""

    def run_beside(names: "Sequence[str]", *arguments: str) -> pytest.RunResult:
        missing = [PLUGINS[name] for name in names if not importlib.util.find_spec(PLUGINS[name])]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        left_out = [word for word in loading if word.partition("no:")[2] not in names]
        pairs = zip(left_out, [*left_out[1:], ""])
        words = [word for word, after in pairs if word != "-p" or after not in ("-p", "")]
        result = plain.runpytest_subprocess(
            *words, "-W", "error", *arguments, timeout=6 * deadline_s
        )
        result.stdout.no_fnmatch_line("*INTERNALERROR*")
        return result

    return run_beside


MIXED = """
    import pytest
    from acts import add_one, drop, is_first

    def test_local(): pass

    def test_flaky_local():
        assert not is_first("local")

    def test_flaky_remote(remote):
        assert add_one(remote) == 2
        assert not is_first("remote")

    def test_lost(remote):
        if is_first("lost"):
            drop(remote)
        assert add_one(remote) == 2

    def test_lost_and_flaky(remote):
        if is_first("lost first"):
            drop(remote)
        assert not is_first("flaky then")

    def test_wrong(remote):
        assert add_one(remote) == 3

    @pytest.mark.parametrize("number", range(3))
    def test_right(remote, number):
        assert add_one(remote, number) == number + 1
"""


TESTS = (
    *("test_local", "test_flaky_local", "test_flaky_remote", "test_lost", "test_lost_and_flaky"),
    *("test_wrong", "test_right[0]", "test_right[1]", "test_right[2]"),
)


@pytest.mark.parametrize("workers", ["0", "1", "2", "4"])
@pytest.mark.parametrize("beside", [(), ("rerunfailures",)], ids=["alone", "rerunfailures"])
def test_reruns_of_both_kinds(
    plain: pytest.Pytester,
    run_beside: Run,
    lasting_farm: Farm,
    beside: "tuple[str, ...]",
    workers: str,
    wait_until: Callable[..., None],
) -> None:
    """A loss is run again by --rpc-reruns, a failure by --reruns; none is counted twice."""
    plain.makepyfile(MIXED)
    others = ["--reruns=1"] if beside else []
    options = ("--rpc-reruns=1", *REPORTS, "-n", workers)
    result = run_beside(beside, *others, *lasting_farm.arguments, *options)
    # Without pytest-rerunfailures, the three flaky tests fail. With it, the wrong one does so
    # twice, and the first time counts as a rerun.
    alone = {"passed": 5, "failed": 4, "rerun": 2}
    assert result.parseoutcomes() == ({"passed": 8, "failed": 1, "rerun": 6} if beside else alone)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = {name: verdicts(test) for name, test in read(plain.path).items()}
    assert found["test_lost"] == ["lost", "passed"]
    again = ["failed", "passed"] if beside else ["failed"]
    assert found["test_flaky_remote"] == again
    assert found["test_lost_and_flaky"] == ["lost", *again]
    assert found["test_wrong"] == (["failed", "failed"] if beside else ["failed"])
    suite = ElementTree.parse(plain.path / "junit.xml").find("testsuite")
    assert suite is not None
    assert suite.get("failures") == ("1" if beside else "4")
    assert suite.get("errors") == "0"
    names = [case.get("name") for case in suite.iter("testcase")]
    # pytest-rerunfailures leaves the attempts of the local test in the file, as a case of its own.
    expected = [*TESTS, *(["test_flaky_local"] if beside else [])]
    assert sorted(filter(None, names)) == sorted(expected)
    wait_until(lambda: len(lasting_farm.free()) == 2, "all devices are free")


ALL = """
    import pytest
    from acts import add_one, drop, is_first

    @pytest.mark.parametrize("number", range(4))
    def test_right(remote, number):
        assert add_one(remote, number) == number + 1

    def test_lost(remote):
        if is_first():
            drop(remote)

    @pytest.mark.rpc_reruns(0)
    def test_infra(remote):
        drop(remote)

    def test_wrong(remote):
        assert add_one(remote) == 3
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_all_at_once(
    plain: pytest.Pytester, run_beside: Run, lasting_farm: Farm, workers: str
) -> None:
    """With pytest-timeout, -html, -randomly, -cov and -rerunfailures, verdicts are the same."""
    plain.makepyfile(ALL)
    others = ("--timeout=60", "--html=page.html", "--self-contained-html", "--cov=acts")
    options = ("--rpc-reruns=1", "--reruns=1", *REPORTS, "-n", workers)
    result = run_beside(list(PLUGINS), *lasting_farm.arguments, *others, *options)
    outcomes = result.parseoutcomes()
    expected = {"passed": 5, "failed": 1, "infra": 1, "rerun": 3}
    assert {name: outcomes.get(name, 0) for name in expected} == expected
    found = {name: verdicts(test) for name, test in read(plain.path).items()}
    assert found["test_lost"] == ["lost", "passed"]
    assert found["test_infra"] == ["infra", "infra"]
    assert found["test_wrong"] == ["failed", "failed"]
    result.stdout.fnmatch_lines(["acts.py *%"])
    page = (plain.path / "page.html").read_text()
    for name in found:
        assert name in page
    assert re.search(r"\b5 Passed", page)


@pytest.mark.parametrize("name", PLUGINS)
def test_each_by_itself(
    plain: pytest.Pytester, run_beside: Run, lasting_farm: Farm, name: str
) -> None:
    """Loaded, and without any option of its own, each of them changes nothing."""
    plain.makepyfile(ALL)
    result = run_beside([name], *lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 5, "failed": 1, "infra": 1, "rerun": 1}
