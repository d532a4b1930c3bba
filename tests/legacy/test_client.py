"""Our client and servers of TVM 0.8 to 0.20: sessions, values and errors."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, ContextManager, List

import numpy
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import (
    ConnectionLostError,
    KeyMismatchError,
    RemoteError,
    RemoteProtocolError,
    RPCSessionTimeoutError,
)

from .sequences import (
    BOOL,
    FLOAT32,
    FUNCTION,
    NDARRAY,
    NONE,
    OBJECT,
    POINTER,
    STR,
    TENSOR,
    Device,
    Record,
    RuleBrokenError,
    Value,
    integer,
    sequence,
    text,
)
from .server import LegacyServer

Start = Callable[..., LegacyServer]
Open = Callable[..., ContextManager[rpc.RPCSession]]


def test_a_session(old: LegacyServer, session: Open) -> None:
    """Nobody said which dialect the server speaks."""
    with session(old) as remote:
        addone = remote.get_function("rpc.test.addone")
        assert addone(10) == 11
        assert remote.get_function("rpc.test.strcat")("abc", 11) == "abc:11"
        with pytest.raises(AttributeError, match=r"Module has no function 'no\.such'"):
            remote.get_function("no.such")
    assert len(old.sessions) == 1
    assert old.session.key == "client:"
    assert (
        old.session.packets[0].hex() == "1500000000000000020000000500000000000000302e382e3000000000"
    )
    assert old.session.packets[-1].hex() == "040000000000000001000000"


def test_keys(legacy_server: Start, session: Open) -> None:
    """The handshake is the same in all days."""
    server = legacy_server(key="board")
    with pytest.raises(KeyMismatchError):
        rpc.connect("127.0.0.1", server.port, "other")
    with session(server, "board", 30) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    assert server.session.key.split() == ["client:board", "-timeout=30"]


def test_a_constructor(legacy_server: Start, deadline_s: float) -> None:
    """Its arguments have to be in a dialect; a first session may be spent on finding out."""
    server = legacy_server()
    with rpc.connect(
        "127.0.0.1", server.port, session_constructor_args=["rpc.LocalSession"]
    ) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
    assert server.session.done.wait(deadline_s)
    assert server.session.ended == "Shutdown"
    assert len(server.sessions) <= 2
    server.complaints[:] = [each for each in server.complaints if "kUnknownType" not in each]


def test_an_unknown_constructor(legacy_server: Start, deadline_s: float) -> None:
    """The server's own words, not those on a wrong guess."""
    server = legacy_server()
    with pytest.raises(RemoteError, match=r"rpc\.Nope"):
        rpc.connect("127.0.0.1", server.port, session_constructor_args=["rpc.Nope", 5, True, "x"])
    assert server.session.done.wait(deadline_s)
    server.complaints[:] = [each for each in server.complaints if "kUnknownType" not in each]


# Values


ARGUMENTS = [
    (None, "4"),
    (1, "0"),
    (-(2**63), "0"),
    (1.5, "2"),
    ("a text", "11"),
    ("", "11"),
    (b"bytes", "12"),
    (bytearray(b"longer than eight bytes"), "12"),
    (numpy.int32(5), "0"),
    (numpy.float32(0.5), "2"),
    (ctypes.c_void_p(0x1234), "3"),
    (ctypes.c_void_p(0), "3"),
]


def test_arguments(old: LegacyServer, session: Open) -> None:
    """Each has the code of those days; several are apart from their values."""
    with session(old) as remote:
        codes = remote.get_function("peer.codes")
        for value, code in ARGUMENTS:
            assert codes(value) == code, value
        assert codes(*(value for value, _ in ARGUMENTS)) == ",".join(code for _, code in ARGUMENTS)
        assert codes(remote.cpu(0), runtime.empty((2,), "float32", remote.cpu(0))) == "6,7"
        assert codes(remote.get_function("rpc.test.addone"), codes) == "10,10"
        assert codes() == ""


def test_booleans(old: LegacyServer, session: Open) -> None:
    """Arrive as ints before 0.18; whether a server knows more cannot be seen."""
    with session(old) as remote:
        codes = remote.get_function("peer.codes")
        assert codes(True, False) in (["0,0"] if old.minor < 18 else ["0,0", "15,15"])
        assert remote.get_function("rpc.test.addone")(True) == 2
        assert remote.get_function("peer.echo")(True) == 1
        assert codes(numpy.bool_(True)) in (["0"] if old.minor < 18 else ["0", "15"])


def test_booleans_that_return(legacy_server: Start, session: Open) -> None:
    """Since 0.18 they can be told from ints."""
    server = legacy_server(18, functions={"true": lambda _, __: Value(BOOL, True)})
    with session(server) as remote:
        assert remote.get_function("true")() is True


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (NONE, None),
        (integer(-5), -5),
        (integer(2**63 - 1), 2**63 - 1),
        (Value(2, 2.5), 2.5),
        (text("ein Stück Text"), "ein Stück Text"),
        (text(""), ""),
        (Value(12, b"\0\1\2"), b"\0\1\2"),
        (Value(12, b""), b""),
    ],
    ids=str,
)
def test_results(legacy_server: Start, result: Value, expected: Any, session: Open) -> None:
    """Are of the types of Python."""
    server = legacy_server(functions={"it": lambda _, __: result})
    with session(server) as remote:
        found = remote.get_function("it")()
        assert found == expected
        assert isinstance(found, type(expected))


def test_rarer_results(legacy_server: Start, session: Open) -> None:
    """A data type is its name, a pointer a pointer, a device one of the session."""
    server = legacy_server(
        functions={
            "dtype": lambda _, __: Value(5, FLOAT32),
            "pointer": lambda _, __: Value(POINTER, 0x1234),
            "device": lambda _, __: Value(6, Device(1, 0)),
        }
    )
    with session(server) as remote:
        assert str(remote.get_function("dtype")()) == "float32"
        pointer = remote.get_function("pointer")()
        assert getattr(pointer, "value", pointer) == 0x1234
        assert remote.get_function("device")() == remote.cpu(0)


def test_data_types_are_names(legacy_server: Start, session: Open) -> None:
    """As those of TVM's own client."""
    server = legacy_server()
    with session(server) as remote:
        codes, echo = remote.get_function("peer.codes"), remote.get_function("peer.echo")
        assert echo("int8") == "int8"
        tensor = runtime.empty((2,), "float32", remote.cpu(0))
        assert codes(tensor.dtype) in ("11", "5")
        assert str(echo(tensor.dtype)) == "float32"


def test_functions(old: LegacyServer, session: Open) -> None:
    """One that is returned can be called and passed, and is freed as a function, once."""
    with session(old) as remote:
        add_five = remote.get_function("rpc.test.add_to_lhs")(5)
        assert add_five(6) == 11
        handle = add_five.handle
        again = remote.get_function("peer.echo")(add_five)
        assert again(1) == 6
        assert again.handle == handle
        del add_five, again
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert old.session.freed(FUNCTION).count(handle) == 2


def test_objects(legacy_server: Start, session: Open) -> None:
    """Since 0.16 they can be passed back, and are freed as objects."""
    server = legacy_server(16)
    with session(server) as remote:
        thing = remote.get_function("peer.object")()
        assert remote.get_function("peer.codes")(thing, 1) == "8,0"
        handle = thing.handle
        del thing
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert server.session.freed(OBJECT) == [handle]


TENSOR_RECORD = Record(0x7F0000000000, Device(), FLOAT32, (2,))


@pytest.mark.parametrize(
    ("values", "nbytes"),
    [
        ([integer(7), Value(TENSOR, TENSOR_RECORD), NONE], 8),
        ([integer(NDARRAY), Value(TENSOR, TENSOR_RECORD), NONE], 8),
        ([integer(NDARRAY), Value(TENSOR, TENSOR_RECORD), Value(POINTER, 0)], 8),
        ([integer(4), NONE], None),
    ],
    ids=["tensor", "array", "array with 0", "nothing"],
)
def test_nobody_owns_it(
    legacy_server: Start, values: List[Value], nbytes: Any, session: Open
) -> None:
    """A tensor without an object's handle is none that could be freed."""
    server = legacy_server(functions={"it": lambda _, __: sequence(values)})
    with session(server) as remote:
        found = remote.get_function("it")()
        assert getattr(found, "nbytes", None) == nbytes
        del found
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert server.session.freed(NDARRAY) == []


def test_long_values(legacy_server: Start, session: Open) -> None:
    """Texts and bytes of any length, whatever stands beside them."""
    server = legacy_server()
    content, words = bytes(range(256)) * 12_000, "many words, " * 100_000
    with session(server) as remote:
        echo, codes = remote.get_function("peer.echo"), remote.get_function("peer.codes")
        assert echo(content) == content
        assert echo(words) == words
        assert echo(content, 1, words, None) == content
        assert echo(words, content, content, 1.5) == words
        assert codes(1, content, words, None, content, 2.5) == "0,12,11,4,12,2"
        remote.upload(content, "x.bin")
        assert remote.download("x.bin") == content
        array = numpy.arange(3 << 20, dtype="uint8")
        numpy.testing.assert_array_equal(runtime.tensor(array, remote.cpu(0)).numpy(), array)


def test_bytes_that_come_one_by_one(legacy_server: Start, session: Open) -> None:
    """And empty packets between the others: no boundary means anything."""
    server = legacy_server(scattered=True)
    with session(server) as remote:
        assert remote.get_function("rpc.test.strcat")("abc", 11) == "abc:11"
        assert remote.get_function("peer.tensor")().numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(ValueError, match="boom"):
            remote.get_function("rpc.test.except")("boom")


# Errors


NONSENSE = {
    "nothing": sequence([]),
    "no kind": sequence([text("x"), text("y")]),
    "code 14": bytes.fromhex("02000000 00000000 0e000000 0e00000000000000 0b00000000000000"),
    "code 13": bytes.fromhex("02000000 00000000 0d000000 0d00000000000000 0b00000000000000"),
    "code -1": bytes.fromhex("02000000 00000000 ffffffff 0d00000000000000 0b00000000000000"),
    "count -1": bytes.fromhex("ffffffff"),
    "count 2^31-1": bytes.fromhex("ffffff7f"),
    "a byte too few": sequence([integer(STR), text("xyz")])[:-1],
    "a byte too many": sequence([integer(STR), text("xyz")]) + b"\0",
    "a text of 2^63 bytes": sequence([integer(STR), text("")])[:-1] + b"\x80",
    "bytes of 2^62 bytes": sequence([integer(12), Value(12, b"")])[:-1] + b"\x40",
    "ndim -1": sequence([integer(NDARRAY), Value(TENSOR, TENSOR_RECORD), NONE]).replace(
        b"\1\0\0\0\2\x20\1\0", b"\xff\xff\xff\xff\2\x20\1\0"
    ),
    "no body": b"",
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
def test_servers_that_talk_nonsense(legacy_server: Start, said: bytes) -> None:
    """Are told from functions that raise."""
    server = legacy_server(functions={"nonsense": lambda _, __: said})
    with rpc.connect("127.0.0.1", server.port) as remote:
        nonsense = remote.get_function("nonsense")
        with pytest.raises((RemoteProtocolError, ConnectionLostError)):
            nonsense()


def test_exceptions(legacy_server: Start, session: Open) -> None:
    """Are of the type that the server names; what it was doing then is not in the way."""
    server = legacy_server()
    with session(server) as remote:
        boom = remote.get_function("rpc.test.except")
        with pytest.raises(RemoteError, match="boom") as caught:
            boom("boom")
        assert isinstance(caught.value, ValueError)
        assert caught.value.remote_type == "ValueError"
        assert str(caught.value).splitlines()[0] == "boom"
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_exceptions_of_later_ones(legacy_server: Start, session: Open) -> None:
    """Before 0.21 some servers lose the text of exceptions; they are exceptions still."""
    server = legacy_server(19)
    with session(server) as remote:
        with pytest.raises(RemoteError):
            remote.get_function("rpc.test.except")("boom")
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_time_is_up(legacy_server: Start) -> None:
    """The session's limit ends a call, and has its own type."""
    server = legacy_server()
    with rpc.connect("127.0.0.1", server.port, "", 0.3) as remote:
        wait = remote.get_function("peer.wait")
        with pytest.raises(RPCSessionTimeoutError, match=r"Your 0\.3s session has expired"):
            wait()
        with pytest.raises((ConnectionLostError, RPCSessionTimeoutError)):
            wait()


def test_time_is_up_while_nothing_is_asked(legacy_server: Start, deadline_s: float) -> None:
    """The next request learns of it."""
    server = legacy_server()
    with rpc.connect("127.0.0.1", server.port, "", 0.2) as remote:
        addone = remote.get_function("rpc.test.addone")
        assert server.session.done.wait(deadline_s)
        with pytest.raises(RPCSessionTimeoutError, match=r"Your 0\.2s session has expired"):
            addone(1)


def test_a_server_of_another_protocol(legacy_server: Start) -> None:
    """As TVM 0.7 has it: its own words reach the user."""
    server = legacy_server(7, version="0.7.0")
    with pytest.raises(RemoteError, match=r"version mismatch.*0\.7\.0"):
        rpc.connect("127.0.0.1", server.port)


def test_a_server_that_says_goodbye(legacy_server: Start) -> None:
    """Shutdown where an answer was due is the end, and no answer."""

    def leave(_: Any, __: List[Value]) -> Value:
        raise RuleBrokenError("left on purpose")

    server = legacy_server(functions={"leave": leave})
    with rpc.connect("127.0.0.1", server.port) as remote:
        with pytest.raises(ConnectionLostError):
            remote.get_function("leave")()
        assert remote.closed
    assert server.complaints.pop() == "left on purpose"


def test_a_server_that_dies(legacy_server: Start) -> None:
    """Its last word, Shutdown, is none to wait after."""
    server = legacy_server()

    def die(its: Any, _: List[Value]) -> Value:
        its.interrupt()
        raise ConnectionError

    server.functions["die"] = die
    with rpc.connect("127.0.0.1", server.port) as remote:
        with pytest.raises(ConnectionLostError):
            remote.get_function("die")()
        assert remote.closed
