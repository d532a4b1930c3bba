"""A server as its clients meet it, and as they leave it: whatever they do, it serves the next."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, List, cast

import pytest

from pytest_tvmrpc import network
from pytest_tvmrpc.dlpack import DataType, Device
from pytest_tvmrpc.errors import (
    CompilerError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    KeyMismatchError,
    RPCSessionTimeoutError,
    SessionCrashedError,
    StartError,
)
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI
from pytest_tvmrpc.runtime.toolchain import compile_library
from pytest_tvmrpc.server.registration import Registration
from pytest_tvmrpc.server.supervisor import _TrackerLink

Dial = Callable[[int], socket.socket]
Hello = Callable[..., bytes]
WaitUntil = Callable[..., None]

FOLDER = str(Path(__file__).parents[2])
ADMITTED = struct.pack("<ii", 0xFF271, 7) + b"server:"
INIT_SERVER = bytes.fromhex("1500000000000000 02000000 0500000000000000 302e382e30 00000000")


def exactly(connection: socket.socket, nbytes: int) -> bytes:
    """So many bytes."""
    received = b""
    while len(received) < nbytes:
        part = connection.recv(nbytes - len(received))
        assert part, f"closed after {received!r}"
        received += part
    return received


def is_closed(connection: socket.socket) -> bool:
    """Waits for the server to close; whether it did so without a word."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


# --- the first words ----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_first_words(server: Any, dial: Dial, hello: Hello, cut: str) -> None:
    """They may come in pieces, or with the first request behind them."""
    connection = dial(server.port)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if cut == "with trailing bytes":
        connection.sendall(hello() + INIT_SERVER)
        assert exactly(connection, 15) == ADMITTED
    else:
        step = 1 if cut == "byte by byte" else 100
        for index in range(0, len(hello()), step):
            connection.sendall(hello()[index : index + step])
        assert exactly(connection, 15) == ADMITTED
        connection.sendall(INIT_SERVER)
    assert struct.unpack("<Qi", exactly(connection, 12)) == (8, 4)


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        struct.pack("<i", 0x2F271),
        struct.pack("<i", 0xFF272) + bytes(16),
        b"\0" * 8,
        struct.pack("<ii", 0xFF271, 0),
        struct.pack("<ii", 0xFF271, -1),
        struct.pack("<ii", 0xFF271, (1 << 31) - 1),
        struct.pack("<ii", 0xFF271, 4097),
        struct.pack("<ii", 0xFF271, 8) + b"client:\xff",
        struct.pack("<ii", 0xFF271, 3) + b"   ",
        struct.pack("<ii", 0xFF271, 7) + b"server:",
        *(
            struct.pack("<ii", 0xFF271, 17 + len(text)) + b"client: -timeout=" + text
            for text in (b"abc", b"nan", b"-1", b"inf", b"")
        ),
    ],
    ids=[
        "http", "tls", "ssh", "tracker's magic", "proxy's answer", "zeros", "length 0",
        "length -1", "length 2^31-1", "length 4097", "not utf-8", "blanks", "a server's key",
        "timeout abc", "timeout nan", "timeout -1", "timeout inf", "timeout empty",
    ],
)  # fmt: skip
def test_who_is_no_client_is_sent_away(server: Any, dial: Dial, words: bytes) -> None:
    """At once and without an answer; the report says why, and the next client is served."""
    before = server.reports.count("was sent away")
    connection = dial(server.port)
    connection.sendall(words)
    assert is_closed(connection)
    assert server.reports.count("was sent away") == before + 1
    assert server.serves()


@pytest.mark.parametrize("timeout", ["0", "0.5", "10.0", "1e300", "1e9"])
def test_any_time_limit(server: Any, timeout: str, dial: Dial, hello: Hello) -> None:
    """Every number of seconds is a limit, however short or long."""
    connection = dial(server.port)
    connection.sendall(hello(f"client: -timeout={timeout}".encode()) + INIT_SERVER)
    assert exactly(connection, 15) == ADMITTED
    assert struct.unpack("<Qi", exactly(connection, 12)) == (8, 4)
    connection.close()
    assert server.serves()


def test_another_key(server: Any, dial: Dial, hello: Hello) -> None:
    """The refusal is an answer that a client understands."""
    with pytest.raises(KeyMismatchError, match="matches key=client:other"):
        server.connect(key="other")
    connection = dial(server.port)
    connection.sendall(hello(b"client:other"))
    assert exactly(connection, 4) == struct.pack("<i", 0xFF273)
    assert is_closed(connection)
    assert server.serves()


def test_who_says_nothing_keeps_nobody(server: Any, dial: Dial) -> None:
    """Connections without a word, or with half of one, are beside the point for others."""
    for words in (b"", b"\x71", b"\x71\xf2\x0f\x00\x07\0\0\0clien"):
        dial(server.port).sendall(words)
    assert server.serves()


def test_more_silence_than_there_is_room_for(start_server: Any, dial: Dial) -> None:
    """Of two hundred silent connections the oldest have to go, and a client is served at once."""
    server = start_server()
    before = server.descriptors
    connections = [dial(server.port) for _ in range(200)]
    started = time.monotonic()
    assert server.serves()
    assert time.monotonic() - started < 2
    assert is_closed(connections[0])
    assert server.descriptors < before + 100
    assert "was sent away for others" in server.reports


def test_who_has_spoken_does_not_have_to_go(
    start_server: Any, dial: Dial, hello: Hello, wait_until: WaitUntil
) -> None:
    """Not even if the server had no time to listen before many others came, nor while it waits."""
    server = start_server()
    with server.connect():
        os.kill(server.pid, signal.SIGSTOP)
        try:
            waiting = dial(server.port)
            waiting.sendall(hello() + INIT_SERVER)
            for _ in range(100):
                dial(server.port)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        wait_until(lambda: "was sent away for others" in server.reports, "there is no more room")
    assert exactly(waiting, 15) == ADMITTED
    assert struct.unpack("<Qi", exactly(waiting, 12)) == (8, 4)


def test_more_clients_than_may_wait(
    start_server: Any, dial: Dial, hello: Hello, wait_until: WaitUntil
) -> None:
    """They stay in the kernel's queue, and each has its turn."""
    server = start_server()
    with server.connect():
        before = server.descriptors
        clients = []
        for _ in range(100):
            clients.append(dial(server.port))
            clients[-1].sendall(hello())
        wait_until(lambda: server.descriptors >= before + 64, "as many as may wait do")
    for client in clients:
        assert exactly(client, 15) == ADMITTED
        client.close()
    assert server.serves()


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of another process")
def test_no_descriptors_are_left(start_server: Any, dial: Dial, wait_until: WaitUntil) -> None:
    """A client has to wait until there are some; the server tries now and then, not always."""
    server = start_server()
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir(f"/proc/{server.pid}/fd")) + 1
    # Before anybody comes: poll() takes no more descriptors than the limit allows.
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
    for _ in range(used):  # some numbers below may be free
        dial(server.port)
    started = time.monotonic()
    thread = threading.Thread(target=server.serves)
    thread.start()
    try:
        wait_until(lambda: server.reports.count("not be accepted") > 2, "it has tried again")
        tries = server.reports.count("not be accepted")
        assert tries <= 1 + (time.monotonic() - started) / 0.1
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        thread.join()
    assert server.serves()


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of another process")
@pytest.mark.parametrize("attempt", range(5))  # the limit may come when all is loaded already
def test_no_descriptors_at_the_start(
    start_server: Any, wait_until: WaitUntil, attempt: int
) -> None:
    """What makes sessions start fast cannot be loaded then: they start all the same, later."""
    server = start_server()
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # as many as it polls
    thread = threading.Thread(target=server.serves)
    thread.start()
    try:
        wait_until(lambda: "not be accepted" in server.reports, "it says that it has none")
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        thread.join()
    assert server.serves()


def test_silence_has_a_limit(start_supervisor: Any, dial: Dial, hello: Hello) -> None:
    """Who says too little for too long is cut off; whoever is served is not."""
    server = start_supervisor(handshake_s=0.15)
    served, silent, halfway = (dial(server.args[-1]) for _ in range(3))
    served.sendall(hello())
    assert exactly(served, 15) == ADMITTED
    halfway.sendall(hello()[:6])
    assert is_closed(silent)
    assert is_closed(halfway)
    served.sendall(INIT_SERVER)
    assert struct.unpack("<Qi", exactly(served, 12)) == (8, 4)


def test_who_talks_on_unasked(server: Any, dial: Dial, hello: Hello) -> None:
    """A client that has to wait cannot fill the server's memory meanwhile."""
    with server.connect():
        connection = dial(server.port)
        connection.sendall(hello() + bytes(3000))
        connection.sendall(bytes(3000))
        assert is_closed(connection)
    assert server.serves()


def test_a_client_waits_while_another_is_served(server: Any) -> None:
    """It is served as soon as the device is free, for as long as it said that it would wait."""
    order: List[int] = []

    def work(number: int) -> None:
        with server.connect() as remote:
            order.append(number)
            assert remote.get_function("rpc.test.addone")(1) == 2

    threads = []
    with server.connect():
        for number in (1, 2):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
        with pytest.raises(DeadlineError, match="connect_timeout"):
            server.connect(connect_timeout=0.1)
        assert order == []
    for thread in threads:
        thread.join()
    assert sorted(order) == [1, 2]


def test_a_waiting_client_that_leaves(server: Any, dial: Dial, hello: Hello) -> None:
    """It is forgotten: no session is spent on it."""
    with server.connect():
        for _ in range(3):
            connection = dial(server.port)
            connection.sendall(hello())
            connection.close()
    assert server.serves()


# --- sessions that end badly --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("segfault", "was killed by SIGSEGV"),
        ("abort", "was killed by SIGABRT"),
        ("exit_three", "exited with 3"),
    ],
)
def test_a_kernel_that_takes_its_process_with_it(
    server: Any, deaths: str, wait_until: WaitUntil, name: str, outcome: str
) -> None:
    """The client is told how it ended; the server goes on, and nothing of the session stays."""
    module = server.load(deaths)
    started = time.monotonic()
    with pytest.raises(SessionCrashedError, match=outcome):
        module[name]()
    assert time.monotonic() - started < 2
    assert module.session.closed
    with pytest.raises(ConnectionLostError, match=outcome):
        module["one"]()
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")
    wait_until(lambda: f": {outcome}" in server.reports, "it is reported")


def test_a_kernel_that_exits_cleanly(server: Any, deaths: str) -> None:
    """exit(0) is the end of the session all the same, and an error for its client."""
    module = server.load(deaths)
    with pytest.raises(SessionCrashedError, match="exited with 0 while it served a request"):
        module["exit_zero"]()
    assert server.serves()


def test_a_library_that_crashes_when_it_is_loaded(
    server: Any, deaths: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    """Its constructor runs in load_module, which then has the same end as a call."""
    source = str(Path(__file__).parent / "deaths.c")
    options = ["-Wno-unused", "-DWITH_A_CONSTRUCTOR"]
    with pytest.raises(SessionCrashedError, match="was killed by SIGSEGV"):
        server.load(compile_library(source, tmp_path / "loaded.so", options=options))
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


def test_an_interrupted_client(server: Any, deaths: str, wait_until: WaitUntil) -> None:
    """Ctrl-C in a call that would not end: it comes through, and the device is free."""
    module = server.load(deaths)
    main = threading.main_thread().ident or 0
    came_through = threading.Event()

    def interrupt() -> None:
        # More than once: a signal just before the system call that waits does not end the wait.
        while not came_through.wait(0.2):
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Timer(0, lambda: _when(server.started, interrupt))
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            module["spin"]()
    finally:
        came_through.set()
        thread.join()
    assert module.session.closed
    with pytest.raises(ConnectionLostError, match="it was interrupted in spin"):
        module["one"]()
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


def test_thirty_crashes(start_server: Any, deaths: str, wait_until: WaitUntil) -> None:
    """Nothing adds up in the server: descriptors, processes, directories."""
    server = start_server()
    server.load(deaths).session.close()
    wait_until(lambda: server.is_at_rest, "the first session is over")
    before = server.descriptors
    for _ in range(30):
        module = server.load(deaths)
        with pytest.raises(SessionCrashedError):
            module["segfault"]()
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the sessions")
    wait_until(lambda: server.descriptors == before, "no descriptor is left open")


def test_a_broken_protocol_ends_one_session(
    server: Any, dial: Dial, hello: Hello, wait_until: WaitUntil
) -> None:
    """Packets that cannot be: the session is over, with its process; the server is not."""
    for packet in (
        struct.pack("<Qi", (1 << 64) - 1, 3),
        struct.pack("<Qi", 1 << 40, 3) + bytes(100),
        struct.pack("<Qi", 4, 99),
        struct.pack("<Qi", 4, 3),
    ):
        connection = dial(server.port)
        connection.sendall(hello() + INIT_SERVER)
        exactly(connection, 15 + 16)
        connection.sendall(packet)
        connection.shutdown(socket.SHUT_WR)
        assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the sessions")


CLIENTS = {
    "uploading": """
print("started", flush=True)
for number in range(1000):
    remote.upload(bytes(64 << 20), "big.bin")
""",
    "downloading": """
remote.upload(bytes(64 << 20), "big.bin")
print("started", flush=True)
for number in range(1000):
    remote.download("big.bin")
""",
    "copying": """
from pytest_tvmrpc import runtime
tensor = runtime.empty((64 << 20,), "uint8", remote.cpu(0))
content = memoryview(bytes(64 << 20))
print("started", flush=True)
for number in range(1000):
    tensor.copyfrom(content)
""",
    "in a call": """
remote.upload({deaths!r})
module = remote.load_module("deaths.so")
print("started", flush=True)
module["spin"]()
""",
    "idle": """
print("started", flush=True)
sys.stdin.read()
""",
}


@pytest.mark.parametrize("doing", CLIENTS)
def test_a_client_that_is_killed(
    start_server: Any, start_client: Any, deaths: str, wait_until: WaitUntil, doing: str
) -> None:
    """The next is served in bounded time, and neither process nor file is left."""
    server = start_server()
    client = start_client(server.port, CLIENTS[doing].format(deaths=deaths))
    if doing == "uploading":
        wait_until(
            lambda: any(path.glob(".partial-*") for path in server.directories), "it uploads"
        )
    if doing == "in a call":
        wait_until(server.started, "the kernel runs")
    client.kill()
    started = time.monotonic()
    assert server.serves()
    assert time.monotonic() - started < 3
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


# --- time limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spin", "sleep_through_sigterm"])
def test_a_call_that_outlasts_the_session(
    server: Any, deaths: str, wait_until: WaitUntil, name: str
) -> None:
    """The client is told in time, the process is killed if it must be, the device is free."""
    module = server.load(deaths, session_timeout=0.4)
    started = time.monotonic()
    with pytest.raises(RPCSessionTimeoutError, match=r"Your 0\.4s session has expired"):
        module[name]()
    assert 0.3 < time.monotonic() - started < 3
    assert module.session.closed
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


def test_an_idle_session_that_expired(server: Any, wait_until: WaitUntil) -> None:
    """The next request is told, whatever it is."""
    remote = server.connect(session_timeout=0.1)
    add_one = remote.get_function("rpc.test.addone")
    wait_until(lambda: server.is_at_rest, "the session is over")
    with pytest.raises(RPCSessionTimeoutError, match=r"Your 0\.1s session has expired"):
        add_one(1)
    with pytest.raises(ConnectionLostError, match="session has expired"):
        add_one(1)


def test_a_session_that_expires_within_an_answer(
    server: Any, dial: Dial, hello: Hello, wait_until: WaitUntil
) -> None:
    """The rest of the answer is missing, and nothing else is put in its place."""
    nbytes = 64 << 20
    connection = dial(server.port)
    connection.sendall(hello(b"client: -timeout=0.3") + INIT_SERVER)
    exactly(connection, 15 + 16)
    place = (Device(1, 0), nbytes, 64, DataType("uint8"))
    body = b"".join(FFI.encode_values(place))
    connection.sendall(struct.pack("<Qi", 4 + len(body), RPCCode.DEV_ALLOC_DATA) + body)
    answer = exactly(connection, 28)
    (data,) = struct.unpack("<Q", answer[-8:])
    record = struct.pack("<QiiiBBHqQ", data, 1, 0, 1, 1, 8, 1, nbytes, 0)
    body = record + struct.pack("<Q", nbytes)
    connection.sendall(struct.pack("<Qi", 4 + len(body), RPCCode.COPY_FROM_REMOTE) + body)
    assert struct.unpack("<Qi", exactly(connection, 12)) == (4 + nbytes, RPCCode.COPY_ACK)
    wait_until(lambda: server.is_at_rest, "the session has expired")
    received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert len(received) < nbytes
    assert received == bytes(len(received))
    assert server.serves()


def test_what_a_session_started_ends_with_it(
    server: Any, deaths: str, ended_at_once: Callable[[int], None]
) -> None:
    """Processes that a kernel left behind, however the session ends."""
    module = server.load(deaths)
    child = module["leave_a_child"]()
    module.session.close()
    ended_at_once(child)
    module = server.load(deaths, session_timeout=0.3)
    child = module["leave_a_child"]()
    with pytest.raises(RPCSessionTimeoutError):
        module["spin"]()
    ended_at_once(child)
    module = server.load(deaths)
    child = module["leave_a_child"]()
    with pytest.raises(SessionCrashedError):
        module["segfault"]()
    ended_at_once(child)
    assert server.serves()


# --- the server's own end -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spin", "sleep_through_sigterm"])
def test_the_server_is_ended_in_a_call(
    start_server: Any, deaths: str, name: str, ended_at_once: Callable[[int], None]
) -> None:
    """SIGTERM ends server and session in bounded time; the client's call is over, too."""
    server = start_server()
    module = server.load(deaths)
    session = module["process"]()
    thread = threading.Timer(0, lambda: _when(server.started, server.server.terminate))
    thread.start()
    started = time.monotonic()
    with pytest.raises(ConnectionLostError):
        module[name]()
    thread.join()
    assert time.monotonic() - started < 5
    ended_at_once(session)
    assert server.directories == []
    assert server.server.program.ended() == "exited with 0"
    with pytest.raises(ConnectionLostError, match="is over"):
        module["one"]()


def _when(condition: Callable[[], object], act: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    act()


def test_the_server_is_ended_while_clients_wait(
    start_server: Any, dial: Dial, hello: Hello
) -> None:
    """Their connections are closed: nobody waits for a server that is gone."""
    server = start_server()
    with server.connect():
        waiting, silent = dial(server.port), dial(server.port)
        waiting.sendall(hello())
        server.server.terminate()
        assert is_closed(waiting)
        assert is_closed(silent)


def test_the_server_is_killed_in_a_call(
    start_server: Any, deaths: str, wait_until: WaitUntil, ended_at_once: Callable[[int], None]
) -> None:
    """SIGKILL to the server: its session ends by itself, directory and all."""
    server = start_server()
    module = server.load(deaths)
    session = module["process"]()
    thread = threading.Timer(
        0, lambda: _when(server.started, lambda: os.kill(server.pid, signal.SIGKILL))
    )
    thread.start()
    with pytest.raises(ConnectionLostError):
        module["spin"]()
    thread.join()
    ended_at_once(session)
    wait_until(lambda: not server.directories, "the directory is gone")
    assert server.server.program.ended() == "was killed by SIGKILL"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of such an end")
def test_the_server_is_killed_while_a_library_is_loaded(
    start_server: Any,
    tmp_path: Path,
    deadline_s: float,
    wait_until: WaitUntil,
    ended_at_once: Callable[[int], None],
) -> None:
    """In a constructor that holds Python's lock; the session ends, the next server tidies up."""
    source = str(Path(__file__).parent / "deaths.c")
    options = ["-Wno-unused", "-DWITH_A_CONSTRUCTOR_THAT_BLOCKS"]
    try:
        library = compile_library(source, tmp_path / "blocks.so", options=options)
    except CompilerError as error:
        pytest.skip(str(error))
    server = start_server()
    sessions: List[int] = []

    def kill() -> None:
        sessions.extend(server.children)
        os.kill(server.pid, signal.SIGKILL)

    thread = threading.Timer(0, lambda: _when(server.started, kill))
    thread.start()
    try:
        with pytest.raises(ConnectionLostError, match="closed"):
            server.load(library, call_timeout=deadline_s)
        thread.join()
        (session,) = sessions
        ended_at_once(session)
    finally:
        for session in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(session, signal.SIGKILL)
    start_server()
    wait_until(lambda: not server.directories, "the next server has removed the directory")


PARENT = """
import sys
sys.path.append({folder!r})
from pytest_tvmrpc import rpc
server = rpc.Server(port=0, silent=True)
remote = rpc.connect("127.0.0.1", server.port)
remote.upload({deaths!r})
module = remote.load_module("deaths.so")
print(server.program.pid, module["process"](), flush=True)
module["spin"]()
"""


def test_whoever_started_the_server_is_killed(
    deaths: str,
    wait_until: WaitUntil,
    ended_at_once: Callable[[int], None],
    session_folders: Callable[[str], List[Path]],
) -> None:
    """Server and session go with it, in the middle of a call; no directory is left."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(folder=FOLDER, deaths=deaths)],
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        wait_until(lambda: session_folders("/started"), "the kernel runs")
        parent.kill()
    for pid in pids:
        ended_at_once(pid)
    wait_until(lambda: not session_folders(""), "no directory is left")


# --- its tracker's name -------------------------------------------------------------------------


class Loop:
    """What a link to a tracker wants of its supervisor."""

    def __init__(self) -> None:
        self.happened: Callable[[int], None] = lambda events: None

    def watch(self, descriptor: int, events: int, happened: Callable[[int], None]) -> None:
        """Keeps what is to be called; the test waits itself."""
        self.happened = happened

    def forget(self, descriptor: int) -> None:
        """Nobody is waiting."""

    def report(self, line: str) -> None:
        """Nobody is watching."""

    def say_ready(self) -> None:
        """Nobody is waiting for it."""


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses that the tracker had will do; they are looked up when all were in vain."""
    lookups: List[str] = []

    def resolve(host: str, port: int) -> Any:
        lookups.append(host)
        if len(lookups) > 1:
            raise ConnectError("no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)] * 2

    with network.listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
    monkeypatch.setattr(network, "resolve", resolve)
    loop = Loop()
    registration = Registration("k", 1, None, entropy=os.urandom)
    link = _TrackerLink(("tracker.example", address[1]), registration, cast("Any", loop))
    now = time.monotonic()
    looked_up = []
    for _ in range(4):
        link.tick(now)
        loop.happened(0)  # refused
        looked_up.append(len(lookups))
        now = link.next_wakeup(now)
    link.close()
    assert looked_up == [1, 1, 2, 2]


# --- what a session leaves ------------------------------------------------------------------------


def test_a_session_that_leaves_many_files(server: Any, deaths: str, wait_until: WaitUntil) -> None:
    """Clients are served while they are removed, by another process."""
    module = server.load(deaths)
    (folder,) = server.directories
    module["leave_many_files"]()
    assert len(list(folder.iterdir())) > 500
    module.session.close()
    started = time.monotonic()
    assert server.serves()
    assert time.monotonic() - started < 2
    wait_until(lambda: server.is_at_rest, "nothing is left of the sessions")


# --- starting -----------------------------------------------------------------------------------


def test_a_port_in_use(server: Any) -> None:
    """The message says which, and what to do; nothing is left running."""
    with pytest.raises(StartError, match=rf"cannot bind to port {server.port} on 127\.0\.0\.1"):
        type(server.server)(port=server.port, port_end=server.port + 1, silent=True, log=-3)


def test_an_address_that_is_not_ours(server: Any) -> None:
    """It is named, too."""
    with pytest.raises(StartError, match=r"cannot bind to .* on 192\.0\.2\.1"):
        type(server.server)(host="192.0.2.1", port=0, silent=True, log=-3)


def test_sessions_do_not_share_what_they_leave(server: Any) -> None:
    """Files and handles of a session are gone for the next."""
    with server.connect() as remote:
        remote.upload(b"abc", "a.bin")
        assert remote.listdir() == "a.bin"
        remote.get_function("testing.echo")
    with server.connect() as remote:
        assert remote.listdir() == ""
