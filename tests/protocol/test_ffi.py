"""The FFI dialect: every kind of value and of result both ways, and all that is none."""

from __future__ import annotations

import math
import struct
from typing import Any, List, Tuple

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import LocalProtocolError, RemoteProtocolError
from pytest_tvmrpc.protocol.ffi import (
    decode_result,
    decode_values,
    decode_values_before,
    encode_call,
    encode_free,
    encode_request,
    encode_result,
    encode_values,
    result_of,
)
from pytest_tvmrpc.protocol.values import (
    LARGE,
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

ENCODINGS: List[Tuple[Any, str]] = [
    (None, "00000000"),
    (0, "01000000 0000000000000000"),
    (-1, "01000000 ffffffffffffffff"),
    (2**63 - 1, "01000000 ffffffffffffff7f"),
    (-(2**63), "01000000 0000000000000080"),
    (False, "02000000 0000000000000000"),
    (True, "02000000 0100000000000000"),
    (1.5, "03000000 000000000000f83f"),
    (-math.inf, "03000000 000000000000f0ff"),
    (OpaquePointer(0), "04000000 0000000000000000"),
    (OpaquePointer(2**64 - 1), "04000000 ffffffffffffffff"),
    (DataType("float32"), "05000000 02200100 00000000"),
    (DataType("int8x4"), "05000000 00080400 00000000"),
    (DataType("void"), "05000000 03000000 00000000"),
    (Device(1, 0), "06000000 01000000 00000000"),
    (Device(-3, 7), "06000000 fdffffff 07000000"),
    (RECORD, "07000000" + TENSOR),
    ("", "08000000 0000000000000000"),
    ("abc", "08000000 0300000000000000 616263"),
    ("größer", "08000000 0800000000000000 6772c3b6c39f6572"),
    ("\udcff\udc80", "08000000 0200000000000000 ff80"),
    (b"", "09000000 0000000000000000"),
    (b"\0\1\2", "09000000 0300000000000000 000102"),
    (b"1234567", "09000000 0700000000000000 31323334353637"),
    (b"12345678", "09000000 0800000000000000 3132333435363738"),
    (FunctionHandle(7), "44000000 0700000000000000"),
    (ModuleHandle(2**64 - 1), "49000000 ffffffffffffffff"),
    (ObjectHandle(9), "73000000 73000000 0900000000000000"),
]
IDS = [f"{type(value).__name__}-{number}" for number, (value, _) in enumerate(ENCODINGS)]


def sequence(*texts: str) -> bytes:
    return struct.pack("<i", len(texts)) + b"".join(map(bytes.fromhex, texts))


def joined(buffers: Any) -> bytes:
    return buffers if isinstance(buffers, bytes) else b"".join(buffers)


def whole(content: bytes) -> List[Any]:
    return decode_values(content, 0, len(content))


def result(content: Any) -> Any:
    """The result in the body of a Return packet."""
    packet = joined(content)
    assert struct.unpack_from("<Qi", packet) == (len(packet) - 8, 4)
    return decode_result(packet, 12, len(packet))


def result_in(*texts: str) -> Any:
    body = sequence(*texts)
    return decode_result(body, 0, len(body))


# Values


@pytest.mark.parametrize(("value", "text"), ENCODINGS, ids=IDS)
def test_each_kind_of_value_both_ways(value: Any, text: str) -> None:
    """One value is these bytes, and these bytes are that value, of the same type."""
    encoded = sequence(text)
    assert joined(encode_values([value])) == encoded
    (found,) = whole(encoded)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("value", "text"), ENCODINGS, ids=IDS)
def test_each_kind_of_value_is_known_to_tvm_0_21(value: Any, text: str) -> None:
    """Its server ends for good at any other index but that of objects, which it does not offer."""
    index = struct.unpack_from("<i", joined(encode_values([value])), 4)[0]
    assert index in (*range(10), 68, 73) or type(value) is ObjectHandle


@pytest.mark.parametrize("size", [LARGE - 1, LARGE])
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_bytes_of_any_form_and_size(form: Any, size: int) -> None:
    """A byte string that is passed through has the same head as one that is copied."""
    content = joined(encode_values([form(bytes(size)), 5]))
    head = bytes.fromhex("02000000 09000000") + struct.pack("<Q", size)
    assert content == head + bytes(size) + bytes.fromhex("01000000 0500000000000000")


@pytest.mark.parametrize("text", ["\0", "a\0b", "text\0"])
def test_a_text_with_nul_is_refused(text: str) -> None:
    """A peer in C would lose what comes behind it, and the object that keeps it ends TVM 0.21."""
    with pytest.raises(LocalProtocolError, match=r"cannot be sent: .*first NUL; send it as bytes"):
        encode_values([text])
    with pytest.raises(LocalProtocolError, match="send it as bytes"):
        encode_call(7, [1, text])


@pytest.mark.parametrize(("value", "text"), ENCODINGS, ids=IDS)
def test_each_kind_of_value_in_each_place(value: Any, text: str) -> None:
    """First, in the middle and last: neighbours do not matter."""
    encoded = sequence(text, "00000000", text, "01000000 0500000000000000", text)
    assert joined(encode_values([value, None, value, 5, value])) == encoded
    assert whole(encoded) == [value, None, value, 5, value]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("08000000 0300000000000000 616263", "abc"),
        ("0b000000 41000000 0300000000000000 616263", "abc"),
        ("41000000 41000000 0300000000000000 616263", "abc"),
        ("41000000 41000000 0300000000000000 610063", "a\0c"),
        ("08000000 0300000000000000 610063", "a\0c"),
        ("41000000 41000000 0000000000000000", ""),
        ("09000000 0300000000000000 616263", b"abc"),
        ("0c000000 42000000 0300000000000000 616263", b"abc"),
        ("42000000 42000000 0300000000000000 616263", b"abc"),
        ("42000000 42000000 0000000000000000", b""),
        ("0b000000 42000000 0300000000000000 616263", b"abc"),
        ("42000000 41000000 0300000000000000 616263", "abc"),
        ("02000000 ff00000000000000", True),
        ("04000000 ffffffffffffffff", OpaquePointer(2**64 - 1)),
        ("05000000 02200100 deadbeef", DataType("float32")),
    ],
)
def test_kinds_that_are_taken_besides_ours(text: str, expected: Any) -> None:
    """Text as 8, 65 and 11, bytes as 9, 66 and 12; the inner index decides; padding is padding."""
    for encoded in (sequence(text), sequence(text, "00000000")):
        found = whole(encoded)[0]
        assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("index", [74, 77, 78, 114, 116, 127])
def test_references_of_0_21(index: int) -> None:
    """Their index was another then; it stands there twice, and is cut or resolved as ever."""
    encoded = struct.pack("<iiIQ", 1, index, index, 7)
    (found,) = whole(encoded)
    assert (found, type(found)) == (7, ObjectHandle)
    assert decode_values(encoded, 0, len(encoded), None, type) == [ObjectHandle]
    for end in range(len(encoded)):
        for buffer in (encoded[:end], encoded + bytes(40)):
            with pytest.raises(RemoteProtocolError):
                decode_values(buffer, 0, end, None, repr)
    with pytest.raises(RemoteProtocolError, match=f"unknown type index {index}$"):
        whole(struct.pack("<iiIQ", 1, index, 115, 7))


def test_objects_of_0_21_as_results() -> None:
    """Map was 70 and Shape 71 then, where a tensor, and an array, are now: all are handles."""
    for kind in (69, 70, 71, 72):
        found = result_in(f"01000000 {kind:02x}00000000000000", "04000000 0700000000000000")
        assert (found, type(found)) == (7, ObjectHandle)


@pytest.mark.parametrize("index", [8, 65, 11])
def test_texts_that_are_no_utf_8(index: int) -> None:
    """Any bytes are a text: those that are no UTF-8 come back as they went."""
    content = b"caf\xe9/\xff\xfe\xed\xa0\x80.so"
    inner = b"" if index == 8 else struct.pack("<I", 65)
    encoded = struct.pack("<ii", 1, index) + inner + struct.pack("<Q", len(content)) + content
    (text,) = whole(encoded)
    assert text.encode("utf-8", "surrogateescape") == content
    assert whole(joined(encode_values([text]))) == [text]
    assert result(encode_result(text)) == text


@pytest.mark.parametrize("index", [-1, 10, 13, 64, 67, 69, 70, 71, 72, 74, 78, 116, 2**31 - 1])
def test_unknown_kinds_are_refused(index: int) -> None:
    """What no sender sends is refused, with its number, whatever follows it."""
    for tail in (bytes(8), bytes(20), b"\xff" * 8):
        encoded = struct.pack("<ii", 1, index) + tail
        with pytest.raises(RemoteProtocolError, match=f"unknown type index {index}$"):
            whole(encoded)


@pytest.mark.parametrize("nbytes", [4, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("head", ["08000000", "09000000", "4100000041000000", "4200000042000000"])
def test_lengths_beyond_the_packet_are_refused(head: str, nbytes: int) -> None:
    """A length is held against the bytes that are there, before any are taken."""
    encoded = struct.pack("<i", 1) + bytes.fromhex(head) + struct.pack("<Q", nbytes) + b"abc"
    for buffer in (encoded, encoded + bytes(100)):
        with pytest.raises(RemoteProtocolError):
            decode_values(buffer, 0, len(encoded))


def test_wrong_inner_kinds_are_refused() -> None:
    """An object that is none of what was announced; its handle or length is not looked at."""
    for text in (
        "41000000 43000000 0100000000000000 61",
        "0c000000 00000000 0100000000000000 61",
        "73000000 09000000 0700000000000000",
    ):
        with pytest.raises(RemoteProtocolError, match="an object of type index"):
            whole(sequence(text))


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


@pytest.mark.parametrize("kind", [FunctionHandle, ModuleHandle, ObjectHandle, TensorResult])
def test_frees(kind: type) -> None:
    """A handle alone says what is to be freed, of whatever kind it is."""
    for handle in (0, 7, 2**64 - 1):
        assert encode_free(handle, kind) == encode_request(10, (OpaquePointer(handle),))


@pytest.mark.parametrize("head", ["42000000 42000000", "0c000000 42000000", "09000000"])
@pytest.mark.parametrize("there", [0, 1, 100])
def test_pending_bytes(head: str, there: int) -> None:
    """A last byte string that fills its packet is told before it is there."""
    prefix = sequence("08000000 0100000000000000 61", "00000000", "")
    stream = prefix + bytes.fromhex(head) + struct.pack("<Q", 1 << 20)
    arrived = stream + bytes(there)
    values, pending = decode_values_before(arrived, 0, len(arrived), len(stream) + (1 << 20))
    assert values == ["a", None]
    assert pending == PendingBytes(len(stream), 1 << 20)


@pytest.mark.parametrize(
    "case",
    [
        "not the last value",
        "does not fill the packet",
        "claims more than the packet",
        "a text",
        "a text as an object",
        "cut before the length",
        "unknown kind",
    ],
)
def test_other_long_sequences_have_to_be_collected(case: str) -> None:
    """Anything but a last byte string: None, and the owner collects the packet."""
    head = bytes.fromhex("42000000 42000000") + struct.pack("<Q", 100_000)
    count, tail, missing = 2, b"", 100_000
    if case == "not the last value":
        count, missing = 3, 100_004
    elif case == "does not fill the packet":
        missing = 100_001
    elif case == "claims more than the packet":
        missing = 99_999
    elif case == "a text":
        head = bytes.fromhex("08000000") + struct.pack("<Q", 100_000)
    elif case == "a text as an object":
        head = bytes.fromhex("41000000 41000000") + struct.pack("<Q", 100_000)
    elif case == "cut before the length":
        head, missing = head[:9], 100_007
    else:
        head = bytes.fromhex("4e000000") + struct.pack("<Q", 100_000)
    stream = struct.pack("<i", count) + bytes.fromhex("02000000 0100000000000000") + head + tail
    _, pending = decode_values_before(stream, 0, len(stream), len(stream) + missing)
    assert pending is None


def test_pending_bytes_are_not_read_from_an_earlier_packet() -> None:
    """Cut within the head of a byte string: what lies behind in the buffer is of another packet."""
    head = bytes.fromhex("42000000 42000000") + struct.pack("<Q", 1000)
    stream = struct.pack("<i", 1) + head
    for end in range(len(stream)):
        _, pending = decode_values_before(stream + bytes(9), 0, end, len(stream) + 1000)
        assert pending is None
    assert decode_values_before(stream, 0, len(stream), len(stream) + 1000)[1] is not None


# Results


RESULTS: List[Tuple[Any, int, str]] = [
    (None, 0, "00000000"),
    (11, 1, "01000000 0b00000000000000"),
    (-(2**63), 1, "01000000 0000000000000080"),
    (True, 2, "02000000 0100000000000000"),
    (False, 2, "02000000 0000000000000000"),
    (1.5, 3, "03000000 000000000000f83f"),
    (OpaquePointer(2**64 - 1), 4, "04000000 ffffffffffffffff"),
    (DataType("int8"), 5, "05000000 00080100 00000000"),
    (Device(2, 1), 6, "06000000 02000000 01000000"),
    ("", 11, "08000000 0000000000000000"),
    ("1234567", 11, "08000000 0700000000000000 31323334353637"),
    ("12345678", 65, "08000000 0800000000000000 3132333435363738"),
    ("öööö", 65, "08000000 0800000000000000 c3b6c3b6c3b6c3b6"),
    ("nul\0nul\0", 65, "41000000 41000000 0800000000000000 6e756c006e756c00"),
    (b"", 12, "09000000 0000000000000000"),
    (b"1234567", 12, "09000000 0700000000000000 31323334353637"),
    (b"12345678", 66, "09000000 0800000000000000 3132333435363738"),
    (FunctionHandle(7), 68, "04000000 0700000000000000"),
    (ModuleHandle(8), 73, "04000000 0800000000000000"),
    (TensorResult(RECORD, 9), 7, "07000000" + TENSOR + "04000000 0900000000000000"),
]


@pytest.mark.parametrize(("value", "kind", "text"), RESULTS)
def test_each_kind_of_result_both_ways(value: Any, kind: int, text: str) -> None:
    """The kind as an int, then the value: exactly these bytes, and back."""
    packet = joined(encode_result(value))
    count = 3 if type(value) is TensorResult else 2
    assert packet[12:] == struct.pack("<iiq", count, 1, kind) + bytes.fromhex(text)
    found = result(packet)
    assert (found, type(found)) == (value, type(value))


def test_other_objects_as_results() -> None:
    """An object is a handle of some kind above 64; it comes back as a handle."""
    found = result(encode_result(ObjectHandle(7)))
    assert (found, type(found)) == (7, ObjectHandle)
    for kind in ("4500000000000000", "4700000000000000", "7300000000000000", "ff00000000000000"):
        found = result_in("01000000" + kind, "04000000 0700000000000000")
        assert (found, type(found)) == (7, ObjectHandle)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("01000000 0000000000000000",), None),
        (("01000000 0100000000000000",), None),
        (("01000000 0000000000000000", "00000000"), None),
        (("01000000 0000000000000000", "01000000 0500000000000000"), None),
        (("01000000 0100000000000000", "03000000 000000000000f83f"), 1.5),
        (("01000000 0100000000000000", "00000000"), None),
        (("01000000 0800000000000000", "08000000 0100000000000000 61"), "a"),
        (("01000000 0b00000000000000", "41000000 41000000 0200000000000000 6100"), "a\0"),
        (("01000000 4100000000000000", "0b000000 41000000 0100000000000000 61"), "a"),
        (("01000000 0900000000000000", "09000000 0100000000000000 61"), b"a"),
        (("01000000 0c00000000000000", "42000000 42000000 0100000000000000 61"), b"a"),
        (("01000000 4200000000000000", "0c000000 42000000 0100000000000000 61"), b"a"),
        (("01000000 4400000000000000", "04000000 0000000000000000"), FunctionHandle(0)),
        (("01000000 4400000000000000", "00000000"), None),
    ],
)
def test_results_that_are_taken_besides_ours(texts: Tuple[str, ...], expected: Any) -> None:
    """What TVM's client takes: for kinds below 64 the value's own type decides; 0 alone is None."""
    found = result_in(*texts)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("kind", ["07", "46", "48"])
@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        ("04000000 0900000000000000", 9),
        ("04000000 ffffffffffffffff", 2**64 - 1),
        ("04000000 0000000000000000", 0),
        ("00000000", 0),
        ("01000000 0000000000000000", 0),
        ("", 0),
    ],
)
def test_tensors_of_every_version(kind: str, handle: str, expected: int) -> None:
    """Tensors as kind 7, 70 and 72; the handle may be null, 0, or not there."""
    texts = [f"01000000 {kind}00000000000000", "07000000" + TENSOR, *([handle] if handle else [])]
    assert result_in(*texts) == TensorResult(RECORD, expected)


@pytest.mark.parametrize(
    "handle",
    [
        "08000000 0100000000000000 61",
        "08000000 0100000000000000 35",
        "03000000 000000000000f87f",
        "03000000 000000000000f83f",
        "01000000 ffffffffffffffff",
        "06000000 01000000 00000000",
        "07000000" + TENSOR,
    ],
    ids=["text", "digit", "nan", "float", "negative", "device", "tensor"],
)
def test_tensors_with_no_handle_are_refused(handle: str) -> None:
    """What keeps a tensor alive is a pointer; anything else breaks the protocol."""
    with pytest.raises(RemoteProtocolError, match="a tensor with a handle of type"):
        result_in("01000000 4600000000000000", "07000000" + TENSOR, handle)


@pytest.mark.parametrize(
    "texts",
    [
        (),
        ("00000000", "01000000 0500000000000000"),
        ("02000000 0100000000000000", "00000000"),
        ("08000000 0100000000000000 61",),
        ("04000000 0100000000000000", "00000000"),
    ],
)
def test_results_without_a_kind_are_refused(texts: Tuple[str, ...]) -> None:
    """The first value is an int; TVM's own client dies of a result without values."""
    with pytest.raises(RemoteProtocolError, match="without its kind"):
        result_in(*texts)


def test_result_after_pending_bytes() -> None:
    """A long byte string that was received apart is put in its place."""
    content = bytearray(b"abc")
    assert result_of([66, content]) is content
