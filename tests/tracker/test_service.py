"""The tracker over real sockets: any segmentation, any nonsense, and nobody harms another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from pytest_tvmrpc.client.tracker import connect_tracker
from pytest_tvmrpc.network import listen, set_keepalive
from pytest_tvmrpc.protocol import farm
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.server.registration import Registration
from pytest_tvmrpc.tracker import scheduler, service
from pytest_tvmrpc.tracker.launch import Tracker
from pytest_tvmrpc.tracker.service import VANISHED_S, TrackerService

WaitUntil = Callable[..., None]
Address = Tuple[str, int]


@pytest.fixture(scope="module")
def tracker() -> Iterator[Tracker]:
    """One tracker for the module: what one test does to it must not matter to the next."""
    with Tracker(port=0, silent=True) as tracker:
        yield tracker


@pytest.fixture
def peer(tracker: Tracker, deadline_s: float) -> Iterator[Callable[..., Peer]]:
    """Makes peers that have said the magic, and closes them at the end of the test."""
    with contextlib.ExitStack() as stack:

        def make(greet: bool = True) -> Peer:
            connection = socket.create_connection((tracker.host, tracker.port), deadline_s)
            made = Peer(stack.enter_context(connection))
            if greet:
                made.send(wire.MAGIC)
                assert made.receive(4) == wire.MAGIC
            return made

        yield make


class Peer:
    """Any program that speaks to a tracker."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            part = self.connection.recv(size - len(received))
            if not part:
                return received
            received += part
        return received

    def reply(self) -> Any:
        (length,) = struct.unpack("<i", self.receive(4))
        return wire.parse_json(self.receive(length))

    def ask(self, frame: bytes) -> Any:
        self.send(frame)
        return self.reply()

    def summary(self) -> Any:
        return wire.parse_summary(self.ask(wire.summary()))

    def is_closed_by_tracker(self) -> bool:
        """Whether nothing more comes, after at most the word that something failed."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self.connection.recv(4096):
                received += part
        return received in (b"", wire.FAIL)


def test_a_conversation_as_tvm_recorded_it(peer: Callable[..., Peer]) -> None:
    """Introduce, offer, ask for pending keys and the summary: TVM's own answers."""
    server, client = peer(), peer()
    match_key = "recorded:0.7956352009146216"
    assert server.ask(wire.update_info("recorded", 19100)) == 0
    assert server.ask(wire.put("recorded", 19100, match_key)) == 0
    assert server.ask(wire.get_pending_matchkeys()) == [match_key]
    state = client.summary()
    assert state["queue_info"]["recorded"] == {"free": 1, "pending": 0}
    assert {"key": "server:recorded", "addr": ["127.0.0.1", 19100]} in state["server_info"]
    assert client.ask(wire.request("recorded")) == [0, ["127.0.0.1", 19100, match_key]]
    assert server.ask(wire.get_pending_matchkeys()) == []
    assert client.ask(wire.ping()) == 0
    assert client.ask(wire.encode([2, "tracker:0.5"])) == -1


def test_two_live_servers_at_one_address(tmp_path: Path, deadline_s: float) -> None:
    """As behind one router: both stay connected, and a warning says what to do."""
    path = tmp_path / "log"
    with path.open("w") as log, Tracker(port=0, log=log) as tracker, contextlib.ExitStack() as all_:
        address = (tracker.host, tracker.port)
        servers = []
        for number in range(2):
            connection = socket.create_connection(address, deadline_s)
            server = Peer(all_.enter_context(connection))
            servers.append(server)
            server.send(wire.MAGIC)
            assert server.receive(4) == wire.MAGIC
            assert server.ask(wire.get_pending_matchkeys()) == []
            assert server.ask(wire.update_info("k", 9090)) == 0
            assert server.ask(wire.put("k", 9090, f"k:{number}")) == 0
        assert server.summary()["queue_info"]["k"] == {"free": 1, "pending": 0}
        assert servers[0].ask(wire.get_pending_matchkeys()) == ["k:0"]  # it lives
        assert server.summary()["queue_info"]["k"] == {"free": 2, "pending": 0}
    assert "WARNING two servers claim the address" in path.read_text()


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_words_arrive_in_any_segmentation(peer: Callable[..., Peer], cut: str) -> None:
    """The magic may come in pieces, and in one segment with the first frames."""
    stream = wire.MAGIC + wire.ping() + wire.summary()
    stranger = peer(greet=False)
    if cut == "byte by byte":
        for index in range(len(stream)):
            stranger.send(stream[index : index + 1])
    else:
        stranger.send(stream + (wire.ping()[:5] if cut == "with trailing bytes" else b""))
    assert stranger.receive(4) == wire.MAGIC
    assert stranger.reply() == 0
    wire.parse_summary(stranger.reply())
    if cut == "with trailing bytes":
        stranger.send(wire.ping()[5:])
        assert stranger.reply() == 0


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        struct.pack("<i", 0xFF271),
        b"\x71\xf2\x03",
    ],
    ids=["http", "tls", "ssh", "data plane", "third byte"],
)
def test_who_took_the_wrong_door_is_closed(peer: Callable[..., Peer], words: bytes) -> None:
    """Something that is no tracker peer is closed without a word, and others are served."""
    stranger = peer(greet=False)
    stranger.send(words)
    assert stranger.is_closed_by_tracker()
    assert peer().ask(wire.ping()) == 0


@pytest.mark.parametrize(
    "words",
    [
        struct.pack("<i", -1),
        struct.pack("<i", 2**31 - 1),
        struct.pack("<i", 4) + b"\xff\xff\xff\xff",
        wire.encode({}),
        wire.encode([99]),
        wire.encode([5, {"key": 5}]),
        wire.encode([5, {"key": "server:k", "addr": 7}]),
        wire.encode([3, "k", [1, "k"], None]),
        wire.encode([3, [], [1, "k:0"], None]),
        wire.encode([4, "k", "", float("nan")]),
        wire.encode([4, {}, "", 1]),
        struct.pack("<i", 100_000) + b"[" * 100_000,
    ],
)
def test_a_bad_message_harms_its_sender_only(peer: Callable[..., Peer], words: bytes) -> None:
    """The sender is closed; who was connected before still gets its summary."""
    other, bad = peer(), peer()
    bad.send(words)
    assert bad.is_closed_by_tracker()
    other.summary()


def test_a_requester_that_leaves_is_forgotten_at_once(
    peer: Callable[..., Peer], wait_until: WaitUntil
) -> None:
    """The pending request drops with its connection; the next in line gets the device."""
    first, second, server = peer(), peer(), peer()
    first.send(wire.request("left", 9))
    second.send(wire.request("left", 1))
    wait_until(lambda: pending(server, "left") == 2, "both requests are pending")
    first.connection.close()
    wait_until(lambda: pending(server, "left") == 1, "the first request was dropped")
    assert server.ask(wire.put("left", 1, "left:0.5")) == 0
    assert second.reply() == [0, ["127.0.0.1", 1, "left:0.5"]]


def test_a_server_that_leaves_takes_its_offers_along(
    peer: Callable[..., Peer], wait_until: WaitUntil
) -> None:
    """Its description vanishes from the summary; its key stays for a while, with nothing free."""
    server, client = peer(), peer()
    server.ask(wire.update_info("brief", 7))
    server.ask(wire.put("brief", 7, "brief:0.5"))
    assert client.summary()["queue_info"]["brief"] == {"free": 1, "pending": 0}
    server.connection.close()
    wait_until(lambda: not client.summary()["queue_info"]["brief"]["free"], "the offer is gone")
    assert not any(s["key"] == "server:brief" for s in client.summary()["server_info"])


def test_a_server_that_was_started_again(peer: Callable[..., Peer], deadline_s: float) -> None:
    """Its old connection, of whose end nobody has heard, is closed; it is free once."""
    old, new, client = peer(), peer(), peer()
    for server in (old, new):
        server.ask(wire.update_info("twice", 7))
        server.ask(wire.put("twice", 7, f"twice:0.{server.connection.fileno()}"))
    old.connection.settimeout(deadline_s)
    assert old.connection.recv(1) == b""
    assert client.summary()["queue_info"]["twice"] == {"free": 1, "pending": 0}
    assert [s["key"] for s in client.summary()["server_info"]].count("server:twice") == 1
    assert all(entry["key"] != "server:brief" for entry in client.summary()["server_info"])


def test_an_address_of_its_own_is_granted(peer: Callable[..., Peer]) -> None:
    """A server may name the address for its clients; one to listen on is not taken for it."""
    server, client = peer(), peer()
    server.ask(wire.put("own", 1, "own:0.1", "board.example"))
    server.ask(wire.put("own", 1, "own:0.2", "0.0.0.0"))
    assert client.ask(wire.request("own")) == [0, ["board.example", 1, "own:0.1"]]
    assert client.ask(wire.request("own")) == [0, ["127.0.0.1", 1, "own:0.2"]]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_peer_that_does_not_read_costs_nothing(
    tracker: Tracker, peer: Callable[..., Peer]
) -> None:
    """Thousands of unread answers are not kept: they are made when there is room for them."""
    large, hog, other = peer(), peer(), peer()
    large.ask(wire.encode([5, {"key": "server:large", "padding": "x" * 16000}]))
    before = resident_bytes(tracker.program.pid)
    count = 10_000  # 160 MB of answers
    hog.send(wire.summary() * count)
    for _ in range(10):
        other.summary()
    assert resident_bytes(tracker.program.pid) - before < 16 << 20
    for _ in range(20):  # none was left out
        wire.parse_summary(hog.reply())


def test_a_peer_that_asks_for_everything(peer: Callable[..., Peer]) -> None:
    """It is closed before its keys are a burden; everybody's summary is as small as it was."""
    greedy, other = peer(), peer()
    for number in range(1000):
        with contextlib.suppress(OSError):  # it was closed meanwhile
            greedy.send(wire.request(f"{number}" + "k" * 250))
    assert greedy.is_closed_by_tracker()
    long = peer()
    long.send(wire.encode([4, "k" * 257, "", 1]))
    assert long.is_closed_by_tracker()
    assert len(wire.encode(other.summary())) < 100_000


def test_silence_is_closed_at_the_deadline(deadline_s: float) -> None:
    """A peer that never says the magic is cut off; one that did may be silent."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        service = TrackerService(loop, hello_limit_s=deadline_s / 100)
        listener = listen("127.0.0.1", 0)
        door = service.listen(listener)
        address = listener.getsockname()
        polite, polite_writer = await asyncio.open_connection(*address)
        polite_writer.write(wire.MAGIC)
        assert await polite.readexactly(4) == wire.MAGIC
        silent, silent_writer = await asyncio.open_connection(*address)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(silent.read(), deadline_s) == b""
        polite_writer.write(wire.ping())
        assert await polite.readexactly(5) == wire.SUCCESS
        for writer in (polite_writer, silent_writer):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        door.close()
        listener.close()
        service.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals, wait_until: WaitUntil) -> None:
    """Peers see the end of the stream, and the process its own success."""
    with Tracker(port=0, silent=True) as tracker:
        with socket.create_connection((tracker.host, tracker.port), 10) as connection:
            connection.sendall(wire.MAGIC)
            assert connection.recv(4) == wire.MAGIC
            os.kill(tracker.program.pid, number)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(4) == b""
        wait_until(lambda: not tracker.program.alive, "the tracker ended")
        assert tracker.program.ended() == "exited with 0"


def test_it_serves_a_socket_that_was_bound_before() -> None:
    """Whoever holds the listening socket knows the port before the tracker runs."""
    with listen("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        with socket.create_connection((host, port), 10) as early:
            early.sendall(wire.MAGIC)
            with Tracker(listener=listener, silent=True) as tracker:
                assert (tracker.host, tracker.port) == (host, port)
                assert early.recv(4) == wire.MAGIC


def pending(peer: Peer, key: str) -> int:
    count: int = peer.summary()["queue_info"].get(key, {"pending": 0})["pending"]
    return count


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


# --- what only ours know ------------------------------------------------------------------------


def test_a_greeting_tells_ours_from_tvms(peer: Callable[..., Peer]) -> None:
    """With an element that TVM's tracker ignores; a plain ping is answered as ever."""
    server, client = peer(), peer()
    assert client.ask(wire.ping()) == 0
    assert client.ask(wire.greet()) == [0, {"tvmrpc": 1}]
    assert client.ask(wire.greet(key="greeted")) == [0, {"tvmrpc": 1, "served": False}]
    server.ask(wire.put("greeted", 1, "greeted:0.5"))
    assert client.ask(wire.greet(key="greeted")) == [0, {"tvmrpc": 1, "served": True}]


def test_who_has_what_is_told(peer: Callable[..., Peer]) -> None:
    """Holder and queue, with the users' names, addresses and places."""
    server, first, second = peer(), peer(), peer()
    server.ask(wire.put("held", 7, "held:0.5"))
    first.ask(wire.request("held", user="ada", session_timeout=60))
    second.send(wire.request("held", 2, "bob"))
    state = farm.parse_farm(second.ask(farm.who()))
    (held,) = [entry for entry in state.servers if entry.key == "held"]
    assert (held.address, held.state) == ("127.0.0.1:7", farm.State.BUSY)
    assert held.holder is not None
    assert (held.holder.user, held.holder.limit_s) == ("ada", 60)
    assert held.holder.peer == "{}:{}".format(*first.connection.getsockname())
    (waiting,) = [entry for entry in state.waiting if entry.key == "held"]
    assert waiting[:5] == (
        *("held", "bob", "{}:{}".format(*second.connection.getsockname())),
        *(1, 2),
    )


def test_a_kick_reaches_the_server_that_takes_orders(peer: Callable[..., Peer]) -> None:
    """The order comes between other answers; who kicked is told what came of it."""
    server, deaf, client = peer(), peer(), peer()
    server.ask(wire.greet(takes_orders=True))
    server.ask(wire.put("kicked", 7, "kicked:0.5"))
    deaf.ask(wire.put("kicked", 8, "kicked:0.6"))
    client.ask(wire.request("kicked"))
    client.ask(wire.request("kicked"))
    assert set(farm.parse_kicked(client.ask(farm.kick("kicked", "lunch")))) == {
        farm.Kicked("127.0.0.1:7", farm.Outcome.KICKED),
        farm.Kicked("127.0.0.1:8", farm.Outcome.DEAF),
    }
    assert farm.parse_order(server.reply()) == farm.KickOrder("lunch", "kicked:0.5")
    assert deaf.ask(wire.ping()) == 0  # no order before it
    assert farm.parse_kicked(client.ask(farm.kick("nobody"))) == []


def test_a_stop_needs_its_key(deadline_s: float, wait_until: WaitUntil) -> None:
    """The wrong one is answered with failure; the right one ends the tracker, and all hear it."""
    with Tracker(port=0, silent=True) as tracker:
        connections = [
            socket.create_connection((tracker.host, tracker.port), deadline_s) for _ in range(2)
        ]
        peers = [Peer(connection) for connection in connections]
        for stopper in peers:
            stopper.send(wire.MAGIC)
            assert stopper.receive(4) == wire.MAGIC
        for wrong in ("", "tracker:0.5", tracker.stop_key + "0"):
            assert peers[0].ask(wire.encode([2, wrong])) == -1
        assert tracker.stop_key.startswith("tracker:")
        assert peers[0].ask(wire.encode([2, tracker.stop_key])) == 0
        for stopper in peers:
            assert stopper.is_closed_by_tracker()
            stopper.connection.close()
        wait_until(lambda: not tracker.program.alive, "the tracker ended")
        assert tracker.program.ended() == "exited with 0"


def test_a_silent_server_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that used to ask for its match keys is not handed out until it asks again."""
    monkeypatch.setattr(scheduler, "SILENT_S", 0.05)
    monkeypatch.setattr(service, "EXPIRE_EVERY_S", 0.01)

    async def answer(reader: asyncio.StreamReader) -> Any:
        (length,) = struct.unpack("<i", await reader.readexactly(4))
        return wire.parse_json(await reader.readexactly(length))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        running = TrackerService(loop)
        listener = listen("127.0.0.1", 0)
        door = running.listen(listener)
        server, says = await asyncio.open_connection(*listener.getsockname())
        says.write(wire.MAGIC + wire.put("k", 7, "k:0.5") + wire.get_pending_matchkeys())
        assert await server.readexactly(9) == wire.MAGIC + wire.SUCCESS
        assert await answer(server) == ["k:0.5"]
        while running.scheduler.summary()["queue_info"]["k"]["free"]:
            await asyncio.sleep(0.005)
        (silent,) = running.scheduler.who(loop.time()).servers
        assert silent.state == farm.State.SILENT
        says.write(wire.request("k") + wire.get_pending_matchkeys())  # it waits, then talks
        assert await answer(server) == []
        assert await answer(server) == [0, ["127.0.0.1", 7, "k:0.5"]]
        says.close()
        with contextlib.suppress(OSError):
            await says.wait_closed()
        door.close()
        listener.close()
        running.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_its_connections_notice_a_vanished_peer() -> None:
    """What the listener is told about liveness holds for every connection."""
    with listen("127.0.0.1", 0) as listener:
        set_keepalive(listener, VANISHED_S)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as far:
            assert far.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            for name, expected in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
                if hasattr(socket, name):
                    assert far.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == expected
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000


@pytest.mark.parametrize("key", ["192.168.0.143:5555", "gerät", '"', "a'b", "{}", "板"])
def test_a_key_is_the_same_everywhere(
    tracker: Tracker, peer: Callable[..., Peer], key: str
) -> None:
    """Registered, summed up, listed and granted: colons, quotes and all letters are fine."""
    server = peer()
    registration = Registration(key, 7, entropy=os.urandom)
    registration.connected(0)
    server.send(registration.received(wire.MAGIC, 0))
    assert [server.reply() for _ in range(2)] == [0, 0]
    with connect_tracker(tracker.host, tracker.port) as client:
        assert client.summary()["queue_info"][key] == {"free": 1, "pending": 0}
        assert f"server:{key}\n" in client.text_summary()
        assert [entry.key for entry in client.who().servers if entry.port == 7].count(key) == 1
    assert peer().ask(wire.request(key)) == [0, ["127.0.0.1", 7, registration.match_key]]


# --- nobody at the expense of others ------------------------------------------------------------


@contextlib.contextmanager
def in_this_process(
    loop: asyncio.AbstractEventLoop, **limits: Any
) -> Iterator[Tuple[TrackerService, Address]]:
    """A tracker in the loop that runs, and its address."""
    listener = listen("127.0.0.1", 0)
    running = TrackerService(loop, **limits)
    door = running.listen(listener)
    try:
        yield running, listener.getsockname()
    finally:
        door.close()
        listener.close()
        running.close()


async def greeted(address: Address, stack: contextlib.ExitStack) -> Any:
    """The two ends of a connection that has said the magic."""
    reads, writes = await asyncio.open_connection(*address)
    stack.callback(writes.close)
    writes.write(wire.MAGIC)
    assert await reads.readexactly(4) == wire.MAGIC
    return reads, writes


def test_long_answers_are_given_one_at_a_time() -> None:
    """Who asks for all servers over and over does not keep others waiting."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with in_this_process(loop) as (running, address), contextlib.ExitStack() as stack:
            _, flood = await greeted(address, stack)
            other, asks = await greeted(address, stack)
            made: List[float] = []
            real = running.scheduler.who

            def who(now: float) -> farm.Farm:
                if not made:
                    asks.write(wire.ping())
                made.append(now)
                return real(now)

            running.scheduler.who = who  # type: ignore[method-assign]
            flood.write(farm.who() * 60)
            assert await other.readexactly(5) == wire.SUCCESS
            assert len(made) < 20

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_what_took_long_is_kept() -> None:
    """For ten times as long; what is made quickly is always made anew."""
    now, cost_s = 0.0, 0.1

    def make() -> bytes:
        nonlocal now
        now += cost_s
        return str(now).encode()

    kept = service.Kept(make, lambda: now)
    assert kept.renew()
    assert kept.answer == b"0.1"
    now = 1.0
    assert not kept.renew()
    now, cost_s = 2.0, 0.0
    assert kept.renew()
    assert kept.renew()
    assert kept.answer == b"2.0"


def test_what_has_not_changed_is_kept() -> None:
    """As long as the version is the same; another one has it made anew."""
    made, version = 0, 0

    def make() -> bytes:
        nonlocal made
        made += 1
        return b"%d" % made

    kept = service.Kept(make, lambda: 0.0, lambda: version)
    assert [kept.renew(), kept.renew(), kept.answer] == [True, False, b"1"]
    version = 1
    assert [kept.renew(), kept.renew(), kept.answer] == [True, False, b"2"]


def test_the_longest_request(peer: Callable[..., Peer]) -> None:
    """A length above the limit is refused before any of it comes."""
    last, over = peer(), peer()
    last.send(struct.pack("<i", wire.MAX_REQUEST) + b"[1]".ljust(wire.MAX_REQUEST))
    assert last.reply() == 0
    over.send(struct.pack("<i", wire.MAX_REQUEST + 1))
    assert over.is_closed_by_tracker()


def test_unfinished_messages_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over it, whoever has most is closed; those with less, and with none, go on."""
    monkeypatch.setattr(service, "MAX_PARTIAL", 100_000)

    def unfinished(nbytes: int) -> bytes:
        return struct.pack("<i", wire.MAX_REQUEST) + b" " * (nbytes - 4)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with in_this_process(loop) as (running, address), contextlib.ExitStack() as stack:
            other, asks = await greeted(address, stack)
            small, some = await greeted(address, stack)
            greedy, most = await greeted(address, stack)
            some.write(unfinished(30_000))
            most.write(unfinished(60_000))
            while running.unfinished.nbytes < 90_000:
                await asyncio.sleep(0.001)
            _, last = await greeted(address, stack)
            last.write(unfinished(20_000))
            with contextlib.suppress(ConnectionResetError):
                assert await greedy.read() == wire.FAIL
            some.write(b" " * (wire.MAX_REQUEST - 30_000 + 1) + b"[1]" + b" ")
            asks.write(wire.ping())
            assert await other.readexactly(5) == wire.SUCCESS
            assert running.unfinished.nbytes <= 100_000
            assert len(running.connections) >= 3
        assert small is not None

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_young_tracker_does_not_know_yet() -> None:
    """Whether a key has servers: not before they have had time to come back, unless they have."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        young, old = TrackerService(loop, young_s=60), TrackerService(loop)
        for running in (young, old):
            running.scheduler.put("server", "k", wire.Granted("h", 1, "k:0.5"), 0)
            assert running.is_served("k") is True
        assert young.is_served("other") is None
        assert old.is_served("other") is False

    asyncio.run(scenario())
