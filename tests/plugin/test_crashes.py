"""Workers that die: their test is reported once or run again, and the run goes on and ends."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from pytest_tvmrpc.running.crashes import Begun, Crashes, Holding, Ledger
from pytest_tvmrpc.running.workers import Needs

from .farms import devices, read
from .junit_files import case_of

pytest.importorskip("xdist")

Run = Callable[..., pytest.RunResult]

CRASHING = """
    import os, signal, pytest

    def test_a(remote): pass

    def test_crash(remote, pytestconfig):
        path = pytestconfig.rootpath / "runs"
        is_first = not path.exists()
        with open(path, "a") as runs:
            print(os.environ["PYTEST_XDIST_WORKER"], file=runs)
        {crash}

    @pytest.mark.parametrize("number", range(4))
    def test_b(remote, number):
        assert remote.get_function("rpc.test.addone")(number) == number + 1
"""
EXIT = "os._exit(9)"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
ONCE = "if is_first: os._exit(9)"

REPORTS = """
    import json

    def pytest_runtest_logreport(report):
        if report.when == "???":
            with open("crashes", "a") as crashes:
                print(json.dumps([report.outcome, report.rpc]), file=crashes)
"""


@pytest.fixture(name="crashing")
def _crashing(plain: pytest.Pytester) -> Callable[[str], None]:
    """Write tests of which one crashes its worker, and a conftest.py that keeps its reports."""

    def write(crash: str, mark: str = "") -> None:
        text = CRASHING.format(crash=crash)
        plain.makepyfile(text.replace("def test_crash", f"{mark}def test_crash"))
        plain.makeconftest(REPORTS)

    return write


def workers(plain: pytest.Pytester) -> "list[str]":
    """Those that ran the test that crashes, in their order."""
    return (plain.path / "runs").read_text().split()


def crashes(plain: pytest.Pytester) -> "list[tuple[str, dict[str, Any]]]":
    """Outcome and attempt of each crash that was reported."""
    return [json.loads(line) for line in (plain.path / "crashes").read_text().splitlines()]


def test_a_begin_that_is_noted_late() -> None:
    """A test that had a device for four seconds has lasted so long, by both clocks."""
    now_at, now = time.time(), time.monotonic()
    crashes = Crashes(None, Needs(), Ledger(), Begun(), lambda *_: None)
    crashes._lost = [Holding("k", "test_a", now_at - 5, "k@board", now_at - 4, now - 4)]
    node = SimpleNamespace(gateway=SimpleNamespace(id="gw0"))
    report = SimpleNamespace(nodeid="test_a", outcome="failed", longrepr="it crashed", node=node)
    crashes._describe(report, 1, (now_at - 1, now - 1))
    attempt = report.rpc
    assert attempt["started_at"] == pytest.approx(now_at - 4)
    assert 4 <= attempt["devices"][0]["held_s"] <= attempt["duration_s"]


@pytest.mark.parametrize("crash", [EXIT, KILL], ids=["exit", "kill"])
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_crash_is_a_failure(
    plain: pytest.Pytester,
    run_apart: Run,
    crashing: Callable[..., None],
    count: str,
    crash: str,
) -> None:
    """The test is reported once, with the device it had; the others pass; the run ends."""
    crashing(crash)
    result = run_apart("-n", count, "--rpc-servers=2")
    result.assert_outcomes(passed=5, failed=1)
    assert len(workers(plain)) == 1
    ((outcome, attempt),) = crashes(plain)
    assert (outcome, attempt["verdict"], attempt["number"]) == ("failed", "failed", 1)
    assert "crashed while running" in attempt["message"]
    (facts,) = attempt["devices"]
    assert facts["key"] == "local"
    assert facts["device"].startswith("local@127.0.0.1:")
    assert facts["device"] in attempt["message"]
    assert 0 <= facts["held_s"] <= attempt["duration_s"]
    result.stdout.fnmatch_lines(["*crashed while running*test_crash*; it had local@*"])


def test_more_workers_than_devices(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None]
) -> None:
    """The replaced worker has the same options and shares the devices as the others do."""
    crashing(EXIT)
    result = run_apart("-n", "3", "--rpc-servers=2", "--rpc-key=a", "--rpc-key=b")
    result.assert_outcomes(passed=10, failed=2)


@pytest.mark.parametrize("count", ["1", "2"])
def test_run_again(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None], count: str
) -> None:
    """With --rpc-reruns, the test passes on another worker."""
    crashing(ONCE)
    result = run_apart("-n", count, "--rpc-reruns=1")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes.get("failed", 0)) == (6, 0)
    assert result.ret == 0
    first, second = workers(plain)
    assert first != second
    ((outcome, attempt),) = crashes(plain)
    assert (outcome, attempt["verdict"]) == ("rerun", "lost")


def test_many_crashes(plain: pytest.Pytester, run_apart: Run) -> None:
    """More workers than devices, of which one after the other dies: every test has its verdict."""
    plain.makepyfile(
        """
        import os, pytest

        @pytest.mark.parametrize("number", range(60))
        def test_many(remote, number, pytestconfig):
            path = pytestconfig.rootpath / f"was_{number}"
            if number % 15 == 7 and not path.exists():
                path.touch()
                os._exit(9)
            assert remote.get_function("rpc.test.addone")(number) == number + 1
        """
    )
    result = run_apart("-n", "3", "--rpc-servers=2", "--rpc-reruns=1")
    assert result.parseoutcomes()["passed"] == 60
    assert result.ret == 0


def test_run_again_in_vain(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None]
) -> None:
    """Not more often than was asked for; the mark counts more than the option."""
    crashing(EXIT, "@pytest.mark.rpc_reruns(2)\n    ")
    result = run_apart("-n", "2", "--rpc-reruns=1")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"]) == (5, 1)
    assert len(workers(plain)) == 3
    found = [(outcome, attempt["number"]) for outcome, attempt in crashes(plain)]
    assert found == [("rerun", 1), ("rerun", 2), ("failed", 3)]


def test_a_local_test_is_not_run_again(plain: pytest.Pytester, run_apart: Run) -> None:
    """Its crash has nothing to do with devices."""
    plain.makepyfile("import os\ndef test_a(remote): pass\ndef test_crash(): os._exit(9)")
    run_apart("-n", "2", "--rpc-reruns=3").assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize("count", ["1", "2"])
def test_no_worker_is_replaced(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None], count: str
) -> None:
    """--max-worker-restart=0 ends the run, and no test is left over as one that runs again."""
    crashing(EXIT)
    result = run_apart("-n", count, "--max-worker-restart=0", "--rpc-reruns=1")
    assert result.parseoutcomes()["failed"] == 1
    assert "rerun" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(["*worker gw* crashed and worker restarting disabled*"])


def test_the_last_replacement(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None]
) -> None:
    """The last crash that is allowed runs again, the next one fails."""
    crashing(EXIT)
    result = run_apart("-n", "1", "--max-worker-restart=1", "--rpc-reruns=5")
    assert result.parseoutcomes()["failed"] == 1
    assert len(workers(plain)) == 2


@pytest.mark.parametrize("reruns", [0, 1], ids=["theirs", "both"])
def test_with_rerunfailures(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None], reruns: int
) -> None:
    """Only one of the two plugins puts the test back."""
    pytest.importorskip("pytest_rerunfailures")
    crashing(EXIT)
    theirs = ("-p", "rerunfailures", "--reruns=1")
    result = run_apart(*theirs, "-n", "2", f"--rpc-reruns={reruns}")
    result.assert_outcomes(passed=5, failed=1)
    assert len(workers(plain)) == 2
    assert [outcome for outcome, _ in crashes(plain)] == ["rerun", "failed"]


@pytest.mark.parametrize("dist", ["worksteal", "loadscope", "loadfile"])
def test_other_distributions(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None], dist: str
) -> None:
    """Where pytest-xdist cannot run a test again, it has failed; the run ends all the same."""
    crashing(ONCE)
    result = run_apart("-n", "2", "--dist", dist, "--rpc-reruns=1")
    can = dist == "worksteal"
    assert result.parseoutcomes().get("failed", 0) == (0 if can else 1)
    ((outcome, _),) = crashes(plain)
    assert outcome == ("rerun" if can else "failed")


def test_a_crash_after_collecting(plain: pytest.Pytester, run_apart: Run) -> None:
    """A worker that dies before it runs anything, at any moment, is replaced."""
    plain.makeconftest(
        """
        import os, pytest

        def pytest_collection_finish(session):
            if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
                os._exit(9)
        """
    )
    plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass")
    result = run_apart("-n", "2", "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 2}


@pytest.mark.parametrize("is_gone", [False, True], ids=["going", "gone"])
def test_a_crash_between_tests(plain: pytest.Pytester, run_apart: Run, is_gone: bool) -> None:
    """A worker dies before its first test, or before that is sent: it has crashed in none."""
    plain.makeconftest(
        f"""
        import os, pathlib, time, pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(session):
            worker = getattr(session.config, "workerinput", {{}}).get("workerid")
            if worker == "gw1":
                end = time.monotonic() + 20
                while not pathlib.Path("end").exists() and time.monotonic() < end:
                    time.sleep(0.01)
                os._exit(9)

        def pytest_configure(config):
            if hasattr(config, "workerinput"):
                return
            from xdist.workermanage import WorkerController
            send = WorkerController.send_runtest_some

            def send_to_crash(self, indices):
                if self.gateway.id != "gw1":
                    return send(self, indices)
                if {is_gone}:
                    pathlib.Path("end").touch()
                    self.gateway._io.popen.wait()
                try:
                    send(self, indices)
                finally:
                    pathlib.Path("end").touch()

            WorkerController.send_runtest_some = send_to_crash
        """
    )
    plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass")
    result = run_apart("-n", "2", "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 2}
    result.stdout.fnmatch_lines(["*replacing crashed worker gw1*"])


@pytest.mark.parametrize(
    "workers", [("-n", "1"), ("-n", "2"), ("-d", "--tx=2*popen")], ids=["one", "two", "unlimited"]
)
def test_a_crash_before_each_test(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """Replacements that die as well do not go on for ever, and the test is named."""
    plain.makeconftest(
        """
        import os, pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item):
            if item.name == "test_a":
                os._exit(9)
        """
    )
    plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass")
    result = run_apart(*workers)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["worker 'gw*' crashed while running '*::test_a'"])


def test_no_replacement_for_a_crash_between_tests(plain: pytest.Pytester, run_apart: Run) -> None:
    """No test is said to have crashed, and a run that could not run all has not passed."""
    plain.makeconftest(
        """
        import os, pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item):
            if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
                os._exit(9)
        """
    )
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(9))
        def test_a(remote, number): pass
        """
    )
    result = run_apart("-n", "2", "--max-worker-restart=0")
    outcomes = result.parseoutcomes()
    assert "failed" not in outcomes
    assert (result.ret == pytest.ExitCode.OK) == (outcomes["passed"] == 9)
    result.stdout.fnmatch_lines(["*worker gw1 crashed and worker restarting disabled*"])


LIMIT = "--max-worker-restart=1"


@pytest.mark.parametrize("dist", ["load", "worksteal"])
@pytest.mark.parametrize("reruns", [0, 5], ids=["theirs", "both"])
def test_the_last_replacement_with_rerunfailures(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None], reruns: int, dist: str
) -> None:
    """What the other plugin wants to run again in a run that ends has failed, and is not lost."""
    pytest.importorskip("pytest_rerunfailures")
    crashing(EXIT)
    theirs = ("-p", "rerunfailures", "--reruns=5")
    result = run_apart(*theirs, "-n", "2", LIMIT, f"--rpc-reruns={reruns}", f"--dist={dist}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["failed"] == 1
    assert len(workers(plain)) == 2
    assert [outcome for outcome, _ in crashes(plain)] == ["rerun", "failed"]


def test_a_local_test_of_the_run_that_ends(plain: pytest.Pytester, run_apart: Run) -> None:
    """It does not matter which test ends the run: the run has not passed."""
    pytest.importorskip("pytest_rerunfailures")
    plain.makepyfile("import os\ndef test_a(remote): pass\ndef test_crash(): os._exit(9)")
    result = run_apart("-p", "rerunfailures", "--reruns=5", "-n", "1", LIMIT)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"], outcomes["rerun"]) == (1, 1, 1)


def test_a_test_that_waits_when_the_run_ends(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None]
) -> None:
    """Nothing has failed, but one test has no verdict and others did not run: they are named."""
    crashing(EXIT)
    conftest = plain.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
import os

def pytest_collection_modifyitems():
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        os._exit(9)
"""
    )
    result = run_apart("-n", "1", LIMIT, "--rpc-reruns=5", "--rpc-report=run.jsonl")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "failed" not in result.parseoutcomes()
    name = "test_a_test_that_waits_when_the_run_ends.py"
    not_again = f"1 test was not run again, as the run ended before: {name}::test_crash"
    others = ", ".join(f"{name}::test_b[[]{number}[]]" for number in range(4))
    not_at_all = f"4 tests were not run at all, as the run ended before: {others}"
    result.stdout.fnmatch_lines([not_again, not_at_all])
    ended = json.loads((plain.path / "run.jsonl").read_text().splitlines()[-1])
    assert ended["exitstatus"] == pytest.ExitCode.TESTS_FAILED


def test_a_second_crash_ends_the_run(plain: pytest.Pytester, run_apart: Run) -> None:
    """Of two tests that crash at once, the first is not forgotten as the second hits the limit."""
    plain.makepyfile(
        """
        import os, time, pytest

        @pytest.mark.parametrize("number", range(2))
        def test_crash(remote, number, pytestconfig):
            here = pytestconfig.rootpath
            (here / f"was_{number}").touch()
            end = time.monotonic() + 20
            while not (here / f"was_{1 - number}").exists():
                assert time.monotonic() < end
            os._exit(9)
        """
    )
    result = run_apart("-n", "2", "--rpc-servers=2", LIMIT, "--rpc-reruns=1")
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["rerun"]) == (1, 1)
    result.stdout.fnmatch_lines(["1 test was not run again, as the run ended before: *test_crash*"])


def test_a_run_that_ends_as_asked(plain: pytest.Pytester, run_apart: Run) -> None:
    """With -x, too, it is said how many tests were left; the exit status is pytest's."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(50))
        def test_a(remote, number): assert number
        """
    )
    result = run_apart("-n", "1", "-x")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["49 tests were not run at all, *::test_a[[]10[]] and 39 more"])


def test_a_whole_run_leaves_none(plain: pytest.Pytester, run_apart: Run) -> None:
    """Tests that were run again, here or in another worker, are not left over."""
    pytest.importorskip("pytest_rerunfailures")
    plain.makepyfile(
        """
        import os

        def test_crash(remote, pytestconfig):
            path = pytestconfig.rootpath / "was"
            if not path.exists():
                path.touch()
                os._exit(9)

        def test_flaky(remote, tmp_path_factory):
            path = tmp_path_factory.getbasetemp() / "was"
            if not path.exists():
                path.touch()
                assert False
        """
    )
    result = run_apart("-p", "rerunfailures", "--reruns=1", "-n", "2", "--rpc-reruns=1")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["rerun"]) == (2, 2)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*not run*")


def test_the_next_worker_knows(
    plain: pytest.Pytester, run_apart: Run, crashing: Callable[..., None]
) -> None:
    """What is run again counts on from the crash, and avoids the device that the test had."""
    crashing(ONCE)
    conftest = plain.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
def pytest_tvmrpc_select_device(item, key, device, tried):
    with open(item.config.rootpath / "tried", "a") as file:
        print(json.dumps([item.name, device, list(tried)]), file=file)
"""
    )
    arguments = ("--rpc-servers=2", "--rpc-reruns=1", "--rpc-artifacts=on", "--junitxml=junit.xml")
    result = run_apart("-n", "2", *arguments, "--rpc-report=run.jsonl")
    assert result.ret == 0
    asked = [json.loads(line) for line in (plain.path / "tried").read_text().splitlines()]
    test = read(plain.path)["test_crash"]
    first, second = devices(test)
    assert first != second
    tried = [tried for name, _, tried in asked if name == "test_crash"]
    assert tried[0] == []
    assert tried[-1] == [first]
    assert [attempt.number for attempt in test.attempts] == [1, 2]
    assert test.attempts[1].artifacts.endswith("attempt-2")
    case = case_of(plain.path / "junit.xml", "test_crash")
    found = {each.get("name"): each.get("value") for each in case.iter("property")}
    assert found["rpc.attempts"] == "2"
