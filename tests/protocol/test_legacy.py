"""The legacy dialect: every kind of value and of result both ways, and all that is none."""

from __future__ import annotations

import math
import struct
from typing import Any, List, Tuple

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import LocalProtocolError, RemoteProtocolError
from pytest_tvmrpc.protocol import packets
from pytest_tvmrpc.protocol.dialect import LEGACY
from pytest_tvmrpc.protocol.legacy import (
    decode_result,
    decode_values,
    decode_values_before,
    encode_call,
    encode_free,
    encode_request,
    encode_result,
    encode_return,
    encode_values,
    result_of,
)
from pytest_tvmrpc.protocol.values import (
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
    PendingBytes,
    TensorResult,
)

RECORD = TensorRecord(0x7FFA10010080, Device(1, 0), (2, 3), DataType("float32"), 8)
TENSOR = (
    "80000110fa7f0000 01000000 00000000 02000000 02200100"
    "0200000000000000 0300000000000000 0800000000000000"
)

ENCODINGS: List[Tuple[Any, int, str]] = [
    (None, 4, ""),
    (0, 0, "0000000000000000"),
    (-1, 0, "ffffffffffffffff"),
    (2**63 - 1, 0, "ffffffffffffff7f"),
    (-(2**63), 0, "0000000000000080"),
    (1.5, 2, "000000000000f83f"),
    (-math.inf, 2, "000000000000f0ff"),
    (OpaquePointer(0), 3, "0000000000000000"),
    (OpaquePointer(2**64 - 1), 3, "ffffffffffffffff"),
    (Device(1, 0), 6, "01000000 00000000"),
    (Device(-3, 7), 6, "fdffffff 07000000"),
    (RECORD, 7, TENSOR),
    ("", 11, "0000000000000000"),
    ("abc", 11, "0300000000000000 616263"),
    ("größer", 11, "0800000000000000 6772c3b6c39f6572"),
    ("\udcff\udc80", 11, "0200000000000000 ff80"),
    (b"", 12, "0000000000000000"),
    (b"\0\1\2", 12, "0300000000000000 000102"),
    (b"12345678", 12, "0800000000000000 3132333435363738"),
    (FunctionHandle(7), 10, "0700000000000000"),
    (ModuleHandle(2**64 - 1), 9, "ffffffffffffffff"),
    (ObjectHandle(9), 8, "09000000 0900000000000000"),
]
IDS = [f"{type(value).__name__}-{number}" for number, (value, _, _) in enumerate(ENCODINGS)]

Coded = Tuple[int, str]
INT_5 = (0, "0500000000000000")


def sequence(*values: Coded) -> bytes:
    codes = struct.pack(f"<{len(values) + 1}i", len(values), *(code for code, _ in values))
    return codes + bytes.fromhex("".join(text for _, text in values))


def joined(buffers: Any) -> bytes:
    return buffers if isinstance(buffers, bytes) else b"".join(buffers)


def whole(content: bytes) -> List[Any]:
    return decode_values(content, 0, len(content))


def result(content: Any) -> Any:
    """The result in the body of a Return packet."""
    packet = joined(content)
    assert struct.unpack_from("<Qi", packet) == (len(packet) - 8, 4)
    return decode_result(packet, 12, len(packet))


def result_in(*values: Coded) -> Any:
    body = sequence(*values)
    return decode_result(body, 0, len(body))


# Values


@pytest.mark.parametrize(("value", "code", "text"), ENCODINGS, ids=IDS)
def test_each_kind_of_value_both_ways(value: Any, code: int, text: str) -> None:
    """One value is these bytes, and these bytes are that value, of the same type."""
    encoded = sequence((code, text))
    assert joined(encode_values([value])) == encoded
    assert encode_request(9, [value])[12:] == encoded
    (found,) = whole(encoded)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("value", "code", "text"), ENCODINGS, ids=IDS)
def test_each_kind_of_value_in_each_place(value: Any, code: int, text: str) -> None:
    """First, in the middle and last: neighbours do not matter."""
    coded = (code, text)
    encoded = sequence(coded, (4, ""), coded, INT_5, coded)
    assert joined(encode_values([value, None, value, 5, value])) == encoded
    assert whole(encoded) == [value, None, value, 5, value]


@pytest.mark.parametrize("value", [True, False])
def test_booleans_are_sent_as_integers(value: bool) -> None:
    """Every version reads those; only 0.18 and later know more."""
    assert joined(encode_values([value])) == sequence((0, f"0{int(value)}00000000000000"))
    assert encode_return(value) == encode_return(int(value))
    assert encode_result(value) == encode_result(int(value))


@pytest.mark.parametrize(
    ("coded", "expected"),
    [
        ((15, "0100000000000000"), True),
        ((15, "0000000000000000"), False),
        ((15, "ff00000000000000"), True),
        ((1, "0500000000000000"), 5),
        ((1, "ffffffffffffffff"), -1),
        ((5, "02200100 00000000"), DataType("float32")),
        ((5, "02200100 deadbeef"), DataType("float32")),
        ((11, "0300000000000000 610063"), "a\0c"),
    ],
)
def test_kinds_that_are_taken_besides_ours(coded: Coded, expected: Any) -> None:
    """Booleans of 0.18, the unsigned integers that nothing sends, padding, a NUL that came."""
    for encoded in (sequence(coded), sequence(coded, (4, ""))):
        found = whole(encoded)[0]
        assert (found, type(found)) == (expected, type(expected))


def test_texts_that_are_no_utf_8() -> None:
    """Any bytes are a text: those that are no UTF-8 come back as they went."""
    content = b"caf\xe9/\xff\xfe\xed\xa0\x80.so"
    (text,) = whole(sequence((11, struct.pack("<Q", len(content)).hex() + content.hex())))
    assert text.encode("utf-8", "surrogateescape") == content
    assert whole(joined(encode_values([text]))) == [text]
    assert result(encode_result(text)) == text


def test_texts_with_nul_are_refused() -> None:
    """A peer would cut them there: nothing is lost in silence."""
    for encode in (
        lambda: encode_values(["a\0b"]),
        lambda: encode_call(7, ["a\0b", 5]),
        lambda: encode_request(9, ["a\0b"]),
        lambda: encode_result("a\0b"),
    ):
        with pytest.raises(LocalProtocolError, match=r"'a\\x00b' .* first NUL; send it as bytes"):
            encode()


@pytest.mark.parametrize("code", [-1, 13, 14, 16, 64, 65, 70, 73, 115, 2**31 - 1])
def test_unknown_kinds_are_refused(code: int) -> None:
    """What no sender sends is refused, with its number, whatever follows it."""
    for tail in (b"", bytes(8), bytes(20), b"\xff" * 8):
        with pytest.raises(RemoteProtocolError, match=f"unknown type code {code}$"):
            whole(struct.pack("<ii", 1, code) + tail)


@pytest.mark.parametrize("nbytes", [4, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("code", [11, 12])
def test_lengths_beyond_the_packet_are_refused(code: int, nbytes: int) -> None:
    """A length is held against the bytes that are there, before any are taken."""
    encoded = struct.pack("<iiQ", 1, code, nbytes) + b"abc"
    for buffer in (encoded, encoded + bytes(100)):
        with pytest.raises(RemoteProtocolError):
            decode_values(buffer, 0, len(encoded))


def test_wrong_inner_kinds_are_refused() -> None:
    """An object that is no reference; its handle is not looked at."""
    with pytest.raises(RemoteProtocolError, match="an object of type index 115"):
        whole(sequence((8, "73000000 0700000000000000")))


# Data types, of which the numbers and the names were others


DTYPES = [
    ("float32", (2, 32, 1), "float32", "float32"),
    ("int8x4", (0, 8, 4), "int8x4", "int8x4"),
    ("bfloat16", (4, 16, 1), "bfloat16", "bfloat16"),
    ("bool", (1, 1, 1), "bool", "uint1"),
    ("float8_e4m3fn", (6, 8, 1), "e4m3_float8", "float8_e4m3fn"),
    ("float8_e5m2x4", (7, 8, 4), "e5m2_float8x4", "float8_e5m2x4"),
]


@pytest.mark.parametrize(("dtype", "numbers", "text", "back"), DTYPES)
def test_data_types(dtype: str, numbers: Any, text: str, back: str) -> None:
    """In requests, answers and tensors by its numbers of then, as an argument by its name."""
    value = DataType(dtype)
    head = struct.pack("<BBH", *numbers)
    assert encode_return(value)[12:] == sequence((5, head.hex() + "00000000"))
    assert encode_request(13, [value])[20:] == head + bytes(4)
    assert joined(encode_values([value])) == joined(encode_values([text]))
    assert whole(encode_return(value)[12:]) == [DataType(back)]
    assert result(encode_result(value)) == DataType(back)
    for known in (None, {}):
        sent = TensorRecord(5, Device(1, 0), (2, 3), value, 8)
        content = joined(encode_values([sent]))
        assert content[8 + 20 : 8 + 24] == head
        (record,) = decode_values(content, 0, len(content), known)
        assert record == TensorRecord(5, Device(1, 0), (2, 3), DataType(back), 8)
        assert LEGACY.encode_record(sent) == content[8:]


@pytest.mark.parametrize("dtype", ["float8_e3m4", "float4_e2m1fn", "float8_e8m0fnu"])
def test_data_types_that_were_not_there(dtype: str) -> None:
    """Under their numbers a peer would understand something else, so they are refused."""
    value = DataType(dtype)
    record = TensorRecord(5, Device(1, 0), (2, 3), value, 8)
    for encode in (
        lambda: encode_values([value]),
        lambda: encode_values([record]),
        lambda: encode_request(17, [record, None]),
        lambda: encode_result(TensorResult(record, 7)),
        lambda: encode_return(value),
    ):
        with pytest.raises(LocalProtocolError, match=f"has no {dtype}"):
            encode()


def test_custom_data_types() -> None:
    """Numbers from 129 on belong to the peer's user, and pass."""
    value = DataType.of(130, 16, 1)
    assert whole(encode_return(value)[12:]) == [value]


# What cannot be sent


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**100])
def test_integers_beyond_64_bits_are_refused(value: int) -> None:
    """Alone, among others, in a call and as a result: our own error, before a byte is sent."""
    for encode in (
        lambda: encode_values([value]),
        lambda: encode_values([None, value]),
        lambda: encode_call(7, [value]),
        lambda: encode_result(value),
    ):
        with pytest.raises(LocalProtocolError, match="64 bits"):
            encode()


# Long byte strings


def test_session_constructors() -> None:
    """InitServer carries name and arguments as any other sequence."""
    packet = b"".join(packets.init_server(LEGACY, ["rpc.PopenSession", b"\x7fELF"]))
    init = packets.decode_init_server(packet, 12, len(packet))
    assert decode_values(packet, init.values_at, len(packet)) == ["rpc.PopenSession", b"\x7fELF"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [(FunctionHandle, 10), (ModuleHandle, 9), (ObjectHandle, 8), (TensorResult, 13)],
)
def test_frees(kind: type, code: int) -> None:
    """The server is told what it frees: a handle, and a type code."""
    for handle in (0, 7, 2**64 - 1):
        assert encode_free(handle, kind) == encode_request(10, (OpaquePointer(handle), code))


@pytest.mark.parametrize("there", [0, 1, 100])
def test_pending_bytes(there: int) -> None:
    """A last byte string that fills its packet is told before it is there."""
    head = struct.pack("<iiii", 3, 11, 4, 12) + struct.pack("<Q", 1) + b"a"
    stream = head + struct.pack("<Q", 1 << 20)
    arrived = stream + bytes(there)
    values, pending = decode_values_before(arrived, 0, len(arrived), len(stream) + (1 << 20))
    assert values == ["a", None]
    assert pending == PendingBytes(len(stream), 1 << 20)


@pytest.mark.parametrize(
    ("codes", "missing"),
    [
        ((15, 12, 4), 100_000),
        ((15, 12), 100_001),
        ((15, 12), 99_999),
        ((15, 11), 100_000),
        ((15, 78), 100_000),
        ((15, 12, 12), 100_008),
    ],
    ids=["not last", "not all", "beyond", "a text", "unknown kind", "two"],
)
def test_other_long_sequences_have_to_be_collected(codes: Tuple[int, ...], missing: int) -> None:
    """Anything but a last byte string: None, and the owner collects the packet."""
    stream = struct.pack(f"<{len(codes) + 1}i", len(codes), *codes)
    stream += struct.pack("<qQ", 1, 100_000)
    _, pending = decode_values_before(stream, 0, len(stream), len(stream) + missing)
    assert pending is None


def test_pending_bytes_are_not_read_from_an_earlier_packet() -> None:
    """Cut within the head of a byte string: what lies behind in the buffer is of another packet."""
    stream = struct.pack("<iiQ", 1, 12, 1000)
    for end in range(len(stream)):
        _, pending = decode_values_before(stream + bytes(9), 0, end, len(stream) + 1000)
        assert pending is None
    assert decode_values_before(stream, 0, len(stream), len(stream) + 1000)[1] is not None


# Results


RESULTS: List[Tuple[Any, int, List[Coded]]] = [
    (None, 4, [(4, "")]),
    (11, 0, [(0, "0b00000000000000")]),
    (-(2**63), 0, [(0, "0000000000000080")]),
    (1.5, 2, [(2, "000000000000f83f")]),
    (OpaquePointer(2**64 - 1), 3, [(3, "ffffffffffffffff")]),
    (DataType("int8"), 5, [(5, "00080100 00000000")]),
    (Device(2, 1), 6, [(6, "02000000 01000000")]),
    ("", 11, [(11, "0000000000000000")]),
    ("öööö", 11, [(11, "0800000000000000 c3b6c3b6c3b6c3b6")]),
    (b"", 12, [(12, "0000000000000000")]),
    (b"12345678", 12, [(12, "0800000000000000 3132333435363738")]),
    (FunctionHandle(7), 10, [(3, "0700000000000000")]),
    (ModuleHandle(8), 9, [(3, "0800000000000000")]),
    (ObjectHandle(9), 8, [(3, "0900000000000000")]),
    (TensorResult(RECORD, 9), 7, [(7, TENSOR), (3, "0900000000000000")]),
]


@pytest.mark.parametrize(("value", "kind", "coded"), RESULTS)
def test_each_kind_of_result_both_ways(value: Any, kind: int, coded: List[Coded]) -> None:
    """The kind as an int, then the value: exactly these bytes, and back."""
    packet = joined(encode_result(value))
    assert packet[12:] == sequence((0, struct.pack("<q", kind).hex()), *coded)
    found = result(packet)
    assert (found, type(found)) == (value, type(value))


KIND = "{:02x}00000000000000".format


@pytest.mark.parametrize(
    ("kind", "coded", "expected"),
    [
        (4, [], None),
        (0, [], None),
        (4, [INT_5], None),
        (15, [(15, "0100000000000000")], True),
        (15, [(15, "0000000000000000")], False),
        (15, [(0, "0100000000000000")], True),
        (15, [(0, "0000000000000000")], False),
        (0, [(15, "0100000000000000")], True),
        (0, [(2, "000000000000f83f")], 1.5),
        (0, [(4, "")], None),
        (5, [(11, "0400000000000000 696e7438")], "int8"),
        (10, [(3, "0000000000000000")], FunctionHandle(0)),
        (10, [(4, "")], None),
        (8, [(4, "")], None),
        (64, [(3, "0700000000000000")], OpaquePointer(7)),
    ],
)
def test_results_that_are_taken_besides_ours(kind: int, coded: List[Coded], expected: Any) -> None:
    """The null kind alone is None; booleans of any version; else the value's own type decides."""
    found = result_in((0, KIND(kind)), *coded)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("kind", [7, 13])
@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        ([(3, "0900000000000000")], 9),
        ([(3, "ffffffffffffffff")], 2**64 - 1),
        ([(3, "0000000000000000")], 0),
        ([(4, "")], 0),
        ([(0, "0000000000000000")], 0),
        ([], 0),
    ],
)
def test_tensors_of_every_version(kind: int, handle: List[Coded], expected: int) -> None:
    """Tensors as kind 7 and 13; the handle may be null, 0, or not there."""
    found = result_in((0, KIND(kind)), (7, TENSOR), *handle)
    assert found == TensorResult(RECORD, expected)


@pytest.mark.parametrize(
    "handle",
    [
        (11, "0100000000000000 61"),
        (2, "000000000000f87f"),
        (0, "ffffffffffffffff"),
        (6, "01000000 00000000"),
        (7, TENSOR),
    ],
    ids=["text", "nan", "negative", "device", "tensor"],
)
def test_tensors_with_no_handle_are_refused(handle: Coded) -> None:
    """What keeps a tensor alive is a pointer; anything else breaks the protocol."""
    with pytest.raises(RemoteProtocolError, match="a tensor with a handle of type"):
        result_in((0, KIND(13)), (7, TENSOR), handle)


@pytest.mark.parametrize(
    "coded",
    [
        [],
        [(4, ""), INT_5],
        [(15, "0100000000000000"), (4, "")],
        [(11, "0100000000000000 61")],
        [(3, "0100000000000000"), (4, "")],
    ],
)
def test_results_without_a_kind_are_refused(coded: List[Coded]) -> None:
    """The first value is an int."""
    with pytest.raises(RemoteProtocolError, match="without its kind"):
        result_in(*coded)


def test_result_after_pending_bytes() -> None:
    """A long byte string that was received apart is put in its place."""
    content = bytearray(b"abc")
    assert result_of([12, content]) is content


def test_golden_results(spoken: Any) -> None:
    """What TVM's functions return comes out as what it is, in either dialect."""
    vector, dialect = spoken
    if not vector.name.startswith("result-") or vector.value["code"] != 4:
        return
    found = dialect.decode_result(vector.content, 12, len(vector.content))
    kind = vector.name.split("-")[1]
    expected = {
        "none": type(None),
        "int": int,
        "bool": int if vector.name.endswith("0.13") else bool,
        "float": float,
        "text": str,
        "bytes": bytes,
        "pointer": OpaquePointer,
        "dtype": DataType,
        "device": Device,
        "tensor": TensorResult,
        "function": FunctionHandle,
        "module": ModuleHandle,
    }.get(kind, ObjectHandle)
    assert type(found) is expected
