"""The asking end: with our answering end behind it, and with one that breaks the rules."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Iterator, List, Tuple

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import (
    ConnectionLostError,
    DeadlineError,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
    RPCError,
    RPCSessionTimeoutError,
)
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI
from pytest_tvmrpc.protocol.values import FunctionHandle
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint
from pytest_tvmrpc.session.later import MOST

if TYPE_CHECKING:
    from pathlib import Path

CPU = Device(1, 0)
BYTES = DataType("uint8")
LARGE = 16 << 20
"""More than the buffers of any socket here hold."""


def find(endpoint: Endpoint, name: str) -> int:
    """The handle of a global function."""
    return int(endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, name))


def allocate(endpoint: Endpoint, nbytes: int) -> TensorRecord:
    """A flat tensor of so many bytes."""
    wanted = TensorRecord(0, CPU, (nbytes,), BYTES)
    data = endpoint.syscall(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, wanted, None)
    return TensorRecord(int(data), CPU, (nbytes,), BYTES)


def at(record: TensorRecord, offset: int, nbytes: int) -> TensorRecord:
    """A part of a tensor."""
    return TensorRecord(record.data, record.device, (nbytes,), record.dtype, offset)


def content(endpoint: Endpoint, record: TensorRecord) -> bytes:
    """What is in a tensor."""
    target = bytearray(record.nbytes)
    endpoint.copy_from_remote(record, memoryview(target))
    return bytes(target)


# --- calls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(1 << 63), (1 << 63) - 1, 1.5, "", "äß", b"", b"\0\1", "x" * 70_000],
    ids=lambda value: repr(value)[:12],
)
def test_values_come_back(endpoint: Endpoint, value: Any) -> None:
    """What a call is given arrives there and comes back unchanged."""
    result = endpoint.call(find(endpoint, "testing.echo"), [value], "echo")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("nbytes", [1, 65_535, 65_536, 70_000, LARGE])
def test_long_bytes_come_back(endpoint: Endpoint, nbytes: int) -> None:
    """Byte strings of any length pass, those beyond every buffer, too."""
    value = os.urandom(1024) * (nbytes // 1024 + 1)
    result = endpoint.call(find(endpoint, "testing.echo"), [value[:nbytes]], "echo")
    assert bytes(result) == value[:nbytes]


def test_a_long_value_that_is_not_the_last(conversation: Any) -> None:
    """Then the call is collected before it is read."""
    endpoint = conversation.endpoint()
    conversation.add("test.sizes", lambda *values: ",".join(str(len(value)) for value in values))
    arguments = [bytes(100_000), "abc", bytes(200_000), "d"]
    handle = find(endpoint, "test.sizes")
    assert endpoint.call(handle, arguments, "sizes") == "100000,3,200000,1"


def test_what_a_function_raises(endpoint: Endpoint) -> None:
    """It is raised here with its type and message, and the session goes on."""
    handle = find(endpoint, "rpc.test.except")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^boom$") as caught:
            endpoint.call(handle, ["boom"], "except")
        assert isinstance(caught.value, RemoteError)
        assert caught.value.remote_type == "ValueError"
    assert endpoint.call(find(endpoint, "rpc.test.addone"), [1], "addone") == 2


def test_what_cannot_be_sent(endpoint: Endpoint) -> None:
    """A value that the protocol has no bytes for is refused here; nothing was sent."""
    handle = find(endpoint, "testing.echo")
    for value in ([1], {}, object(), 1 << 63):
        with pytest.raises(LocalProtocolError):
            endpoint.call(handle, [value], "echo")
    assert endpoint.call(handle, [1], "echo") == 1


@pytest.mark.parametrize("result", [{1}, {"a"}], ids=repr)
def test_what_cannot_be_returned(conversation: Any, result: Any) -> None:
    """A function that returns what the protocol cannot carry raises, by name of the type."""
    endpoint = conversation.endpoint()
    conversation.add("test.odd", lambda: result)
    with pytest.raises(RemoteError, match=f"a {type(result).__name__}"):
        endpoint.call(find(endpoint, "test.odd"), [], "odd")
    assert endpoint.closed_because is None


def test_functions_and_objects_by_handle(conversation: Any) -> None:
    """Returned functions are called by their handles; freed ones no more."""
    endpoint = conversation.endpoint()
    add = endpoint.call(find(endpoint, "rpc.test.add_to_lhs"), [5], "add_to_lhs")
    assert endpoint.call(int(add), [6], "returned") == 11
    endpoint.syscall(RPCCode.FREE_HANDLE, OpaquePointer(int(add)))
    with pytest.raises(RPCError, match="was freed"):
        endpoint.call(int(add), [6], "returned")
    # Once more is no error: TVM 0.21 to 0.23 frees tensors by a number that is not theirs.
    endpoint.syscall(RPCCode.FREE_HANDLE, OpaquePointer(int(add)))
    assert endpoint.closed_because is None


@pytest.mark.parametrize("handle", [0, 4711, (1 << 64) - 1])
def test_handles_that_nobody_gave(endpoint: Endpoint, handle: int) -> None:
    """A call of one raises and does no harm."""
    with pytest.raises(RPCError, match="was never given out"):
        endpoint.call(handle, [], "nothing")
    assert endpoint.call(find(endpoint, "rpc.test.addone"), [1], "addone") == 2


def test_a_handle_of_the_wrong_kind(endpoint: Endpoint) -> None:
    """Memory cannot be called, and a function is no memory."""
    record = allocate(endpoint, 16)
    with pytest.raises(TypeError, match="not of a function"):
        endpoint.call(record.data, [], "memory")
    function = TensorRecord(find(endpoint, "testing.echo"), CPU, (16,), BYTES)
    with pytest.raises(RemoteError, match="not of memory"):
        content(endpoint, function)
    assert content(endpoint, record)[:0] == b""


def test_functions_looked_up_together(endpoint: Endpoint) -> None:
    """One round trip for several names; 0 stands for what is not there."""
    before = endpoint.meter.calls
    found = endpoint.get_functions(["rpc.test.addone", "no.such", "rpc.test.strcat"])
    assert endpoint.meter.calls == before + 1
    assert [bool(handle) for handle in found] == [True, False, True]
    assert endpoint.call(found[2], ["a", 1], "strcat") == "a:1"


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [1, 4096, 4097, 65_536, 100_000, LARGE])
def test_copies_both_ways(endpoint: Endpoint, nbytes: int) -> None:
    """Bytes of any number arrive as they were, posted copies and large ones alike."""
    record = allocate(endpoint, nbytes)
    sent = os.urandom(4096) * (nbytes // 4096 + 1)
    endpoint.copy_to_remote(record, memoryview(sent)[:nbytes])
    assert content(endpoint, record) == sent[:nbytes]


def test_copies_at_an_offset(endpoint: Endpoint) -> None:
    """A copy touches the bytes from its offset on, and no others."""
    record = allocate(endpoint, 200_000)
    endpoint.copy_to_remote(record, memoryview(bytes(200_000)))
    endpoint.copy_to_remote(at(record, 7, 3), memoryview(b"abc"))
    endpoint.copy_to_remote(at(record, 100, 99_000), memoryview(b"x" * 99_000))
    found = content(endpoint, record)
    assert found == bytes(7) + b"abc" + bytes(90) + b"x" * 99_000 + bytes(200_000 - 99_100)
    assert content(endpoint, at(record, 8, 2)) == b"bc"


@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [(1, 100), (101, 1), (100, 1), (1 << 40, 1), ((1 << 64) - 1, 8), (0, 100_000)],
)
def test_copies_out_of_bounds(endpoint: Endpoint, offset: int, nbytes: int) -> None:
    """A copy that leaves its memory, on either side or by overflow, is refused both ways."""
    record = allocate(endpoint, 100)
    with pytest.raises(ValueError, match="has to lie within its memory"):
        content(endpoint, at(record, offset, nbytes))

    def copy_to() -> None:
        endpoint.copy_to_remote(at(record, offset, nbytes), memoryview(bytes(nbytes)))
        content(endpoint, record)  # a small copy is posted: its error comes with the next request

    with pytest.raises(ValueError, match="has to lie within its memory"):
        copy_to()
    assert len(content(endpoint, record)) == 100


def test_a_posted_copys_error_comes_late(endpoint: Endpoint) -> None:
    """The next request raises it, whatever that is; the one after is itself again."""
    record = allocate(endpoint, 100)
    add_one = find(endpoint, "rpc.test.addone")
    endpoint.copy_to_remote(at(record, 99, 2), memoryview(b"ab"))
    with pytest.raises(ValueError, match="bytes 99 to 101 of a memory of 100 bytes"):
        endpoint.call(add_one, [1], "addone")
    assert endpoint.call(add_one, [1], "addone") == 2


def test_the_first_late_error_is_raised(endpoint: Endpoint) -> None:
    """Of several posted copies that were refused, the first is told, once."""
    record = allocate(endpoint, 100)
    for offset in (98, 0, 99):
        endpoint.copy_to_remote(at(record, offset, 4), memoryview(b"abcd"))
    with pytest.raises(ValueError, match="bytes 98 to 102"):
        content(endpoint, record)
    assert content(endpoint, record)[:4] == b"abcd"


def test_many_posted_copies(endpoint: Endpoint) -> None:
    """More copies than may be owed answers, with nothing read between them."""
    record = allocate(endpoint, 4096)
    for number in range(500):
        endpoint.copy_to_remote(record, memoryview(bytes([number % 256]) * 4096))
    assert content(endpoint, record) == bytes([499 % 256]) * 4096


def test_copies_on_the_other_side(endpoint: Endpoint) -> None:
    """Between two tensors there, of one size; of two sizes it is refused."""
    source, target = allocate(endpoint, 100), allocate(endpoint, 100)
    endpoint.copy_to_remote(source, memoryview(b"z" * 100))
    stream = OpaquePointer(0)
    endpoint.syscall(RPCCode.COPY_AMONG_REMOTE, source, target, stream)
    assert content(endpoint, target) == b"z" * 100
    with pytest.raises(ValueError, match="have to be of one size"):
        endpoint.syscall(RPCCode.COPY_AMONG_REMOTE, source, at(target, 0, 99), stream)


def test_memory_that_is_not_there(endpoint: Endpoint) -> None:
    """An allocation beyond everything is an error of a device, and the session goes on."""
    wanted = TensorRecord(0, CPU, (1 << 50,), BYTES)
    with pytest.raises(RemoteError, match="cannot allocate"):
        endpoint.syscall(RPCCode.DEV_ALLOC_DATA_WITH_SCOPE, wanted, None)
    assert endpoint.syscall(RPCCode.DEV_GET_ATTR, Device(2, 0), 0) == 0
    assert endpoint.syscall(RPCCode.DEV_GET_ATTR, CPU, 0) == 1


def test_freed_memory(endpoint: Endpoint) -> None:
    """It cannot be read any more; freed twice is no harm."""
    record = allocate(endpoint, 100)
    for _ in range(2):
        endpoint.syscall(RPCCode.DEV_FREE_DATA, CPU, OpaquePointer(record.data))
        with pytest.raises(RPCError, match="was freed"):
            content(endpoint, record)


def test_deferred_frees_ride_along(conversation: Any) -> None:
    """They cost no round trip, and have been done when the next request is answered."""
    endpoint = conversation.endpoint()
    handles = conversation.session.handles
    add_one = find(endpoint, "rpc.test.addone")
    records = [allocate(endpoint, 64) for _ in range(MOST)]
    held, calls = len(handles), endpoint.meter.calls
    for record in records:
        endpoint.defer(RPCCode.DEV_FREE_DATA, CPU, OpaquePointer(record.data))
    assert len(handles) == held
    assert endpoint.call(add_one, [1], "addone") == 2
    assert len(handles) == held - MOST
    assert endpoint.meter.calls == calls + 1


def test_errors_of_deferred_requests_matter_to_nobody(endpoint: Endpoint) -> None:
    """A refused free is not raised by the request it rode with."""
    endpoint.defer(RPCCode.DEV_FREE_DATA, Device(99, 0), OpaquePointer(4711))
    endpoint.defer(RPCCode.DEV_STREAM_SYNC, Device(99, 0), OpaquePointer(0))
    assert endpoint.call(find(endpoint, "rpc.test.addone"), [1], "addone") == 2


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 65_535, 65_536, LARGE])
def test_files_both_ways(endpoint: Endpoint, folder: Path, nbytes: int) -> None:
    """Long files are streamed into place and sent by the kernel; short ones just pass."""
    sent = (os.urandom(4096) * (nbytes // 4096 + 1))[:nbytes]
    upload, download = endpoint.get_functions(["tvm.rpc.server.upload", "tvm.rpc.server.download"])
    assert endpoint.call(upload, ["a.bin", sent], "upload") is None
    assert os.listdir(folder) == ["a.bin"]
    assert (folder / "a.bin").read_bytes() == sent
    assert bytes(endpoint.call(download, ["a.bin"], "download")) == sent
    assert endpoint.call(find(endpoint, "rpc.test.addone"), [1], "addone") == 2


def test_a_refused_large_upload(endpoint: Endpoint, folder: Path) -> None:
    """The file's bytes are passed over; nothing is left; the session goes on."""
    upload = find(endpoint, "tvm.rpc.server.upload")
    with pytest.raises(ValueError, match="leads outside"):
        endpoint.call(upload, ["../x.bin", bytes(LARGE)], "upload")
    assert endpoint.call(find(endpoint, "rpc.test.addone"), [1], "addone") == 2
    assert os.listdir(folder) == []
    assert os.listdir(folder.parent) == ["session"]


# --- ends ---------------------------------------------------------------------------------------


def test_close_ends_the_session(conversation: Any) -> None:
    """The other end sees Shutdown; later requests say why they cannot be; twice is once."""
    endpoint = conversation.endpoint()
    endpoint.close()
    endpoint.close()
    conversation.join()
    assert conversation.ended_by is None
    with pytest.raises(ConnectionLostError, match="is over: it was closed"):
        endpoint.call(1, [], "anything")
    with pytest.raises(ConnectionLostError, match="is over: it was closed"):
        endpoint.copy_to_remote(TensorRecord(1, CPU, (1,), BYTES), memoryview(b"a"))
    endpoint.release(1, FunctionHandle)


def test_an_interrupted_call(conversation: Any) -> None:
    """Ctrl-C comes through at once; nobody knows the next answer, so the session is closed."""
    endpoint = conversation.endpoint()
    release = threading.Event()

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        release.wait(10)

    conversation.add("test.interrupt", interrupt)
    handle = find(endpoint, "test.interrupt")
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endpoint.call(handle, [], "test.interrupt")
    assert time.monotonic() - started < 5
    release.set()
    with pytest.raises(ConnectionLostError, match=r"interrupted in test\.interrupt \(Keyboard"):
        endpoint.call(handle, [], "test.interrupt")


def test_a_call_that_takes_too_long(conversation: Any) -> None:
    """The error names call, limit and the argument that sets it; then the session is closed."""
    endpoint = conversation.endpoint(timeout_s=0.2)
    release = threading.Event()
    conversation.add("test.wait", lambda: release.wait(10) and None)
    handle = find(endpoint, "test.wait")
    with pytest.raises(DeadlineError, match=r"test\.wait for 0\.2 s; set call_timeout") as caught:
        endpoint.call(handle, [], "test.wait")
    assert isinstance(caught.value, TimeoutError)
    release.set()
    with pytest.raises(ConnectionLostError, match="made no progress"):
        endpoint.call(handle, [], "test.wait")


def test_threads_may_share_a_session(endpoint: Endpoint, deadline_s: float) -> None:
    """Each gets its own answers."""
    echo = find(endpoint, "testing.echo")
    wrong: List[Tuple[int, Any]] = []

    def ask(first: int) -> None:
        for number in range(first, first + 200):
            answer = endpoint.call(echo, [number], "echo")
            if answer != number:
                wrong.append((number, answer))

    threads = [threading.Thread(target=ask, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline_s)
    assert wrong == []


def test_the_meter(endpoint: Endpoint) -> None:
    """Calls, bytes and seconds are counted."""
    record, meter = allocate(endpoint, 100_000), endpoint.meter
    calls, sent, received, spent = (
        meter.calls, meter.bytes_sent, meter.bytes_received, meter.call_s
    )  # fmt: skip
    endpoint.copy_to_remote(record, memoryview(bytes(100_000)))
    assert meter.calls == calls + 1
    assert 100_000 < meter.bytes_sent - sent < 100_200
    content(endpoint, record)
    assert 100_000 < meter.bytes_received - received < 100_200
    assert meter.call_s > spent


# --- an answering end that breaks the rules -----------------------------------------------------

OPENED = bytes.fromhex("0c00000000000000 04000000 01000000 00000000")


@pytest.fixture(name="liar")
def _liar(deadline_s: float) -> Iterator[Tuple[Endpoint, socket.socket]]:
    """An asking end, and the socket from which the test answers it."""
    asking, answering = socket.socketpair()
    with asking, answering:
        endpoint = Endpoint(SocketChannel(asking, "the server", deadline_s, "call_timeout"))
        answering.sendall(OPENED)
        endpoint.init_server()
        yield endpoint, answering
        endpoint.close()


REQUESTS_MADE = {
    "call": lambda endpoint: endpoint.call(1, [2], "a call"),
    "start": lambda endpoint: endpoint.start(1, [2], "a call"),
    "syscall": lambda endpoint: endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "f"),
    "syscalls": lambda endpoint: endpoint.get_functions(["f", "g"]),
    "copy": lambda endpoint: endpoint.copy_to_remote(
        TensorRecord(1, CPU, (1,), BYTES), memoryview(b"a"), is_awaited=True
    ),
    "copy back": lambda endpoint: endpoint.copy_from_remote(
        TensorRecord(1, CPU, (1,), BYTES), memoryview(bytearray(1))
    ),
}


@pytest.mark.parametrize("asked", REQUESTS_MADE.values(), ids=REQUESTS_MADE)
def test_requests_have_their_order_here_too(deadline_s: float, asked: Any) -> None:
    """Only InitServer is sent before the session is open, and it is sent once; no harm is done."""
    asking, answering = socket.socketpair()
    with answering:
        answering.setblocking(False)
        endpoint = Endpoint(SocketChannel(asking, "the server", deadline_s, "call_timeout"))
        with pytest.raises(LocalProtocolError, match="a session that is opened; legal now"):
            asked(endpoint)
        with pytest.raises(BlockingIOError):
            answering.recv(1)
        answering.sendall(OPENED)
        endpoint.init_server()
        assert answering.recv(100)
        with pytest.raises(LocalProtocolError, match="InitServer comes once"):
            endpoint.init_server()
        with pytest.raises(BlockingIOError):
            answering.recv(1)
        answering.sendall(RETURN_ONE)
        assert endpoint.call(1, [], "a call") == 1
        endpoint.close()


RETURN_ONE = struct.pack("<Qiiiqiq", 32, RPCCode.RETURN, 2, 1, 1, 1, 1)


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_answers_in_any_segmentation(liar: Any, cut: str) -> None:
    """An answer may come in pieces, or with the next behind it."""
    endpoint, answering = liar
    if cut == "byte by byte":
        thread = threading.Thread(
            target=lambda: [answering.sendall(bytes([byte])) for byte in RETURN_ONE]
        )
        thread.start()
        assert endpoint.call(1, [], "call") == 1
        thread.join()
        return
    answering.sendall(RETURN_ONE * (3 if cut == "with trailing bytes" else 1))
    if cut == "with trailing bytes":
        endpoint.release(1, FunctionHandle)
        endpoint.release(1, FunctionHandle)
    assert endpoint.call(1, [], "call") == 1


@pytest.mark.parametrize("cut", range(len(RETURN_ONE)))
def test_a_server_that_closes_within_an_answer(liar: Any, cut: int) -> None:
    """That is a lost connection, wherever it happens; later calls raise at once."""
    endpoint, answering = liar
    answering.sendall(RETURN_ONE[:cut])
    answering.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionLostError, match="closed the connection"):
        endpoint.call(1, [], "a call")
    with pytest.raises(ConnectionLostError, match="is over"):
        endpoint.call(1, [], "a call")


@pytest.mark.parametrize("posted", [False, True], ids=["alone", "behind others"])
@pytest.mark.parametrize(
    "answer",
    [
        struct.pack("<Qi", 4, 8),
        struct.pack("<Qi", 4, 3),
        struct.pack("<Qi", 4, 77),
        struct.pack("<Qi", 4, 0),
        struct.pack("<Qi", 3, 4),
        struct.pack("<Qi", (1 << 64) - 1, 4),
        struct.pack("<Qii", 8, 4, -1),
        struct.pack("<Qii", 8, 4, 1 << 30),
        struct.pack("<Qiii", 12, 4, 1, 999),
        struct.pack("<QiiiQ", 20, 5, 1, 8, 1 << 50),
        struct.pack("<Qii", 8, 5, 0),
        struct.pack("<Qi", 4, 5),
        struct.pack("<Qi", 4, 4),
    ],
    ids=[
        "ack", "request", "unknown", "none", "length 3", "length 2^64-1", "-1 values",
        "2^30 values", "kind 999", "long text", "no text", "empty exception", "empty return",
    ],
)  # fmt: skip
def test_answers_against_the_rules(liar: Any, answer: bytes, posted: bool) -> None:
    """A server that breaks the protocol is told apart from a lost one; the session is over."""
    endpoint, answering = liar
    if posted:
        endpoint.release(1, FunctionHandle)
        answering.sendall(OPENED)
    answering.sendall(answer + bytes(64))
    with pytest.raises(RPCError):
        endpoint.call(1, [], "a call")
    assert endpoint.closed_because is not None
    with pytest.raises(ConnectionLostError, match="is over"):
        endpoint.call(1, [], "a call")


def test_a_server_that_shuts_down(liar: Any) -> None:
    """TVM's server says Shutdown when its session's process dies: that is a lost connection."""
    endpoint, answering = liar
    answering.sendall(struct.pack("<Qi", 4, 1))
    with pytest.raises(ConnectionLostError, match="ended the session in a call"):
        endpoint.call(1, [], "a call")


@pytest.mark.parametrize("count", [15, 17, 0, 1 << 20])
def test_a_copy_of_another_size(liar: Any, count: int) -> None:
    """More or fewer bytes than were asked for break the protocol, and are not written."""
    endpoint, answering = liar
    answering.sendall(struct.pack("<Qi", 4 + count, 8) + bytes(min(count, 8192)))
    target = bytearray(b"x" * 16)
    with pytest.raises(RemoteProtocolError, match=f"{count} bytes came where 16"):
        endpoint.copy_from_remote(TensorRecord(1, CPU, (16,), BYTES), memoryview(target))
    assert bytes(target) == b"x" * 16


def test_two_values_for_one(liar: Any) -> None:
    """A syscall has one value for an answer."""
    endpoint, answering = liar
    answering.sendall(struct.pack("<Qiiii", 16, 4, 2, 0, 0))
    with pytest.raises(RemoteProtocolError, match="2 values answer"):
        endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "f")
    assert endpoint.closed_because is not None


@pytest.mark.parametrize("value", ["text", b"bytes", 1.5, float("nan")])
def test_something_else_for_a_number(liar: Any, value: Any) -> None:
    """A handle is a number; what else is answered breaks the protocol. Attributes may be texts."""
    endpoint, answering = liar
    body = b"".join(FFI.encode_values((value,)))
    for _ in range(2):
        answering.sendall(struct.pack("<Qi", 4 + len(body), 4) + body)
    if not isinstance(value, float):
        assert endpoint.syscall(RPCCode.DEV_GET_ATTR, CPU, 5) == value
    with pytest.raises(RemoteProtocolError, match="a number is expected"):
        endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "f")
    assert endpoint.closed_because is not None


@pytest.mark.parametrize(
    ("reply", "dialect"),
    [
        ("0c00000000000000 04000000 01000000 04000000", "legacy"),
        ("0c00000000000000 04000000 01000000 00000000", "ffi"),
        ("0800000000000000 04000000 00000000", "ffi"),
    ],
)
def test_the_servers_dialect_is_learned(deadline_s: float, reply: str, dialect: str) -> None:
    """From its answer to InitServer; it is spoken from then on."""
    asking, answering = socket.socketpair()
    with answering:
        answering.sendall(bytes.fromhex(reply))
        endpoint = Endpoint(SocketChannel(asking, "the server", deadline_s, "call_timeout"))
        endpoint.init_server()
        assert endpoint.dialect.name == dialect
        endpoint.close()


@pytest.mark.parametrize("code", ["08", "0b"], ids=["ffi", "legacy"])
def test_a_refusal_is_read_in_the_servers_dialect(deadline_s: float, code: str) -> None:
    """A server that answers InitServer with an error says it in a dialect nobody knows yet."""
    asking, answering = socket.socketpair()
    with answering:
        said = f"1800000000000000 05000000 01000000 {code}000000 0400000000000000 626f6f6d"
        answering.sendall(bytes.fromhex(said))
        endpoint = Endpoint(SocketChannel(asking, "the server", deadline_s, "call_timeout"))
        with pytest.raises(RemoteError, match=r"^boom$"):
            endpoint.init_server()
        endpoint.close()


TEXT = b"".join(FFI.encode_values(["RPCSessionTimeoutError: Your 2.0s session has expired"]))
EXPIRED = struct.pack("<Qi", 4 + len(TEXT), RPCCode.EXCEPTION) + TEXT


@pytest.mark.parametrize("before", ["nothing", "an answer", "a free", "a posted copy", "look-ups"])
def test_an_expired_session(liar: Any, before: str) -> None:
    """The end is told by its own error, whatever else was on its way; then the session is over."""
    endpoint, answering = liar
    answering.sendall((RETURN_ONE if before == "an answer" else b"") + EXPIRED)
    answering.shutdown(socket.SHUT_WR)
    if before == "an answer":
        assert endpoint.call(1, [], "a call") == 1
    if before == "a free":
        endpoint.release(1, FunctionHandle)
    if before == "a posted copy":
        endpoint.copy_to_remote(TensorRecord(1, CPU, (1,), BYTES), memoryview(b"a"))
    use = endpoint.get_functions if before == "look-ups" else endpoint.syscall
    with pytest.raises(RPCSessionTimeoutError, match=r"Your 2\.0s session has expired"):
        use(*([["a", "b", "c"]] if before == "look-ups" else [RPCCode.GET_GLOBAL_FUNC, "a"]))
    with pytest.raises(ConnectionLostError, match="session has expired"):
        endpoint.call(1, [], "a call")


def test_an_expired_session_and_a_dead_connection(deadline_s: float) -> None:
    """What the server said before it closed is found even if a later send fails first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asking = socket.create_connection(listener.getsockname())
        answering = listener.accept()[0]
    with asking, answering:
        endpoint = Endpoint(SocketChannel(asking, "the server", deadline_s, "call_timeout"))
        answering.sendall(OPENED)
        endpoint.init_server()
        answering.sendall(EXPIRED)
        answering.close()  # with InitServer unread: the client's machine gets a reset

        def use() -> None:
            for _ in range(3):
                endpoint.copy_to_remote(TensorRecord(1, CPU, (1,), BYTES), memoryview(b"a"))
            endpoint.call(1, [], "a call")

        with pytest.raises(RPCSessionTimeoutError):
            use()
