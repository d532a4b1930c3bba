"""`tvmrpc kick`: the session ends, and the device is free again or the next one's."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import SessionKickedError
from pytest_tvmrpc.exec import kick

pytestmark = pytest.mark.each_kind

WaitUntil = Callable[..., None]


@pytest.fixture(name="tracker")
def _tracker() -> Iterator[rpc.Tracker]:
    with rpc.Tracker(port=0, silent=True) as tracker:
        yield tracker


@pytest.fixture(name="boards")
def _boards(tracker: rpc.Tracker, launch: Callable[..., Any]) -> Iterator[List[rpc.Server]]:
    """Two devices of one kind."""
    address = (tracker.host, tracker.port)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(launch(port=0, key="board", tracker_addr=address, silent=True))
            for _ in range(2)
        ]


@pytest.fixture(name="ada")
def _ada(tracker: rpc.Tracker) -> Iterator[rpc.TrackerSession]:
    with rpc.connect_tracker(tracker.host, tracker.port, user="ada") as ada:
        yield ada


def holders(farm: rpc.TrackerSession) -> List[str]:
    """Who has something."""
    return [server.holder.user for server in farm.who().servers if server.holder]


@pytest.mark.parametrize("form", ["{key}", "{host}:{port}", "{key}@{host}:{port}"])
def test_the_one_who_has_it(
    form: str,
    tracker: rpc.Tracker,
    boards: List[rpc.Server],
    ada: rpc.TrackerSession,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By any of the names of the device; the client is told who did it, and why."""
    with ada.request("board") as session:
        addone = session.get_function("rpc.test.addone")
        host, port = session.peer
        target = form.format(key="board", host=host, port=port)
        words = ["--port", str(tracker.port), target, "--reason", "lunch is over"]
        assert kick.main(words) == 0
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("kicked ada, who had it for ")
        assert first.endswith(f"from board@{host}:{port}")
        assert second.startswith(f"board@{host}:{port} is free after ")
        with pytest.raises(SessionKickedError, match="tvmrpc kick: lunch is over"):
            addone(1)
    assert holders(ada) == []


def test_the_next_one_gets_it(
    tracker: rpc.Tracker,
    ada: rpc.TrackerSession,
    capsys: pytest.CaptureFixture[str],
    wait_until: WaitUntil,
    launch: Callable[..., Any],
) -> None:
    """A device that somebody waits for goes to him, and the line says so."""
    done = threading.Event()
    address = (tracker.host, tracker.port)

    def wait_for_it() -> None:
        with rpc.connect_tracker(*address, user="bob") as bob, bob.request("only"):
            done.wait(30)

    waiting = threading.Thread(target=wait_for_it)
    with launch(port=0, key="only", tracker_addr=address, silent=True), ada.request("only"):
        waiting.start()
        try:
            wait_until(lambda: ada.who().waiting, "bob waits")
            assert kick.main([f"--port={tracker.port}", "only"]) == 0
        finally:
            done.set()
            waiting.join()
    assert " went to bob after " in capsys.readouterr().out


def test_several_are_meant(
    tracker: rpc.Tracker,
    boards: List[rpc.Server],
    ada: rpc.TrackerSession,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are listed, and nobody is kicked, unless all are meant."""
    with ada.request("board"), ada.request("board"):
        assert kick.main([f"--port={tracker.port}", "board"]) == 2
        shown = capsys.readouterr().err
        assert shown.count(": ada, who had it for") == 2
        assert all(f"board@127.0.0.1:{board.port}" in shown for board in boards)
        assert holders(ada) == ["ada", "ada"]
        assert kick.main([f"--port={tracker.port}", "board", "--all"]) == 0
        assert holders(ada) == []


def test_one_of_two_is_free(
    tracker: rpc.Tracker, boards: List[rpc.Server], ada: rpc.TrackerSession
) -> None:
    """A key with one device in use is clear enough."""
    with ada.request("board"):
        assert kick.main([f"--port={tracker.port}", "board"]) == 0
        assert holders(ada) == []


def test_nobody_to_kick(
    tracker: rpc.Tracker, boards: List[rpc.Server], capsys: pytest.CaptureFixture[str]
) -> None:
    """A free device, or none of this name: the line says what there is."""
    assert kick.main([f"--port={tracker.port}", "board"]) == 1
    assert capsys.readouterr().err.count("is free") == 2
    assert kick.main([f"--port={tracker.port}", "boat"]) == 1
    shown = capsys.readouterr().err
    assert "no device is called 'boat'" in shown
    assert f"board@127.0.0.1:{boards[0].port}" in shown


def test_a_server_that_does_not_obey(
    tracker: rpc.Tracker,
    ada: rpc.TrackerSession,
    capsys: pytest.CaptureFixture[str],
    launch: Callable[..., Any],
) -> None:
    """The wait has a limit, and the line says what to do then."""
    address = (tracker.host, tracker.port)
    server = launch(port=0, key="stiff", tracker_addr=address, silent=True)
    with server, ada.request("stiff"):
        os.kill(server.program.pid, signal.SIGSTOP)
        try:
            assert kick.main([f"--port={tracker.port}", "stiff", "--wait=0.2"]) == 1
        finally:
            os.kill(server.program.pid, signal.SIGCONT)
    assert "is not free 200 ms later" in capsys.readouterr().err


def test_a_tracker_of_tvm(tvm_tracker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It knows no such order; the line says what else can be done."""
    assert kick.main([f"--port={tvm_tracker.port}", "board"]) == 1
    assert "restart the server" in capsys.readouterr().err
