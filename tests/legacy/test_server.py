"""Our server and a client of TVM 0.8 to 0.20: values, devices and memory."""

from __future__ import annotations

import contextlib
import struct
from typing import Callable, Iterator

import pytest

from pytest_tvmrpc import rpc

from .clients import LegacyClient, RemoteRaisedError
from .sequences import (
    BOOL,
    BYTES,
    DEVICE,
    DTYPE,
    FLOAT,
    FLOAT32,
    FUNCTION,
    INT,
    NDARRAY,
    NONE,
    OBJECT,
    POINTER,
    STR,
    TENSOR,
    UNSIGNED,
    Device,
    DType,
    Record,
    Value,
    integer,
    packet,
    sequence,
    text,
)

CPU = Device(1, 0)
CUDA = Device(2, 0)

Connect = Callable[..., LegacyClient]


@pytest.mark.parametrize("minor", [8, 13, 14, 16, 18, 20])
def test_a_session(legacy: Connect, minor: int) -> None:
    """Each of them is served without being told which it is."""
    client = legacy(minor=minor)
    addone = client.get_function("rpc.test.addone")
    assert addone
    assert client.get_function("no.such") == 0
    assert client.call(addone, integer(41)) == integer(42)
    assert client.call_name("rpc.test.strcat", text("abc"), integer(11)) == text("abc:11")
    client.free_handle(addone, FUNCTION)
    client.shutdown()


@pytest.mark.parametrize(
    "value",
    [
        NONE,
        integer(0),
        integer(-1),
        integer(2**63 - 1),
        integer(-(2**63)),
        Value(FLOAT, 1.5),
        Value(FLOAT, float("inf")),
        text(""),
        text("short"),
        text("longer than eight bytes, and größer"),
        Value(BYTES, b""),
        Value(BYTES, b"\0\1\2"),
        Value(BYTES, bytes(range(256))),
        Value(POINTER, 0x1234),
        Value(DEVICE, CPU),
        Value(DEVICE, CUDA),
    ],
    ids=lambda value: f"{value.code}-{str(value.content)[:8]}",
)
def test_values_return(legacy: Connect, value: Value) -> None:
    """As they came, whatever stands beside them."""
    client = legacy()
    echo = client.get_function("testing.echo")
    assert client.call(echo, value) == value
    others = [text("x"), NONE, Value(FLOAT, 2.0), Value(BYTES, b"y"), integer(3)]
    assert client.call(echo, value, *others) == value


def test_an_unsigned_slot(legacy: Connect) -> None:
    """Code 1 is read as an int, and never sent."""
    client = legacy()
    assert client.call_name("testing.echo", Value(UNSIGNED, 7)) == integer(7)
    assert client.call_name("rpc.test.addone", Value(UNSIGNED, 7)) == integer(8)


def test_a_data_type(legacy: Connect) -> None:
    """Either as such, of which a client makes a text, or as that text."""
    client = legacy()
    result = client.call_name("testing.echo", Value(DTYPE, FLOAT32))
    assert result in (Value(DTYPE, FLOAT32), text("float32"))


DTYPES = [
    DType(1, 1),
    DType(6, 8),
    DType(7, 8),
    DType(4, 16),
    DType(0, 4),
    DType(2, 32, 4),
    DType(3, 64),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: f"{dtype.code}-{dtype.bits}")
def test_data_types_return(legacy: Connect, dtype: DType) -> None:
    """A tensor comes back with the number of its type that it went with, and so does a type."""
    client = legacy()
    tensor = client.alloc((4,), dtype)
    echoed = client.call_name("testing.echo", Value(TENSOR, tensor))
    assert echoed.code == NDARRAY
    assert echoed.content[0] == tensor
    result = client.call_name("testing.echo", Value(DTYPE, dtype))
    assert result == Value(DTYPE, dtype) or (result.code == STR and result.content)
    client.shutdown()


def test_long_values(legacy: Connect) -> None:
    """Texts and bytes of any length, whatever stands beside them."""
    client = legacy()
    content = Value(BYTES, bytes(range(256)) * 12_000)
    words = text("many words, " * 100_000)
    echo = client.get_function("testing.echo")
    for values in (
        [content],
        [words],
        [content, integer(1), words, NONE],
        [words, content, content, Value(FLOAT, 1.5)],
        [integer(1), content, words, NONE, content],
    ):
        assert client.call(echo, *values) == values[0]
    client.call_name("tvm.rpc.server.upload", text("x.bin"), content)
    assert client.call_name("tvm.rpc.server.download", text("x.bin")) == content
    client.shutdown()


def test_many_values(legacy: Connect) -> None:
    """A call of a hundred arguments."""
    client = legacy()
    values = [integer(number) if number % 2 else text(str(number)) for number in range(100)]
    assert client.call_name("testing.echo", *values) == text("0")
    client.shutdown()


def test_no_boundary_means_anything(legacy: Connect) -> None:
    """Neither that of a segment nor that of a packet: byte by byte, and all at once."""
    client = legacy()
    addone = client.get_function("rpc.test.addone")
    request = packet(3, struct.pack("<Q", addone) + sequence([integer(1)]))
    for at in range(len(request)):
        client.send(request[at : at + 1])
    answer = client.answer()
    client.send(bytes(8).join([request] * 50))
    assert [client.answer() for _ in range(50)] == [answer] * 50
    client.shutdown()


def test_booleans(legacy: Connect) -> None:
    """Code 15 is understood; who has sent it can read it, too."""
    client = legacy(minor=18)
    result = client.call_name("testing.echo", Value(BOOL, True))
    assert result in (Value(BOOL, True), integer(1))
    assert client.call_name("rpc.test.addone", Value(BOOL, True)) == integer(2)
    client.shutdown()


def test_texts_end_at_nothing_illegal(legacy: Connect) -> None:
    """A result that holds a NUL may be cut or refused, but no NUL goes into a text."""
    client = legacy()
    try:
        result = client.call_name("testing.echo", text("a\0b"))
    except RemoteRaisedError:
        pass
    else:
        assert result.content in ("a", "ab")
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)


def test_functions_and_tensors(legacy: Connect) -> None:
    """A returned function can be called, passed and freed, and so can a returned tensor."""
    client = legacy()
    add_five = client.call_name("rpc.test.add_to_lhs", integer(5))
    assert add_five.code == FUNCTION
    assert client.call(add_five.content, integer(6)) == integer(11)
    again = client.call_name("testing.echo", add_five)
    assert again.code == FUNCTION
    assert client.call(again.content, integer(1)) == integer(6)
    client.free_handle(again.content, FUNCTION)
    get_arr = client.call_name("rpc.test.remote_return_nd", text("get_arr"))
    array = client.call(get_arr.content)
    assert array.code == NDARRAY
    tensor, handle = array.content
    assert (tensor.shape, tensor.dtype, tensor.device) == ((10,), FLOAT32, CPU)
    client.copy_to(tensor, struct.pack("<10f", *range(10)))
    get_elem = client.call_name("rpc.test.remote_return_nd", text("get_arr_elem"))
    assert client.call(get_elem.content, Value(TENSOR, tensor), integer(7)) == Value(FLOAT, 7.0)
    assert handle not in (0, tensor.data)
    client.free_handle(handle, NDARRAY)
    for owned in (add_five, get_arr, get_elem):
        client.free_handle(owned.content, FUNCTION)
    client.shutdown()


def test_tensors_as_arguments(legacy: Connect) -> None:
    """Those that the client has allocated arrive, under the name of their days, and return."""
    client = legacy()
    ones = client.alloc((3, 4), FLOAT32)
    client.copy_to(ones, struct.pack("<12f", *[1.0] * 12))
    assert client.call_name("rpc.test.remote_array_func", Value(TENSOR, ones)) == NONE
    echoed = client.call_name("testing.echo", Value(TENSOR, ones))
    assert echoed.code == NDARRAY
    tensor, handle = echoed.content
    assert tensor == ones
    if handle:
        client.free_handle(handle, NDARRAY)
    client.copy_to(ones, bytes(48))
    with pytest.raises(RemoteRaisedError):
        client.call_name("rpc.test.remote_array_func", Value(TENSOR, ones))


def test_exceptions(legacy: Connect) -> None:
    """Coded as in those days, with the type in front; the session goes on."""
    client = legacy()
    for words in ("boom", "with: colons", "of two\nlines"):
        with pytest.raises(RemoteRaisedError) as caught:
            client.call_name("rpc.test.except", text(words))
        assert str(caught.value).startswith(f"ValueError: {words}")
    with pytest.raises(RemoteRaisedError):
        client.call_name("rpc.test.addone", text("not a number"))
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.shutdown()


def test_empty_packets(legacy: Connect) -> None:
    """A length of nothing is skipped, anywhere."""
    client = legacy()
    client.send(bytes(16))
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.send(bytes(8))
    client.shutdown()


def test_allocations(legacy: Connect) -> None:
    """Both requests; contents go there and back, in parts as well."""
    client = legacy()
    content = struct.pack("<6f", *range(6))
    for tensor in (
        client.alloc((2, 3), FLOAT32),
        client.alloc((2, 3), FLOAT32, scope="global"),
        Record(client.alloc_bytes(CPU, 24, 64, FLOAT32), CPU, FLOAT32, (2, 3)),
    ):
        assert tensor.data
        client.copy_to(tensor, content)
        assert client.copy_from(tensor) == content
        assert client.copy_from(tensor._replace(byte_offset=8), 8) == content[8:16]
        client.copy_to(tensor._replace(byte_offset=20), b"last")
        assert client.copy_from(tensor) == content[:20] + b"last"
        client.sync()
        client.free_data(CPU, tensor.data)
    client.shutdown()


def test_other_shapes_and_types(legacy: Connect) -> None:
    """No dimension, no element, many lanes, less than a byte, and the float8 of 0.13."""
    client = legacy()
    for shape, dtype in (
        ((), FLOAT32),
        ((0,), FLOAT32),
        ((2, 0, 3), FLOAT32),
        ((5,), DType(1, 1)),
        ((3,), DType(2, 32, 4)),
        ((7,), DType(4, 16)),
        ((3,), DType(6, 8)),
        ((3,), DType(7, 8)),
        ((3,), DType(0, 4)),
        ((2,), DType(3, 64)),
    ):
        tensor = client.alloc(shape, dtype)
        content = bytes(range(1, 1 + tensor.nbytes))
        client.copy_to(tensor, content)
        assert client.copy_from(tensor) == content, (shape, dtype)
        client.free_data(CPU, tensor.data)
    client.shutdown()


def test_a_large_tensor(legacy: Connect) -> None:
    """Goes through in one packet."""
    client = legacy()
    tensor = client.alloc((1 << 20,), FLOAT32)
    content = bytes(range(256)) * (4 << 12)
    client.copy_to(tensor, content)
    assert client.copy_from(tensor) == content
    client.shutdown()


def test_copies_there(legacy: Connect) -> None:
    """From tensor to tensor."""
    client = legacy()
    source, target = client.alloc((2, 3), FLOAT32), client.alloc((2, 3), FLOAT32)
    content = struct.pack("<6f", *range(6))
    client.copy_to(source, content)
    client.copy_among(source, target)
    client.sync()
    assert client.copy_from(target) == content


def test_scopes_that_a_cpu_lacks(legacy: Connect) -> None:
    """Are refused, and named."""
    client = legacy()
    with pytest.raises(RemoteRaisedError, match="texture"):
        client.alloc((2, 3), FLOAT32, scope="texture")


def test_attributes(legacy: Connect) -> None:
    """The CPU exists; a device that does not is no error until more is asked."""
    client = legacy()
    assert client.get_attr(CPU, 0) == integer(1)
    for attribute in range(1, 13):
        assert client.get_attr(CPU, attribute).code in (4, INT, 11)
    assert client.get_attr(CUDA, 0) == integer(0)
    with pytest.raises(RemoteRaisedError):
        client.get_attr(CUDA, 1)
    client.set_device(CPU)
    with pytest.raises(RemoteRaisedError):
        client.alloc((1,), FLOAT32, CUDA)
    assert client.get_attr(CPU, 0) == integer(1)


def test_streams(legacy: Connect) -> None:
    """A CPU has the one that is always there."""
    client = legacy(minor=16)
    client.get_function("rpc.test.addone")
    stream = client.create_stream()
    client.set_stream(CPU, stream)
    assert client.current_stream() == stream
    client.sync(CPU, stream)
    client.free_stream(CPU, stream)
    client.shutdown()


@pytest.fixture(name="own", scope="module")
def _own() -> Iterator[rpc.Server]:
    """A server with functions of its own."""

    def register() -> None:
        from pytest_tvmrpc.runtime.registry import register_func

        class Thing:
            pass

        def refuse(kind: str) -> None:
            types = {"KeyError": KeyError, "OSError": OSError, "Odd": type("Odd", (Exception,), {})}
            raise types[kind]("what it says")

        register_func("own.true", lambda: True)
        register_func("own.object", Thing)
        register_func("own.nul", lambda: "a\0b")
        register_func("own.large", lambda: 1 << 63)
        register_func("own.bytearray", lambda: bytearray(b"\0\1"))
        register_func("own.refuse", refuse)
        register_func("own.is_thing", lambda value: isinstance(value, Thing))

    with rpc.Server(port=0, silent=True, server_init_callback=register) as server:
        yield server


def test_a_boolean_result(legacy: Connect, own: rpc.Server) -> None:
    """Is an int for whoever has not shown that it knows better: the code 15 would end it."""
    for minor in (8, 13, 17, 20):
        client = legacy(minor=minor, port=own.port)
        assert client.call_name("own.true") == integer(1)
        client.shutdown()


def test_rarer_results(legacy: Connect, own: rpc.Server) -> None:
    """Are what the client can read, or an exception."""
    client = legacy(minor=16, port=own.port)
    assert client.call_name("own.bytearray") == Value(BYTES, b"\0\1")
    with contextlib.suppress(RemoteRaisedError):
        assert client.call_name("own.nul").content in ("a", "ab")
    with pytest.raises(RemoteRaisedError):
        client.call_name("own.large")
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.shutdown()


def test_objects(legacy: Connect, own: rpc.Server) -> None:
    """Are passed back and freed since 0.16."""
    client = legacy(minor=16, port=own.port)
    thing = client.call_name("own.object")
    assert thing.code == OBJECT
    assert client.call_name("own.is_thing", thing) == integer(1)
    again = client.call_name("testing.echo", thing)
    assert client.call_name("own.is_thing", again) == integer(1)
    for handle in (thing.content, again.content):
        client.free_handle(handle, OBJECT)
    client.shutdown()


@pytest.mark.parametrize("kind", ["KeyError", "OSError", "Odd"])
def test_exceptions_of_all_types(legacy: Connect, own: rpc.Server, kind: str) -> None:
    """Are named, also those that only the server knows."""
    client = legacy(port=own.port)
    with pytest.raises(RemoteRaisedError, match=rf"^{kind}: .*what it says"):
        client.call_name("own.refuse", text(kind))
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.shutdown()
