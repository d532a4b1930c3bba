"""A proxy, a tracker, and servers behind the one that are found at the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from pytest_tvmrpc import network
from pytest_tvmrpc.network import LOOPBACK
from pytest_tvmrpc.protocol import farm
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.proxy import listing, registration, uplink
from pytest_tvmrpc.proxy.lookup import Lookup
from pytest_tvmrpc.proxy.uplink import Uplink
from pytest_tvmrpc.tracker.launch import Tracker

from .conftest import MISMATCH, SUCCESS, Address, MakePeer, running_service

WaitUntil = Callable[..., None]


class Questions:
    """Somebody who asks a tracker."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._stream = connection.makefile("rb")
        connection.sendall(wire.MAGIC)
        assert self._stream.read(4) == wire.MAGIC

    def ask(self, frame: bytes) -> Any:
        self.connection.sendall(frame)
        (length,) = struct.unpack("<i", self._stream.read(4))
        return wire.parse_json(self._stream.read(length))

    def summary(self) -> Any:
        return wire.parse_summary(self.ask(wire.summary()))

    def free(self, key: str) -> int:
        """How many servers with this key are free."""
        return int(self.summary()["queue_info"].get(key, {"free": 0})["free"])

    def grant(self, key: str) -> wire.Granted:
        return wire.parse_granted(self.ask(wire.request(key)))

    def close(self) -> None:
        self._stream.close()
        self.connection.close()


@pytest.fixture(name="tracker")
def _tracker() -> Iterator[Tracker]:
    with Tracker(port=0, silent=True) as tracker:
        yield tracker


@pytest.fixture(name="ask")
def _ask(deadline_s: float) -> Iterator[Callable[[Tracker], Questions]]:
    """``ask(tracker)`` connects to it."""
    with contextlib.ExitStack() as stack:

        def make(tracker: Tracker) -> Questions:
            address = (tracker.host, tracker.port)
            made = Questions(socket.create_connection(address, deadline_s))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(name="proxy")
def _proxy(tracker: Tracker) -> Iterator[Address]:
    with running_service((tracker.host, tracker.port)) as address:
        yield address


@pytest.fixture(name="quick")
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offer that nobody takes up is replaced sooner than usual."""
    monkeypatch.setattr(registration, "POLL_S", 0.02)
    monkeypatch.setattr(registration, "UNUSED_S", 0.1)


def test_a_server_behind_a_proxy_is_found_at_the_tracker(
    tracker: Tracker,
    proxy: Address,
    dial: MakePeer,
    ask: Callable[[Tracker], Questions],
    wait_until: WaitUntil,
) -> None:
    """At the proxy's address, by a match key of its own; both are told what TVM tells them."""
    server = dial(proxy, "server:phone -x=1")
    questions = ask(tracker)
    granted = questions.grant("phone")
    assert (granted.host, granted.port) == proxy
    assert granted.match_key.startswith("phone:0.")
    client = dial(proxy, f"client:{granted.match_key} -timeout=2")
    assert server.partner() == f"client:{granted.match_key} -timeout=2"
    assert client.partner() == "server:phone -x=1"
    client.send(b"x")
    assert server.receive(1) == b"x"
    assert questions.free("phone") == 0
    again = dial(proxy, f"client:{granted.match_key}")
    assert again.code() == MISMATCH
    assert again.is_closed()


def test_the_summary_shows_it_as_tvm_does(
    tracker: Tracker,
    proxy: Address,
    dial: MakePeer,
    ask: Callable[[Tracker], Questions],
    wait_until: WaitUntil,
) -> None:
    """One entry for the proxy, with the keys of its servers; nothing before there is one."""
    questions = ask(tracker)

    def shown() -> List[Any]:
        return list(questions.summary()["server_info"])

    assert shown() == []
    for key in ("phone", "phone", "tablet"):
        dial(proxy, f"server:{key}")
    name = "server:proxy[phone,tablet]"
    wait_until(lambda: shown() == [{"key": name, "addr": list(proxy)}], "all keys are shown")
    wait_until(lambda: (questions.free("phone"), questions.free("tablet")) == (2, 1), "all free")


def test_a_key_goes_with_its_servers(
    tracker: Tracker,
    proxy: Address,
    dial: MakePeer,
    ask: Callable[[Tracker], Questions],
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some time after the last one, the tracker says again that nobody serves it."""
    monkeypatch.setattr(listing, "STAYS_S", 0.05)
    questions = ask(tracker)
    phones = [dial(proxy, "server:phone") for _ in range(2)]
    dial(proxy, "server:tablet")
    wait_until(lambda: questions.free("phone") == 2, "the phones are free")

    def shown() -> str:
        (entry,) = questions.summary()["server_info"]
        return str(entry["key"])

    phones[0].close()
    wait_until(lambda: questions.free("phone") == 1, "one phone is gone")
    assert shown() == "server:proxy[phone,tablet]"
    phones[1].close()
    wait_until(lambda: shown() == "server:proxy[tablet]", "the key is gone")
    assert questions.ask(wire.greet(key="phone")) == [0, {"tvmrpc": 1, "served": False}]


def test_nobody_waits_for_a_server(proxy: Address, dial: MakePeer) -> None:
    """A match key that is unknown, or the plain key, is refused at once."""
    dial(proxy, "server:phone")
    for key in ("phone", "phone:0.5", ""):
        client = dial(proxy, f"client:{key}")
        assert client.code() == MISMATCH
        assert client.is_closed()


def test_a_server_needs_a_key(proxy: Address, dial: MakePeer) -> None:
    """One without, or with one that no tracker takes, is refused; others are not disturbed."""
    for key in ("", "x" * 300):
        server = dial(proxy, f"server:{key}")
        assert server.code() == MISMATCH
        assert server.is_closed()


@pytest.mark.usefixtures("quick")
def test_an_unused_offer_is_offered_anew_under_the_right_key(
    tracker: Tracker, proxy: Address, dial: MakePeer, ask: Callable[[Tracker], Questions]
) -> None:
    """Again and again; the old match key is good for nothing then, and no other key appears."""
    server = dial(proxy, "server:phone")
    questions = ask(tracker)
    seen = [questions.grant("phone").match_key for _ in range(4)]  # each waits for the next offer
    assert len(set(seen)) == 4
    assert all(match_key.startswith("phone:0.") for match_key in seen)
    assert set(questions.summary()["queue_info"]) == {"phone"}
    assert dial(proxy, f"client:{seen[0]}").code() == MISMATCH
    reply = MISMATCH
    while reply != SUCCESS:  # we may be slower than the shortened time
        match_key = questions.grant("phone").match_key
        reply = dial(proxy, f"client:{match_key}").code()
    assert server.partner() == f"client:{match_key}"


def test_a_tracker_that_comes_back(
    dial: MakePeer, ask: Callable[[Tracker], Questions], wait_until: WaitUntil
) -> None:
    """All servers are there again, under their own keys, and by other match keys than before."""
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(Tracker(port=0, silent=True))
        proxy = stack.enter_context(running_service((tracker.host, tracker.port)))
        servers = [dial(proxy, f"server:{key}") for key in ("phone", "phone", "tablet")]
        questions = ask(tracker)
        wait_until(lambda: questions.free("phone") == 2, "the phones are free")
        old = questions.grant("tablet").match_key
        tracker.terminate()
        refused = dial(proxy, "client:unknown")
        assert refused.code() == MISMATCH
        tracker = stack.enter_context(Tracker(port=tracker.port, silent=True))
        questions = ask(tracker)
        wait_until(
            lambda: (questions.free("phone"), questions.free("tablet")) == (2, 1), "all is back"
        )
        assert set(questions.summary()["queue_info"]) == {"phone", "tablet"}
        shown = "server:proxy[phone,tablet]"
        wait_until(
            lambda: [one["key"] for one in questions.summary()["server_info"]] == [shown],
            "the proxy is shown again",
        )
        assert dial(proxy, f"client:{old}").code() == MISMATCH
        new = questions.grant("tablet").match_key
        client = dial(proxy, f"client:{new}")
        assert client.partner() == "server:tablet"
        assert servers[2].partner() == f"client:{new}"


def test_a_tracker_that_comes_late(dial: MakePeer, ask: Callable[[Tracker], Questions]) -> None:
    """Whoever starts first waits for the other."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
    with running_service((LOOPBACK, port)) as proxy:
        dial(proxy, "server:phone")
        assert dial(proxy, "client:phone").code() == MISMATCH  # the proxy is up, and alone
        with Tracker(port=port, silent=True) as tracker:
            granted = ask(tracker).grant("phone")
            assert dial(proxy, f"client:{granted.match_key}").partner() == "server:phone"


def test_a_server_that_leaves_is_withdrawn(
    tracker: Tracker,
    proxy: Address,
    dial: MakePeer,
    ask: Callable[[Tracker], Questions],
    wait_until: WaitUntil,
) -> None:
    """The tracker does not give anybody a server that is not there; others of its key stay."""
    first, second = dial(proxy, "server:phone"), dial(proxy, "server:phone")
    questions = ask(tracker)
    wait_until(lambda: questions.free("phone") == 2, "both are free")
    first.close()
    wait_until(lambda: questions.free("phone") == 1, "one is left")
    granted = questions.grant("phone")
    client = dial(proxy, f"client:{granted.match_key}")
    assert client.partner() == "server:phone"
    assert second.partner() == f"client:{granted.match_key}"


def test_many_servers_of_the_same_key(
    tracker: Tracker,
    proxy: Address,
    dial: MakePeer,
    ask: Callable[[Tracker], Questions],
    wait_until: WaitUntil,
) -> None:
    """A hundred are offered, and each client has one for itself."""
    count = 100
    servers = [dial(proxy, "server:phone") for _ in range(count)]
    questions = ask(tracker)
    wait_until(lambda: questions.free("phone") == count, "all are offered")
    clients = {}
    for _ in range(count):
        match_key = questions.grant("phone").match_key
        clients[match_key] = dial(proxy, f"client:{match_key}")
        clients[match_key].send(match_key.encode())
    for server in servers:
        match_key = server.partner()[len("client:") :]
        assert server.receive(len(match_key)) == match_key.encode()
        client = clients.pop(match_key)
        assert client.partner() == "server:phone"
    assert not clients


def test_who_has_it_and_his_end(
    tracker: Tracker, proxy: Address, dial: MakePeer, ask: Callable[[Tracker], Questions]
) -> None:
    """Our tracker tells who has a server behind a proxy, and can end his session."""
    server = dial(proxy, "server:phone")
    questions = ask(tracker)
    granted = wire.parse_granted(questions.ask(wire.request("phone", 1, "me")))
    client = dial(proxy, f"client:{granted.match_key}")
    assert client.partner() == "server:phone"
    server.partner()
    held = farm.parse_farm(questions.ask(farm.who())).servers
    assert [(one.key, one.holder and one.holder.user) for one in held] == [("phone", "me")]
    results = farm.parse_kicked(questions.ask(farm.kick("phone", "lunch")))
    assert [result.outcome for result in results] == [farm.Outcome.KICKED]
    assert client.is_closed()
    assert server.is_closed()


class ScriptedTracker:
    """Speaks as little as it is told to."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(10)
        return connection

    def read(self, connection: socket.socket) -> List[Any]:
        """The next messages."""
        ready, _, _ = select.select([connection], [], [], 10)
        assert ready
        received, found = connection.recv(65536), []
        while received:
            (length,) = struct.unpack_from("<i", received)
            found.append(wire.parse_json(received[4 : 4 + length]))
            received = received[4 + length :]
        return found


@pytest.fixture(name="scripted")
def _scripted() -> Iterator[Tuple[ScriptedTracker, Address]]:
    """A tracker of our own, and a proxy that knows it."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(10)
        with running_service(listener.getsockname()) as proxy:
            yield ScriptedTracker(listener), proxy


def test_the_magic_stands_alone(scripted: Tuple[ScriptedTracker, Address], dial: MakePeer) -> None:
    """TVM's tracker closes a connection that says more before it has answered."""
    tracker, proxy = scripted
    dial(proxy, "server:phone")
    introductions = []
    with tracker.accept() as first, tracker.accept() as second:
        for connection in (first, second):
            assert connection.recv(100) == wire.MAGIC
            connection.sendall(wire.MAGIC)
            introductions.append(tracker.read(connection))
    own, server = sorted(introductions, key=len)  # either may be the first
    assert own == [[5, {"key": "server:proxy[phone]", "addr": [None, proxy[1]]}]]
    assert server[0] == [5, {"key": "proxied:phone", "addr": [None, proxy[1]]}]
    code, key, (port, match_key), custom_addr = server[1]
    assert (code, key, port, custom_addr) == (3, "phone", proxy[1], None)
    assert match_key.startswith("phone:0.")


def test_something_that_is_no_tracker(
    scripted: Tuple[ScriptedTracker, Address], dial: MakePeer
) -> None:
    """The proxy leaves it and tries again; it goes on serving."""
    tracker, proxy = scripted
    for _ in range(2):
        with tracker.accept() as connection:
            assert connection.recv(4) == wire.MAGIC
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    assert dial(proxy, "client:phone").code() == MISMATCH


def test_a_connection_that_is_not_wanted_any_more() -> None:
    """Closed at any step of its way to the tracker, there is no connection, and no other try."""

    async def scenario(steps: int, address: Address) -> None:
        words = registration.Registration("proxied:phone", 1, "phone", entropy=os.urandom)
        link = Uplink("the tracker", Lookup(address), words, lambda: None)
        for _ in range(steps):
            await asyncio.sleep(0)
        link.close()
        done, _ = await asyncio.wait({link.task}, timeout=10)
        assert done, f"it goes on after {steps} steps"
        await asyncio.sleep(0)

    with socket.create_server((LOOPBACK, 0), backlog=100) as listener:
        for steps in range(40):
            asyncio.run(scenario(steps, listener.getsockname()))


def test_an_address_of_the_tracker_that_answers_nothing(
    monkeypatch: pytest.MonkeyPatch, deadline_s: float
) -> None:
    """Each address of the name has its share of the limit, so the next one is reached."""
    monkeypatch.setattr(uplink, "CONNECT_LIMIT_S", 0.4)
    reached = []

    async def scenario(port: int) -> None:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in ("127.0.0.2", LOOPBACK)
        ]
        monkeypatch.setattr(network.socket, "getaddrinfo", lambda *_, **__: found)
        words = registration.Registration("proxied:phone", 1, "phone", entropy=os.urandom)
        link = Uplink("the tracker", Lookup(("farm", port)), words, lambda: None)
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        connection, _ = await asyncio.wait_for(loop.sock_accept(listener), deadline_s)
        with connection:
            reached.append(await asyncio.wait_for(loop.sock_recv(connection, 4), deadline_s))
        link.close()
        await asyncio.wait({link.task})
        await asyncio.sleep(0)

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK, 0)))
        port = listener.getsockname()[1]
        full = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(3):  # the kernel ignores who comes when the queue is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        asyncio.run(scenario(port))
    assert reached == [wire.MAGIC]
