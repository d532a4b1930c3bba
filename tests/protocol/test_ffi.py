"""The FFI dialect: every kind of value and of result both ways, and all that is none."""

from __future__ import annotations

import io
import math
import struct
from typing import Any, Dict, List, Tuple

import pytest

from pytest_tvmrpc.dlpack import DataType, Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import LocalProtocolError, RemoteProtocolError
from pytest_tvmrpc.protocol.ffi import (
    decode_result,
    decode_values,
    decode_values_before,
    encode_call,
    encode_request,
    encode_result,
    encode_return,
    encode_values,
    result_of,
)
from pytest_tvmrpc.protocol.values import (
    LARGE,
    MAX_VALUES,
    ByteSource,
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
    ("a\0b", "41000000 41000000 0300000000000000 610062"),
    ("\udcff\udc80", "08000000 0200000000000000 ff80"),
    (b"", "0c000000 42000000 0000000000000000"),
    (b"\0\1\2", "0c000000 42000000 0300000000000000 000102"),
    (b"1234567", "0c000000 42000000 0700000000000000 31323334353637"),
    (b"12345678", "42000000 42000000 0800000000000000 3132333435363738"),
    (FunctionHandle(7), "44000000 0700000000000000"),
    (ModuleHandle(2**64 - 1), "49000000 ffffffffffffffff"),
    (ObjectHandle(9), "73000000 73000000 0900000000000000"),
]
RESOLVED = (Device, TensorRecord, FunctionHandle, ModuleHandle, ObjectHandle)
EVERY = [value for value, _ in ENCODINGS]
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
def test_each_kind_of_value_in_each_place(value: Any, text: str) -> None:
    """First, in the middle and last: neighbours do not matter."""
    encoded = sequence(text, "00000000", text, "01000000 0500000000000000", text)
    assert joined(encode_values([value, None, value, 5, value])) == encoded
    assert whole(encoded) == [value, None, value, 5, value]


@pytest.mark.parametrize(("value", "text"), ENCODINGS, ids=IDS)
def test_values_cut_short(value: Any, text: str) -> None:
    """Cut after any byte, alone or with other bytes behind in the buffer, a sequence is refused."""
    for encoded in (sequence(text), sequence("00000000", text), sequence(text, "00000000")):
        for end in range(len(encoded)):
            for buffer in (encoded[:end], encoded + b"\xff" * 40, encoded + bytes(40)):
                with pytest.raises(RemoteProtocolError):
                    decode_values(buffer, 0, end)
                with pytest.raises(RemoteProtocolError):
                    decode_values(buffer, 0, end, {})


@pytest.mark.parametrize(("value", "text"), ENCODINGS, ids=IDS)
def test_bytes_left_over_are_refused(value: Any, text: str) -> None:
    """A sequence fills its packet; what follows the last value is an error."""
    encoded = sequence(text)
    for trailing in (b"\0", bytes(4), bytes(12), encoded):
        with pytest.raises(RemoteProtocolError):
            whole(encoded + trailing)


def test_every_kind_at_once() -> None:
    """All kinds in one sequence, read from bytes, a bytearray and a view, at any place."""
    encoded = joined(encode_values(EVERY))
    assert encoded == sequence(*(text for _, text in ENCODINGS))
    for buffer in (encoded, bytearray(encoded), memoryview(encoded)):
        assert decode_values(buffer, 0, len(encoded)) == EVERY
    around = b"\xff" * 13 + encoded + b"\xee" * 9
    assert decode_values(around, 13, 13 + len(encoded)) == EVERY
    assert decode_values(memoryview(around), 13, 13 + len(encoded), {}) == EVERY


def test_not_a_number_both_ways() -> None:
    """The one value that does not equal itself."""
    (found,) = whole(joined(encode_values([math.nan])))
    assert math.isnan(found)


def test_no_values() -> None:
    """An empty sequence is its count."""
    assert encode_values([]) == [bytes(4)]
    assert whole(bytes(4)) == []


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


@pytest.mark.parametrize("count", [-1, -(2**31), MAX_VALUES + 1, 2**31 - 1])
def test_numbers_of_values_that_cannot_be(count: int) -> None:
    """Fewer than none, or more than any call has, are refused at once."""
    for tail in (b"", bytes(12), bytes(4 * MAX_VALUES + 8)):
        with pytest.raises(RemoteProtocolError, match=f"sequence of {count} values"):
            whole(struct.pack("<i", count) + tail)


def test_most_values() -> None:
    """The limit itself is taken; a count without its values is refused."""
    assert whole(struct.pack("<i", MAX_VALUES) + bytes(4 * MAX_VALUES)) == [None] * MAX_VALUES
    with pytest.raises(RemoteProtocolError):
        whole(struct.pack("<i", MAX_VALUES) + bytes(4 * MAX_VALUES - 4))


def test_wrong_inner_kinds_are_refused() -> None:
    """An object that is none of what was announced; its handle or length is not looked at."""
    for text in (
        "41000000 43000000 0100000000000000 61",
        "0c000000 00000000 0100000000000000 61",
        "73000000 09000000 0700000000000000",
    ):
        with pytest.raises(RemoteProtocolError, match="an object of type index"):
            whole(sequence(text))


def test_records_that_are_none_are_refused() -> None:
    """A bad tensor breaks a sequence, with the record's own words."""
    bad = bytearray(sequence("07000000" + TENSOR))
    struct.pack_into("<i", bad, 4 + 4 + 16, -1)
    for records in (None, {}):
        with pytest.raises(RemoteProtocolError, match="tensor of -1 dimensions"):
            decode_values(bad, 0, len(bad), records)


def test_records_are_found_again() -> None:
    """The same tensor twice, in one sequence or in two, is one object."""
    records: Dict[bytes, TensorRecord] = {}
    encoded = sequence("07000000" + TENSOR, "07000000" + TENSOR)
    first, second = decode_values(encoded, 0, len(encoded), records)
    assert first is second
    assert decode_values(bytearray(encoded), 0, len(encoded), records)[0] is first
    assert len(records) == 1


def test_handles_and_tensors_can_be_resolved() -> None:
    """The serving side reads a sequence straight into its own things; plain values stay."""
    known: Dict[bytes, Any] = {}
    asked: List[Any] = []

    def resolve(value: Any) -> Any:
        asked.append(value)
        return type(value).__name__

    encoded = joined(encode_values(EVERY))
    expected = [resolve(value) if type(value) in RESOLVED else value for value in EVERY]
    assert decode_values(encoded, 0, len(encoded), known, resolve) == expected
    assert list(known.values()) == ["TensorRecord"]
    asked.clear()
    assert decode_values(encoded, 0, len(encoded), known, resolve) == expected
    assert RECORD not in asked, "what came of a record is kept"


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


@pytest.mark.parametrize(
    "value", [object(), [1], (1,), {}, {1}, 1j, range(3)], ids=lambda v: type(v).__name__
)
def test_values_of_other_types_are_refused(value: Any) -> None:
    """What the protocol cannot carry is refused with its type and with what it can."""
    for encode in (
        encode_values,
        lambda values: encode_call(7, values),
        lambda values: encode_request(9, values),
    ):
        with pytest.raises(LocalProtocolError, match=f"type {type(value).__name__} cannot be sent"):
            encode([1, value])
    with pytest.raises(LocalProtocolError, match=f"type {type(value).__name__} cannot be sent"):
        encode_result(value)


def test_lone_surrogates_are_refused() -> None:
    """A text that stands for no bytes is our own error, not one of the codec's."""
    for encode in (encode_values, encode_result):
        with pytest.raises(LocalProtocolError, match="surrogate"):
            encode(["half \ud800 a pair"] if encode is encode_values else "half \ud800 a pair")


def test_translate_is_asked_for_other_types_only() -> None:
    """A foreign value is sent as what stands for it; a value of ours is never asked about."""
    asked: List[Any] = []

    def translate(value: Any) -> Any:
        asked.append(value)
        return 7 if value is Ellipsis else value

    assert joined(encode_values([1, "a", ...], translate)) == joined(encode_values([1, "a", 7]))
    assert asked == [...]
    with pytest.raises(LocalProtocolError, match="type list"):
        encode_values([[1]], translate)


# Long byte strings


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("nbytes", [LARGE, LARGE + 1, 1 << 20])
def test_long_byte_strings_are_not_copied(wrap: Any, nbytes: int) -> None:
    """They travel as buffers of their own, between what stands before and behind them."""
    content = bytes(range(256)) * (nbytes // 256 + 1)
    content = content[:nbytes]
    buffers = encode_values(["a", wrap(content), 5, wrap(content)])
    assert [len(buffer) for buffer in buffers] == [4 + 13 + 16, nbytes, 12 + 16, nbytes]
    assert whole(b"".join(buffers)) == ["a", content, 5, content]


def test_views_of_any_form_are_byte_strings() -> None:
    """A view of other items is sent as the bytes it has."""
    view = memoryview(struct.pack("<3d", 1, 2, 3)).cast("d")
    assert whole(joined(encode_values([view]))) == [bytes(view)]
    assert whole(joined(encode_values([memoryview(b"")]))) == [b""]


def test_calls() -> None:
    """A call is a frame, a handle and a sequence; in one piece unless something long is in it."""
    for values in ([], [10], [True], EVERY, [bytes(LARGE)], ["x", bytearray(LARGE + 1), None]):
        encoded = encode_call(0x1122334455667788, values)
        assert (type(encoded) is bytes) == all(
            not isinstance(value, (bytes, bytearray)) or len(value) < LARGE for value in values
        )
        packet = joined(encoded)
        assert struct.unpack_from("<QiQ", packet) == (len(packet) - 8, 3, 0x1122334455667788)
        assert decode_values(packet, 20, len(packet)) == values


def test_requests() -> None:
    """A request of values only, or an answer, is a frame and a sequence, in one piece."""
    for code, values in [(9, ("name",)), (4, (None,)), (15, (Device(1, 0), 0)), (21, EVERY)]:
        packet = encode_request(code, values)
        assert struct.unpack_from("<Qi", packet) == (len(packet) - 8, code)
        assert packet[12:] == joined(encode_values(values))


@pytest.mark.parametrize("value", EVERY, ids=IDS)
def test_answers_to_syscalls(value: Any) -> None:
    """One value of any kind in a Return packet."""
    assert encode_return(value) == encode_request(4, (value,))


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


def test_whole_sequences_have_nothing_pending() -> None:
    """With the whole packet there, the values are all there is."""
    encoded = joined(encode_values(EVERY))
    assert decode_values_before(encoded, 0, len(encoded), len(encoded)) == (EVERY, None)


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


@pytest.mark.parametrize("nbytes", [LARGE - 1, LARGE, 1 << 20])
@pytest.mark.parametrize("wrap", [bytes, bytearray])
def test_long_results(wrap: Any, nbytes: int) -> None:
    """Long byte strings stand apart from their head; a file's bytes come from elsewhere."""
    content = wrap(b"x" * nbytes)
    encoded = encode_result(content)
    assert result(encoded) == content
    if nbytes >= LARGE:
        assert encoded[1] is content
    head = encode_result(ByteSource(io.BytesIO(), nbytes))
    assert joined(encoded) == head + content


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
