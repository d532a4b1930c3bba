"""Whatever is encoded comes back, in both dialects and however the bytes are cut."""

from __future__ import annotations

import struct
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, Dialect
from pytest_tvmrpc.protocol.framing import PacketReader
from pytest_tvmrpc.protocol.records import decode_record, encode_record
from pytest_tvmrpc.protocol.values import FunctionHandle, ModuleHandle, ObjectHandle

each_dialect = pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)

WORDS = st.integers(0, (1 << 64) - 1)
VALUES = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.binary(),
    st.builds(OpaquePointer, WORDS),
    st.builds(FunctionHandle, WORDS),
    st.builds(ModuleHandle, WORDS),
    st.builds(ObjectHandle, WORDS),
    st.builds(Device, st.integers(0, 1000), st.integers(0, 1000)),
)
SHAPES = st.lists(st.integers(0, 1 << 12), max_size=4).map(tuple)
RECORDS = st.builds(
    TensorRecord,
    WORDS,
    st.builds(Device, st.integers(1, 20), st.integers(0, 9)),
    SHAPES,
    st.sampled_from(["float32", "int8", "uint64", "float16x4", "int1"]).map(DataType),
    st.integers(0, 1 << 40),
)


def typed(values: List[Any]) -> List[Any]:
    """The values with their types, so that 1 and 1.0 differ, and -0.0 and 0.0."""
    return [
        (type(value), struct.pack("<d", value) if type(value) is float else value)
        for value in values
    ]


@each_dialect
@given(values=st.lists(VALUES, max_size=20))
def test_sequences_come_back(dialect: Dialect, values: List[Any]) -> None:
    """All values, of the types that they had."""
    encoded = b"".join(dialect.encode_values(values))
    assert typed(dialect.decode_values(encoded, 0, len(encoded))) == typed(values)


@each_dialect
@given(values=st.lists(VALUES, min_size=1, max_size=5), cut=st.integers(0, 1 << 16))
def test_sequences_cut_short_are_refused(dialect: Dialect, values: List[Any], cut: int) -> None:
    """At any byte: as a whole sequence, what is left of one is none."""
    encoded = b"".join(dialect.encode_values(values))
    end = cut % len(encoded)
    with pytest.raises(RemoteProtocolError):
        dialect.decode_values(encoded[:end], 0, end)


@each_dialect
@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(dialect: Dialect, body: bytes) -> None:
    """No other error, and what is read can be written again."""
    try:
        values = dialect.decode_values(body, 0, len(body))
    except RemoteProtocolError:
        return
    assert len(values) <= len(body) // 4


@given(RECORDS)
def test_records_come_back(record: TensorRecord) -> None:
    """The description of a tensor, with shape, type and offset."""
    encoded = encode_record(record)
    again, end = decode_record(encoded, 0, len(encoded))
    assert end == len(encoded)
    assert (again.data, again.device, again.shape, again.byte_offset) == (
        record.data,
        record.device,
        record.shape,
        record.byte_offset,
    )
    assert again.dtype == record.dtype


@given(
    bodies=st.lists(st.binary(max_size=300), max_size=8),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=50),
)
def test_packets_come_back_however_they_are_cut(bodies: List[bytes], cuts: List[int]) -> None:
    """One by one, in order, and nothing is left over."""
    stream = b"".join(struct.pack("<Qi", 4 + len(body), 3) + body for body in bodies)
    reader, found, place, turn = PacketReader(), [], 0, 0
    while True:
        packet = reader.next_packet()
        if packet is not None:
            code, start, end = packet
            assert code == 3
            found.append(bytes(reader.buffer[start:end]))
            continue
        if place == len(stream):
            break
        part = stream[place : place + cuts[turn % len(cuts)]]
        reader.room()[: len(part)] = part
        reader.received(len(part))
        place, turn = place + len(part), turn + 1
    assert found == bodies
    assert reader.is_between_packets
