"""How a test waits for a device: places in queues, boards that cannot be opened, late servers."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import TYPE_CHECKING, Callable, Iterator, List

import pytest

from pytest_tvmrpc.protocol import tracker as wire

from .farms import HERE, Farm, devices, last, read, verdicts

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc

Run = Callable[..., pytest.RunResult]
WaitUntil = Callable[..., None]

REPORT = "--rpc-report=run.jsonl"
SIMPLE = "def test_it(remote): pass"


class Impostor:
    """A server of a farm with which no session can be opened.

    Args:
        farm: the one with the tracker.
        on_visit: called with how often somebody has come.
        is_silent: it says nothing to those who come, instead of closing.
    """

    def __init__(
        self, farm: Farm, on_visit: Callable[[int], object] = bool, is_silent: bool = False
    ) -> None:
        self._on_visit = on_visit
        self._is_silent = is_silent
        self._visitors: List[socket.socket] = []
        self._listener = socket.create_server((HERE, 0))
        self.port = self._listener.getsockname()[1]
        self.name = f"board@{HERE}:{self.port}"
        self._tracker = socket.create_connection((farm.tracker.host, farm.tracker.port))
        self._tracker.sendall(wire.MAGIC)
        self._tracker.recv(4, socket.MSG_WAITALL)
        self._tell([5, {"key": "server:board", "addr": [HERE, self.port]}])
        self._offer(0)
        self._thread = threading.Thread(target=self._run, name="impostor", daemon=True)
        self._thread.start()

    def _tell(self, message: object) -> None:
        content = json.dumps(message).encode()
        self._tracker.sendall(struct.pack("<i", len(content)) + content)
        (nbytes,) = struct.unpack("<i", self._tracker.recv(4, socket.MSG_WAITALL))
        self._tracker.recv(nbytes, socket.MSG_WAITALL)

    def _offer(self, number: int) -> None:
        self._tell([3, "board", [self.port, f"board:{number}"], None])

    def _run(self) -> None:
        visits = 0
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:  # it was shut down
                return
            visits += 1
            if self._is_silent:
                self._visitors.append(visitor)
            else:
                visitor.close()
            self._on_visit(visits)
            self._offer(visits)

    def __enter__(self) -> Impostor:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for one in (self._listener, self._tracker, *self._visitors):
            one.close()


def test_places_in_several_queues(
    plain: pytest.Pytester, run: Run, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test for any of two keys waits for both, and keeps its places: nobody overtakes it.

    The request for the other key is withdrawn in the end.
    """
    turn_s = 0.05
    monkeypatch.setattr("pytest_tvmrpc.running.search.TURN_S", turn_s)
    plain.makepyfile(SIMPLE)
    served: List[str] = []
    with contextlib.ExitStack() as stack:
        farm = stack.enter_context(Farm("a", "b"))
        mine = stack.enter_context(farm.ask())
        held = [stack.enter_context(mine.request(key)) for key in "ab"]

        def compete() -> None:
            with farm.ask(user="late") as tracker, tracker.request("b"):
                served.append("late")

        def referee() -> None:
            with farm.ask() as tracker:
                wait_until(lambda: len(tracker.who().waiting) == 2, "it waits for both")
                late.start()
                wait_until(lambda: len(tracker.who().waiting) == 3, "somebody else waits, too")
                wait_until(
                    lambda: min(one.since_s for one in tracker.who().waiting) > 6 * turn_s,
                    "several turns have passed, and no request is a new one",
                )
                first = next(one for one in tracker.who().waiting if one.key == "b")
                served.append(first.user.rpartition(" ")[2])
                held[1].close()

        late = threading.Thread(target=compete)
        watching = threading.Thread(target=referee)
        watching.start()
        result = run(*farm.arguments, "--rpc-mode=any", REPORT)
        watching.join()
        late.join()
        assert result.parseoutcomes() == {"passed": 1}
        assert served == ["test_places_in_several_queues.py::test_it", "late"]
        (device,) = devices(read(plain.path)["test_it"])
        assert device.startswith("b@")
        with farm.ask() as tracker:
            wait_until(lambda: not tracker.who().waiting, "no request is left")


def test_any_of_several_free_ones(plain: pytest.Pytester, run: Run, wait_until: WaitUntil) -> None:
    """It takes one device; a key that nobody has is no obstacle, and is named if there is no other.

    Nobody else finds a device taken meanwhile that is given back unused.
    """
    plain.makepyfile(SIMPLE)
    with Farm("a", "b") as farm:
        result = run("--rpc-key=none", *farm.arguments, "--rpc-mode=any", REPORT)
        assert result.parseoutcomes() == {"passed": 1}
        wait_until(lambda: len(farm.free()) == 2, "both devices are free")
        unknown = ("--rpc-key=none", "--rpc-key=nil", f"--rpc-tracker={farm.address}")
        result = run(*unknown, "--rpc-mode=any", "--rpc-require")
        assert result.parseoutcomes() == {"infra": 1}
        result.stdout.fnmatch_lines(["*no server offers the key 'none'*"])


def test_a_refused_device_while_another_one_is_awaited(
    plain: pytest.Pytester,
    run: Run,
    farm: Farm,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request stays; the refused device goes to whoever waits, and the test gets the other."""
    monkeypatch.setattr("pytest_tvmrpc.running.search.TURN_S", 0.05)
    refused, wanted = farm.servers
    plain.makeconftest(
        f"def pytest_tvmrpc_select_device(device):\n    return device != {refused!r}"
    )
    plain.makepyfile(SIMPLE)
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(farm.ask())
        held = [stack.enter_context(tracker.request("board")) for _ in farm.servers]
        by_name = {f"board@{HERE}:{one.peer[1]}": one for one in held}

        def referee() -> None:
            with farm.ask() as watcher:
                wait_until(lambda: watcher.who().waiting, "it waits")
                by_name[refused].close()
                wait_until(
                    lambda: (
                        any("test_it" in one.holder.user for one in _held(watcher))
                        and watcher.who().waiting
                    ),
                    "it has the one, and waits for the other",
                )
                with farm.ask(user="other") as other, other.request("board") as session:
                    assert f"board@{HERE}:{session.peer[1]}" == refused
                by_name[wanted].close()

        watching = threading.Thread(target=referee)
        watching.start()
        result = run(*farm.arguments, REPORT, "--rpc-queue-timeout=60")
        watching.join()
    assert result.parseoutcomes() == {"passed": 1}
    assert devices(read(plain.path)["test_it"]) == [wanted]


def _held(tracker: rpc.TrackerSession) -> "List[object]":
    return [one for one in tracker.who().servers if one.holder]


@pytest.fixture(name="empty")
def _empty(plain: pytest.Pytester) -> Iterator[Farm]:
    """A tracker without servers."""
    plain.makepyfile(SIMPLE)
    with Farm() as farm:
        yield farm


def test_a_board_that_drops_everybody(plain: pytest.Pytester, run: Run, empty: Farm) -> None:
    """The test waits for a better one that comes free; both are told, with their own times."""
    with contextlib.ExitStack() as stack:
        good = empty.add()
        held = stack.enter_context(stack.enter_context(empty.ask()).request("board"))

        def release(visits: int) -> None:
            if visits == 3:
                held.close()

        bad = stack.enter_context(Impostor(empty, release))
        result = run(f"--rpc-tracker={empty.address}", "--rpc-key=board", REPORT)
    assert result.parseoutcomes() == {"passed": 1}
    attempt = last(read(plain.path)["test_it"])
    given, missed = attempt.devices
    assert (given.device, given.error, missed.device) == (good, "", bad.name)
    assert attempt.names == (good,)
    assert missed.connect_s > 0 == missed.queued_s
    assert "in the handshake" in missed.error
    rows = [line.split() for line in result.outlines if line.startswith("board@")]
    assert {row[0]: row[1:3] for row in rows} == {good: ["1", "1"], bad.name: ["1", "0"]}


def test_a_board_that_says_nothing(plain: pytest.Pytester, run: Run, empty: Farm) -> None:
    """The limit of connecting counts for it alone: the good one was given at once."""
    limit_s = 0.5
    with Impostor(empty, is_silent=True) as bad:
        good = empty.add()
        own = (f"--rpc-tracker={empty.address}", "--rpc-key=board")
        result = run(*own, f"--rpc-connect-timeout={limit_s}", REPORT)
    assert result.parseoutcomes() == {"passed": 1}
    given, missed = last(read(plain.path)["test_it"]).devices
    assert (missed.device, given.device) == (bad.name, good)
    assert missed.connect_s >= limit_s > given.queued_s


@pytest.mark.parametrize("is_silent", [False, True], ids=["drops", "silent"])
def test_only_boards_that_cannot_be_opened(
    plain: pytest.Pytester, run: Run, empty: Farm, is_silent: bool
) -> None:
    """The wait goes on to its end; the test is run again, and the message names board and cause."""
    with Impostor(empty, is_silent=is_silent) as bad:
        own = (f"--rpc-tracker={empty.address}", "--rpc-key=board", "--rpc-reruns=1")
        result = run(*own, "--rpc-queue-timeout=0.3", "--rpc-connect-timeout=0.2", REPORT)
    assert result.parseoutcomes() == {"rerun": 1, "infra": 1}
    test = read(plain.path)["test_it"]
    assert verdicts(test) == ["lost", "infra"]
    assert f"no session could be opened on {bad.name}" in last(test).message
    assert ("--rpc-connect-timeout" in last(test).message) is is_silent
    assert set(devices(test)) == {bad.name}


def test_a_board_that_cannot_be_opened_beside_one_in_use(
    plain: pytest.Pytester, run: Run, empty: Farm
) -> None:
    """The wait was in vain: the farm is to blame, and both boards are named."""
    good = empty.add()
    with empty.ask(user="alice") as tracker, tracker.request("board"), Impostor(empty) as bad:
        own = (f"--rpc-tracker={empty.address}", "--rpc-key=board", "--rpc-reruns=1")
        result = run(*own, "--rpc-queue-timeout=0.4", REPORT)
    assert result.parseoutcomes() == {"infra": 1}
    message = last(read(plain.path)["test_it"]).message
    assert f"no session could be opened on {bad.name}" in message
    assert f"{good} is held by alice" in message


def test_a_hook_that_raises(plain: pytest.Pytester, run: Run, lone: Farm) -> None:
    """Its test is an error, and the device is given back at once: the next test has it."""
    plain.makeconftest(
        """
        def pytest_tvmrpc_select_device(item):
            if item.name == "test_first":
                raise ValueError("no such board in the inventory")
        """
    )
    plain.makepyfile("def test_first(remote): pass\ndef test_second(remote): pass")
    result = run(*lone.arguments, "--rpc-queue-timeout=5")
    assert result.parseoutcomes() == {"errors": 1, "passed": 1}
    lone.settle()


BOOT = """
    import threading
    from pytest_tvmrpc import rpc

    class Board:
        "A server that is up a while after it was started."

        def __init__(self, key, tracker):
            self.server = None
            self.arguments = {{"key": key, "tracker_addr": tracker}}
            self.timer = threading.Timer({boot_s}, self.boot)
            self.timer.start()

        def boot(self):
            self.server = rpc.Server(port=0, silent=True, **self.arguments)

        def terminate(self):
            self.timer.cancel()
            self.timer.join()
            if self.server:
                self.server.terminate()

    def pytest_tvmrpc_start_servers(tracker, keys):
        return [Board(keys[0], tracker)]
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_boards_that_boot(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """Servers that a hook starts may take as long as a test may wait, not as a connection may."""
    plain.makeconftest(BOOT.format(boot_s=0.8))
    plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass")
    result = run_apart("--rpc-connect-timeout=0.5", *workers)
    assert result.parseoutcomes() == {"passed": 2}


def test_a_board_that_does_not_boot(plain: pytest.Pytester, run: Run) -> None:
    """It is not said to be gone."""
    plain.makeconftest(BOOT.format(boot_s=60))
    plain.makepyfile(SIMPLE)
    result = run("--rpc-queue-timeout=0.3")
    assert result.parseoutcomes() == {"infra": 1}
    result.stdout.fnmatch_lines(["*no server of key 'local' has registered yet*"])
    result.stdout.no_fnmatch_line("*is gone*")
