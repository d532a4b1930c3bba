"""A server behind a proxy: against one that follows a script, and against the real one."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc import network, rpc
from pytest_tvmrpc.errors import RPCSessionTimeoutError, SessionCrashedError
from pytest_tvmrpc.protocol.dialect import FFI
from pytest_tvmrpc.protocol.pause import LAST_PAUSE_S
from pytest_tvmrpc.server import proxy_link
from pytest_tvmrpc.server.watching import Watching

pytestmark = pytest.mark.each_kind

WaitUntil = Callable[..., None]

MAGIC = 0xFF271
INIT_SERVER = bytes.fromhex("1500000000000000 02000000 0500000000000000 302e382e30 00000000")


@pytest.fixture(name="listener")
def _listener(deadline_s: float) -> Iterator[socket.socket]:
    """Where the script's servers connect to."""
    with network.listen("127.0.0.1", 0) as listener:
        listener.settimeout(deadline_s)
        yield listener


@pytest.fixture(name="behind")
def _behind(start_server: Any, listener: socket.socket) -> Callable[..., Any]:
    """``behind(key)``: a server that waits at the script's proxy."""

    def start(key: str = "board", **options: Any) -> Any:
        return start_server(is_proxy=True, proxy_port=listener.getsockname()[1], key=key, **options)

    return start


class Waiting:
    """A server's connection, as the proxy has it."""

    def __init__(self, listener: socket.socket, deadline_s: float = 10.0) -> None:
        self.socket, _ = listener.accept()
        self.socket.settimeout(deadline_s)
        magic, length = struct.unpack("<ii", self.exactly(8))
        assert magic == MAGIC
        self.key = self.exactly(length).decode()

    def exactly(self, nbytes: int) -> bytes:
        """So many bytes."""
        received = b""
        while len(received) < nbytes:
            part = self.socket.recv(nbytes - len(received))
            assert part, f"closed after {received!r}"
            received += part
        return received

    def pair(self, key: bytes, then: bytes = b"") -> None:
        """There is a partner, whose key this is; and maybe what it said at once."""
        self.socket.sendall(struct.pack("<ii", MAGIC, len(key)) + key + then)

    def opens(self) -> None:
        """The session answers InitServer."""
        code = struct.unpack("<Qi", self.exactly(12))
        assert code == (8, 4)
        self.exactly(4)

    def rest(self) -> bytes:
        """Everything until the end."""
        return b"".join(iter(lambda: self.socket.recv(4096), b""))

    def close(self) -> None:
        """Ends it."""
        self.socket.close()


def test_one_session_after_the_other(behind: Any, listener: socket.socket) -> None:
    """It says its key, waits, serves whoever comes, and waits again."""
    server = behind()
    for then in (b"", INIT_SERVER):
        waiting = Waiting(listener)
        assert waiting.key.split()[0] == "server:board"
        waiting.pair(b"client:board -timeout=30", then)
        if not then:
            waiting.socket.sendall(INIT_SERVER)
        waiting.opens()
        waiting.close()
    Waiting(listener).close()
    assert "connected from the proxy" in server.reports


def test_the_partner_says_how_long(behind: Any, listener: socket.socket) -> None:
    """Its options are in its key, behind a match key that a tracker may have made."""
    behind()
    waiting = Waiting(listener)
    waiting.pair(b"client:board:0.5 -timeout=0.2")
    waiting.socket.sendall(INIT_SERVER)
    waiting.opens()
    content = waiting.rest()
    (text,) = FFI.decode_values(content, 12, len(content))
    assert str(text).startswith("RPCSessionTimeoutError: Your 0.2s session has expired")
    waiting.close()
    Waiting(listener).close()


def test_another_server_has_the_key(
    behind: Any, listener: socket.socket, wait_until: WaitUntil
) -> None:
    """The report says so, and what to do, once; it is tried again, but not soon."""
    server = behind()
    waiting = Waiting(listener)
    waiting.socket.sendall(struct.pack("<i", MAGIC + 1))
    wait_until(lambda: "error: another server waits" in server.reports, "it is reported")
    assert "'board'" in server.reports
    assert "--key" in server.reports
    listener.settimeout(1)
    with pytest.raises(socket.timeout):
        listener.accept()
    waiting.close()


class Script:
    """A link whose clock and whose proxy the test has in its hand, and the loop it lives in."""

    def __init__(self, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reports: List[str] = []
        self.longest_pause_s = 0.0
        self._listener = listener
        self._watching = Watching()
        self.watch, self.forget = self._watching.watch, self._watching.forget
        self._now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self._now)
        monkeypatch.setattr(proxy_link, "time", clock)
        self._link = proxy_link.ProxyLink(listener.getsockname()[:2], "board", self, print)

    def report(self, line: str) -> None:
        """Keeps it."""
        self.reports.append(line)

    def say_ready(self) -> None:
        """Nobody waits for it."""

    def descriptors(self) -> List[int]:
        """Nothing is forked."""
        return []

    def errand(self, pid: int) -> None:
        """Nothing is forked."""

    def is_refused_after(self, waited_s: float) -> None:
        """The server comes as soon as it will, and is sent away after so long."""
        due = self._link.next_wakeup(self._now)
        self.longest_pause_s = max(self.longest_pause_s, due - self._now if due else 0.0)
        self._now = max(self._now, due)
        self._link.tick(self._now)
        self._watching.turn(10_000)
        waiting = Waiting(self._listener)
        self._now += waited_s
        waiting.socket.sendall(struct.pack("<i", MAGIC + 2))
        self._watching.turn(10_000)
        waiting.close()


def test_nobody_came(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy has waited long enough: the server comes again, without a word about it."""
    waits = Script(listener, monkeypatch)
    for _ in range(3):
        waits.is_refused_after(300.0)
    assert waits.reports == []
    assert waits.longest_pause_s <= 0.1


def test_a_proxy_that_refuses_at_once(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a reason: that is reported, once, and the server comes less and less often."""
    waits = Script(listener, monkeypatch)
    for _ in range(12):
        waits.is_refused_after(0.01)
    (report,) = waits.reports
    assert "it refused this server, with the key 'board'" in report
    assert waits.longest_pause_s >= LAST_PAUSE_S / 2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400\r\n", struct.pack("<ii", MAGIC, -1), b""])
def test_what_is_no_proxy(
    behind: Any, listener: socket.socket, wait_until: WaitUntil, answer: bytes
) -> None:
    """Nonsense and an early end are losses: the server reports them and goes on."""
    server = behind()
    waiting = Waiting(listener)
    waiting.socket.sendall(answer)
    if not answer:
        waiting.close()
    wait_until(lambda: "the proxy 127.0.0.1:" in server.reports, "it is reported")
    waiting.close()
    waiting = Waiting(listener)
    waiting.pair(b"client:board", INIT_SERVER)
    waiting.opens()
    waiting.close()


def test_a_proxy_that_is_gone_for_a_while(start_server: Any, wait_until: WaitUntil) -> None:
    """The server starts without it, and finds it within seconds when it comes (again)."""
    with rpc.Proxy(port=0) as proxy:
        port = proxy.port
    server = start_server(is_proxy=True, proxy_port=port, key="board")
    assert "trying again" in server.reports
    for _ in range(2):
        with rpc.Proxy(port=port, port_end=port + 1), rpc.connect(
            "127.0.0.1", port, key="board", handshake_timeout=10
        ) as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
    assert server.server.program.alive


def test_through_the_real_proxy(
    start_server: Any, deaths: str, wait_until: WaitUntil, limit_s: float
) -> None:
    """Sessions are as they are without one, whatever becomes of them."""
    with rpc.Proxy(port=0) as proxy:
        server = start_server(is_proxy=True, proxy_port=proxy.port, key="board")
        assert (server.server.host, server.server.port) == ("127.0.0.1", proxy.port)

        def connect(**options: Any) -> rpc.RPCSession:
            return rpc.connect("127.0.0.1", proxy.port, key="board", **options)

        for _ in range(3):
            with connect() as remote:
                assert remote.get_function("rpc.test.addone")(1) == 2
        remote = connect()
        remote.upload(deaths)
        module = remote.load_module("deaths.so")
        with pytest.raises(SessionCrashedError, match="was killed by SIGSEGV"):
            module["segfault"]()
        remote = connect(session_timeout=limit_s)
        remote.upload(deaths)
        module = remote.load_module("deaths.so")
        with pytest.raises(RPCSessionTimeoutError):
            module["sleep_through_sigterm"]()
        with connect() as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
        wait_until(lambda: server.is_at_rest, "nothing is left of the sessions")


def test_two_servers_with_one_key(start_server: Any, wait_until: WaitUntil) -> None:
    """The second says so and goes on; the first serves."""
    with rpc.Proxy(port=0) as proxy:
        start_server(is_proxy=True, proxy_port=proxy.port, key="board")
        second = start_server(is_proxy=True, proxy_port=proxy.port, key="board")
        wait_until(lambda: "another server waits there" in second.reports, "it is reported")
        assert second.server.program.alive
        with rpc.connect("127.0.0.1", proxy.port, key="board") as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2


def test_as_a_program() -> None:
    """--through-proxy, ended by a signal while it waits."""
    program = [sys.executable, "-m", "pytest_tvmrpc.exec.rpc_server", "--through-proxy"]
    with rpc.Proxy(port=0) as proxy, subprocess.Popen(
        [*program, "--port", str(proxy.port), "--key", "board"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            with rpc.connect("127.0.0.1", proxy.port, key="board") as remote:
                assert remote.get_function("rpc.test.addone")(1) == 2
        finally:
            process.terminate()
        assert process.wait(10) == 0


def test_the_end_of_a_server_that_waits(behind: Any, listener: socket.socket) -> None:
    """It leaves at once, and its connection closes."""
    server = behind()
    waiting = Waiting(listener)
    started = time.monotonic()
    server.server.terminate()
    assert waiting.rest() == b""
    assert time.monotonic() - started < 2
    waiting.close()


def test_many_clients(start_server: Any) -> None:
    """One after the other gets the device; a client waits at the proxy for its turn."""
    with rpc.Proxy(port=0) as proxy:
        start_server(is_proxy=True, proxy_port=proxy.port, key="board")
        results: List[Any] = []

        def work() -> None:
            while True:
                try:
                    with rpc.connect("127.0.0.1", proxy.port, key="board") as remote:
                        results.append(remote.get_function("rpc.test.addone")(1))
                    return
                except rpc.RPCError as error:  # another client waits: the proxy takes only one
                    if "already" not in str(error):
                        raise

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [2] * 4
