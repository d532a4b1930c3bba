"""Our server and what no client of TVM 0.8 to 0.20 would say, said in its dialect."""

from __future__ import annotations

import contextlib
import struct
from typing import Callable

import pytest

from .clients import LegacyClient, PeerClosedError, RemoteRaisedError
from .sequences import (
    BYTES,
    DEVICE,
    DTYPE,
    FLOAT32,
    FUNCTION,
    MODULE,
    NDARRAY,
    POINTER,
    TENSOR,
    Device,
    DType,
    Record,
    Value,
    integer,
    packet,
    record,
    sequence,
    text,
)

CPU = Device(1, 0)
BOGUS = 0x40
Connect = Callable[..., LegacyClient]


@pytest.fixture(name="client")
def _client(legacy: Connect) -> LegacyClient:
    """One whose dialect is known by now."""
    client = legacy()
    assert client.get_function("no.such") == 0
    return client


def codes(*numbers: int, values: bytes = b"") -> bytes:
    """A sequence of these codes, whatever they mean."""
    return struct.pack(f"<i{len(numbers)}i", len(numbers), *numbers) + values


def tensor(**changes: int) -> bytes:
    """The record of a tensor of one dimension in which something is wrong."""
    fields = dict(data=0, kind=1, number=0, ndim=1, code=2, bits=32, lanes=1, extent=4, offset=0)
    fields.update(changes)
    return struct.pack("<Q3iBBHqQ", *fields.values())


def call(arguments: bytes) -> bytes:
    """A call of a function that is not there."""
    return packet(3, struct.pack("<Q", BOGUS) + arguments)


def copy(code: int, raw: bytes, nbytes: int, content: bytes = b"") -> bytes:
    """One of the requests without a sequence."""
    return packet(code, raw + struct.pack("<Q", nbytes) + content)


MALFORMED = {
    "no count": packet(9),
    "half a count": packet(9, b"\1\0"),
    "count -1": packet(9, struct.pack("<i", -1)),
    "count 2^31-1": packet(9, struct.pack("<i", 2**31 - 1)),
    "more codes than bytes": packet(9, struct.pack("<ii", 1000, 11)),
    "no arguments": packet(9, codes()),
    "too many arguments": packet(9, sequence([text("a"), text("b")])),
    "of another type": packet(9, sequence([integer(1)])),
    "code -1": call(codes(-1)),
    "code 13": call(codes(13, values=bytes(8))),
    "code 14": call(codes(14, values=bytes(8))),
    "code 16": call(codes(16, values=bytes(8))),
    "code 65, of today": call(codes(65, values=struct.pack("<IQ", 65, 1) + b"x")),
    "code 99": call(codes(99, values=bytes(8))),
    "object of another kind": call(codes(8, values=struct.pack("<IQ", 115, 1))),
    "text longer than the packet": packet(9, codes(11, values=struct.pack("<Q", 6) + b"hello")),
    "text of 2^63 bytes": packet(9, codes(11, values=struct.pack("<Q", 1 << 63) + b"hello")),
    "text of 2^64-1 bytes": packet(9, codes(11, values=struct.pack("<Q", 2**64 - 1) + b"hello")),
    "bytes of 2^40 bytes": call(codes(12, values=struct.pack("<Q", 1 << 40))),
    "text that is no UTF-8": packet(9, codes(11, values=struct.pack("<Q", 2) + b"\xff\xfe")),
    "a byte too many": packet(9, sequence([text("x")]) + b"\0"),
    "a byte too few": packet(9, sequence([text("x")])[:-1]),
    "ndim -1": packet(17, codes(7, 4, values=tensor(ndim=-1))),
    "ndim 2^31-1": packet(17, codes(7, 4, values=tensor(ndim=2**31 - 1))),
    "ndim 65": packet(17, codes(7, 4, values=tensor(ndim=65))),
    "extent -1": packet(17, codes(7, 4, values=tensor(extent=-1))),
    "extent 2^63-1": packet(17, codes(7, 4, values=tensor(extent=2**63 - 1))),
    "64 bits of 2^40": packet(17, codes(7, 4, values=tensor(bits=64, extent=1 << 40))),
    "no bits": packet(17, codes(7, 4, values=tensor(bits=0))),
    "no lanes": packet(17, codes(7, 4, values=tensor(lanes=0))),
    "device type 0": packet(17, codes(7, 4, values=tensor(kind=0))),
    "device type -1": packet(17, codes(7, 4, values=tensor(kind=-1))),
    "masked device": packet(11, sequence([Value(DEVICE, Device(129, 0))])),
    "device -1": packet(11, sequence([Value(DEVICE, Device(1, -1))])),
    "device 7": packet(11, sequence([Value(DEVICE, Device(1, 7))])),
    "half a device": packet(11, codes(6, values=struct.pack("<i", 1))),
    "an integer for a device": packet(11, sequence([integer(1)])),
    "allocation of -1": packet(
        13, sequence([Value(DEVICE, CPU), integer(-1), integer(64), Value(DTYPE, FLOAT32)])
    ),
    "allocation of 2^62": packet(
        13, sequence([Value(DEVICE, CPU), integer(1 << 62), integer(64), Value(DTYPE, FLOAT32)])
    ),
    "aligned to 3": packet(
        13, sequence([Value(DEVICE, CPU), integer(64), integer(3), Value(DTYPE, DType(2, 32, 1))])
    ),
    "aligned to 0": packet(
        13, sequence([Value(DEVICE, CPU), integer(64), integer(0), Value(DTYPE, FLOAT32)])
    ),
    "aligned to 2^40": packet(
        13, sequence([Value(DEVICE, CPU), integer(64), integer(1 << 40), Value(DTYPE, FLOAT32)])
    ),
    "half a data type": packet(13, codes(6, 0, 0, 5, values=bytes(28))),
    "unknown function": call(sequence([text("x"), integer(1)])),
    "no function": packet(3, b"\0\0\0"),
    "no arguments at all": packet(3, bytes(8)),
    "unknown module": call(sequence([Value(MODULE, BOGUS)])),
    "unknown memory in a call": call(sequence([Value(TENSOR, Record(BOGUS, CPU, FLOAT32, (4,)))])),
    "unknown memory, freed": packet(14, sequence([Value(DEVICE, CPU), Value(POINTER, BOGUS)])),
    "unknown memory, read": copy(6, record(Record(BOGUS, CPU, FLOAT32, (4,))), 16),
    "unknown memory, written": copy(7, record(Record(BOGUS, CPU, FLOAT32, (4,))), 4, b"1234"),
    "unknown memory, copied": packet(
        16,
        sequence(
            [
                Value(TENSOR, Record(BOGUS, CPU, FLOAT32, (4,))),
                Value(TENSOR, Record(BOGUS, CPU, FLOAT32, (4,))),
                Value(POINTER, 0),
            ]
        ),
    ),
    "unknown stream": packet(15, sequence([Value(DEVICE, CPU), Value(POINTER, BOGUS)])),
    "unknown handle, freed": packet(10, sequence([Value(POINTER, BOGUS), integer(FUNCTION)])),
    "freed without a type": packet(10, sequence([Value(POINTER, BOGUS)])),
    "freed as what there is not": packet(10, sequence([Value(POINTER, BOGUS), integer(77)])),
    "half a record": copy(6, record(Record(BOGUS, CPU, FLOAT32, (4,)))[:20], 16),
    "more than it holds": copy(7, record(Record(BOGUS, CPU, FLOAT32, (4,))), 4, b"12345678"),
    "less than it says": copy(7, record(Record(BOGUS, CPU, FLOAT32, (4,))), 8, b"1234"),
    "2^64-1 bytes wanted": copy(6, record(Record(BOGUS, CPU, FLOAT32, (4,))), 2**64 - 1),
    "opened twice": packet(2, struct.pack("<Q5si", 5, b"0.8.0", 0)),
    "request 0": packet(0),
    "request -1": packet(-1),
    "request 22": packet(22, sequence([])),
    "request 99": packet(99),
    "an answer": packet(4, sequence([integer(1)])),
    "an exception": packet(5, sequence([text("boom")])),
    "an acknowledgement": packet(8, b"1234"),
    "Shutdown with more": packet(1, b"\0"),
    "1 byte": struct.pack("<Q", 1) + b"\3",
    "3 bytes": struct.pack("<Q", 3) + b"\3\0\0",
    "2^64-1 bytes": struct.pack("<Qi", 2**64 - 1, 9),
    "2^40 bytes": struct.pack("<Qi", 1 << 40, 9),
    "2^63 bytes": struct.pack("<Qi", 1 << 63, 3),
}


@pytest.mark.parametrize("said", MALFORMED.values(), ids=MALFORMED)
def test_it_serves_on(client: LegacyClient, legacy: Connect, said: bytes) -> None:
    """An exception of those days, an answer, or the end; and others are served."""
    client.send(said)
    with contextlib.suppress(PeerClosedError):
        code, body = client.answer()
        assert code in (1, 4, 5)
        if code == 5:
            assert client.exception_text(body)
        assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.close()
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)


REFUSED = [
    "of another type",
    "no arguments",
    "masked device",
    "allocation of -1",
    "allocation of 2^62",
    "unknown function",
    "unknown module",
    "unknown memory, read",
    "unknown memory, written",
    "unknown memory, copied",
    "64 bits of 2^40",
]


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_exceptions(client: LegacyClient, name: str) -> None:
    """What is well said but cannot be done is no reason to end the session."""
    client.send(MALFORMED[name])
    with pytest.raises(RemoteRaisedError) as caught:
        client.returned(4)
    assert str(caught.value)
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.shutdown()


EARLY = [
    "no count",
    "count -1",
    "ndim -1",
    "code 99",
    "no arguments",
    "text of 2^63 bytes",
    "request 99",
    "2^63 bytes",
    "unknown memory, read",
    "unknown memory, written",
]


@pytest.mark.parametrize("name", EARLY)
@pytest.mark.parametrize("opened", [True, False], ids=["first", "before InitServer"])
def test_before_the_dialect_is_known(legacy: Connect, name: str, opened: bool) -> None:
    """The same as the very first words."""
    client = legacy(init=opened)
    client.send(MALFORMED[name])
    with contextlib.suppress(PeerClosedError):
        client.answer()
    client.close()
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)


def test_before_init_server(legacy: Connect) -> None:
    """Nothing is done for who has not opened the session; it is told, or sent away."""
    client = legacy(init=False)
    client.send(packet(9, sequence([text("rpc.test.addone")])))
    with contextlib.suppress(PeerClosedError):
        assert client.answer()[0] in (1, 5)
    with pytest.raises((PeerClosedError, OSError)):
        client.get_function("rpc.test.addone")
    client.close()
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)


def test_another_version(legacy: Connect) -> None:
    """Of another protocol: refused with both versions, or served, but never in other words."""
    client = legacy(init=False)
    try:
        client.init_server([text("rpc.LocalSession")], b"0.7.0")
    except RemoteRaisedError as error:
        refusal = str(error)
        assert "0.7.0" in refusal
        assert "0.8.0" in refusal
    except PeerClosedError:
        pass
    client.close()
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)


def test_freed_twice(client: LegacyClient) -> None:
    """The second time it is nobody's, and no harm is done to anybody else's."""
    addone, strcat = (client.get_function(f"rpc.test.{name}") for name in ("addone", "strcat"))
    client.free_handle(addone, FUNCTION)
    with contextlib.suppress(RemoteRaisedError):
        client.free_handle(addone, FUNCTION)
    with pytest.raises(RemoteRaisedError):
        client.call(addone, integer(1))
    assert client.call(strcat, text("a"), integer(1)) == text("a:1")


def test_freed_as_something_else(client: LegacyClient) -> None:
    """The wrong type frees nothing that is of another, or frees it; it crashes nothing."""
    add_five = client.call_name("rpc.test.add_to_lhs", integer(5)).content
    for code in (MODULE, NDARRAY, 8, 0):
        with contextlib.suppress(RemoteRaisedError):
            client.free_handle(add_five, code)
    with contextlib.suppress(RemoteRaisedError):
        assert client.call(add_five, integer(1)) == integer(6)
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)


def test_a_handle_of_another_kind(client: LegacyClient) -> None:
    """A function is no module, a module is no function, memory is neither."""
    function = client.get_function("rpc.test.addone")
    memory = client.alloc((4,), FLOAT32)
    system = client.call_name("runtime.SystemLib").content
    for wrong in (
        lambda: client.call(system, integer(1)),
        lambda: client.call(memory.data, integer(1)),
        lambda: client.call_name("testing.echo", Value(MODULE, function)),
        lambda: client.call_name("testing.echo", Value(FUNCTION, system)),
        lambda: client.call_name("testing.echo", Value(MODULE, memory.data)),
        lambda: client.free_data(CPU, function),
        lambda: client.copy_from(memory._replace(data=function)),
    ):
        with pytest.raises(RemoteRaisedError):
            wrong()
    assert client.call(function, integer(1)) == integer(2)


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(0, 17), (8, 9), (16, 1), (2**64 - 8, 16), (2**63, 1), (0, 2**63)]
)
def test_beyond_the_end(client: LegacyClient, offset: int, nbytes: int) -> None:
    """Memory ends where it ends, for reading as for writing."""
    tensor = client.alloc((4,), FLOAT32)._replace(byte_offset=offset)
    with pytest.raises(RemoteRaisedError):
        client.copy_from(tensor, nbytes)
    if nbytes < 100:
        with pytest.raises(RemoteRaisedError):
            client.copy_to(tensor, bytes(nbytes))
    assert client.copy_from(tensor._replace(byte_offset=0)) is not None


def test_freed_memory(client: LegacyClient) -> None:
    """Is not to be had any more."""
    tensor = client.alloc((4,), FLOAT32)
    client.free_data(CPU, tensor.data)
    for wrong in (
        lambda: client.copy_from(tensor),
        lambda: client.copy_to(tensor, bytes(16)),
        lambda: client.call_name("testing.echo", Value(TENSOR, tensor)),
    ):
        with pytest.raises(RemoteRaisedError):
            wrong()
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)


def test_names_that_lead_outside(client: LegacyClient) -> None:
    """Are refused in the words of those days."""
    for name in ("../x", "/etc/x", "a/../../x", "x" * 5000, ""):
        with pytest.raises(RemoteRaisedError):
            client.call_name("tvm.rpc.server.upload", text(name), Value(BYTES, b"x"))
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)


def test_leaving_within_a_packet(legacy: Connect) -> None:
    """After any byte of a request; the next client does not notice."""
    whole = packet(9, sequence([text("rpc.test.addone")]))
    for length in range(1, len(whole), 3):
        client = legacy()
        client.send(whole[:length])
        client.close()
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)
