"""What happens around a run: other runs, trackers that go and come, runs that are killed.

That no process of theirs is left is checked by the guard around each test.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Callable

import pytest

from .farms import Farm, last, read

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

Run = Callable[..., pytest.RunResult]

HOLD = """
    import time
    from acts import FOLDER

    def test_hold(remote):
        (FOLDER / "holding").touch()
        end = time.monotonic() + 30
        while not (FOLDER / "enough").exists():
            assert time.monotonic() < end
            remote.get_function("testing.sleep")(0.01)
"""
"""Holds a device until it is told that it is enough, in calls that a signal can interrupt."""


def output(folder: Path) -> str:
    """What `start` has printed."""
    return (folder / "output.txt").read_text()


def test_another_run_has_the_farm(
    plain: pytest.Pytester,
    run: Run,
    farm: Farm,
    start: Callable[..., "subprocess.Popen[bytes]"],
    wait_until: Callable[..., None],
    deadline_s: float,
) -> None:
    """This one waits until its limit, and says which test of whose run it was."""
    plain.makepyfile(test_hold=HOLD, test_wait="def test_wait(remotes): pass")
    other = start(*farm.arguments, "test_hold.py")
    wait_until((plain.path / "holding").exists, "the other run has a device")
    (held,) = farm.held()
    os.kill(next(pid for name, pid in farm.servers.items() if name != held), signal.SIGKILL)
    wait_until(lambda: farm.free() == [], "the other device is gone")
    waiting = ("--rpc-queue-timeout=0.3", "--rpc-report=run.jsonl", "test_wait.py")
    result = run(*farm.arguments, *waiting)
    assert result.parseoutcomes() == {"infra": 1}
    message = last(read(plain.path)["test_wait"]).message
    assert f"{held} is held by " in message
    assert f"pid {other.pid} test_hold.py::test_hold for " in message
    (plain.path / "enough").touch()
    assert other.wait(deadline_s) == 0, output(plain.path)
    farm.settle()


def test_the_tracker_comes_back(plain: pytest.Pytester, run: Run, farm: Farm) -> None:
    """Killed in the middle of a test and started again: that test goes on, and so does the run."""
    plain.makepyfile(
        f"""
        import os, signal
        import pytest
        from pytest_tvmrpc import rpc
        from acts import FARM, add_one

        @pytest.fixture(scope="module")
        def trackers():
            started = []
            yield started
            for tracker in started:
                tracker.terminate()

        def test_before(remote):
            assert add_one(remote) == 2

        def test_meanwhile(remote, trackers):
            os.kill({farm.tracker.program.pid}, signal.SIGKILL)
            host, port = FARM["tracker"]
            assert add_one(remote) == 2
            trackers.append(rpc.Tracker(port=port, port_end=port + 1, silent=True))
            assert add_one(remote) == 2

        @pytest.mark.parametrize("number", range(3))
        def test_after(remote, trackers, number):
            assert add_one(remote) == 2
        """
    )
    result = run(*farm.arguments, "--rpc-queue-timeout=20")
    assert result.parseoutcomes() == {"passed": 5}


def test_the_tracker_does_not_come_back(plain: pytest.Pytester, run: Run, farm: Farm) -> None:
    """The session goes on; the tests after it are infra, at their limit."""
    plain.makepyfile(
        f"""
        import os, signal
        from acts import add_one

        def test_meanwhile(remote):
            os.kill({farm.tracker.program.pid}, signal.SIGKILL)
            assert add_one(remote) == 2

        def test_after(remote): pass
        """
    )
    result = run(*farm.arguments, "--rpc-queue-timeout=0.5", "--rpc-report=run.jsonl")
    assert result.parseoutcomes() == {"passed": 1, "infra": 1}
    assert farm.address in last(read(plain.path)["test_after"]).message


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_interrupt(
    plain: pytest.Pytester,
    lasting_farm: Farm,
    start: Callable[..., "subprocess.Popen[bytes]"],
    workers: "tuple[str, ...]",
    wait_until: Callable[..., None],
    deadline_s: float,
) -> None:
    """Ctrl-C in a call, for every process of the terminal: the run ends, devices are free."""
    plain.makepyfile(HOLD + "\n    test_two = test_hold\n")
    running = start(*lasting_farm.arguments, *workers)
    wait_until(lambda: len(lasting_farm.held()) == (2 if workers else 1), "the devices are held")
    wait_until((plain.path / "holding").exists, "a test runs")
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(deadline_s) == pytest.ExitCode.INTERRUPTED, output(plain.path)
    assert "KeyboardInterrupt" in output(plain.path)
    wait_until(lambda: len(lasting_farm.free()) == 2, "the devices are free")


def test_interrupt_in_the_queue(
    plain: pytest.Pytester,
    lasting_farm: Farm,
    start: Callable[..., subprocess.Popen[bytes]],
    wait_until: Callable[..., None],
    deadline_s: float,
) -> None:
    """Ctrl-C while a test waits for a device: the run ends at once, and nobody waits any more."""
    plain.makepyfile("def test_it(remote): pass")
    with lasting_farm.ask() as tracker, tracker.request("board"), tracker.request("board"):
        running = start(*lasting_farm.arguments)
        wait_until(lambda: tracker.who().waiting, "the test waits")
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(deadline_s) == pytest.ExitCode.INTERRUPTED, output(plain.path)
        wait_until(lambda: not tracker.who().waiting, "nobody waits")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_a_run_that_is_killed(
    plain: pytest.Pytester,
    lasting_farm: Farm,
    start: Callable[..., "subprocess.Popen[bytes]"],
    workers: "tuple[str, ...]",
    wait_until: Callable[..., None],
) -> None:
    """SIGKILL to pytest alone: the tracker has its devices back, and no worker is left."""
    plain.makepyfile(HOLD)
    running = start(*lasting_farm.arguments, *workers)
    wait_until((plain.path / "holding").exists, "a test runs")
    running.kill()
    wait_until(lambda: len(lasting_farm.free()) == 2, "the device is free")


def test_a_worker_that_is_killed(
    plain: pytest.Pytester, run_apart: Run, lone: Farm, wait_until: Callable[..., None]
) -> None:
    """Its device is free for the others at once: they need not wait for any limit."""
    plain.makepyfile(
        """
        import os, signal
        import pytest
        from acts import add_one

        @pytest.mark.parametrize("number", range(4))
        def test_before(remote, number): pass

        def test_killed(remote):
            os.kill(os.getpid(), signal.SIGKILL)

        @pytest.mark.parametrize("number", range(4))
        def test_after(remote, number):
            assert add_one(remote) == 2
        """
    )
    limit = "--rpc-queue-timeout=5"
    result = run_apart(*lone.arguments, "-n", "2", limit, "--rpc-report=run.jsonl")
    assert result.parseoutcomes() == {"passed": 8, "failed": 1}
    wait_until(lambda: len(lone.free()) == 1, "the device is free")
    tests = read(plain.path)
    assert len(tests) == 9
    assert max(last(test).devices[0].queued_s for test in tests.values()) < 5
    assert last(tests["test_killed"]).names == tuple(lone.servers)


def test_collection_errors(
    plain: pytest.Pytester, run: Run, run_apart: Run, farm: Farm, wait_until: Callable[..., None]
) -> None:
    """No test is run, no device is asked for; or the others are run, if pytest is told so.

    pytest-xdist runs the others in any case.
    """
    plain.makepyfile(test_broken="import nothing_of_this_name")
    plain.makepyfile(test_good="def test_good(remote): pass")
    result = run(*farm.arguments, "--rpc-report=run.jsonl")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert read(plain.path) == {}
    result.stdout.no_fnmatch_line("*remote devices*")
    result = run(*farm.arguments, "--continue-on-collection-errors")
    assert result.parseoutcomes() == {"passed": 1, "errors": 1}
    result = run_apart(*farm.arguments, "-n", "2")
    assert result.parseoutcomes() == {"passed": 1, "errors": 1}
    wait_until(lambda: farm.held() == [], "all devices are free")
