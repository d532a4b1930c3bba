"""A test whose device drops out runs again, on another one; what else goes wrong does not."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Callable, Iterator, List

import pytest

from .farms import Farm, devices, last, read, verdicts

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., pytest.RunResult]

REPORTS = ("--rpc-report=run.jsonl", "--junitxml=junit.xml")


def junit(folder: Path, name: str) -> ElementTree.Element:
    """The one test case of this name."""
    cases = ElementTree.parse(folder / "junit.xml").iter("testcase")
    (case,) = (case for case in cases if case.get("name") == name)
    return case


def children(case: ElementTree.Element) -> List[str]:
    """What its test case says of a test, without its properties and output."""
    left_out = ("properties", "system-out", "system-err")
    return [child.tag for child in case if child.tag not in left_out]


# --- a device that is gone ------------------------------------------------------------------------

KILLED = """
    import pytest
    from acts import add_one, is_first, kill

    def perhaps(when, remote):
        if when == {when!r} and is_first():
            kill(remote)

    @pytest.fixture
    def board(remote):
        perhaps("setup", remote)
        yield remote
        perhaps("teardown", remote)

    def test_it(board):
        perhaps("call", board)
        assert add_one(board) == 2

    def test_after(remote):
        assert add_one(remote) == 2
"""


@pytest.mark.parametrize("when", ["setup", "call"])
def test_a_server_that_is_killed(plain: pytest.Pytester, run: Run, farm: Farm, when: str) -> None:
    """In a fixture or in the test: both are run again, on the other device, and pass."""
    plain.makepyfile(KILLED.format(when=when))
    result = run(*farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 2, "rerun": 1}
    assert result.ret == 0
    test = read(plain.path)["test_it"]
    assert verdicts(test) == ["lost", "passed"]
    assert test.flaky
    assert set(devices(test)) == set(farm.servers)
    assert last(test).devices[0].calls == 2  # what was measured is each attempt's own
    case = junit(plain.path, "test_it")
    assert children(case) == ["flakyFailure"]
    first, second = devices(test)
    lost = case.find("flakyFailure")
    assert lost is not None
    assert f"attempt 1 on {first}: " in lost.get("message", "")
    assert "ConnectionLostError" in lost.get("type", "")
    assert case.find(f"properties/property[@name='rpc.device'][@value='{second}']") is not None
    result.stdout.fnmatch_lines([f"*::test_it RERUN ({first}: *) -> passed on {second}"])
    farm.settle()


def test_a_server_that_is_killed_in_the_teardown(
    plain: pytest.Pytester, run: Run, farm: Farm
) -> None:
    """The test has passed by then and is not run again; that its teardown could not is infra."""
    plain.makepyfile(KILLED.format(when="teardown"))
    result = run(*farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 2, "infra": 1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    test = read(plain.path)["test_it"]
    assert verdicts(test) == ["infra"]
    error = junit(plain.path, "test_it").find("error")
    assert error is not None
    assert error.get("type") == "infra"
    assert devices(test)[0] in error.get("message", "")
    farm.settle()


@pytest.fixture(name="cutting", scope="module")
def _cutting() -> Iterator[Farm]:
    """Two devices, one of which is behind a link that cuts in each call."""
    with Farm() as farm:
        farm.add("board", cut_at="rpc.test.addone")
        farm.add("board")
        yield farm


@pytest.mark.parametrize(
    "workers", [(), ("-n", "1"), ("-n", "2")], ids=lambda words: "".join(words)
)
def test_a_device_that_always_cuts(
    plain: pytest.Pytester,
    run: Run,
    run_apart: Run,
    acts: None,
    cutting: Farm,
    workers: "tuple[str, ...]",
    wait_until: Callable[..., None],
) -> None:
    """Each test passes: if it had the bad device first, on the good one, in a second attempt."""
    bad, good = cutting.servers
    cutting.write(plain.path)
    plain.makepyfile(
        """
        import pytest
        from acts import add_one

        @pytest.mark.parametrize("number", range(6))
        def test_it(remote, number):
            assert add_one(remote, number) == number + 1
        """
    )
    wait_until(lambda: len(cutting.free()) == 2, "both devices are free")
    chosen = run_apart if workers else run
    result = chosen(*cutting.arguments, "--rpc-reruns=2", *REPORTS, *workers)
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes.get("failed", 0), outcomes.get("infra", 0)) == (6, 0, 0)
    tests = read(plain.path)
    assert len(tests) == 6
    again = {name: test for name, test in tests.items() if len(test.attempts) > 1}
    assert again
    assert outcomes["rerun"] == len(again)
    for name, test in tests.items():
        expected = [bad, good] if name in again else [good]
        assert devices(test) == expected
        assert test.verdict == "passed"
        assert children(junit(plain.path, name)) == ["flakyFailure"] * (name in again)
    wait_until(lambda: len(cutting.free()) == 2, "no device stays leased")


def test_the_only_device_dies(
    plain: pytest.Pytester, run: Run, lone: Farm, wait_until: Callable[..., None]
) -> None:
    """The test is infra, not failed; so are those after it; the message says what was tried."""
    plain.makepyfile(KILLED.format(when="call"))
    result = run(*lone.arguments, "--rpc-reruns=2", *REPORTS)
    (device,) = lone.servers
    assert result.parseoutcomes() == {"infra": 2, "rerun": 1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    tests = read(plain.path)
    assert verdicts(tests["test_it"]) == ["lost", "infra"]
    assert verdicts(tests["test_after"]) == ["infra"]
    assert f"lost in earlier attempts: {device}" in last(tests["test_it"]).message
    case = junit(plain.path, "test_it")
    assert children(case) == ["rerunFailure", "error"]
    error = case.find("error")
    assert error is not None
    assert error.get("type") == "infra"
    assert "no device 'board'" in error.get("message", "")
    result.stdout.fnmatch_lines(
        [f"*not completed: no device 'board': *lost in earlier attempts: {device}*"]
    )


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_a_server_of_the_run_itself(
    plain: pytest.Pytester, run_apart: Run, faults: Path, workers: "tuple[str, ...]"
) -> None:
    """The run goes on with those that are left, and says at its end which one has ended."""
    (plain.path / faults.name).symlink_to(faults)
    plain.makepyfile(
        """
        import pathlib, pytest

        def test_it(remote):
            if not pathlib.Path("done").exists():
                pathlib.Path("done").touch()
                remote.upload("faults.so")
                remote.load_module("faults.so")["kill_server"]()

        @pytest.mark.parametrize("number", range(3))
        def test_after(remote, number):
            assert remote.get_function("rpc.test.addone")(1) == 2
        """
    )
    result = run_apart("--rpc-servers=2", "--rpc-reruns=1", *REPORTS, *workers)
    assert result.parseoutcomes() == {"passed": 4, "rerun": 1}
    first, second = devices(read(plain.path)["test_it"])
    assert first != second
    result.stdout.fnmatch_lines(["server * of key 'local' was killed by SIGKILL during the run*"])


def test_there_is_no_other_device(
    plain: pytest.Pytester, run: Run, lone: Farm, wait_until: Callable[..., None]
) -> None:
    """It is better to try the same one again than to wait for nothing."""
    plain.makepyfile(
        """
        from acts import drop, is_first

        def test_it(remote):
            if is_first():
                drop(remote)
        """
    )
    result = run(*lone.arguments, "--rpc-reruns=1", *REPORTS)
    wait_until(lambda: len(lone.free()) == 1, "the device is free")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    assert devices(read(plain.path)["test_it"]) == [*lone.servers] * 2
    assert result.duration < 10


def test_one_of_several_devices(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """A test that needs all devices there are has that one again, too."""
    plain.makepyfile(
        """
        import pytest
        from acts import add_one, drop, is_first

        @pytest.mark.rpc_device(count=2)
        def test_it(remotes):
            if is_first():
                drop(remotes[1])
            assert [add_one(remote) for remote in remotes] == [2, 2]
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    assert len(devices(read(plain.path)["test_it"])) == 4
    assert result.duration < 10


def test_kick(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """Who is kicked by the farm's owner has lost the device, and runs elsewhere."""
    plain.makepyfile(
        """
        import subprocess, sys
        from acts import FARM, add_one, is_first, lose

        def test_it(remote):
            if is_first():
                host, port = FARM["tracker"]
                command = [sys.executable, "-m", "pytest_tvmrpc", "kick"]
                device = f"{remote.peer[0]}:{remote.peer[1]}"
                subprocess.run(
                    [*command, f"--host={host}", f"--port={port}", device, "--reason=repair"],
                    check=True,
                )
                lose(remote)
            assert add_one(remote) == 2
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    test = read(plain.path)["test_it"]
    assert "SessionKickedError" in test.attempts[0].message
    assert "repair" in test.attempts[0].message
    assert set(devices(test)) == set(lasting_farm.servers)


# --- what is the test's own fault -----------------------------------------------------------------


def test_what_is_not_run_again(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """What the test, or the function on the device, finds wrong would be as wrong elsewhere."""
    plain.makepyfile(
        """
        import pytest
        from pytest_tvmrpc.errors import ConnectionLostError, DeadlineError
        from acts import add_one

        def test_remote_error(remote):
            remote.get_function("rpc.test.remote_return_nd")("nothing")  # a RuntimeError

        def test_assertion(remote):
            assert add_one(remote) == 3

        @pytest.mark.rpc_timeout(session=0.2)
        def test_session(remote):
            remote.get_function("testing.sleep")(20.0)

        @pytest.mark.rpc_timeout(call=0.2)
        def test_call(remote):
            remote.get_function("testing.sleep")(20.0)

        def test_own(remote):
            raise ConnectionLostError("of a connection that the test made itself")

        def test_oserror(remote):
            raise ConnectionResetError

        def test_set_up(remote, broken): pass

        @pytest.fixture
        def broken(remote):
            raise KeyError
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=2", *REPORTS)
    assert result.parseoutcomes() == {"failed": 6, "errors": 1}
    tests = read(plain.path)
    assert {name: verdicts(test) for name, test in tests.items()} == {
        **{f"test_{name}": ["failed"] for name in FAILED},
        "test_set_up": ["error"],
    }
    assert "RuntimeError" in last(tests["test_remote_error"]).details
    assert "RPCSessionTimeoutError" in last(tests["test_session"]).message
    assert "DeadlineError" in last(tests["test_call"]).message
    assert children(junit(plain.path, "test_call")) == ["failure"]


FAILED = ("remote_error", "assertion", "session", "call", "own", "oserror")


def test_a_kernel_that_crashes(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm, faults: Path
) -> None:
    """It may be the board's fault, so it runs elsewhere; at the end it has failed."""
    lasting_farm.write(plain.path, faults)
    plain.makepyfile(
        """
        import pytest
        from acts import is_first, load

        def test_everywhere(remote):
            load(remote)["crash"]()

        def test_once(remote):
            load(remote)["crash" if is_first() else "say"]()

        @pytest.mark.rpc_reruns(0)
        def test_without(remote):
            load(remote)["crash"]()
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 1, "failed": 2, "rerun": 2}
    tests = read(plain.path)
    assert verdicts(tests["test_everywhere"]) == ["lost", "failed"]
    assert set(devices(tests["test_everywhere"])) == set(lasting_farm.servers)
    assert verdicts(tests["test_once"]) == ["lost", "passed"]
    assert verdicts(tests["test_without"]) == ["failed"]
    assert children(junit(plain.path, "test_everywhere")) == ["failure", "rerunFailure"]
    result.stdout.fnmatch_lines(["E *SessionCrashedError: *"])


# --- what a second attempt finds ------------------------------------------------------------------


def test_fixtures_are_set_up_anew(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """Those of the test, and those of wider scope that failed because the device was lost."""
    plain.makepyfile(
        """
        import pytest
        from acts import add_one, drop, is_first

        counts = {"wide": 0, "kept": 0, "narrow": 0}

        @pytest.fixture(scope="module")
        def kept():
            counts["kept"] += 1

        @pytest.fixture(scope="module")
        def wide(remote_session):
            counts["wide"] += 1
            if is_first():
                drop(remote_session)
            return add_one(remote_session)

        @pytest.fixture
        def narrow(remote):
            counts["narrow"] += 1

        def test_wide(kept, wide, narrow):
            assert wide == 2
            assert counts == {"wide": 2, "kept": 1, "narrow": 1}

        def test_again(wide):
            assert counts["wide"] == 2

        def test_narrow(kept, narrow, remote):
            if is_first("narrow"):
                drop(remote)
            assert counts == {"wide": 2, "kept": 1, "narrow": 3}

        def test_last(kept): pass
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 4, "rerun": 2}
    assert result.duration < 10  # nobody waits for a device that the test has itself


def test_forms_of_tests(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """Methods, with a new instance; parameters; marks that skip or expect a failure."""
    plain.makepyfile(
        """
        import unittest
        import pytest
        from acts import add_one, drop, is_first

        class TestClass:
            def setup_method(self):
                self.values = []

            def test_method(self, remote):
                assert not hasattr(self, "left")
                assert self.values == []
                self.left = True
                self.values.append(1)
                if is_first("method"):
                    drop(remote)

        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def give(self, remote):
                self.remote = remote

            def test_case(self):
                assert not hasattr(self, "left")
                self.left = True
                if is_first("case"):
                    drop(self.remote)

        @pytest.mark.parametrize("number", [1, 2])
        def test_parameter(remote, number):
            if number == 1 and is_first("parameter"):
                drop(remote)

        @pytest.mark.xfail(reason="known", strict=True)
        def test_xfail(remote):
            if is_first("xfail"):
                drop(remote)
            assert 0

        @pytest.mark.xfail(reason="known", strict=False)
        def test_xpass(remote):
            if is_first("xpass"):
                drop(remote)

        @pytest.mark.xfail(reason="known", raises=ZeroDivisionError)
        def test_xfail_raises(remote):
            if is_first("xfail raises"):
                drop(remote)
            1 / 0

        def test_skip(remote):
            if is_first("skip"):
                drop(remote)
            pytest.skip("not here")

        @pytest.mark.skip(reason="never")
        def test_skipped(remote): pass
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    outcomes = {"passed": 4, "xfailed": 2, "xpassed": 1, "skipped": 2, "rerun": 7}
    assert result.parseoutcomes() == outcomes
    tests = read(plain.path)
    assert {name: verdicts(test) for name, test in tests.items()} == {
        "TestClass::test_method": ["lost", "passed"],
        "test_parameter[1]": ["lost", "passed"],
        "test_parameter[2]": ["passed"],
        "TestCase::test_case": ["lost", "passed"],
        "test_xfail": ["lost", "skipped"],
        "test_xfail_raises": ["lost", "skipped"],
        "test_xpass": ["lost", "passed"],
        "test_skip": ["lost", "skipped"],
    }


def test_what_an_attempt_prints_is_its_own(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm
) -> None:
    """caplog, capsys and what is shown under a failure begin anew."""
    plain.makepyfile(
        """
        import logging
        from acts import drop, is_first

        def test_captured(remote, caplog, capsys):
            print("said once")
            logging.warning("logged once")
            assert len(caplog.records) == 1
            assert capsys.readouterr().out == "said once\\n"
            if is_first():
                drop(remote)

        def test_shown(remote):
            attempt = "first" if is_first("shown") else "second"
            print(f"said by the {attempt} attempt")
            if attempt == "first":
                drop(remote)
            assert 0
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 1, "failed": 1, "rerun": 2}
    failures = result.stdout.str().partition("= FAILURES =")[2]
    assert "said by the second attempt" in failures
    assert "said by the first attempt" not in failures


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_the_first_failure_ends_the_run(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm, option: str
) -> None:
    """An attempt that is run again is none; a test that is infra is one."""
    plain.makepyfile(
        """
        import pytest
        from acts import drop, is_first

        def test_again(remote):
            if is_first():
                drop(remote)

        @pytest.mark.rpc_reruns(0)
        def test_infra(remote):
            drop(remote)

        def test_never(remote): pass
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS, option)
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1, "infra": 1}
    assert "test_never" not in read(plain.path)
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has subtests from 9.0 on")
def test_subtests(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """A loss in one of them runs the whole test again; what they said before does not count."""
    plain.makepyfile(
        """
        from acts import add_one, drop, is_first

        def test_it(remote, subtests):
            with subtests.test("first"):
                if is_first():
                    drop(remote)
            with subtests.test("second"):
                assert add_one(remote) == 2
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-reruns=1", *REPORTS)
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] == 1
    assert verdicts(read(plain.path)["test_it"]) == ["lost", "passed"]
