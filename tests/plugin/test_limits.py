"""Limits of the queue, of connections, calls and sessions: the test fails, the run goes on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Callable

import pytest

from .farms import Farm, last, read, verdicts

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., pytest.RunResult]

REPORT = "--rpc-report=run.jsonl"

HANGS = """
    import pytest
    from pytest_tvmrpc import runtime

    def load(remote):
        remote.upload("faults.so")
        return remote.load_module("faults.so")

    {mark}
    def test_hangs(remote):
        kernel = load(remote)["hang"]
        kernel()  # here

    def test_after(remote):
        load(remote)["say"]()
"""
"""The run has a single device, so what comes after the hung kernel needs that one."""


@pytest.mark.parametrize("by", ["option", "mark"])
def test_a_kernel_that_hangs(plain: pytest.Pytester, run: Run, faults: Path, by: str) -> None:
    """A failed test, with the traceback to the call and the name of the option; no rerun."""
    (plain.path / faults.name).symlink_to(faults)
    mark = "@pytest.mark.rpc_timeout(call=0.5)" if by == "mark" else ""
    plain.makepyfile(HANGS.format(mark=mark))
    option = ["--rpc-call-timeout=0.5"] if by == "option" else []
    result = run(*option, REPORT, "--rpc-reruns=2")
    assert result.parseoutcomes() == {"passed": 1, "failed": 1}
    result.stdout.fnmatch_lines([">*kernel()  # here", "E *DeadlineError: *"])
    result.stdout.fnmatch_lines(["E *(option: --rpc-call-timeout)"])
    tests = read(plain.path)
    assert verdicts(tests["test_hangs"]) == ["failed"]
    assert last(tests["test_hangs"]).names == last(tests["test_after"]).names
    assert "about to hang" in last(tests["test_hangs"]).output
    assert 0.5 <= last(tests["test_hangs"]).duration_s < 5


def test_pytest_timeout_with_a_signal(plain: pytest.Pytester, run_apart: Run, faults: Path) -> None:
    """It interrupts the call: the test fails, the next one has the same device."""
    pytest.importorskip("pytest_timeout", reason="pytest-timeout is not installed")
    (plain.path / faults.name).symlink_to(faults)
    plain.makepyfile(HANGS.format(mark="@pytest.mark.timeout(1, method='signal', func_only=True)"))
    result = run_apart("-p", "timeout", REPORT, "--rpc-reruns=2")
    assert result.parseoutcomes() == {"passed": 1, "failed": 1}
    result.stdout.fnmatch_lines([">*kernel()  # here", "E *Timeout*1.0s*"])
    assert verdicts(read(plain.path)["test_hangs"]) == ["failed"]


def test_pytest_timeout_with_a_thread(plain: pytest.Pytester, run_apart: Run, faults: Path) -> None:
    """It ends the process, which is a worker's here: a crash, and the next test has the device."""
    pytest.importorskip("pytest_timeout", reason="pytest-timeout is not installed")
    pytest.importorskip("xdist")
    (plain.path / faults.name).symlink_to(faults)
    plain.makepyfile(HANGS.format(mark="@pytest.mark.timeout(1, method='thread', func_only=True)"))
    result = run_apart("-p", "timeout", "-n", "1", REPORT)
    assert result.parseoutcomes() == {"passed": 1, "failed": 1}
    assert verdicts(read(plain.path)["test_hangs"]) == ["failed"]


def test_the_limit_of_a_session(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """The device ends it, also in the middle of a call; the mark counts more than the option."""
    plain.makepyfile(
        """
        import pytest

        def test_option(remote):
            remote.get_function("testing.sleep")(20.0)

        @pytest.mark.rpc_timeout(session=30)
        def test_mark(remote):
            remote.get_function("testing.sleep")(0.5)
        """
    )
    result = run(*lasting_farm.arguments, "--rpc-session-timeout=0.3", REPORT)
    assert result.parseoutcomes() == {"passed": 1, "failed": 1}
    result.stdout.fnmatch_lines(["E *RPCSessionTimeoutError: *"])


def test_the_limits_of_the_queue(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """By option and by two marks, the more special of which counts."""
    plain.makepyfile(
        """
        import pytest

        def test_option(remote): pass

        @pytest.mark.rpc_device(timeout=0.2)
        def test_device_mark(remote): pass

        @pytest.mark.rpc_device(timeout=20)
        @pytest.mark.rpc_timeout(queue=0.1)
        def test_mark(remote): pass
        """
    )
    with lasting_farm.ask() as tracker, tracker.request("board"), tracker.request("board"):
        result = run(*lasting_farm.arguments, "--rpc-queue-timeout=0.3", REPORT)
    assert result.parseoutcomes() == {"infra": 3}
    waited = {name: last(test).devices[0].queued_s for name, test in read(plain.path).items()}
    assert 0.3 <= waited["test_option"] < 5
    assert 0.2 <= waited["test_device_mark"] < 5
    assert 0.1 <= waited["test_mark"] < 5


@pytest.mark.parametrize("by", ["option", "mark"])
def test_the_limit_of_connections(plain: pytest.Pytester, run: Run, lone: Farm, by: str) -> None:
    """A server that accepts and says no more is given up; the message names the option."""
    mark = "@pytest.mark.rpc_timeout(connect=0.3)" if by == "mark" else ""
    option = ["--rpc-connect-timeout=0.3"] if by == "option" else []
    plain.makepyfile(f"import pytest\n{mark}\ndef test_it(remote): pass")
    (pid,) = lone.servers.values()
    os.kill(pid, signal.SIGSTOP)
    try:
        result = run(*lone.arguments, *option, "--rpc-queue-timeout=1", REPORT)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert result.parseoutcomes() == {"infra": 1}
    assert "(option: --rpc-" in last(read(plain.path)["test_it"]).message
    assert result.duration < 10


def test_a_limit_of_no_use(plain: pytest.Pytester, run: Run) -> None:
    """It is an error of the collection, which says what to write."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.rpc_timeout(calls=1)
        def test_it(remote): pass
        """
    )
    result = run()
    assert result.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
    text = result.stdout.str() + result.stderr.str()
    assert "rpc_timeout(calls=1) cannot be used" in text
    assert "for example @pytest.mark.rpc_timeout(call=5)" in text
