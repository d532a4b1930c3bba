"""The proxy over real sockets: pairs, bytes, ends, and peers that harm nobody but themselves."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import signal
import socket
import struct
import threading
from pathlib import Path
from typing import Callable, Iterator, List, Tuple

import pytest

from pytest_tvmrpc.network import listen
from pytest_tvmrpc.proxy.launch import Proxy
from pytest_tvmrpc.proxy.service import MAX_EARLY

from .conftest import DUPLICATE, MISMATCH, MakePeer, Peer, hello, running_service

WaitUntil = Callable[..., None]

SIDES = ("server", "client")


@pytest.fixture(name="proxy", scope="module")
def _proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One proxy for the module: what one test does to it must not matter to the next."""
    log = (tmp_path_factory.mktemp("proxy") / "log").open("wb")
    with log, Proxy(port=0, log=log) as proxy:
        yield proxy


@pytest.fixture(name="join")
def _join(proxy: Proxy, dial: MakePeer) -> Callable[[str], Tuple[Peer, Peer]]:
    """``join("k")`` makes a server and a client with this key, paired."""

    def join(key: str) -> Tuple[Peer, Peer]:
        server = dial((proxy.host, proxy.port), f"server:{key}")
        client = dial((proxy.host, proxy.port), f"client:{key}")
        assert server.partner() == f"client:{key}"
        assert client.partner() == f"server:{key}"
        return server, client

    return join


@pytest.mark.parametrize("first", ["server", "client"])
def test_each_is_told_the_others_whole_key(proxy: Proxy, dial: MakePeer, first: str) -> None:
    """Options included, as TVM's proxy was recorded; then every byte goes through."""
    keys = {"server": "server:pk -x=1", "client": "client:pk -timeout=30"}
    peers = {}
    for side in sorted(keys, key=lambda side: side != first):
        peers[side] = dial((proxy.host, proxy.port), keys[side])
    assert peers["server"].partner() == keys["client"]
    assert peers["client"].partner() == keys["server"]
    peers["client"].send(b"\0ping\xff")
    assert peers["server"].receive(6) == b"\0ping\xff"
    peers["server"].send(b"pong")
    assert peers["client"].receive(4) == b"pong"


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_a_hello_in_any_segmentation(proxy: Proxy, dial: MakePeer, cut: str) -> None:
    """What comes behind it is kept for the partner, whoever is first."""
    server = dial((proxy.host, proxy.port))
    client = dial((proxy.host, proxy.port))
    for peer, key in ((client, "client:cut"), (server, "server:cut")):
        words = hello(key)
        if cut == "byte by byte":
            peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for index in range(len(words)):
                peer.send(words[index : index + 1])
        else:
            peer.send(words + (b"early" if cut == "with trailing bytes" else b""))
    for peer, key in ((client, "server:cut"), (server, "client:cut")):
        assert peer.partner() == key
        peer.send(b"late")
    for peer in (client, server):
        expected = b"earlylate" if cut == "with trailing bytes" else b"late"
        assert peer.receive(len(expected)) == expected


def test_early_words_have_a_limit(proxy: Proxy, dial: MakePeer) -> None:
    """So much is kept for a server that may come; who says more is closed."""
    client = dial((proxy.host, proxy.port), "client:early")
    client.send(b"x" * MAX_EARLY)
    server = dial((proxy.host, proxy.port), "server:early")
    assert server.partner() == "client:early"
    assert server.receive(MAX_EARLY) == b"x" * MAX_EARLY
    greedy = dial((proxy.host, proxy.port), "client:greedy")
    with contextlib.suppress(OSError):
        greedy.send(b"x" * (MAX_EARLY + 1))
    assert greedy.is_closed()


def test_the_empty_key_is_one_like_any_other(proxy: Proxy, dial: MakePeer) -> None:
    """A server without a key and a client without one, whose options are no key."""
    server = dial((proxy.host, proxy.port), "server:")
    client = dial((proxy.host, proxy.port), "client: -timeout=2")
    assert server.partner() == "client: -timeout=2"
    assert client.partner() == "server:"


def test_a_duplicate_is_told_so(proxy: Proxy, dial: MakePeer) -> None:
    """And closed; the first one of that side and key is still paired."""
    for side, other in (("server", "client"), ("client", "server")):
        key = f"double-{side}"
        first = dial((proxy.host, proxy.port), f"{side}:{key}")
        second = dial((proxy.host, proxy.port), f"{side}:{key}")
        # Whichever of the two connections the proxy saw first is the one that waits.
        ready, _, _ = select.select([first.connection, second.connection], [], [], 10)
        refused = first if first.connection in ready else second
        assert refused.code() == DUPLICATE
        assert refused.is_closed()
        partner = dial((proxy.host, proxy.port), f"{other}:{key}")
        assert partner.partner() == f"{side}:{key}"


def test_who_left_is_not_paired(proxy: Proxy, dial: MakePeer) -> None:
    """A server that closes while it waits leaves its key to the next one."""
    gone = dial((proxy.host, proxy.port), "server:gone")
    probe = dial((proxy.host, proxy.port), "server:gone")
    assert probe.code() == DUPLICATE  # so the first one is known
    gone.close()
    # The proxy may hear of the end after the next hello; then that one is a duplicate, too.
    for _ in range(100):
        server = dial((proxy.host, proxy.port), "server:gone")
        if not select.select([server.connection], [], [], 0.1)[0]:
            break
    client = dial((proxy.host, proxy.port), "client:gone")
    assert server.partner() == "client:gone"
    assert client.partner() == "server:gone"


def test_waits_end(dial: MakePeer, tmp_path: Path) -> None:
    """Each side after its own time, with the code for a key that does not match."""
    with (tmp_path / "log").open("wb") as log, Proxy(
        port=0, timeout_client=0.05, timeout_server=0.1, log=log
    ) as proxy:
        for side in ("client", "server"):
            peer = dial((proxy.host, proxy.port), f"{side}:alone")
            assert peer.code() == MISMATCH
            assert peer.is_closed()


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        struct.pack("<i", 0x2F271),
        struct.pack("<ii", 0xFF271, 0),
        struct.pack("<ii", 0xFF271, -1),
        struct.pack("<ii", 0xFF271, 1 << 30) + b"x" * 100,
        struct.pack("<ii", 0xFF271, 9) + b"client:\xff\xfe",
    ],
    ids=["http", "tls", "tracker", "empty", "negative", "huge", "not text"],
)
def test_nonsense_is_closed(proxy: Proxy, dial: MakePeer, words: bytes) -> None:
    """Without a word; others are served."""
    stranger = dial((proxy.host, proxy.port))
    stranger.send(words)
    assert stranger.is_closed()


def test_a_key_of_any_seven_characters_is_a_clients(proxy: Proxy, dial: MakePeer) -> None:
    """As with TVM's proxy, which looks at ``server:`` only."""
    odd = dial((proxy.host, proxy.port), "javascrodd")
    server = dial((proxy.host, proxy.port), "server:odd")
    assert server.partner() == "javascrodd"
    assert odd.partner() == "server:odd"


def test_many_pairs_at_once(proxy: Proxy, dial: MakePeer) -> None:
    """Two hundred, all with something to say; none gets another's."""
    count = 200
    servers = [dial((proxy.host, proxy.port), f"server:many{n}") for n in range(count)]
    clients = [dial((proxy.host, proxy.port), f"client:many{n}") for n in reversed(range(count))]
    clients.reverse()
    for n in range(count):
        assert servers[n].partner() == f"client:many{n}"
        assert clients[n].partner() == f"server:many{n}"
        clients[n].send(b"to server %03d" % n)
        servers[n].send(b"to client %03d" % n)
    for n in range(count):
        assert servers[n].receive(13) == b"to server %03d" % n
        assert clients[n].receive(13) == b"to client %03d" % n


def test_every_byte_arrives_in_both_directions_at_once(
    join: Callable[[str], Tuple[Peer, Peer]],
) -> None:
    """48 MB each way, sent while the other end reads slowly or not at all at first."""
    server, client = join("large")
    chunk = bytes(range(251)) * 4001
    size = len(chunk) * 48
    digests: List[str] = []

    def pour(peer: Peer) -> None:
        for _ in range(48):
            peer.send(chunk)

    def drink(peer: Peer) -> None:
        digest = hashlib.sha256()
        left = size
        while left:
            part = peer.connection.recv(min(left, 7_777_777))
            assert part
            digest.update(part)
            left -= len(part)
        digests.append(digest.hexdigest())

    threads = [
        threading.Thread(target=action, args=(peer,))
        for peer in (server, client)
        for action in (pour, drink)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [hashlib.sha256(chunk * 48).hexdigest()] * 2


@pytest.mark.parametrize("side", [0, 1], ids=["server ends", "client ends"])
def test_what_was_said_before_the_end_arrives(
    join: Callable[[str], Tuple[Peer, Peer]], side: int
) -> None:
    """A peer that speaks much and closes: the other gets all of it, then the end."""
    pair = join(f"last-words-{side}")
    speaker, listener = pair[side], pair[1 - side]
    content = os.urandom(3 << 20)
    thread = threading.Thread(target=lambda: (speaker.send(content), speaker.close()))
    thread.start()
    assert listener.receive(len(content)) == content
    assert listener.is_closed()
    thread.join()


def test_half_an_end(join: Callable[[str], Tuple[Peer, Peer]]) -> None:
    """Who says no more may still listen to the answer, however much of it there is."""
    server, client = join("half")
    client.send(b"question")
    client.connection.shutdown(socket.SHUT_WR)
    assert server.receive(8) == b"question"
    assert server.is_closed()
    answer = os.urandom(2 << 20)
    thread = threading.Thread(target=lambda: (server.send(answer), server.close()))
    thread.start()
    assert client.receive(len(answer)) == answer
    assert client.is_closed()
    thread.join()


def test_an_exception_is_read_by_a_client_that_is_sending(
    join: Callable[[str], Tuple[Peer, Peer]],
) -> None:
    """A server that speaks its last words in the middle of an upload is heard."""
    server, client = join("interrupted")
    client.connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.connection.send(b"x" * 65536)
    client.connection.settimeout(10)
    server.send(b"sorry")
    server.connection.shutdown(socket.SHUT_WR)
    assert client.receive(5) == b"sorry"


@pytest.mark.parametrize("side", [0, 1], ids=["server", "client"])
def test_an_abort_ends_both(join: Callable[[str], Tuple[Peer, Peer]], side: int) -> None:
    """A reset on one side is an end on the other."""
    pair = join(f"abort-{side}")
    linger = struct.pack("ii", 1, 0)
    pair[side].connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    pair[side].close()
    assert pair[1 - side].is_closed()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_who_does_not_read_costs_nothing(
    proxy: Proxy, join: Callable[[str], Tuple[Peer, Peer]]
) -> None:
    """Senders are stopped, memory stays, and other pairs are as quick as ever."""
    before = resident_bytes(proxy.program.pid)
    stuck = [join(f"stuck{n}") for n in range(10)]
    for server, _ in stuck:
        server.connection.settimeout(0.1)
        with contextlib.suppress(socket.timeout):
            for _ in range(1000):
                server.send(b"x" * (1 << 20))
            pytest.fail("a gigabyte went somewhere")
    server, client = join("free")
    for _ in range(100):
        client.send(b"?")
        assert server.receive(1) == b"?"
        server.send(b"!")
        assert client.receive(1) == b"!"
    assert resident_bytes(proxy.program.pid) - before < 16 << 20


def test_who_says_nothing_is_closed(dial: MakePeer) -> None:
    """Half a hello, or none, has a time limit; a waiting peer has not this one."""
    with running_service(hello_limit_s=0.2) as address:
        silent = dial(address)
        half = dial(address)
        half.send(hello("client:k")[:9])
        server = dial(address, "server:k")
        assert silent.is_closed()
        assert half.is_closed()
        client = dial(address, "client:k")
        assert server.partner() == "client:k"
        assert client.partner() == "server:k"


def test_one_side_does_not_go_on_for_ever(dial: MakePeer, wait_until: WaitUntil) -> None:
    """When a client is gone, a server that takes no notice loses its connection after a while."""
    with running_service(linger_limit_s=0.1) as address:
        server, client = dial(address, "server:k"), dial(address, "client:k")
        assert server.partner() == "client:k"
        client.close()
        assert server.is_closed()  # half of it

        def is_broken() -> bool:
            try:
                server.send(b"x")
            except OSError:
                return True
            return False

        wait_until(is_broken, "the connection is cut")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_end(
    tmp_path: Path, dial: MakePeer, wait_until: WaitUntil, number: int
) -> None:
    """Pairs and waiting peers are closed, and the exit code is 0."""
    with (tmp_path / "log").open("wb") as log, Proxy(port=0, log=log) as proxy:
        address = (proxy.host, proxy.port)
        waiting = dial(address, "server:waiting")
        server, client = dial(address, "server:k"), dial(address, "client:k")
        assert server.partner() == "client:k"
        os.kill(proxy.program.pid, number)
        for peer in (waiting, server):
            assert peer.is_closed()
        client.partner()
        assert client.is_closed()
        wait_until(lambda: not proxy.program.alive, "the proxy has ended")
        assert proxy.program.ended() == "exited with 0"
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_a_thousand_bad_ends_leave_nothing(
    dial: MakePeer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Whoever leaves, when and how: the proxy's descriptors are as many as before, and no error."""
    dice = random.Random(4)
    with (tmp_path / "log").open("wb") as log, Proxy(port=0, log=log) as proxy:
        folder = Path(f"/proc/{proxy.program.pid}/fd")
        server, client = (dial((proxy.host, proxy.port), f"{side}:good") for side in SIDES)
        server.partner()
        client.partner()
        before = len(list(folder.iterdir()))
        for number in range(500):
            peers = [socket.create_connection((proxy.host, proxy.port), 10) for _ in SIDES]
            for peer, side in zip(peers, SIDES):
                words = hello(f"{side}:bad{number}") + dice.randbytes(dice.choice([0, 9, 70000]))
                peer.sendall(words[: dice.choice([3, 11, len(words), len(words)])])
            for peer in dice.sample(peers, 2):
                if dice.random() < 0.5:  # a reset instead of an end
                    linger = struct.pack("ii", 1, 0)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.close()
        wait_until(lambda: len(list(folder.iterdir())) == before, "all descriptors are closed")
        client.send(b"still here")
        assert server.receive(10) == b"still here"
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    assert "Fatal" not in text


def test_a_listener_of_the_callers(dial: MakePeer) -> None:
    """May be given instead of a port."""
    with listen("127.0.0.1", 0) as listener, Proxy(listener=listener, log=-3) as proxy:
        assert (proxy.host, proxy.port) == listener.getsockname()
        server = dial((proxy.host, proxy.port), "server:k")
        client = dial((proxy.host, proxy.port), "client:k")
        assert client.partner() == "server:k"
        assert server.partner() == "client:k"


def resident_bytes(pid: int) -> int:
    """What the process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
