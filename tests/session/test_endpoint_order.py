"""What an endpoint says to a server that is not ours, and in which order."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
from typing import Iterator, List

import pytest

from pytest_tvmrpc.client.session import RPCSession
from pytest_tvmrpc.errors import ConnectionLostError, DeadlineError, LocalProtocolError
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.framing import PacketReader
from pytest_tvmrpc.protocol.values import FunctionHandle
from pytest_tvmrpc.runtime import empty, tensor
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint

np = pytest.importorskip("numpy")

VOID = struct.pack("<Qiii", 12, 4, 1, 0)
LIMIT = b"tvm.rpc.server.GetCRTMaxPacketSize"
ALLOCS = (RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, RPCCode.GET_GLOBAL_FUNC)


def opened(ours: socket.socket, theirs: socket.socket, limit_s: float) -> Endpoint:
    """A session with a server that has opened it, and has read the request for that."""
    endpoint = Endpoint(SocketChannel(ours, "a server", limit_s, "call_timeout"))
    theirs.sendall(VOID)
    endpoint.init_server()
    assert theirs.recv(4096)
    return endpoint


class Foreign:
    """A server that answers as TVM's does, each request by itself, and remembers the requests."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self.said: List[int] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        endpoint = Endpoint(SocketChannel(ours, "a server of TVM", 10.0, "call_timeout"))
        endpoint.init_server()
        self.session = RPCSession(endpoint, ("127.0.0.1", 1))

    def _serve(self) -> None:
        reader, handle = PacketReader(), 0x1000
        while True:
            packet = reader.next_packet()
            if packet is None:
                received = self._theirs.recv_into(reader.room())
                if not received:
                    return
                reader.received(received)
                continue
            self.said.append(packet[0])
            if packet[0] == RPCCode.SHUTDOWN:
                return
            handle += 1
            answer = VOID
            if LIMIT in reader.buffer[packet[1] : packet[2]]:
                answer = struct.pack("<QiiiQ", 20, 4, 1, 4, 0)  # it has none, like all but a few
            elif packet[0] in ALLOCS:
                answer = struct.pack("<QiiiQ", 20, 4, 1, 4, handle)
            elif packet[0] == RPCCode.CALL_FUNC:
                answer = struct.pack("<Qiiiqiq", 32, 4, 2, 1, 1, 1, 7)
            self._theirs.sendall(answer)

    def close(self) -> None:
        """Ends both ends."""
        self.session.close()
        self._thread.join()
        self._theirs.close()


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    server = Foreign()
    with contextlib.closing(server):
        yield server


def test_a_copy_comes_before_its_free(foreign: Foreign) -> None:
    """A tensor that is dropped at once was copied to before it is freed: never after."""
    device = foreign.session.cpu(0)
    for _ in range(3):
        tensor(np.zeros(16, "float32"), device)
    foreign.session.get_function("any")
    steps = [
        code for code in foreign.said if code in (RPCCode.COPY_TO_REMOTE, RPCCode.DEV_FREE_DATA)
    ]
    assert steps == [RPCCode.COPY_TO_REMOTE, RPCCode.DEV_FREE_DATA] * 3


def test_copies_stand_behind_an_allocation(foreign: Foreign) -> None:
    """It does not wait for their answers; a call, which may need them, comes after them."""
    device = foreign.session.cpu(0)
    kept = [tensor(np.zeros(16, "float32"), device) for _ in range(2)]
    function = foreign.session.get_function("any")
    assert function(kept[0]) == 7
    alloc, copy = RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, RPCCode.COPY_TO_REMOTE
    assert foreign.said[1:6] == [RPCCode.GET_GLOBAL_FUNC, alloc, alloc, copy, copy]
    assert foreign.said[-1] == RPCCode.CALL_FUNC


def test_a_great_many_frees(foreign: Foreign) -> None:
    """They never fill the sockets with answers that nobody takes."""
    device = foreign.session.cpu(0)
    function = foreign.session.get_function("any")
    for _ in range(50_000):
        foreign.session.release(5, FunctionHandle)
    assert function(1) == 7
    empty((4,), "float32", device)  # may need the memory of all that was freed
    assert foreign.said.count(RPCCode.FREE_HANDLE) == 50_000


def test_threads_that_drop_while_one_calls(foreign: Foreign) -> None:
    """Answers belong to their requests, whoever else frees something meanwhile."""
    function = foreign.session.get_function("any")
    threads = [
        threading.Thread(
            target=lambda: [foreign.session.release(5, FunctionHandle) for _ in range(2000)]
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert function(1) == 7
    for thread in threads:
        thread.join()


def test_an_array_is_no_tensor(foreign: Foreign) -> None:
    """The commonest mistake is answered with what to do."""
    with pytest.raises(LocalProtocolError, match=r"runtime\.tensor\(array, remote\.cpu\(0\)\)"):
        foreign.session.get_function("any")(np.zeros(3))


def test_an_interrupt_within_a_long_result() -> None:
    """The rest of it is not taken for the next answer: the session is over, and says why."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        endpoint = opened(ours, theirs, 10.0)
        head = struct.pack("<QiiiqiQ", 32 + (1 << 20), 4, 2, 1, 66, 9, 1 << 20)
        theirs.sendall(head + bytes(70_000))
        before = signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            with pytest.raises(KeyboardInterrupt):
                endpoint.call(1, (), "download")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        with pytest.raises(ConnectionLostError, match="interrupted in download"):
            endpoint.call(1, (), "download")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_signals_in_a_long_request() -> None:
    """A text that the kernel takes in parts arrives whole, although signals cut the sending."""
    ours, theirs = socket.socketpair()
    text = os.urandom(1 << 20).hex()
    got = bytearray()

    def read() -> None:
        while len(got) < len(text):
            got.extend(theirs.recv(1 << 16))
        theirs.sendall(struct.pack("<Qiiiqi", 24, 4, 2, 1, 0, 0))

    with contextlib.closing(ours), contextlib.closing(theirs):
        endpoint = opened(ours, theirs, 10.0)
        thread = threading.Timer(0.1, read)
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        thread.start()
        try:
            assert endpoint.call(1, (text,), "echo") is None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            thread.join()
    assert text.encode() in got


def test_a_long_request_that_nobody_takes() -> None:
    """Its limit is named, as any other."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        endpoint = opened(ours, theirs, 0.2)
        with pytest.raises(DeadlineError, match="call_timeout"):
            endpoint.call(1, ("x" * (8 << 20),), "echo")
