"""Under pytest-xdist: which tests a worker gets, how many workers, and what they tell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Callable, Iterator

import pytest

from pytest_tvmrpc import rpc

from .farms import Farm, read

if TYPE_CHECKING:
    from pytest_tvmrpc.records import RemoteFacts

pytest.importorskip("xdist")

Run = Callable[..., pytest.RunResult]

PARAMETRISED = """
    import time, pytest

    @pytest.mark.parametrize("number", range(3))
    def test_each(remote, _rpc_key, number, pytestconfig):
        end = time.monotonic() + 20
        done = pytestconfig.rootpath / "done"
        while _rpc_key == "a" and not done.exists():
            assert time.monotonic() < end, "the tests of key b were not run meanwhile"
            time.sleep(0.01)
        done.write_text("")
"""
"""With one device of each key, the tests of the second have to run beside those of the first."""


@pytest.fixture(name="farm")
def _farm() -> Iterator["tuple[str, rpc.Tracker]"]:
    """A tracker with one device of key a and two of key b, as another program would have it."""
    with rpc.Tracker(port=0) as tracker:
        address = ("127.0.0.1", tracker.port)
        servers = [rpc.Server(port=0, tracker_addr=address, key=key) for key in ("a", "b", "b")]
        yield f"127.0.0.1:{tracker.port}", tracker
        for server in servers:
            server.terminate()


@pytest.fixture(name="address")
def _address(farm: "tuple[str, rpc.Tracker]", wait_until: Callable[..., None]) -> str:
    """Where it is; all devices are free."""

    def is_free() -> bool:
        with rpc.connect_tracker("127.0.0.1", farm[1].port) as session:
            queues = session.summary()["queue_info"]
        return sum(queue["free"] for queue in queues.values()) == 3

    wait_until(is_free, "the servers are at the tracker")
    return farm[0]


def test_tests_go_where_a_device_is_free(plain: pytest.Pytester, run_apart: Run) -> None:
    """With one server for each key, two workers never wait for the same device."""
    plain.makepyfile(PARAMETRISED)
    result = run_apart("-n", "2", "-v", "--rpc-key=a", "--rpc-key=b")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["scheduling tests via FarmScheduling"])


def test_the_tracker_says_what_there_is(
    plain: pytest.Pytester, run_apart: Run, address: str
) -> None:
    """Somebody else's farm is asked for the devices of each key."""
    plain.makepyfile(PARAMETRISED)
    arguments = ("-n", "2", f"--rpc-tracker={address}", "--rpc-key=a", "--rpc-key=b")
    run_apart(*arguments).assert_outcomes(passed=6)


HELD = """
    import pytest

    @pytest.mark.parametrize("number", range(6))
    def test_each(remote, _rpc_key, number): pass
"""


def test_devices_that_others_hold(plain: pytest.Pytester, run_apart: Run) -> None:
    """Of three devices of a key, two are held by another run: it counts as one."""
    plain.makepyfile(HELD)
    with Farm("a", "a", "a", "b", "b") as farm, farm.ask("another run") as tracker:
        sessions = [tracker.request("a") for _ in range(2)]
        arguments = ("-n", "3", *farm.arguments, "--rpc-report=run.jsonl")
        run_apart(*arguments).assert_outcomes(passed=12)
        for session in sessions:
            session.close()
    firsts: dict[str, RemoteFacts] = {}
    for test in read(plain.path).values():
        (facts,) = test.attempts[0].devices
        first = firsts.setdefault(test.worker, facts)
        if facts.asked_at < first.asked_at:
            firsts[test.worker] = facts
    assert sorted(facts.key for facts in firsts.values()) == ["a", "b", "b"]


def test_pytest_xdist_alone_would_wait(plain: pytest.Pytester, run_apart: Run) -> None:
    """The two tests above can fail: with the scheduler of pytest-xdist, they do."""
    plain.makepyfile(PARAMETRISED.replace("+ 20", "+ 1"))
    plain.makeconftest(
        """
        from xdist.scheduler import LoadScheduling

        def pytest_xdist_make_scheduler(config, log):
            return LoadScheduling(config, log)
        """
    )
    result = run_apart("-n", "2", "-v", "--rpc-key=a", "--rpc-key=b")
    assert result.parseoutcomes().get("failed", 0) >= 1
    result.stdout.fnmatch_lines(["scheduling tests via LoadScheduling"])


@pytest.mark.parametrize("dist", ["worksteal", "loadscope", "loadfile", "loadgroup", "each"])
def test_other_distributions_are_left_alone(
    plain: pytest.Pytester, run_apart: Run, dist: str
) -> None:
    """--dist says how: what is not load is not ours."""
    plain.makepyfile("def test_a(remote): pass\ndef test_b(): pass")
    result = run_apart("--tx=2*popen", "--dist", dist, "-v", "--rpc-servers=2")
    result.assert_outcomes(passed=4 if dist == "each" else 2)
    result.stdout.no_fnmatch_line("*FarmScheduling*")


@pytest.mark.parametrize("count", [1, 4, 50])
@pytest.mark.parametrize("workers", ["1", "3"])
def test_every_test_runs_once(
    plain: pytest.Pytester, run_apart: Run, count: int, workers: str
) -> None:
    """Local tests among remote ones, fewer than workers or many more."""
    plain.makepyfile(
        f"""
        import pytest

        @pytest.mark.parametrize("number", range({count}))
        def test_local(number): pass

        def test_remote(remote): pass
        """
    )
    run_apart("-n", workers).assert_outcomes(passed=count + 1)


def test_different_tests(plain: pytest.Pytester, run_apart: Run) -> None:
    """Workers that do not collect the same tests end the run with the difference."""
    plain.makepyfile(
        """
        import os, pytest

        @pytest.mark.parametrize("worker", [os.environ["PYTEST_XDIST_WORKER"]])
        def test_a(remote, worker): pass
        """
    )
    result = run_apart("-n", "2")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*Different tests were collected between gw* and gw*"])


def test_local_tests_are_distributed_as_ever(plain: pytest.Pytester, run_apart: Run) -> None:
    """Without a remote test, each worker gets its first quarter at once, as pytest-xdist has it."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(80))
        def test_local(number): pass
        """
    )
    plain.makeconftest(
        """
        import pytest

        def pytest_configure(config):
            if hasattr(config, "workerinput"):
                return
            from xdist.workermanage import WorkerController
            send = WorkerController.send_runtest_some

            def spy(self, indices):
                with open("sent", "a") as sent:
                    print(len(indices), file=sent)
                send(self, indices)

            WorkerController.send_runtest_some = spy
        """
    )
    run_apart("-n", "2").assert_outcomes(passed=80)
    assert (plain.path / "sent").read_text().split()[:2] == ["10", "10"]


@pytest.mark.parametrize(
    "arguments",
    [("-n", "2"), ("--dist=load", f"--tx=2*popen//python={sys.executable}"), ("-n", "0")],
    ids=["-n 2", "--tx", "-n 0"],
)
def test_a_worker_tells_the_controller(
    plain: pytest.Pytester, run_apart: Run, arguments: "tuple[str, ...]"
) -> None:
    """An event reaches the listeners while the test still runs; without workers, too."""
    plain.makeconftest(
        """
        import pytest
        from pytest_tvmrpc.running.events import events_of

        @pytest.hookimpl(trylast=True)
        def pytest_sessionstart(session):
            if not hasattr(session.config, "workerinput"):
                events_of(session.config).listeners.append(hear)

        def hear(event):
            if event["kind"] == "greeting":
                with open(event["answer"], "w") as answer:
                    answer.write(event.get("worker", "alone"))
        """
    )
    plain.makepyfile(
        """
        import time
        import pytest
        from pytest_tvmrpc.running.workers import send

        @pytest.mark.parametrize("number", range(4))
        def test_greeting(pytestconfig, tmp_path, number):
            path = tmp_path / "answer"
            send(pytestconfig, {"kind": "greeting", "answer": str(path)})
            end = time.monotonic() + 20
            while not (path.exists() and path.read_text()):
                assert time.monotonic() < end
                time.sleep(0.01)
            worker = getattr(pytestconfig, "workerinput", {}).get("workerid", "alone")
            assert path.read_text() == worker
        """
    )
    run_apart(*arguments).assert_outcomes(passed=4)


def test_a_listener_that_fails_is_seen(plain: pytest.Pytester, loading: "list[str]") -> None:
    """A fault of the controller's side is shown, and does not end the run."""
    plain.makeconftest(
        """
        from pytest_tvmrpc.running.events import events_of

        def pytest_sessionstart(session):
            if not hasattr(session.config, "workerinput"):
                events_of(session.config).listeners.append(hear)

        def hear(event):
            raise ArithmeticError("deaf")
        """
    )
    plain.makepyfile("def test_a(remote): pass")
    result = plain.runpytest_subprocess(*loading, "-n", "1", timeout=60)
    result.stdout.fnmatch_lines(["*INTERNALERROR*deaf*"])
    result.assert_outcomes(passed=1)


class TestAuto:
    """-n auto, which is found out before pytest is configured."""

    @pytest.fixture(autouse=True)
    def _tests(self, plain: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
        plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass")

    def test_tracker(self, run_apart: Run, address: str) -> None:
        """A worker for each free device of the run's keys."""
        arguments = (f"--rpc-tracker={address}", "--rpc-key=a", "--rpc-key=b")
        result = run_apart("-n", "auto", *arguments)
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["rpc: 3 workers, as the tracker has 1 a and 2 b, 3 free"])

    def test_at_least_one(self, run_apart: Run, address: str) -> None:
        """What others use comes free some time; a key that nobody has is the tests' matter."""
        result = run_apart("-n", "auto", f"--rpc-tracker={address}", "--rpc-key=c")
        result.stdout.fnmatch_lines(["rpc: 1 worker, as the tracker has 0 c, 0 free"])

    def test_maxprocesses(self, run_apart: Run, address: str) -> None:
        """The limit of pytest-xdist holds, and is named."""
        arguments = (f"--rpc-tracker={address}", "--rpc-key=b", "--maxprocesses=1")
        result = run_apart("-n", "auto", *arguments)
        result.stdout.fnmatch_lines(["rpc: 1 worker, by --maxprocesses, as the tracker has 2 b, *"])

    def test_servers(self, run_apart: Run) -> None:
        """The run's own servers, if it was said how many."""
        result = run_apart("-n", "auto", "--rpc-servers=3")
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["rpc: 3 workers, as the run has 3 local"])

    def test_no_tracker(self, run_apart: Run, closed_port: int) -> None:
        """A tracker that is not there is named; the number is pytest-xdist's."""
        result = run_apart("-n", "auto", f"--rpc-tracker=127.0.0.1:{closed_port}")
        result.stdout.fnmatch_lines(["rpc: -n auto is left to xdist, as the tracker does not *"])

    @pytest.mark.parametrize("value", [None, "1"], ids=["not told", "told by the environment"])
    def test_otherwise_it_is_not_ours(
        self, run_apart: Run, monkeypatch: pytest.MonkeyPatch, value: "str | None"
    ) -> None:
        """A project that has the plugin, or says itself how many, gets what it always got."""
        arguments = ["--maxprocesses=2"]
        if value:
            monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", value)
            arguments.append("--rpc-servers=2")
        result = run_apart("-n", "auto", *arguments)
        result.assert_outcomes(passed=2)
        result.stdout.no_fnmatch_line("rpc: * worker*")


@pytest.fixture(name="closed_port")
def _closed_port() -> int:
    """A port of this machine on which nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
