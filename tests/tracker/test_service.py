"""The tracker over real sockets: any segmentation, any nonsense, and nobody harms another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from pytest_tvmrpc.network import listen
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.tracker.launch import Tracker
from pytest_tvmrpc.tracker.service import TrackerService

WaitUntil = Callable[..., None]


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
    """Its queue and description vanish from the summary."""
    server, client = peer(), peer()
    server.ask(wire.update_info("brief", 7))
    server.ask(wire.put("brief", 7, "brief:0.5"))
    assert "brief" in client.summary()["queue_info"]
    server.connection.close()
    wait_until(lambda: "brief" not in client.summary()["queue_info"], "the queue is gone")
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


def test_silence_is_closed_at_the_deadline() -> None:
    """A peer that never says the magic is cut off; one that did may be silent."""

    async def scenario() -> None:
        service = TrackerService(hello_limit_s=0.02)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(service.connection, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()[:2]
        polite, polite_writer = await asyncio.open_connection(*address)
        polite_writer.write(wire.MAGIC)
        assert await polite.readexactly(4) == wire.MAGIC
        silent, silent_writer = await asyncio.open_connection(*address)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(silent.read(), 10) == b""
        polite_writer.write(wire.ping())
        assert await polite.readexactly(5) == wire.SUCCESS
        for writer in (polite_writer, silent_writer):
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        server.close()
        service.close()
        await asyncio.sleep(0)

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
