"""Trackers: who gets which server, and what the tracker says about them."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

from .clients import HOST, Client
from .servers import KEY, Farm, wait_for_queue

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Iterator

    from .conftest import Cast
    from .servers import Launcher, Program

JOIN_LIMIT_S = 30.0
MAGIC = struct.pack("<i", 0x2F271)


def test_summary(tracker: Any, farm: Farm) -> None:
    """The summary names each server with its address, and counts the free ones."""
    summary = tracker.summary()
    assert summary["queue_info"][KEY] == {"free": 1, "pending": 0}
    (server,) = summary["server_info"]
    assert server["key"] == f"server:{KEY}"
    assert server["addr"] == [HOST, farm.server.port]


def test_text_summary(tracker: Any, farm: Farm) -> None:
    """The summary as text is TVM's, to the blank."""
    address = f"{HOST}:{farm.server.port}".ljust(21)
    rule = "-" * len(f"{KEY}   total  free  pending\n")
    assert tracker.text_summary() == (
        "Server List\n"
        "------------------------------\n"
        "server-address           key\n"
        "------------------------------\n"
        f"{address}    server:{KEY}\n"
        "------------------------------\n"
        "\n"
        "Queue Status\n"
        f"{rule}\n"
        f"{'key'.ljust(len(KEY))}   total  free  pending\n"
        f"{rule}\n"
        f"{KEY}   1      1     0      \n"
        f"{rule}\n"
    )


def test_request(farm_client: Client, tracker: Any) -> None:
    """A requested session is on a server of that key."""
    session = tracker.request(KEY)
    assert session.get_function("rpc.test.addone")(1) == 2
    farm_client.end(session)


def test_a_server_in_use_is_not_free(farm_client: Client, tracker: Any) -> None:
    """While a session lasts its server is not free; afterwards it offers itself again."""
    for _ in range(3):
        session = tracker.request(KEY)
        wait_for_queue(tracker, KEY, free=0)
        assert len(tracker.summary()["server_info"]) == 1
        farm_client.end(session)
        del session
        wait_for_queue(tracker, KEY, free=1)


def test_many_requests(farm_client: Client, tracker: Any) -> None:
    """One connection to the tracker may request sessions one after the other."""
    for number in range(10):
        session = tracker.request(KEY)
        assert session.get_function("rpc.test.addone")(number) == number + 1
        farm_client.end(session)
        del session


def test_the_higher_priority_is_served_first(farm_client: Client, tracker: Any, farm: Farm) -> None:
    """Of those that wait for a server, the one with the highest priority gets it, then the next."""
    served: list[int] = []

    def use(priority: int) -> None:
        with farm_client.connect_tracker(farm.tracker) as mine:
            session = mine.request(KEY, priority=priority)
            served.append(priority)
            farm_client.end(session)

    session = tracker.request(KEY)
    threads = []
    for count, priority in enumerate((1, 5, 3), start=1):
        threads.append(threading.Thread(target=use, args=(priority,), daemon=True))
        threads[-1].start()
        wait_for_queue(tracker, KEY, pending=count)
    farm_client.end(session)
    for thread in threads:
        thread.join(JOIN_LIMIT_S)
    assert served == [5, 3, 1]


def test_servers_of_two_keys(farm_client: Client, tracker: Any, farm: Farm) -> None:
    """A request is answered by a server of its key, whatever else is free."""
    with farm.another("tablet") as tablet:
        wait_for_queue(tracker, "tablet", free=1)
        first, second = tracker.request("tablet"), tracker.request(KEY)
        summary = wait_for_queue(tracker, "tablet", free=0)
        assert {tuple(server["addr"]) for server in summary["server_info"]} == {
            (HOST, farm.server.port),
            (HOST, tablet.port),
        }
        for session in (first, second):
            assert session.get_function("rpc.test.addone")(1) == 2
            farm_client.end(session)


def test_a_server_that_ends_is_forgotten(tracker: Any, farm: Farm) -> None:
    """The tracker drops a server that is gone, and what it had offered."""
    with farm.another("tablet"):
        wait_for_queue(tracker, "tablet", free=1)
    summary = wait_for_queue(tracker, "tablet", free=0)
    assert [server["key"] for server in summary["server_info"]] == [f"server:{KEY}"]


def test_request_and_run(farm_client: Client, tracker: Any) -> None:
    """The function's result is returned, and the server is free again."""

    def run(session: Any) -> int:
        result: int = session.get_function("rpc.test.addone")(41)
        return result

    assert tracker.request_and_run(KEY, run) == 42
    wait_for_queue(tracker, KEY, free=1)
    assert tracker.request_and_run(KEY, run) == 42


def test_request_and_run_of_a_function_with_a_bug(farm_client: Client, tracker: Any) -> None:
    """What the function itself raises comes out at once, without a second attempt."""
    attempts = []

    def run(session: Any) -> None:
        attempts.append(1)
        raise ValueError("a bug in the test")

    with pytest.raises(ValueError, match="a bug in the test"):
        tracker.request_and_run(KEY, run)
    assert len(attempts) == 1
    wait_for_queue(tracker, KEY, free=1)


def test_request_and_run_when_a_server_drops_out(
    farm_client: Client, tracker: Any, farm: Farm, probe: Path
) -> None:
    """When the server's process dies in the function, another server is taken and it runs again."""
    farm.suspect = True  # TVM's server does not survive this
    with farm.another(KEY):
        wait_for_queue(tracker, KEY, free=2)
        attempts = []

        def run(session: Any) -> int:
            attempts.append(1)
            session.upload(str(probe))
            module = session.load_module(probe.name)
            if len(attempts) == 1:
                module["crash"]()
            result: int = module["addone"](1)
            return result

        assert tracker.request_and_run(KEY, run) == 2
        assert len(attempts) == 2


def test_request_and_run_of_a_remote_error(farm_client: Client, tracker: Any) -> None:
    """Our client does not repeat what failed on a healthy server."""
    if farm_client.name == "tvm":
        pytest.skip("TVM's client waits for ever for a second server")
    attempts = []

    def run(session: Any) -> None:
        attempts.append(1)
        session.get_function("rpc.test.except")("boom")

    with pytest.raises(farm_client.remote_error, match="boom"):
        tracker.request_and_run(KEY, run)
    assert len(attempts) == 1
    wait_for_queue(tracker, KEY, free=1)


def test_session_timeout(farm_client: Client, tracker: Any, probe: Path) -> None:
    """A requested session ends at its limit, and its server is free for the next."""
    session = tracker.request(KEY, session_timeout=1)
    session.upload(str(probe))
    wait = session.load_module(probe.name)["wait"]
    with pytest.raises(farm_client.timeout_error):
        wait(30)
    farm_client.end(session)
    wait_for_queue(tracker, KEY, free=1)


def test_request_and_run_beyond_its_time(farm_client: Client, tracker: Any, probe: Path) -> None:
    """A function that exceeds the session's limit is not run again."""
    attempts = []

    def run(session: Any) -> None:
        attempts.append(1)
        session.upload(str(probe))
        session.load_module(probe.name)["wait"](30)

    with pytest.raises(RuntimeError, match=r"(?i)session.?timeout"):
        tracker.request_and_run(KEY, run, session_timeout=1)
    assert len(attempts) == 1
    wait_for_queue(tracker, KEY, free=1)


def test_an_unknown_key(farm_client: Client, tracker: Any) -> None:
    """Our client names the keys there are when nobody serves the one it was asked for."""
    if farm_client.name == "tvm":
        pytest.skip("TVM's client waits for ever for such a server")
    from pytest_tvmrpc.errors import UnknownKeyError

    with pytest.raises(UnknownKeyError, match=KEY):
        tracker.request("nobody-has-this")


def test_no_tracker_at_the_address(farm_client: Client, farm: Farm) -> None:
    """A server is no tracker: connecting to it as one raises."""
    with pytest.raises((RuntimeError, OSError)):
        farm_client.rpc.connect_tracker(HOST, farm.server.port)


# --- in TVM's own words -------------------------------------------------------------------------


class Wire:
    """A connection to a tracker on which anything can be said."""

    def __init__(self, tracker: Program) -> None:
        self._socket = socket.create_connection((HOST, tracker.port), JOIN_LIMIT_S)
        self._socket.sendall(MAGIC)
        assert self._receive(4) == MAGIC

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def say(self, words: Any) -> None:
        body = json.dumps(words).encode()
        self._socket.sendall(struct.pack("<i", len(body)) + body)

    def hear(self) -> Any:
        (size,) = struct.unpack("<i", self._receive(4))
        return json.loads(self._receive(size))

    def ask(self, words: Any) -> Any:
        self.say(words)
        return self.hear()

    def _receive(self, size: int) -> bytes:
        received = self._socket.recv(size, socket.MSG_WAITALL)
        assert len(received) == size, "the tracker closed the connection"
        return received


@pytest.fixture(params=["tvm", "ours"])
def any_tracker(request: pytest.FixtureRequest, launcher: Launcher) -> Iterator[Program]:
    """A tracker of either kind without any server; TVM's is the control."""
    tracker = launcher.tracker(request.param)
    yield tracker
    launcher.stop(tracker)


def test_turns_are_by_priority_then_arrival(any_tracker: Program) -> None:
    """Higher numbers first, equal ones in the order of arrival; servers in that of their offers."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Wire(any_tracker))
        clients = [stack.enter_context(Wire(any_tracker)) for _ in range(5)]
        for client, priority in zip(clients, (1, 5, 1, 5, -3), strict=True):
            client.say([4, "k", "", priority])
            assert client.ask([1]) == 0
        for number in range(5):
            assert server.ask([3, "k", [9000 + number, f"k:0.{number}"], None]) == 0
        served = [client.hear()[1][1] - 9000 for client in clients]
        assert served == [2, 0, 3, 1, 4]
        for number in range(3):
            assert server.ask([3, "k", [9100 + number, f"k:0.1{number}"], None]) == 0
        granted = [clients[0].ask([4, "k", "", 1])[1][1] for _ in range(3)]
        assert granted == [9100, 9101, 9102]


def test_pending_match_keys(any_tracker: Program) -> None:
    """A connection is told which of its own match keys nobody was given yet."""
    with Wire(any_tracker) as first, Wire(any_tracker) as second:
        assert first.ask([7]) == []
        assert first.ask([3, "k", [1, "k:0.1"], None]) == 0
        assert first.ask([3, "k", [2, "k:0.2"], "board.example"]) == 0
        assert sorted(first.ask([7])) == ["k:0.1", "k:0.2"]
        assert second.ask([7]) == []
        assert second.ask([4, "k", "", 1]) == [0, [HOST, 1, "k:0.1"]]
        assert first.ask([7]) == ["k:0.2"]
        assert second.ask([4, "k", "", 1]) == [0, ["board.example", 2, "k:0.2"]]


def test_descriptions_are_merged(any_tracker: Program) -> None:
    """Later fields join earlier ones; a C++ server's quoted port is repeated as it came."""
    with Wire(any_tracker) as server:
        assert server.ask([5, {"key": "server:k", "addr": [None, "9090"]}]) == 0
        assert server.ask([5, {"addr": ["board.example", "9090"], "cores": 4}]) == 0
        assert server.ask([6]) == [
            0,
            {
                "queue_info": {},
                "server_info": [{"key": "server:k", "addr": ["board.example", "9090"], "cores": 4}],
            },
        ]


def test_offers_go_with_their_connection(any_tracker: Program) -> None:
    """A server that introduced itself takes its free offers along; a client gets none of them."""
    with Wire(any_tracker) as client:
        with Wire(any_tracker) as server:
            server.ask([5, {"key": "server:k", "addr": [None, 1]}])
            server.ask([3, "k", [1, "k:0.1"], None])
        while client.ask([6])[1]["server_info"]:
            pass
        client.say([4, "k", "", 1])
        assert client.ask([6])[1]["queue_info"]["k"] == {"free": 0, "pending": 1}


def test_a_stop_needs_the_key(any_tracker: Program) -> None:
    """Without it the answer is failure, and the tracker goes on."""
    with Wire(any_tracker) as peer:
        assert peer.ask([2, "tracker:0.5"]) == -1
        assert peer.ask([1]) == 0


def test_what_ours_add_is_ignored(any_tracker: Program) -> None:
    """Elements behind those that TVM's tracker reads, a user's name; its ping finds out which."""
    with Wire(any_tracker) as peer:
        assert peer.ask([3, "k", [1, "k:0.1"], None, "more"]) == 0
        assert peer.ask([4, "k", "ada@desk pid 7", 1, 60]) == [0, [HOST, 1, "k:0.1"]]
        assert peer.ask([1, {"tvmrpc": 1}]) in (0, [0, {"tvmrpc": 1}])


def test_who_and_kick(farm_client: Client, tracker: Any, farm: Farm, cast: Cast) -> None:
    """Our tracker knows whoever has a server; TVM's cannot tell, and its servers take no orders."""
    if farm_client.name == "tvm":
        pytest.skip("TVM's client has no such questions")
    from pytest_tvmrpc.errors import TrackerError

    if cast.tracker == "tvm":
        assert tracker.kind == "tvm"
        with pytest.raises(TrackerError, match="summary"):
            tracker.who()
        with pytest.raises(TrackerError, match="session_timeout"):
            tracker.kick(KEY)
        return
    session = tracker.request(KEY)
    (server,) = tracker.who().servers
    assert (server.key, server.host, server.port) == (KEY, HOST, farm.server.port)
    assert server.state == "busy"
    assert server.holder.user == tracker.user
    with pytest.raises(TrackerError, match="restart the server"):
        tracker.kick(KEY)
    farm_client.end(session)
    wait_for_queue(tracker, KEY, free=1)
    (server,) = tracker.who().servers
    assert (server.state, server.holder) == ("free", None)
