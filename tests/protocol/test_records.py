"""The description of a tensor: to bytes and back, and all that describes no tensor that can be."""

from __future__ import annotations

import struct
from typing import Dict, List, Tuple

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import MAX_NDIM, Device, TensorRecord
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.records import decode_record, encode_record, known_record

FLOAT32 = DataType("float32")

RECORDS: List[Tuple[TensorRecord, str]] = [
    (
        TensorRecord(0x7FFA10010080, Device(1, 0), (4,), FLOAT32),
        "80000110fa7f0000 01000000 00000000 01000000 02200100 0400000000000000 0000000000000000",
    ),
    (
        TensorRecord(2**64 - 1, Device(2, 3), (), DataType("int8x4"), 2**64 - 1),
        "ffffffffffffffff 02000000 03000000 00000000 00080400 ffffffffffffffff",
    ),
    (
        TensorRecord(0, Device(-1, -2), (2, 0, 3), DataType("bool"), 12),
        "0000000000000000 ffffffff feffffff 03000000 06080100"
        "0200000000000000 0000000000000000 0300000000000000 0c00000000000000",
    ),
    (
        TensorRecord(1, Device(1, 0), (1,) * MAX_NDIM, DataType.of(200, 255, 65535)),
        "0100000000000000 01000000 00000000 40000000 c8ffffff"
        + "0100000000000000" * MAX_NDIM
        + "0000000000000000",
    ),
]
CASES = pytest.mark.parametrize(("record", "text"), RECORDS, ids=["plain", "scalar", "empty", "64"])


def raw(
    ndim: int, shape: Tuple[int, ...], bits: int = 32, lanes: int = 1, byte_offset: int = 0
) -> bytes:
    head = struct.pack("<QiiiBBH", 4096, 1, 0, ndim, 2, bits, lanes)
    return head + struct.pack(f"<{len(shape)}qQ", *shape, byte_offset)


@CASES
def test_records_are_written_and_read(record: TensorRecord, text: str) -> None:
    """Both ways, in the layout of TVM; writing keeps the bytes for the next time."""
    encoded = bytes.fromhex(text)
    assert encode_record(record) == encoded
    assert record.encoded == encoded
    assert decode_record(encoded, 0, len(encoded)) == (record, len(encoded))
    assert known_record(encoded, 0, len(encoded), {}) == (record, len(encoded))


@CASES
def test_records_among_other_bytes(record: TensorRecord, text: str) -> None:
    """What lies before and behind a record is left alone."""
    encoded = bytes.fromhex(text)
    stream = bytearray(b"\xff" * 5 + encoded + b"\xee" * 7)
    assert decode_record(stream, 5, len(stream)) == (record, 5 + len(encoded))
    assert known_record(memoryview(stream), 5, len(stream), {}) == (record, 5 + len(encoded))


@CASES
def test_records_cut_short(record: TensorRecord, text: str) -> None:
    """Cut after any byte, a record is refused, even where more bytes lie in the buffer behind."""
    encoded = bytes.fromhex(text)
    for end in range(len(encoded)):
        for buffer in (encoded[:end], encoded):
            with pytest.raises(RemoteProtocolError, match="ends within"):
                decode_record(buffer, 0, end)
            known = {encoded: record}
            with pytest.raises(RemoteProtocolError, match="ends within"):
                known_record(buffer, 0, end, known)
            assert known == {encoded: record}


@pytest.mark.parametrize("ndim", [-1, -(2**31), MAX_NDIM + 1, 1000, 2**31 - 1])
def test_numbers_of_dimensions_that_cannot_be(ndim: int) -> None:
    """Fewer than none, or more than 64, are refused whatever follows."""
    for tail in (b"", bytes(600)):
        encoded = raw(ndim, ()) + tail
        with pytest.raises(RemoteProtocolError, match=f"tensor of {ndim} dimensions"):
            decode_record(encoded, 0, len(encoded))
        with pytest.raises(RemoteProtocolError, match=f"tensor of {ndim} dimensions"):
            known_record(encoded, 0, len(encoded), {})


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (0, -1), (-(2**63), 1), (-1, -1)])
def test_negative_lengths_are_refused(shape: Tuple[int, ...]) -> None:
    """Also where another length is 0, or where the product would be positive."""
    encoded = raw(len(shape), shape)
    with pytest.raises(RemoteProtocolError, match="a length is negative"):
        decode_record(encoded, 0, len(encoded))


@pytest.mark.parametrize(
    "shape", [(2**63 - 1,), (2**32, 2**32), (2**58, 1), (2**63 - 1,) * MAX_NDIM]
)
def test_tensors_beyond_any_memory_are_refused(shape: Tuple[int, ...]) -> None:
    """A number of bits that a signed 64 bit number cannot hold is no tensor's."""
    encoded = raw(len(shape), shape)
    with pytest.raises(RemoteProtocolError, match="beyond any memory"):
        decode_record(encoded, 0, len(encoded))


@pytest.mark.parametrize(("bits", "lanes"), [(0, 1), (32, 0), (0, 0)])
def test_elements_of_nothing_are_refused(bits: int, lanes: int) -> None:
    """Elements have at least one bit in at least one lane."""
    encoded = raw(1, (4,), bits, lanes)
    with pytest.raises(RemoteProtocolError, match=f"elements of {bits} bits in {lanes} lanes"):
        decode_record(encoded, 0, len(encoded))


@pytest.mark.parametrize("shape", [(2**57,), (0,), (2**62, 0), (0, 2**63 - 1, 2**63 - 1)])
def test_large_and_empty_tensors_are_described(shape: Tuple[int, ...]) -> None:
    """A description takes no memory: whether there is enough is for the device to say."""
    encoded = raw(len(shape), shape, byte_offset=2**64 - 1)
    record, offset = decode_record(encoded, 0, len(encoded))
    assert (record.shape, record.byte_offset, offset) == (shape, 2**64 - 1, len(encoded))


def test_known_records_are_found_again() -> None:
    """The same bytes give the same object, and other bytes another."""
    records: Dict[bytes, TensorRecord] = {}
    first, second = raw(1, (4,)), raw(1, (5,))
    found, _ = known_record(first, 0, len(first), records)
    assert known_record(bytearray(b"xx" + first), 2, 2 + len(first), records)[0] is found
    other, _ = known_record(second, 0, len(second), records)
    assert other != found
    assert set(records) == {first, second}


def test_known_records_do_not_grow_for_ever() -> None:
    """However many descriptions a peer makes up, only some are kept."""
    records: Dict[bytes, TensorRecord] = {}
    for number in range(5000):
        encoded = raw(1, (number,))
        known_record(encoded, 0, len(encoded), records)
    assert len(records) <= 256


def test_refused_records_are_not_kept() -> None:
    """What describes no tensor leaves nothing behind."""
    records: Dict[bytes, TensorRecord] = {}
    for encoded in (raw(1, (-1,)), raw(1, (2**63 - 1,)), raw(-1, ()), raw(2, (1, 2))[:-1]):
        with pytest.raises(RemoteProtocolError):
            known_record(encoded, 0, len(encoded), records)
    assert records == {}
