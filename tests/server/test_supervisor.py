"""A server as its clients meet it, and as they leave it: whatever they do, it serves the next."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, List

import pytest

from pytest_tvmrpc import network, rpc
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device
from pytest_tvmrpc.errors import (
    CompilerError,
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    KeyMismatchError,
    RemoteError,
    RPCSessionTimeoutError,
    SessionCrashedError,
    StartError,
)
from pytest_tvmrpc.protocol.codes import HandshakeReply, RPCCode
from pytest_tvmrpc.protocol.dialect import FFI
from pytest_tvmrpc.protocol.handshake import encode_server_reply
from pytest_tvmrpc.protocol.packets import trailing_exception
from pytest_tvmrpc.runtime.toolchain import compile_library
from pytest_tvmrpc.session.incoming import LAST_NBYTES

pytestmark = pytest.mark.each_kind

Dial = Callable[[int], socket.socket]
Hello = Callable[..., bytes]
WaitUntil = Callable[..., None]

FOLDER = str(Path(__file__).parents[2])
ADMITTED = encode_server_reply(HandshakeReply.SUCCESS)
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
        assert exactly(connection, len(ADMITTED)) == ADMITTED
    else:
        step = 1 if cut == "byte by byte" else 100
        for index in range(0, len(hello()), step):
            connection.sendall(hello()[index : index + step])
        assert exactly(connection, len(ADMITTED)) == ADMITTED
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


def test_all_who_were_let_in_may_wait(
    start_server: Any, dial: Dial, hello: Hello, wait_until: WaitUntil, deadline_s: float
) -> None:
    """Also those that only say what they want when as many wait as are accepted to."""
    server = start_server()
    with server.connect():
        before = server.descriptors
        late = [dial(server.port) for _ in range(50)]
        for connection in late:
            connection.sendall(hello()[:4])
        early = [dial(server.port) for _ in range(60)]
        for connection in early:
            connection.sendall(hello())
        wait_until(lambda: server.descriptors >= before + 110, "all are let in")
        other = late.pop()
        for connection in late:
            connection.sendall(hello()[4:])
        other.sendall(hello(b"client:x")[4:])
        assert exactly(other, 4) == encode_server_reply(HandshakeReply.MISMATCH)
    waiting = {*early, *late}
    while waiting:
        for connection in select.select(waiting, [], [], deadline_s)[0]:
            assert exactly(connection, len(ADMITTED)) == ADMITTED
            connection.close()
            waiting.remove(connection)
    assert server.serves()


@pytest.mark.parametrize("timeout", ["0", "0.5", "10.0", "1e300", "1e9"])
def test_any_time_limit(server: Any, timeout: str, dial: Dial, hello: Hello) -> None:
    """Every number of seconds is a limit, however short or long."""
    connection = dial(server.port)
    connection.sendall(hello(f"client: -timeout={timeout}".encode()) + INIT_SERVER)
    assert exactly(connection, len(ADMITTED)) == ADMITTED
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
    assert exactly(waiting, len(ADMITTED)) == ADMITTED
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
        assert exactly(client, len(ADMITTED)) == ADMITTED
        client.close()
    assert server.serves()


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of another process")
def test_no_descriptors_are_left(start_server: Any, dial: Dial, wait_until: WaitUntil) -> None:
    """A client has to wait until there are some; the server says so once, and tries again."""
    server = start_server()
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir(f"/proc/{server.pid}/fd")) + 1
    # Before anybody comes: poll() takes no more descriptors than the limit allows.
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used, limits[1]))
    for _ in range(used):  # some numbers below may be free
        dial(server.port)
    thread = threading.Thread(target=server.serves)
    thread.start()
    try:
        wait_until(lambda: "no client can be accepted now" in server.reports, "it says so")
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        thread.join()
    assert server.serves()
    assert server.reports.count("can be accepted now") == 1


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
        wait_until(lambda: "can be accepted now" in server.reports, "it says that it has none")
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        thread.join()
    assert server.serves()


def test_silence_has_a_limit(start_supervisor: Any, dial: Dial, hello: Hello) -> None:
    """Who says too little for too long is cut off; whoever is served is not."""
    server = start_supervisor(handshake_s=0.15)
    served, silent, halfway = (dial(server.args[-1]) for _ in range(3))
    served.sendall(hello())
    assert exactly(served, len(ADMITTED)) == ADMITTED
    served.sendall(INIT_SERVER)
    assert struct.unpack("<Qi", exactly(served, 16)[:12]) == (8, 4)
    halfway.sendall(hello()[:6])
    assert is_closed(silent)
    assert is_closed(halfway)
    served.sendall(struct.pack("<Qi", 4, 99))  # which is answered, if only by a refusal
    assert exactly(served, 12)


def test_a_hello_is_not_enough(start_supervisor: Any, dial: Dial, hello: Hello) -> None:
    """Who says no more than that is told, and the device is somebody else's."""
    server = start_supervisor(handshake_s=0.2)
    silent = dial(server.args[-1])
    silent.sendall(hello())
    assert exactly(silent, len(ADMITTED)) == ADMITTED
    with rpc.connect("127.0.0.1", server.args[-1]) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    content = b"".join(iter(lambda: silent.recv(4096), b""))
    (text,) = FFI.decode_values(content, 12, len(content))
    assert str(text).startswith("RPCSessionTimeoutError: Your session was not opened within 0.2 s")


def test_a_hello_and_a_trickle_is_not_enough(
    start_supervisor: Any, dial: Dial, hello: Hello
) -> None:
    """Nor is a byte of nothing now and then: the limit is for all of the first words."""
    server = start_supervisor(handshake_s=0.2)
    trickling = dial(server.args[-1])
    trickling.sendall(hello())
    assert exactly(trickling, len(ADMITTED)) == ADMITTED
    served = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError):  # until it is cut off
            while not served.wait(0.05):
                trickling.sendall(b"\0")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with rpc.connect("127.0.0.1", server.args[-1]) as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
    finally:
        served.set()
        thread.join()


@pytest.mark.parametrize("says_more", [True, False], ids=["asks at once", "waits for an answer"])
def test_many_hellos_and_nothing_more(
    start_supervisor: Any, dial: Dial, hello: Hello, deadline_s: float, says_more: bool
) -> None:
    """Who asks for a session is served before them, and nobody waits long for each of them."""
    server = start_supervisor(handshake_s=deadline_s)
    for _ in range(10 if says_more else 1):
        dial(server.args[-1]).sendall(hello())
    client = dial(server.args[-1])
    client.settimeout(deadline_s)
    client.sendall(hello() + (INIT_SERVER if says_more else b""))
    assert exactly(client, len(ADMITTED)) == ADMITTED
    client.sendall(b"" if says_more else INIT_SERVER)
    assert struct.unpack("<Qi", exactly(client, 16)[:12]) == (8, 4)


def test_clients_that_ask_early_and_late(start_server: Any, dial: Dial, hello: Hello) -> None:
    """One of TVM, which asks when it is admitted, is passed over once by those that ask before."""
    server = start_server()
    with server.connect():
        late, first, second = (dial(server.port) for _ in range(3))
        late.sendall(hello())
        for early in (first, second):
            early.sendall(hello() + INIT_SERVER)
    assert exactly(first, len(ADMITTED)) == ADMITTED
    first.close()
    assert exactly(late, len(ADMITTED)) == ADMITTED
    late.sendall(INIT_SERVER)
    assert struct.unpack("<Qi", exactly(late, 16)[:12]) == (8, 4)
    late.close()
    assert exactly(second, len(ADMITTED)) == ADMITTED


def test_an_open_session_may_be_silent(start_supervisor: Any, wait_until: WaitUntil) -> None:
    """For longer than the first words may take."""
    server = start_supervisor(handshake_s=0.1)
    with rpc.connect("127.0.0.1", server.args[-1]) as remote:
        add_one = remote.get_function("rpc.test.addone")
        end = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > end, "it was silent for so long")
        assert add_one(1) == 2


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
        with pytest.raises(DeadlineError, match="handshake_timeout"):
            server.connect(handshake_timeout=0.1)
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


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("segfault_in_a_thread", "was killed by SIGSEGV between two requests; it printed last"),
        ("exit_in_a_thread", "exited with 0 between two requests; it printed nothing"),
    ],
)
def test_a_crash_after_the_function_returned(
    server: Any, deaths: str, wait_until: WaitUntil, name: str, outcome: str
) -> None:
    """The next request is told how the session ended, as one that goes on would be."""
    module = server.load(deaths)
    module[name]()
    (directory,) = server.directories
    (directory / "go").touch()
    wait_until(lambda: server.is_at_rest, "the session has crashed")
    with pytest.raises(SessionCrashedError, match=outcome):
        module["one"]()
    with pytest.raises(ConnectionLostError, match=outcome):
        module["one"]()
    assert server.serves()


def test_a_session_that_the_system_kills(server: Any, deaths: str, wait_until: WaitUntil) -> None:
    """While its client asks nothing, or sends much."""
    module = server.load(deaths)
    os.kill(module["process"](), signal.SIGKILL)
    wait_until(lambda: server.is_at_rest, "the session is gone")
    with pytest.raises(SessionCrashedError, match="was killed by SIGKILL between two requests"):
        module.session.upload(bytearray(32 << 20), "much")
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


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("EXITS", SessionCrashedError, "exited with 4 while it served a request"),
        ("BLOCKS", RPCSessionTimeoutError, r"Your [\d.]+s session has expired"),
    ],
)
def test_a_library_that_does_not_return_when_it_is_loaded(
    server: Any,
    tmp_path: Path,
    wait_until: WaitUntil,
    what: str,
    error: Any,
    message: str,
    limit_s: float,
) -> None:
    """exit() is a crash; a constructor that blocks, with Python's lock held, meets the limit."""
    source = str(Path(__file__).parent / "deaths.c")
    options = ["-Wno-unused", f"-DWITH_A_CONSTRUCTOR_THAT_{what}"]
    with pytest.raises(error, match=message):
        server.load(
            compile_library(source, tmp_path / "loaded.so", options=options),
            session_timeout=limit_s,
        )
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


@pytest.mark.parametrize("kind", ["calls", "failures", "a pipeline", "an evaluator", "a library"])
def test_a_kernel_of_which_two_processes_return(
    server: Any, deaths: str, tmp_path: Path, wait_until: WaitUntil, kind: str
) -> None:
    """It forked, and the child's exec failed: that child is gone, and each answer is its own."""
    module = server.load(deaths)
    remote, fork = module.session, module["fork_and_return"]
    if kind == "calls":
        assert [fork() for _ in range(3)] == [41] * 3
    elif kind == "failures":
        for _ in range(3):
            with pytest.raises(RemoteError):
                module["fork_and_fail"]()
    elif kind == "a pipeline":
        with remote.pipeline() as pipeline:
            results = [pipeline.call(fork) for _ in range(5)]
        assert [result.result() for result in results] == [41] * 5
    elif kind == "an evaluator":
        evaluator = module.time_evaluator("fork_and_return", remote.cpu(0), number=3, repeat=2)
        assert len(evaluator().results) == 2
    else:
        source = str(Path(__file__).parent / "deaths.c")
        options = ["-Wno-unused", "-pthread", "-DWITH_A_CONSTRUCTOR_THAT_FORKS"]
        remote.upload(compile_library(source, tmp_path / "forks.so", options=options))
        assert remote.load_module("forks.so")["one"]() == 1
    add_one = remote.get_function("rpc.test.addone")
    assert [add_one(number) for number in range(50)] == list(range(1, 51))
    assert module["one"]() == 1
    process = Path(f"/proc/{module['process']()}")
    children = process / "task" / process.name / "children"
    states = [Path(f"/proc/{pid}/stat") for pid in children.read_text().split()]
    wait_until(
        lambda: all(path.read_text().rpartition(")")[2].split()[0] == "Z" for path in states),
        "the children have ended",
    )
    remote.close()
    assert server.serves()


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
        exactly(connection, len(ADMITTED) + 16)
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


@pytest.mark.python_only(reason="system calls are replaced")
def test_a_session_that_expires_before_it_begins(start_supervisor: Any) -> None:
    """Its process is told to end when it has hardly been forked; the server is not meant."""
    slow_children = """
def fork(fork=os.fork):
    pid = fork()
    if pid == 0:
        time.sleep(0.1)
    return pid
os.fork = fork
"""
    server = start_supervisor(before=slow_children)
    for _ in range(2):
        with pytest.raises(RPCSessionTimeoutError, match=r"Your 1e-09s session has expired"):
            rpc.connect("127.0.0.1", server.args[-1], session_timeout=1e-9)
    with rpc.connect("127.0.0.1", server.args[-1]) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2


@pytest.mark.parametrize("name", ["spin", "sleep_through_sigterm"])
def test_a_call_that_outlasts_the_session(
    server: Any, deaths: str, wait_until: WaitUntil, name: str, limit_s: float
) -> None:
    """The client is told in time, the process is killed if it must be, the device is free."""
    module = server.load(deaths, session_timeout=limit_s)
    started = time.monotonic()
    with pytest.raises(RPCSessionTimeoutError, match=r"Your [\d.]+s session has expired"):
        module[name]()
    assert limit_s / 2 < time.monotonic() - started < 10 * limit_s
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
    """The rest of the answer is missing; why, is at the end, and too short to be taken for it."""
    nbytes = 64 << 20
    connection = dial(server.port)
    connection.sendall(hello(b"client: -timeout=0.3") + INIT_SERVER)
    exactly(connection, len(ADMITTED) + 16)
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
    words = trailing_exception(received)
    assert words is not None
    (text,) = FFI.decode_values(words, 0, len(words))
    assert str(text).startswith("RPCSessionTimeoutError: Your 0.3s session has expired")
    answer = received[: -len(words) - 12]
    assert answer == bytes(len(answer))
    assert len(answer) <= nbytes - LAST_NBYTES < nbytes - len(words) - 12
    assert server.serves()


def test_a_session_that_joins_another_group(
    server: Any, deaths: str, wait_until: WaitUntil, limit_s: float
) -> None:
    """Its limit holds for it all the same."""
    module = server.load(deaths, session_timeout=limit_s, call_timeout=6 * limit_s)
    assert module["join_the_group_of_the_server"]() == 0
    started = time.monotonic()
    with pytest.raises(RPCSessionTimeoutError, match=r"Your [\d.]+s session has expired"):
        module["sleep_through_sigterm"]()
    assert time.monotonic() - started < 10 * limit_s
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


def test_there_is_nothing_to_read(start_supervisor: Any, deaths: str, deadline_s: float) -> None:
    """A kernel that asks its stdin is told at once that it is at its end, not the server's."""
    server = start_supervisor()
    with rpc.connect("127.0.0.1", server.args[-1], call_timeout=deadline_s / 2) as remote:
        remote.upload(deaths)
        assert remote.load_module("deaths.so")["read_stdin"]() == 0


@pytest.mark.python_only(reason="system calls are replaced")
def test_whatever_signals_it_was_started_with(start_supervisor: Any, deadline_s: float) -> None:
    """Blocked or ignored ones: the ends of its sessions are noticed, and so is SIGTERM."""
    odd = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGINT])
"""
    server = start_supervisor(before=odd)
    for _ in range(2):
        with rpc.connect("127.0.0.1", server.args[-1], handshake_timeout=deadline_s) as remote:
            assert remote.get_function("rpc.test.addone")(1) == 2
    server.terminate()
    assert server.wait(deadline_s) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux finds orphans")
def test_what_a_kernel_starts_leaves_no_zombies(
    server: Any, deaths: str, wait_until: WaitUntil
) -> None:
    """Processes in the background that have ended are reaped while the session goes on."""
    module = server.load(deaths)
    parents = (server.pid, module["process"]())
    for _ in range(10):
        assert module["start_in_the_background"]() == 0

    def zombies() -> List[str]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] == "Z" and int(fields[1]) in parents:
                    found.append(entry.name)
        return found

    wait_until(lambda: not zombies(), "there are none")
    assert module["one"]() == 1
    module.session.close()


def test_what_a_session_started_ends_with_it(
    server: Any, deaths: str, ended_at_once: Callable[[int], None], limit_s: float
) -> None:
    """Processes that a kernel left behind, however the session ends."""
    module = server.load(deaths)
    child = module["leave_a_child"]()
    module.session.close()
    ended_at_once(child)
    module = server.load(deaths, session_timeout=limit_s)
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux finds orphans")
@pytest.mark.parametrize("how", ["closed", "expired", "crashed"])
def test_a_daemon_ends_with_its_session(
    start_server: Any, deaths: str, ended_at_once: Callable[[int], None], how: str, limit_s: float
) -> None:
    """One that left its group and its parent, however the session ends; before the next begins."""
    server = start_server()
    module = server.load(deaths, session_timeout=limit_s if how == "expired" else 0)
    daemon = module["leave_a_daemon"]()
    os.kill(daemon, 0)
    if how == "closed":
        module.session.close()
    else:
        name = {"expired": "sleep_through_sigterm", "crashed": "segfault"}[how]
        with pytest.raises((RPCSessionTimeoutError, SessionCrashedError)):
            module[name]()
    with server.connect() as remote:
        with pytest.raises(ProcessLookupError):
            os.kill(daemon, 0)
        assert remote.get_function("rpc.test.addone")(1) == 2
    ended_at_once(daemon)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux marks processes")
def test_a_daemon_that_nobody_can_claim(
    start_server: Any,
    deaths: str,
    ended_at_once: Callable[[int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ends with its session, too, where orphans cannot be claimed, as in QEMU's emulation."""
    source = tmp_path / "prctl.c"
    source.write_text("int prctl(int what, ...) { return -(what == 36); }\n")
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", compile_library(source, tmp_path / "prctl.so"))
        server = start_server()
    module = server.load(deaths)
    daemon = module["leave_a_daemon"]()
    os.kill(daemon, 0)
    module.session.close()
    assert server.serves()
    ended_at_once(daemon)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux finds orphans")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_ends_with_the_server(
    start_server: Any, deaths: str, ended_at_once: Callable[[int], None], number: int
) -> None:
    """However that ends: its session is told by a pipe, and kills what it has started."""
    server = start_server()
    module = server.load(deaths)
    daemon, session = module["leave_a_daemon"](), module["process"]()
    started = time.monotonic()
    os.kill(server.pid, number)
    ended_at_once(daemon)
    ended_at_once(session)
    assert time.monotonic() - started < 2
    module.session.close()


# --- sessions that print --------------------------------------------------------------------------


def test_a_kernel_that_prints_much(server: Any, deaths: str, wait_until: WaitUntil) -> None:
    """64 MiB of it: the call is not held up, one is passed on, and the rest is counted."""
    module = server.load(deaths)
    started = time.monotonic()
    assert module["print_much"]() == 1
    assert time.monotonic() - started < 5
    assert module["one"]() == 1
    module.session.close()
    wait_until(lambda: "bytes more of its output" in server.reports, "the rest is counted")
    assert len(server.reports) < 2 << 20
    assert server.serves()


def test_a_kernel_that_prints_for_ever(
    server: Any, deaths: str, wait_until: WaitUntil, limit_s: float
) -> None:
    """The server is not kept from its work: the session meets its limit."""
    module = server.load(deaths, session_timeout=limit_s)
    started = time.monotonic()
    with pytest.raises(RPCSessionTimeoutError):
        module["print_for_ever"]()
    assert time.monotonic() - started < 10 * limit_s
    assert server.serves()
    wait_until(lambda: server.is_at_rest, "nothing is left of the session")


def test_the_last_words_of_a_kernel(server: Any, deaths: str) -> None:
    """What it printed last is part of the error."""
    module = server.load(deaths)
    with pytest.raises(SessionCrashedError, match=r"SIGSEGV[^$]*\nthe tensor core is on fire"):
        module["say_and_segfault"]()
    assert "the tensor core is on fire" in server.reports


# --- clients that vanish --------------------------------------------------------------------------


def test_a_client_that_asks_nothing(start_server: Any, deaths: str, wait_until: WaitUntil) -> None:
    """Its session ends at the server's limit, and its next request is told which; a call counts."""
    server = start_server(idle_timeout=0.4)
    module = server.load(deaths, call_timeout=0.8)
    with pytest.raises(DeadlineError):  # and not the idle limit, which is shorter
        module["sleep_through_sigterm"]()
    remote = server.connect()
    add_one = remote.get_function("rpc.test.addone")
    for _ in range(3):
        assert add_one(1) == 2
    wait_until(lambda: server.is_at_rest, "the session is over")
    with pytest.raises(RPCSessionTimeoutError, match=r"was idle for 0\.4 s.*--idle-timeout"):
        add_one(1)
    wait_until(lambda: "its client asked nothing for too long" in server.reports, "it is reported")
    assert server.serves()


def test_a_frozen_client_loses_its_device(
    start_server: Any, start_client: Any, wait_until: WaitUntil, deadline_s: float
) -> None:
    """One that is stopped holds it for the idle limit only; when it goes on, it is told."""
    server = start_server(idle_timeout=0.5)
    script = """
print("started", flush=True)
try:
    while True:
        remote.get_function("rpc.test.addone")(1)
except rpc.RPCError as error:
    print(type(error).__name__, flush=True)
"""
    client = start_client(server.port, script)
    client.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with server.connect(handshake_timeout=deadline_s) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    assert time.monotonic() - started < 3
    client.send_signal(signal.SIGCONT)
    assert client.stdout.readline().strip() == b"RPCSessionTimeoutError"


def test_a_client_that_is_frozen_in_an_upload(
    start_server: Any, start_client: Any, wait_until: WaitUntil, deadline_s: float
) -> None:
    """Half a request is no reason to wait longer."""
    server = start_server(idle_timeout=0.5)
    client = start_client(server.port, CLIENTS["uploading"])
    wait_until(lambda: any(path.glob(".partial-*") for path in server.directories), "it uploads")
    client.send_signal(signal.SIGSTOP)
    with server.connect(handshake_timeout=deadline_s) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    wait_until(lambda: server.is_at_rest, "nothing is left of the sessions")


@pytest.mark.skipif(sys.platform != "linux", reason="what the options are is Linux's affair")
def test_the_kernel_looks_after_connections() -> None:
    """It asks a silent peer whether it is there, and gives up what is not acknowledged."""
    with network.listen("127.0.0.1", 0) as listener:
        network.set_keepalive(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as served:
            assert served.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            asked = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            idle_s, pause_s, count = (
                served.getsockopt(socket.IPPROTO_TCP, option) for option in asked
            )
            assert idle_s + pause_s * count <= 60
            assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


# --- what the machine does not give ---------------------------------------------------------------


@pytest.mark.python_only(reason="system calls are replaced")
def test_no_process_for_a_session(start_supervisor: Any, dial: Dial, hello: Hello) -> None:
    """fork() fails: that client is told why, the next is served."""
    server = start_supervisor(before="fork_once_fails()")
    connection = dial(server.args[-1])
    connection.sendall(hello() + INIT_SERVER)
    exactly(connection, len(ADMITTED))
    content = b"".join(iter(lambda: connection.recv(4096), b""))
    (text,) = FFI.decode_values(content, 12, len(content))
    assert str(text).startswith("SessionCrashedError: this server cannot start a session now: ")
    assert "Resource temporarily unavailable" in str(text)
    with rpc.connect("127.0.0.1", server.args[-1]) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2


@pytest.mark.python_only(reason="system calls are replaced")
def test_the_clock_is_set(start_supervisor: Any, dial: Dial, hello: Hello) -> None:
    """By hours, back and forth, all the time: no limit is met early, and none late."""
    server = start_supervisor(before="clock_jumps()", handshake_s=0.3, idle_s=20.0)
    silent = dial(server.args[-1])
    with rpc.connect("127.0.0.1", server.args[-1], session_timeout=1.0) as remote:
        add_one = remote.get_function("rpc.test.addone")
        started = time.monotonic()
        assert is_closed(silent)
        assert time.monotonic() - started < 2
        with pytest.raises(RPCSessionTimeoutError):
            all(add_one(1) == 2 for _ in itertools.count())
        assert 0.5 < time.monotonic() - started < 3


def test_the_folders_of_the_server_vanish(tmp_path: Path, wait_until: WaitUntil) -> None:
    """Its own and that for its sessions: the usual places will do."""
    own, temp = tmp_path / "own", tmp_path / "temp"
    own.mkdir()
    temp.mkdir()
    program = [sys.executable, "-m", "pytest_tvmrpc.exec.rpc_server", "--port", "0"]
    with subprocess.Popen(
        program,
        cwd=own,
        env={**os.environ, "TMPDIR": str(temp), "PYTHONPATH": FOLDER},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().rpartition(":")[2])
            own.rmdir()
            temp.rmdir()
            with rpc.connect("127.0.0.1", port) as remote:
                remote.upload(b"abc", "a.bin")
                assert remote.get_function("rpc.test.addone")(1) == 2
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def test_the_directory_of_a_session_vanishes(server: Any) -> None:
    """Its client is told what is missing; the next has its own."""
    with server.connect() as remote:
        remote.upload(b"abc", "a.bin")
        (folder,) = server.directories
        (folder / "a.bin").unlink()
        folder.rmdir()
        with pytest.raises(FileNotFoundError):
            remote.upload(b"abc", "a.bin")
        assert remote.get_function("rpc.test.addone")(1) == 2
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


def test_a_port_in_use(server: Any, launch: Callable[..., Any]) -> None:
    """The message says which, and what to do; nothing is left running."""
    with pytest.raises(StartError, match=rf"cannot bind to port {server.port} on 127\.0\.0\.1"):
        launch(port=server.port, port_end=server.port + 1, silent=True, log=-3)


def test_an_address_of_version_six(start_server: Any) -> None:
    """Only that one is listened on; the port that the system chose is told."""
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        network.listen("::1", 0).close()
    except ConnectError as error:
        pytest.skip(str(error))
    server = start_server(host="::1")
    with rpc.connect("::1", server.port) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    with pytest.raises(ConnectError):
        rpc.connect("127.0.0.1", server.port)


def test_an_address_that_is_not_ours(launch: Callable[..., Any]) -> None:
    """It is named, too."""
    with pytest.raises(StartError, match=r"cannot bind to .* on 192\.0\.2\.1"):
        launch(host="192.0.2.1", port=0, silent=True, log=-3)


def test_sessions_do_not_share_what_they_leave(server: Any) -> None:
    """Files and handles of a session are gone for the next."""
    with server.connect() as remote:
        remote.upload(b"abc", "a.bin")
        assert remote.listdir() == "a.bin"
        remote.get_function("testing.echo")
    with server.connect() as remote:
        assert remote.listdir() == ""
