"""A client and its tracker: devices in time, or an error that says why not."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Sequence, Tuple

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.client import grants
from pytest_tvmrpc.client.tracker import TrackerSession, connect_tracker
from pytest_tvmrpc.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    KeyMismatchError,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
    RPCError,
    RPCSessionTimeoutError,
    TrackerError,
    UnknownKeyError,
    remote_error,
)
from pytest_tvmrpc.network import listen
from pytest_tvmrpc.protocol import tracker as wire
from pytest_tvmrpc.protocol.codes import HandshakeReply, RPCCode
from pytest_tvmrpc.protocol.handshake import HelloReader, encode_server_reply
from pytest_tvmrpc.server.registration import Registration
from pytest_tvmrpc.tracker.launch import Tracker

if TYPE_CHECKING:
    from pytest_tvmrpc.client.session import RPCSession

WaitUntil = Callable[..., None]

VOID = bytes.fromhex("0c00000000000000 04000000 01000000 00000000")
NO_SUCH_FUNCTION = bytes.fromhex("1400000000000000 04000000 01000000 04000000 0000000000000000")


@pytest.fixture(scope="module")
def tracker() -> Iterator[Tracker]:
    """One tracker for the module; each test uses keys of its own."""
    with Tracker(port=0, silent=True) as tracker:
        yield tracker


@pytest.fixture
def client(tracker: Tracker) -> Iterator[TrackerSession]:
    """A client of the tracker."""
    with connect_tracker(tracker.host, tracker.port) as client:
        yield client


@pytest.fixture
def device(tracker: Tracker, client: TrackerSession, wait_until: WaitUntil) -> Iterator[Any]:
    """Makes devices that are registered when they are returned."""
    with contextlib.ExitStack() as stack:

        def make(key: str, drops: Sequence[str] = ()) -> Device:
            made = stack.enter_context(Device((tracker.host, tracker.port), key, drops))
            wait_until(lambda: made.registration.registered, "the device is registered")
            return made

        yield make


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer at the end of the stream."""
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            break
        received += part
    return received


class Device:
    """A server with a script: what the first sessions do is given, later ones are served.

    Args:
        tracker: the address to register at.
        key: what kind of device to be.
        drops: for each of the first sessions, when to close it: "hello", "start" or "call".
    """

    def __init__(self, tracker: Any, key: str, drops: Sequence[str] = ()) -> None:
        self.drops: List[str] = list(drops)
        self.sessions = 0
        self._listener = listen("127.0.0.1", 0)
        port = self._listener.getsockname()[1]
        self.registration = Registration(key, port, entropy=os.urandom)
        self._tracker = socket.create_connection(tracker, 10)
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        self._waker.close()
        self._thread.join()
        for connection in (self._listener, self._tracker, self._woken):
            connection.close()

    def _run(self) -> None:
        offers, now = self.registration, time.monotonic
        self._tracker.sendall(offers.connected(now()))
        sources = [self._tracker, self._listener, self._woken]
        while True:
            ready, _, _ = select.select(sources, [], [], offers.next_wakeup(now()))
            if self._woken in ready:
                return
            if self._tracker in ready:
                received = self._tracker.recv(4096)
                if not received:
                    return
                self._tracker.sendall(offers.received(received, now()))
            if self._listener in ready:
                with self._listener.accept()[0] as connection, contextlib.suppress(OSError):
                    self._serve(connection)
                if not offers.match_key:
                    self._tracker.sendall(offers.offer(now()))
            self._tracker.sendall(offers.tick(now()))

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        reader = HelloReader()
        hello = None
        while hello is None:
            hello = reader.feed(connection.recv(1))
        if not self.registration.accepts(hello.match_key):
            connection.sendall(encode_server_reply(HandshakeReply.MISMATCH))
            return
        self.registration.occupied(time.monotonic())
        self.sessions += 1
        drop = self.drops.pop(0) if self.drops else ""
        if drop == "hello":
            return
        connection.sendall(encode_server_reply(HandshakeReply.SUCCESS, self.registration.key))
        if drop == "start":
            return
        while self._answer(connection, drop):
            pass

    def _answer(self, connection: socket.socket, drop: str) -> bool:
        """Answer one packet; False at the end of the session."""
        head = receive(connection, 12)
        if len(head) < 12:
            return False
        length, code = struct.unpack("<Qi", head)
        if length > 4:
            receive(connection, length - 4)
        if code == RPCCode.SHUTDOWN or (drop and code != RPCCode.INIT_SERVER):
            return False
        connection.sendall(NO_SUCH_FUNCTION if code == RPCCode.GET_GLOBAL_FUNC else VOID)
        return True


class Puts:
    """Something that offers addresses to the tracker, and nothing behind them.

    It is not at one of them by its own account: a server that is there has its place.
    """

    def __init__(self, tracker: Tracker, key: str, ports: Sequence[int]) -> None:
        self.connection = socket.create_connection((tracker.host, tracker.port), 10)
        words = wire.MAGIC + wire.update_info(key, 9)
        for port in ports:
            words += wire.put(key, port, wire.make_match_key(key, os.urandom(8)))
        self.connection.sendall(words)
        expected = wire.MAGIC + wire.SUCCESS * (1 + len(ports))
        assert receive(self.connection, len(expected)) == expected

    def __enter__(self) -> Puts:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()


def closed_port() -> int:
    with listen("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
    return port


def queue(client: TrackerSession, key: str) -> Optional[Any]:
    return client.summary()["queue_info"].get(key)


# --- the tracker --------------------------------------------------------------------------------


@contextlib.contextmanager
def impostor(answer: Optional[bytes]) -> Iterator[int]:
    """Something that listens and, unless `answer` is None, answers so and closes; its port."""
    with listen("127.0.0.1", 0) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(answer or b"")

        thread = threading.Thread(target=serve)
        if answer is not None:
            thread.start()
        yield listener.getsockname()[1]
        if answer is not None:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "b'HTTP'"),
        (b"\x71\xf2", "closed"),
        (b"", "closed"),
        (b"\x71\xf2\x0f\x00", "answered"),
        (None, r"timeout=0\.2 s"),
    ],
    ids=["http", "half", "closed", "server", "silent"],
)
def test_who_is_no_tracker_is_named(answer: Optional[bytes], word: str) -> None:
    """Whatever listens there: an error in bounded time that says what was found instead."""
    started = time.monotonic()
    with impostor(answer) as port, pytest.raises(
        TrackerError, match=f"127.0.0.1:{port} is not an RPC tracker.*{word}"
    ):
        connect_tracker("127.0.0.1", port, timeout=0.2 if answer is None else 10)
    assert time.monotonic() - started < 5


def test_a_tracker_that_is_not_there_is_named() -> None:
    """The address, what the system said, and how to start one."""
    port = closed_port()
    with pytest.raises(ConnectError, match=f"no RPC tracker at 127.0.0.1:{port}.*rpc_tracker"):
        connect_tracker("127.0.0.1", port)


def test_a_tracker_that_talks_nonsense_is_refused() -> None:
    """A wrong reply is an error; its rest is not taken for the next one."""
    with impostor(wire.MAGIC + wire.encode([0, {"queue_info": 5}]) + wire.encode(5)) as port:
        client = connect_tracker("127.0.0.1", port)
        with client, pytest.raises(RemoteProtocolError, match="queue_info"):
            client.summary()


def test_a_tracker_that_comes_back_is_asked_again() -> None:
    """The connection is made anew when the tracker was restarted on the same port."""
    with Tracker(port=0, silent=True) as tracker:
        client = connect_tracker(tracker.host, tracker.port)
        assert client.summary() == {"queue_info": {}, "server_info": []}
    with client:
        with pytest.raises(ConnectError, match="no RPC tracker"):
            client.summary()
        with Tracker(port=tracker.port, silent=True):
            assert client.summary() == {"queue_info": {}, "server_info": []}


def test_a_closed_client_stays_closed(tracker: Tracker) -> None:
    """close() may be called twice; after it, nothing is opened again behind the user's back."""
    client = connect_tracker(tracker.host, tracker.port)
    client.close()
    client.close()
    with pytest.raises(TrackerError, match="was closed"):
        client.summary()


def test_a_client_that_is_dropped_is_noticed(tracker: Tracker) -> None:
    """Collected without close(): a warning, and no socket left."""
    client = connect_tracker(tracker.host, tracker.port)
    with pytest.warns(ResourceWarning, match="without close"):
        del client


def test_the_text_is_tvms() -> None:
    """Byte for byte what TVM 0.27 prints, with a proxy's key and a waiting request."""
    with Tracker(port=0, silent=True) as tracker, contextlib.ExitStack() as stack:
        for frames in (
            wire.update_info("board", 19100) + wire.put("board", 19100, "board:0.5"),
            wire.update_info("proxy[pk]", 19530),
            wire.request("zz"),
        ):
            peer = stack.enter_context(socket.create_connection((tracker.host, tracker.port), 10))
            peer.sendall(wire.MAGIC + frames + wire.ping())
            count = frames.count(b"[5") + frames.count(b"[3") + 1
            assert receive(peer, 4 + 5 * count) == wire.MAGIC + wire.SUCCESS * count
        client = stack.enter_context(connect_tracker(tracker.host, tracker.port))
        assert client.text_summary() == (
            "Server List\n"
            "------------------------------\n"
            "server-address           key\n"
            "------------------------------\n"
            "127.0.0.1:19100          server:board\n"
            "127.0.0.1:19530          server:proxy[pk]\n"
            "------------------------------\n"
            "\n"
            "Queue Status\n"
            "-----------------------------\n"
            "key     total  free  pending\n"
            "-----------------------------\n"
            "board   1      1     0      \n"
            "zz      0      0     1      \n"
            "-----------------------------\n"
        )


def test_the_text_of_an_empty_farm() -> None:
    """No server, no queue: the same frame around nothing."""
    with Tracker(port=0, silent=True) as tracker, connect_tracker(
        tracker.host, tracker.port
    ) as client:
        lines = client.text_summary().splitlines()
    rule = "-" * 27
    assert lines[4:] == [
        "-" * 30,
        "",
        "Queue Status",
        rule,
        "key   total  free  pending",
        rule,
        rule,
    ]


def test_an_answer_does_not_wait_for_an_acknowledgement(client: TrackerSession) -> None:
    """Each frame goes out in one piece: far below the 40 ms that a second piece would cost."""
    client.summary()
    lasted = []
    for _ in range(11):
        started = time.monotonic()
        client.summary()
        lasted.append(time.monotonic() - started)
    assert sorted(lasted)[5] < 0.02


# --- a device -----------------------------------------------------------------------------------


def test_a_free_device_is_given_at_once(client: TrackerSession, device: Any) -> None:
    """The session knows how long queue and connection took; the device is free again after it."""
    device("free")
    with client.request("free") as session:
        assert 0 <= session.queued_s < 5
        assert 0 < session.connect_s < 5
    with client.request("free", wait_timeout=10):
        pass


def test_a_key_may_have_colons(client: TrackerSession, device: Any) -> None:
    """An address as a key is found, counted and granted."""
    device("192.168.0.143:5555")
    assert "192.168.0.143:5555   1      1" in client.text_summary()
    client.request("192.168.0.143:5555").close()


def test_a_device_in_use_is_waited_for(
    tracker: Tracker, client: TrackerSession, device: Any, wait_until: WaitUntil
) -> None:
    """The next client gets it when it is given back, and knows how long that took."""
    device("busy")
    first = client.request("busy")
    results: List[RPCSession] = []

    def wait() -> None:
        with connect_tracker(tracker.host, tracker.port) as second:
            results.append(second.request("busy", wait_timeout=10))

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        wait_until(lambda: queue(client, "busy") == {"free": 0, "pending": 1}, "it waits")
    finally:
        first.close()
        thread.join()
    results[0].close()


def test_an_unknown_key_is_an_error_at_once(client: TrackerSession, device: Any) -> None:
    """The message lists the keys that exist, and no request is left behind."""
    device("known")
    started = time.monotonic()
    with pytest.raises(UnknownKeyError, match=r"no server offers the key 'unknown'.*'known'"):
        client.request("unknown")
    assert time.monotonic() - started < 5
    with pytest.raises(UnknownKeyError):
        client.request_and_run("unknown", lambda session: None)


def test_no_request_is_left_behind(client: TrackerSession, wait_until: WaitUntil) -> None:
    """After an unknown key the tracker has no queue for it."""
    with pytest.raises(UnknownKeyError):
        client.request("left-behind")
    wait_until(lambda: queue(client, "left-behind") is None, "the queue is gone")


def test_keys_behind_a_proxy_are_known(tracker: Tracker, client: TrackerSession) -> None:
    """A proxy announces its keys as proxy[K0,K1]: a request for one of them waits."""
    with Puts(tracker, "proxy[pk0,pk1]", [1]):
        for key in ("pk0", "pk1"):
            with pytest.raises(DeadlineError, match="1 registered"):
                client.request(key, wait_timeout=0.01)
        with pytest.raises(UnknownKeyError):
            client.request("pk", wait_timeout=0.01)


def test_the_wait_for_a_device_is_limited(
    client: TrackerSession, device: Any, wait_until: WaitUntil
) -> None:
    """Key, limit and queue are named; the request is withdrawn, so the device is not lost."""
    device("taken")
    with client.request("taken"):
        with pytest.raises(
            DeadlineError,
            match=r"'taken'.*wait_timeout=0\.05 s: 1 registered, 0 free, 1 pending",
        ):
            client.request("taken", wait_timeout=0.05)
        wait_until(lambda: queue(client, "taken") == {"free": 0, "pending": 0}, "it is withdrawn")
    client.request("taken", wait_timeout=10).close()


@pytest.mark.parametrize("key", ["", "a b", "k" * 2000])
def test_a_key_that_cannot_be_is_refused_at_once(client: TrackerSession, key: str) -> None:
    """Nothing is sent; the connection stays good."""
    with pytest.raises(LocalProtocolError, match="device key"):
        client.request(key)
    client.summary()


def test_attempts_must_be_at_least_one(client: TrackerSession) -> None:
    """Zero attempts are a mistake of the caller, and said to be one."""
    with pytest.raises(ValueError, match="max_retry"):
        client.request("k", max_retry=0)
    with pytest.raises(ValueError, match="max_retry"):
        client.request_and_run("k", lambda session: None, max_retry=0)


def test_a_dead_device_is_passed_over(
    tracker: Tracker, client: TrackerSession, device: Any
) -> None:
    """A registered device with a closed port costs an attempt, and the next one is taken."""
    with Puts(tracker, "passed-over", [closed_port(), closed_port()]):
        alive = device("passed-over")
        with client.request("passed-over") as session:
            assert session.peer[1] == alive.registration.port


def test_only_dead_devices_end_with_the_last_error(
    tracker: Tracker, client: TrackerSession
) -> None:
    """After max_retry attempts the error says how the last one ended."""
    with Puts(tracker, "dead", [closed_port() for _ in range(4)]):
        with pytest.raises(TrackerError, match=r"max_retry=2.*ConnectError") as caught:
            client.request("dead", max_retry=2)
        assert isinstance(caught.value.__cause__, ConnectError)
        with pytest.raises(DeadlineError) as late:
            client.request("dead", wait_timeout=0.05)
        assert isinstance(late.value.__cause__, ConnectError)


def test_a_stale_match_key_is_passed_over(
    tracker: Tracker, client: TrackerSession, device: Any
) -> None:
    """A server that was offered with a key it does not know refuses, and another is asked for."""
    alive = device("stale")
    first = client.request("stale")
    with Puts(tracker, "stale", [alive.registration.port]):
        first.close()
        with pytest.raises(TrackerError) as caught:
            client.request("stale", max_retry=1)
        assert isinstance(caught.value.__cause__, KeyMismatchError)
        client.request("stale", wait_timeout=10).close()


@pytest.mark.parametrize("drop", ["hello", "start"])
def test_a_device_that_drops_the_handshake_is_asked_again(
    client: TrackerSession, device: Any, drop: str
) -> None:
    """One that breaks off while the session is opened costs an attempt only."""
    made = device(f"drops-{drop}", [drop])
    client.request(made.registration.key, wait_timeout=10).close()
    assert made.sessions == 2


def test_a_key_can_be_waited_for(tracker: Tracker, client: TrackerSession, device: Any) -> None:
    """With wait_for_key a server that comes later is taken; without it the error is at once."""
    results: List[RPCSession] = []

    def wait() -> None:
        with connect_tracker(tracker.host, tracker.port) as waiting:
            results.append(waiting.request("later", wait_timeout=10, wait_for_key=True))

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        with pytest.raises(UnknownKeyError):
            client.request("later")
        device("later")
    finally:
        thread.join()
    results[0].close()


def test_a_lease_can_be_abandoned(tracker: Tracker, wait_until: WaitUntil) -> None:
    """From another thread; its request is withdrawn, and whoever waits is told."""
    errors: List[BaseException] = []

    def wait(waiting: TrackerSession) -> None:
        try:
            waiting.lease("nobody", priority=7, wait_for_key=True)
        except TrackerError as error:
            errors.append(error)

    with connect_tracker(tracker.host, tracker.port) as client:
        waiting = connect_tracker(tracker.host, tracker.port)
        with waiting:
            thread = threading.Thread(target=wait, args=(waiting,))
            thread.start()
            try:
                wait_until(lambda: client.who().waiting, "it waits")
                assert client.who().waiting[0].priority == 7
            finally:
                waiting.abandon()
                thread.join()
        assert "was closed" in str(errors[0])
        wait_until(lambda: not client.who().waiting, "it does not wait any more")
        with pytest.raises(TrackerError, match="was closed"):
            waiting.summary()
    unused = connect_tracker(tracker.host, tracker.port)
    unused.abandon()
    unused.close()
    unused.abandon()


def test_a_key_that_never_comes_is_named_after_the_wait(client: TrackerSession) -> None:
    """The limit and the keys that exist are in the message, and the time was waited."""
    started = time.monotonic()
    with pytest.raises(UnknownKeyError, match=r"'never'.*wait_timeout=0\.1 s.*has "):
        client.request("never", wait_timeout=0.1, wait_for_key=True)
    assert time.monotonic() - started >= 0.1


def test_a_device_that_does_not_answer_is_passed_over_in_time(
    tracker: Tracker, client: TrackerSession
) -> None:
    """All attempts together end when wait_timeout and the limits of one attempt have passed."""
    with listen("127.0.0.1", 0) as deaf:
        ports = [deaf.getsockname()[1]] * 10
        with Puts(tracker, "deaf", ports):
            started = time.monotonic()
            with pytest.raises((DeadlineError, TrackerError)):
                client.request(
                    "deaf",
                    max_retry=10,
                    wait_timeout=0.3,
                    connect_timeout=0.2,
                    handshake_timeout=0.2,
                )
            assert time.monotonic() - started < 2


# --- a tracker that is restarted ----------------------------------------------------------------


def in_a_thread(ask: Callable[[], Any], outcomes: List[Any]) -> threading.Thread:
    """Asks in a thread; what came of it is added to the outcomes."""

    def run() -> None:
        try:
            outcomes.append(ask())
        except RPCError as error:
            outcomes.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("waiting", [True, False], ids=["who waits", "who comes after it"])
def test_a_restarted_tracker_is_asked_again(waiting: bool, wait_until: WaitUntil) -> None:
    """Within wait_timeout; and a key is not unknown as long as its servers are on their way."""
    outcomes: List[Any] = []
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(Tracker(port=0, silent=True))
        address = (tracker.host, tracker.port)
        client = stack.enter_context(connect_tracker(*address))
        with Puts(tracker, "restarted", [1]), connect_tracker(*address) as other:
            other.lease("restarted")
            ask = functools.partial(client.lease, "restarted", wait_timeout=30)
            if waiting:
                thread = in_a_thread(ask, outcomes)
                wait_until(
                    lambda: queue(other, "restarted") == {"free": 0, "pending": 1}, "it waits"
                )
            tracker.terminate()
        if not waiting:
            thread = in_a_thread(ask, outcomes)
        again = stack.enter_context(Tracker(port=tracker.port, silent=True))
        with connect_tracker(*address) as other:
            wait_until(lambda: queue(other, "restarted") == {"free": 0, "pending": 1}, "it is back")
            assert not outcomes
            with Puts(again, "restarted", [2]):
                thread.join()
    assert [outcome.port for outcome in outcomes] == [2]


def test_a_tracker_that_does_not_come_back() -> None:
    """It is waited for until wait_timeout or the client's patience is over."""
    with Tracker(port=0, silent=True) as tracker:
        client = connect_tracker(tracker.host, tracker.port)
    with client:
        started = time.monotonic()
        with pytest.raises(ConnectError, match="no RPC tracker"):
            client.request("any", wait_timeout=0.3)
        assert time.monotonic() - started < 2
        for patience_s in (0.2, 0):
            client.patience_s = patience_s
            with pytest.raises(ConnectError, match="no RPC tracker"):
                client.lease("any", wait_timeout=10)
        assert time.monotonic() - started < 4


@pytest.mark.parametrize("end", ["granted", "unknown", "too late"])
def test_a_young_tracker_is_asked_until_it_knows(
    end: str, monkeypatch: pytest.MonkeyPatch, deadline_s: float
) -> None:
    """It answers that it cannot say yet whether a key has servers: that is no reason to give up."""
    monkeypatch.setattr(grants, "_ASK_AGAIN_S", 0.02)
    rounds = 3
    empty = wire.summary_reply({"queue_info": {}, "server_info": []})

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.settimeout(deadline_s)
            connection.sendall(receive(connection, 4))
            reader, greetings = wire.FrameReader(), 0
            while received := connection.recv(4096):
                reader.feed(received)
                for frame in iter(reader.next_frame, None):
                    message = wire.parse_request(wire.parse_json(frame))
                    if isinstance(message, wire.Ping):
                        greetings += 1
                        known = end == "unknown" and greetings > rounds
                        connection.sendall(wire.welcome(False if known else None))
                    elif isinstance(message, wire.Summary):
                        connection.sendall(empty)
                    if end == "granted" and greetings == rounds:
                        connection.sendall(wire.granted(wire.Granted("board", 5, "k:0.5")))

    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with connect_tracker("127.0.0.1", listener.getsockname()[1]) as client:
            if end == "granted":
                assert client.lease("k", wait_timeout=deadline_s).port == 5
            elif end == "unknown":
                with pytest.raises(UnknownKeyError, match="no servers at all"):
                    client.lease("k", wait_timeout=deadline_s)
            else:
                with pytest.raises(UnknownKeyError, match=r"none came within wait_timeout=0\.1 s"):
                    client.lease("k", wait_timeout=0.1)
        thread.join()


# --- who and kick -------------------------------------------------------------------------------


def test_who_has_a_device(tracker: Tracker, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is the environment's, the argument's, or user, machine and process."""
    device("whose")
    device("whose")
    monkeypatch.setenv("TVMRPC_USER", "nightly build 7")
    with connect_tracker(tracker.host, tracker.port) as nightly, connect_tracker(
        tracker.host, tracker.port, user="ada"
    ) as ada:
        assert ada.kind == "tvmrpc"
        with nightly.request("whose", session_timeout=60), ada.request("whose"):
            mine = [server for server in ada.who().servers if server.key == "whose"]
            assert {(server.state, server.holder.user) for server in mine if server.holder} == {
                ("busy", "nightly build 7"),
                ("busy", "ada"),
            }
            assert {server.holder.limit_s for server in mine if server.holder} == {0, 60}
    monkeypatch.delenv("TVMRPC_USER")
    with connect_tracker(tracker.host, tracker.port) as client:
        assert client.user.endswith(f"@{socket.gethostname()} pid {os.getpid()}")


def test_a_kick_that_cannot_be_says_why(
    tracker: Tracker, client: TrackerSession, device: Any
) -> None:
    """No such server, nobody has it, or a server that takes no orders."""
    device("idle")
    with pytest.raises(TrackerError, match="no server has the key or address 'nobody'"):
        client.kick("nobody")
    with pytest.raises(TrackerError, match="nobody has 'idle' now"):
        client.kick("idle")
    with Puts(tracker, "tvms", [closed_port()]):
        with pytest.raises(TrackerError, match="max_retry=1"):
            client.request("tvms", max_retry=1)
        with pytest.raises(TrackerError, match="cannot be told to end a session"):
            client.kick("tvms")


def is_lost(function: Callable[[int], Any]) -> bool:
    try:
        function(1)
    except RPCError:
        return True
    return False


def test_a_session_is_kicked(
    tracker: Tracker, client: TrackerSession, wait_until: WaitUntil
) -> None:
    """Its client loses it at once, by address or by key, and the server is free for the next."""
    with rpc.Server(
        port=0, key="kicked", tracker_addr=(tracker.host, tracker.port), log=subprocess.DEVNULL
    ) as server:
        for target in (f"127.0.0.1:{server.port}", "kicked"):
            with client.request("kicked", wait_timeout=10, wait_for_key=True) as session:
                addone = session.get_function("rpc.test.addone")
                assert client.kick(target, "lunch") == [f"127.0.0.1:{server.port}"]
                wait_until(functools.partial(is_lost, addone), "the session is over")
        client.request("kicked", wait_timeout=10).close()


def test_tvms_tracker_cannot_tell() -> None:
    """Found out by its answer to a greeting; the error says what to use instead."""
    with impostor(wire.MAGIC + wire.SUCCESS) as port:
        client = connect_tracker("127.0.0.1", port)
        with client:
            assert client.kind == "tvm"
            with pytest.raises(TrackerError, match=r"TVM's and cannot say who has.*summary\(\)"):
                client.who()
            with pytest.raises(TrackerError, match=r"TVM's.*session_timeout"):
                client.kick("board")


# --- request_and_run ----------------------------------------------------------------------------


def test_the_result_comes_back_and_the_device_is_free(
    client: TrackerSession, device: Any, wait_until: WaitUntil
) -> None:
    """The function's value is returned and its session closed."""
    device("run")
    seen: List[RPCSession] = []

    def func(session: RPCSession) -> int:
        seen.append(session)
        return 42

    assert client.request_and_run("run", func) == 42
    assert seen[0].closed
    wait_until(lambda: queue(client, "run") == {"free": 1, "pending": 0}, "the device is free")


def test_a_drop_out_is_run_again(client: TrackerSession, device: Any) -> None:
    """With the only device of its kind: the failed session is closed before the next is wanted."""
    made = device("drop-out", ["call"])
    seen: List[RPCSession] = []

    def func(session: RPCSession) -> str:
        seen.append(session)
        with contextlib.suppress(AttributeError):
            session.get_function("anything")
        return "done"

    assert client.request_and_run("drop-out", func, wait_timeout=10) == "done"
    assert len(seen) == made.sessions == 2
    assert all(session.closed for session in seen)


def test_drop_outs_end_with_the_last_error(client: TrackerSession, device: Any) -> None:
    """After max_retry runs the error says how the last one ended."""
    device("drops-always", ["call"] * 3)

    def func(session: RPCSession) -> None:
        session.get_function("anything")

    with pytest.raises(TrackerError, match="max_retry=3") as caught:
        client.request_and_run("drops-always", func, max_retry=3, wait_timeout=10)
    assert isinstance(caught.value.__cause__, ConnectionLostError)


@pytest.mark.parametrize("error", [RemoteError("x"), RPCSessionTimeoutError("x"), ValueError("x")])
def test_an_error_that_would_come_again_is_raised(
    client: TrackerSession, device: Any, wait_until: WaitUntil, error: Exception
) -> None:
    """Not a drop-out: the function runs once, and the device is free again."""
    device("error")
    runs: List[RPCSession] = []

    def func(session: RPCSession) -> None:
        runs.append(session)
        raise error

    with pytest.raises(type(error), match="x"):
        client.request_and_run("error", func)
    assert len(runs) == 1
    wait_until(lambda: queue(client, "error") == {"free": 1, "pending": 0}, "the device is free")


@pytest.mark.parametrize("through_a_hop", [False, True])
def test_a_loss_that_the_server_reports(tracker: Tracker, through_a_hop: bool) -> None:
    """The error of a function is raised at once; behind a constructor, it is a drop-out."""
    runs: List[RPCSession] = []

    def func(session: RPCSession) -> None:
        runs.append(session)
        raise remote_error("ConnectionLostError: the next server is gone")

    key = f"hop-{through_a_hop}"
    with rpc.Server(
        port=0, key=key, tracker_addr=(tracker.host, tracker.port), log=subprocess.DEVNULL
    ), connect_tracker(tracker.host, tracker.port) as client:
        constructor = ["rpc.LocalSession"] if through_a_hop else None
        with pytest.raises(RPCError, match="the next server is gone") as caught:
            client.request_and_run(key, func, session_constructor_args=constructor)
    assert isinstance(caught.value, TrackerError if through_a_hop else RemoteError)
    assert len(runs) == (2 if through_a_hop else 1)


# --- threads ------------------------------------------------------------------------------------


@pytest.fixture(name="farm_of_two", scope="module")
def _farm_of_two() -> Iterator[Tuple[str, int]]:
    """The address of a tracker that has two servers, with a key each."""
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(rpc.Tracker(port=0, silent=True))
        address = (tracker.host, tracker.port)
        for key in ("busy", "spare"):
            stack.enter_context(rpc.Server(port=0, tracker_addr=address, key=key, silent=True))
        yield address


def test_threads_may_share_it(farm_of_two: Tuple[str, int], deadline_s: float) -> None:
    """Each gets the answer to its own question, while one of them waits for a device."""
    failures: List[BaseException] = []
    turns: List[str] = []

    def ask(work: Callable[[], object]) -> None:
        try:
            for _ in range(20):
                work()
        except BaseException as error:
            failures.append(error)

    def check_summary() -> None:
        assert set(client.summary()["queue_info"]) == {"busy", "spare"}

    def check_who() -> None:
        assert {server.key for server in client.who().servers} == {"busy", "spare"}

    def check_spare() -> None:
        with client.request("spare", wait_timeout=deadline_s) as remote:
            assert remote.key == "spare"

    def wait_for_turn() -> None:
        with client.request("busy", wait_timeout=deadline_s) as remote:
            turns.append(remote.key)

    with connect_tracker(*farm_of_two, timeout=deadline_s) as client:
        with client.request("busy"):
            waiting = threading.Thread(target=wait_for_turn)
            waiting.start()
            threads = [
                threading.Thread(target=ask, args=(work,))
                for work in 2 * [check_summary, check_who, check_spare]
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(deadline_s)
            assert not any(thread.is_alive() for thread in threads)
            assert turns == []
        waiting.join(deadline_s)
    assert failures == []
    assert turns == ["busy"]


def test_closing_it_ends_what_others_wait_for(
    farm_of_two: Tuple[str, int], deadline_s: float, wait_until: Callable[..., None]
) -> None:
    """They get a `TrackerError`, and so does whoever asks later."""
    raised: List[BaseException] = []
    client = connect_tracker(*farm_of_two)

    def wait() -> None:
        try:
            client.request("busy", wait_timeout=deadline_s)
        except BaseException as error:
            raised.append(error)

    with client.request("busy"):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: client.summary()["queue_info"]["busy"]["pending"], "it waits")
        client.close()
        thread.join(deadline_s)
    assert [type(error) for error in raised] == [TrackerError]
    with pytest.raises(TrackerError, match="was closed"):
        client.summary()


def test_what_it_looks_like(farm_of_two: Tuple[str, int]) -> None:
    """Its tracker, who asks, and whether it is closed."""
    name = f"127.0.0.1:{farm_of_two[1]}"
    with connect_tracker(*farm_of_two, user="ada@desk") as client:
        assert repr(client) == f"<TrackerSession {name}, user 'ada@desk'>"
    assert repr(client) == f"<TrackerSession {name}, closed>"
