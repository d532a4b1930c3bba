"""What goes wrong around devices: clear errors, runs that end, nothing left behind.

That nothing is left is checked by the guard around each test.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from typing import Callable, List

import pytest

from pytest_tvmrpc import rpc

Run = Callable[..., pytest.RunResult]

TWO_TESTS = "def test_a(remote): pass\ndef test_b(remote): pass"

KILL_SERVER = """
    import os, signal, pytest
    from pytest_tvmrpc.running.leases import lessor_key

    @pytest.fixture
    def kill(request):
        def kill(number):
            part = request.config.stash[lessor_key].stack._farm._parts[number]
            os.kill(part.program.program.pid, signal.SIGKILL)
            part.program.program._wait(10)
        return kill
"""

WORKERS = [(), ("-n", "2")]


def assert_infra(result: pytest.RunResult, **outcomes: int) -> None:
    """The run had these outcomes and no other, and did not pass."""
    assert result.parseoutcomes() == outcomes
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*= infrastructure =*"])


@pytest.mark.parametrize("workers", WORKERS)
def test_no_tracker(plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]") -> None:
    """Nobody listens there: the farm's fault, told once for all tests, with the address."""
    plain.makepyfile(TWO_TESTS)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening, and nobody else can
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        result = run_apart(f"--rpc-tracker={address}", *workers)
    assert_infra(result, infra=2)
    result.stdout.fnmatch_lines(
        [
            f"2 tests were not run: no device 'local': no RPC tracker at {address}: *"
            f"tvmrpc doctor --tracker {address} --key local",
            "    key local; no device was given; waited *",
            "    test_no_tracker.py::test_?",
            "    test_no_tracker.py::test_?",
            "*= remote devices =*",
        ]
    )


def test_a_listener_that_says_nothing(plain: pytest.Pytester, run: Run) -> None:
    """Somebody listens but never answers: the wait ends at the connect timeout."""
    plain.makepyfile("def test_a(remote): pass")
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        result = run(f"--rpc-tracker={address}", "--rpc-connect-timeout=0.3")
    assert_infra(result, infra=1)
    result.stdout.fnmatch_lines([f"1 test was not run: *{address} is not an RPC tracker*0.3 s*"])
    assert result.duration < 10


@pytest.mark.parametrize("workers", WORKERS)
def test_programs_that_do_not_start(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """No tracker comes up: no test is run, and the end of the run has the reason."""
    plain.makeconftest("import tempfile; tempfile.tempdir = '/nowhere/at/all'")
    plain.makepyfile(TWO_TESTS)
    result = run_apart(*workers)
    assert_infra(result, infra=2)
    why = "tracker that pytest started for this run is gone" if workers else "did not start: *nowh"
    result.stdout.fnmatch_lines(
        [
            f"2 tests were not run: *{why}*",
            "*= remote devices =*",
            "the tracker and servers of this run did not start: *nowhere*",
        ]
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_a_server_that_does_not_start(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """The tracker is up already: it is ended, and nobody waits for a device in vain."""
    plain.makepyfile(TWO_TESTS)
    keys = (f"--rpc-key={'k' * 1025}", "--rpc-key=good")  # the first one is too long for a server
    result = run_apart(*keys, "-k", "good", *workers)
    assert result.parseoutcomes()["infra"] == 2
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["the tracker and servers of this run did not start: *"])
    assert result.duration < 10


def test_a_server_killed_between_calls(plain: pytest.Pytester, run: Run) -> None:
    """The test is lost, those after it are not run, and the end tells how the server ended."""
    plain.makeconftest(KILL_SERVER)
    plain.makepyfile(
        """
        def test_kill(remote, kill):
            kill(1)
            while True:  # until the session's process has seen it, too
                remote.get_function("rpc.test.addone")(1)

        def test_after(remote): pass
        """
    )
    result = run()
    assert_infra(result, infra=2)
    result.stdout.fnmatch_lines_random(
        [
            "1 test was not completed: local@* lost after *--rpc-reruns=1 would run*",
            "1 test was not run: *server of key 'local' that pytest started for this run is gone*",
        ]
    )
    result.stdout.fnmatch_lines(
        ["local@* 1 * 0 * 0 * 1 *", "server 1 of key 'local' was killed by SIGKILL during the run*"]
    )
    assert result.duration < 20


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_server_killed_in_a_call(plain: pytest.Pytester, run: Run) -> None:
    """The call ends when the connection does, not with the call timeout."""
    plain.makefile(
        ".c",
        kill="""
        #include <signal.h>
        #include <unistd.h>
        int __tvm_ffi_kill_server(void *self, void *args, int count, void *result) {
          kill(getppid(), SIGKILL);
          for (;;) pause();
        }
        """,
    )
    plain.makepyfile(
        """
        import subprocess

        def test_kill(remote, tmp_path):
            library = tmp_path / "kill.so"
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, "kill.c"], check=True)
            remote.upload(str(library))
            remote.load_module("kill.so")["kill_server"]()
        """
    )
    result = run("--rpc-call-timeout=20")
    assert_infra(result, infra=1)
    result.stdout.fnmatch_lines(
        [
            "1 test was not completed: local@* closed the connection in kill_server*",
            "    key local; tried local@*",
            "*'local' was killed by SIGKILL*",
        ]
    )
    assert result.duration < 15


def test_a_tracker_killed_in_the_run(plain: pytest.Pytester, run: Run) -> None:
    """Sessions go on; later tests are not run, and are told what happened."""
    plain.makeconftest(KILL_SERVER)
    plain.makepyfile(
        """
        def test_kill(remote, kill):
            kill(0)
            assert remote.get_function("rpc.test.addone")(1) == 2

        def test_after(remote): pass
        """
    )
    result = run()
    assert_infra(result, passed=1, infra=1)
    result.stdout.fnmatch_lines(
        [
            "1 test was not run: *the tracker that pytest started for this run is gone*",
            "the tracker was killed by SIGKILL during the run*",
        ]
    )
    assert result.duration < 20


def test_a_tracker_that_no_longer_answers(plain: pytest.Pytester, run: Run) -> None:
    """Its deadline is that of connections, not of the queue, and the message names the option."""
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = (tracker.host, tracker.port)
        plain.makepyfile(
            f"""
            import os, signal

            def test_freeze(remote):
                os.kill({tracker.program.pid}, signal.SIGSTOP)

            def test_after(remote): pass
            """
        )
        try:
            with rpc.Server(port=0, tracker_addr=address, key="local", silent=True):
                result = run(f"--rpc-tracker={address[0]}:{address[1]}", "--rpc-connect-timeout=1")
        finally:
            os.kill(tracker.program.pid, signal.SIGCONT)
    assert_infra(result, passed=1, infra=1)
    result.stdout.fnmatch_lines(["1 test was not run: *tracker*(option: --rpc-connect-timeout)*"])


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_kernel_that_does_not_return(plain: pytest.Pytester, run: Run) -> None:
    """The call's deadline names the option; what the test itself waits for is left alone."""
    plain.makefile(
        ".c",
        stall="""
        #include <unistd.h>
        int __tvm_ffi_stall(void *self, const void *args, int count, void *result) {
          for (;;) pause();
        }
        """,
    )
    plain.makepyfile(
        """
        import pytest
        from pytest_tvmrpc.errors import DeadlineError
        from pytest_tvmrpc.runtime.toolchain import compile_library

        @pytest.fixture
        def stall(remote, tmp_path):
            remote.upload(compile_library("stall.c", tmp_path / "stall.so"))
            return remote.load_module("stall.so")["stall"]

        def test_stall(stall):
            stall()

        def test_expected(stall):
            with pytest.raises(DeadlineError, match="call_timeout to wait longer$"):
                stall()
        """
    )
    result = run("--rpc-call-timeout=0.5")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E *DeadlineError: *(option: --rpc-call-timeout)"])


def test_our_own_frames_are_not_shown(plain: pytest.Pytester, run: Run) -> None:
    """A test that asks for what is not there is shown up to the line that asks."""
    plain.makepyfile("def test_a(remote, remote_device): remote_device()")
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["test_*.py:1: TooManyError"])
    for frame in ("stack", "leases", "devices"):
        result.stdout.no_fnmatch_line(f"*{frame}.py*")


@pytest.mark.parametrize("workers", WORKERS)
def test_interrupt(plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]") -> None:
    """Ctrl-C while a test has a device."""
    plain.makepyfile(
        """
        import os, signal, threading

        def test_interrupt(remote, request):
            # The parent of a worker is the controller, where Ctrl-C arrives.
            in_worker = hasattr(request.config, "workerinput")
            os.kill(os.getppid() if in_worker else os.getpid(), signal.SIGINT)
            threading.Event().wait(3)
        """
    )
    result = run_apart(*workers)
    assert result.ret == pytest.ExitCode.INTERRUPTED


@pytest.mark.parametrize("workers", WORKERS)
def test_internal_error(
    plain: pytest.Pytester, loading: List[str], workers: "tuple[str, ...]", deadline_s: float
) -> None:
    """Another plugin breaks the run: tracker and servers are ended all the same."""
    plain.makeconftest(
        """
        def pytest_runtest_logreport(report):
            if report.when == "call" and not hasattr(report, "node"):
                raise ValueError("a plugin's bug")

        def pytest_terminal_summary(config):
            raise ValueError("one more")
        """
    )
    plain.makepyfile("def test_a(remote): pass")
    result = plain.runpytest_subprocess(*loading, *workers, timeout=6 * deadline_s)
    assert result.ret != 0
