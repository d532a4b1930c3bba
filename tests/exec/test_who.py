"""`tvmrpc who`: who has what since when, and who waits."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Callable, Iterator

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import RPCError
from pytest_tvmrpc.exec import asking, who
from pytest_tvmrpc.protocol.farm import Farm, FarmServer, Holder, State, Waiting

pytestmark = pytest.mark.each_kind

WaitUntil = Callable[..., None]


@pytest.fixture(name="tracker", scope="module")
def _tracker() -> Iterator[rpc.Tracker]:
    with rpc.Tracker(port=0, silent=True) as tracker:
        yield tracker


@pytest.fixture(name="board", scope="module")
def _board(tracker: rpc.Tracker, launch: Callable[..., Any]) -> Iterator[rpc.Server]:
    address = (tracker.host, tracker.port)
    with launch(port=0, key="board", tracker_addr=address, silent=True) as server:
        yield server


def test_the_tables() -> None:
    """Columns are as wide as their widest cell; servers by key, those who wait by their place."""
    holder = Holder("ada@ws pid 7", "10.0.0.9:5000", 200.4, 60.0)
    farm = Farm(
        (
            FarmServer("rk3588", "10.0.0.6", 9090, State.FREE, 0.0123),
            FarmServer("jetson", "10.0.0.5", 19090, State.BUSY, 200.4, holder),
        ),
        (
            Waiting("jetson", "cy", "10.0.0.8:1", 2, 1, 3.04),
            Waiting("jetson", "bob@ci pid 12", "10.0.0.7:1", 1, 2.5, 4000),
        ),
    )
    assert who.lines(farm) == [
        "device                 state  since       holder        asked from     limit",
        "jetson@10.0.0.5:19090  busy   3 min 20 s  ada@ws pid 7  10.0.0.9:5000  1 min",
        "rk3588@10.0.0.6:9090   free   12 ms",
        "",
        "waiting for  place  user           asked from  for        priority",
        "jetson       1      bob@ci pid 12  10.0.0.7:1  1 h 6 min  2.5",
        "jetson       2      cy             10.0.0.8:1  3.0 s      1",
    ]
    assert who.lines(Farm((), ())) == ["no device is registered"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 us"),
        (35e-6, "35 us"),
        (0.00123, "1.2 ms"),
        (0.9996, "1.0 s"),
        (9.97, "10 s"),
        (59.6, "1 min"),
        (3599.9, "1 h"),
        (86400 * 2 + 7300, "2 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Two units at most, and no sixty of any."""
    assert asking.duration(seconds) == text


def test_a_farm_in_use(
    tracker: rpc.Tracker,
    board: rpc.Server,
    capsys: pytest.CaptureFixture[str],
    wait_until: WaitUntil,
) -> None:
    """The holder and the one who waits, as a table and as JSON."""
    address = (tracker.host, tracker.port)
    ada = rpc.connect_tracker(*address, user="ada")
    bob = rpc.connect_tracker(*address, user="bob")

    def wait() -> None:
        bob.request("board", priority=3).close()

    waiting = threading.Thread(target=wait)
    with ada, bob:
        with ada.request("board", session_timeout=90):
            waiting.start()
            wait_until(lambda: ada.who().waiting, "bob waits")
            assert who.main([f"--port={tracker.port}"]) == 0
            shown = capsys.readouterr().out.splitlines()
            assert who.main([f"--port={tracker.port}", "--json"]) == 0
            told: Any = json.loads(capsys.readouterr().out)
        waiting.join()
    assert shown[0] == f"tracker 127.0.0.1:{tracker.port}"
    assert shown[3].startswith(f"board@127.0.0.1:{board.port}  busy")
    assert "  ada " in shown[3]
    assert shown[3].endswith("1 min 30 s")
    assert shown[6].split()[:3] == ["board", "1", "bob"]
    (server,) = told["servers"]
    assert (server["state"], server["holder"]["user"]) == ("busy", "ada")
    assert [(each["user"], each["priority"]) for each in told["waiting"]] == [("bob", 3)]


def test_a_tracker_of_tvm(tvm_tracker: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what it cannot tell and shows what it can; a status of its own says so to a script."""
    assert who.main([f"--port={tvm_tracker.port}"]) == 3
    captured = capsys.readouterr()
    assert "board   1      0     1" in captured.out
    assert "This tracker is TVM's" in captured.err
    assert who.main([f"--port={tvm_tracker.port}", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["summary"]["queue_info"]["board"]["pending"]) == ("tvm", 1)


def test_nobody_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to do; the environment names the tracker, as for TVM's query."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("TVM_TRACKER_HOST", "127.0.0.1")
    monkeypatch.setenv("TVM_TRACKER_PORT", str(port))
    assert who.main([]) == 1
    assert f"error: no RPC tracker at 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_tracker_that_ends_meanwhile(
    tracker: rpc.Tracker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the connection is a line, too."""

    def gone(self: object) -> None:
        raise RPCError("the tracker is gone")

    monkeypatch.setattr("pytest_tvmrpc.client.tracker.TrackerSession.who", gone)
    assert who.main([f"--port={tracker.port}"]) == 1
    assert capsys.readouterr().err == "error: the tracker is gone\n"
