"""wire.c beside protocol/: the same bytes, the same verdict, the same values, in both dialects."""

from __future__ import annotations

import math
import struct
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import native_numbers
from harness.chaos.mutation import EDGES, Mutator, golden
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, TensorRecord
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol import records
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, Dialect, of_client
from pytest_tvmrpc.protocol.framing import MAX_PACKET
from pytest_tvmrpc.protocol.values import FunctionHandle

DIALECTS = (FFI, LEGACY)
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

PACKETS = golden()
REQUESTS = [
    (struct.unpack_from("<i", packet, 8)[0], packet[12:]) for packet in golden(direction=">")
]


def number_of(dialect: Dialect) -> int:
    """What wire.h calls it."""
    return DIALECTS.index(dialect)


def nbytes_in(dialect: Dialect, record: TensorRecord) -> int:
    """Of its content; to the older TVM, each element has whole bytes."""
    if dialect is FFI:
        return record.nbytes
    return math.prod(record.shape) * ((record.dtype.bits * record.dtype.lanes + 7) // 8)


def typed(value: Any) -> Any:
    """A value with its type: 1 is neither 1.0 nor True, and 0.0 not -0.0."""
    return type(value), struct.pack("<d", value) if type(value) is float else value


def python_reads(dialect: Dialect, body: bytes) -> Any:
    """The values of a sequence, those of tensors with their bytes; None if it is refused."""
    try:
        values = dialect.decode_values(body, 0, len(body))
    except RemoteProtocolError:
        return None
    return [
        typed((value, nbytes_in(dialect, value)) if type(value) is TensorRecord else value)
        for value in values
    ]


def assert_alike(wire: Any, dialect: Dialect, body: bytes) -> Any:
    """Both read the same, or both refuse; returns the values."""
    expected = python_reads(dialect, body)
    found = wire.read_values(number_of(dialect), body)
    if expected is None:
        assert type(found).__name__ == "Refused", (dialect.name, body.hex(), found)
        assert found.why
        assert not found.is_partial
    else:
        assert type(found).__name__ == "Read", (dialect.name, body.hex(), found)
        assert found.nbytes == len(body)
        assert [*map(typed, found.value)] == expected, (dialect.name, body.hex())
    return expected


def sequences() -> List[bytes]:
    """The packed sequences of all golden packets, whatever their dialect."""
    found = {b"\0\0\0\0"}
    for packet in PACKETS:
        (code,) = struct.unpack_from("<i", packet, 8)
        body = packet[12:]
        if code == RPCCode.CALL_FUNC:
            body = body[8:]
        elif code == RPCCode.INIT_SERVER:
            body = body[8 + struct.unpack_from("<Q", body)[0] :]
        if code not in (RPCCode.COPY_ACK, RPCCode.COPY_FROM_REMOTE, RPCCode.COPY_TO_REMOTE):
            found.add(body)
    return sorted(found)


# Numbers


def test_the_numbers_are_those_of_the_tables():
    """numbers.h is what its generator makes of the tables of protocol/ now."""
    assert native_numbers.FILE.read_text(encoding="ascii") == native_numbers.header()


def test_names_of_packets(wire):
    """Those of RPCCode; no other number has one."""
    for code in range(-2, 30):
        known = code in set(RPCCode)
        assert wire.code_name(code) == (RPCCode(code).name if known else None)
    assert wire.code_name(-(1 << 31)) is None


# Framing


@pytest.mark.parametrize("packet", PACKETS)
def test_heads(wire, packet):
    """Code and size of each golden packet; any part of a head is one that goes on."""
    (code,) = struct.unpack_from("<i", packet, 8)
    for cut in range(12):
        found = wire.read_head(packet[:cut])
        assert found.is_partial
    assert wire.read_head(packet[:12]) == (12, (code, len(packet) - 12), None)
    assert wire.read_head(packet) == (12, (code, len(packet) - 12), None)


@pytest.mark.parametrize(
    "length", [0, 1, 2, 3, 4, MAX_PACKET, MAX_PACKET + 1, 1 << 63, (1 << 64) - 1]
)
def test_lengths_of_packets(wire, length):
    """An empty packet is passed over; one without a code, or that is too long, is refused."""
    head = struct.pack("<Qi", length, -5)
    if not length:
        assert wire.read_head(head[:8]) == wire.read_head(head) == (8, (0, 0), None)
    elif 4 <= length <= MAX_PACKET:
        assert wire.read_head(head[:8]).is_partial
        assert wire.read_head(head) == (12, (-5, length - 4), None)
    else:
        assert wire.read_head(head[:8]) == wire.read_head(head)
        assert wire.read_head(head).why.startswith(f"a packet of {length} bytes; at ")


# Sequences


@each_dialect
def test_golden_sequences(wire, dialect):
    """Each in both dialects, whole, cut at every place, and with bytes behind it."""
    read = 0
    for body in sequences():
        read += assert_alike(wire, dialect, body) is not None
        for cut in range(len(body)):
            assert_alike(wire, dialect, body[:cut])
        for more in (b"\0", b"\0" * 4, b"\1" * 12):
            assert_alike(wire, dialect, body + more)
    assert read > 30


@each_dialect
def test_sequences_of_which_the_end_is_missing(wire, dialect):
    """What is cut within is partial, or its last text is pending; behind its end, it is refused."""
    pending = 0
    for body in sequences():
        whole = wire.read_values(number_of(dialect), body)
        for cut in range(len(body)):
            missing = len(body) - cut
            found = wire.read_values(number_of(dialect), body[:cut], missing)
            if type(whole).__name__ == "Refused":
                assert type(found).__name__ == "Refused" or found.pending
            elif type(found).__name__ == "Refused":
                assert found.is_partial
            else:
                pending += 1
                *before, last = found.value
                content = whole.value[-1]
                encoded = content.encode() if isinstance(content, str) else content
                assert before == whole.value[:-1]
                assert type(last) is type(content)
                assert content.startswith(last)
                assert found.pending == len(encoded)
                assert len(encoded) - len(last) == missing
        if type(whole).__name__ == "Read":
            longer = wire.read_values(number_of(dialect), body, 1)
            assert not longer.is_partial
            assert "left over" in longer.why
    assert pending > 20


@each_dialect
def test_what_python_has_as_pending_is_pending(wire, dialect):
    """A long byte string at the end, of which the bytes are the owner's to receive."""
    values = [FunctionHandle(5), "name", b"x" * 100]
    body = b"".join(dialect.encode_values(values))
    for cut in range(len(body) - 100, len(body)):
        before, pending = dialect.decode_values_before(body, 0, cut, len(body))
        found = wire.read_values(number_of(dialect), body[:cut], len(body) - cut)
        assert pending is not None
        assert found.pending == pending.nbytes == 100
        assert found.value[:-1] == before
        assert found.value[-1] == body[pending.offset : cut]


@each_dialect
def test_a_length_beyond_the_packet_is_refused_at_once(wire, dialect):
    """It need not be waited for, as it cannot come."""
    body = b"".join(dialect.encode_values([b"x" * 100]))
    assert wire.read_values(number_of(dialect), body[:50], len(body) - 51).is_partial is False
    assert wire.read_values(number_of(dialect), body[:50], len(body) - 50).pending == 100
    cut = wire.read_values(number_of(dialect), body[:50], len(body) - 49)
    assert cut.is_partial  # what is behind it shows when it has come


@each_dialect
def test_more_than_there_is_room_for(wire, dialect):
    """The caller's arrays end where it says."""
    record = TensorRecord(1, Device(1, 0), (2,), DataType("int8"))
    body = b"".join(dialect.encode_values([1, record, record]))
    number = number_of(dialect)
    assert wire.read_values(number, body, most=(3, 2)).nbytes == len(body)
    assert (
        wire.read_values(number, body, most=(2, 2)).why == "a packed sequence of more than 2 values"
    )
    assert (
        wire.read_values(number, body, most=(3, 1)).why
        == "a packed sequence of more than 1 tensors"
    )


@pytest.mark.parametrize("count", [-1, 0, 1, 4096, 4097, -(1 << 31), (1 << 31) - 1])
def test_counts(wire, count):
    """0 to 4096 values; how many are there is another question."""
    body = struct.pack("<i", count)
    found = wire.count_values(body)
    if 0 <= count <= 4096:
        assert found == (4, count, None)
    else:
        assert found.why == f"a packed sequence of {count} values; 0 to 4096 can be"
    assert wire.count_values(body[:3]).why


@each_dialect
def test_as_many_values_as_can_be(wire, dialect):
    """4096 are read."""
    body = b"".join(dialect.encode_values([None] * 4096))
    assert wire.read_values(number_of(dialect), body).value == [None] * 4096


@each_dialect
@given(st.data())
def test_any_bytes_have_one_verdict(wire, dialect, data):
    """Words and values put together at random, so that a part of them makes sense."""
    words = st.one_of(
        st.integers(0, 16).map(lambda word: struct.pack("<i", word)),
        st.sampled_from([65, 66, 68, 73, 74, 77, 115, 127, 128]).map(
            lambda n: struct.pack("<i", n)
        ),
        st.integers(0, 9).map(lambda word: struct.pack("<Q", word)),
        st.sampled_from(EDGES).map(lambda word: struct.pack("<Q", word)),
        st.binary(max_size=12),
        st.builds(
            lambda *parts: struct.pack("<QiiiBBH", *parts),
            *(st.integers(0, 9), st.integers(0, 2), st.just(0), st.integers(-1, 3)),
            *(st.integers(0, 18), st.sampled_from([0, 1, 4, 8, 32]), st.integers(0, 3)),
        ),
    )
    body = struct.pack("<i", data.draw(st.integers(0, 4))) + b"".join(
        data.draw(st.lists(words, max_size=14))
    )
    assert_alike(wire, dialect, body)
    assert_dialects_alike(wire, data.draw(st.integers(0, 22)), body)


@each_dialect
def test_changed_bytes_have_one_verdict(wire, dialect):
    """Golden sequences with numbers exchanged, pieces cut out and put in elsewhere."""
    mutator = Mutator(1, sequences(), [b"\0" * 8])
    for _ in range(3000):
        assert_alike(wire, dialect, mutator.one()[:60000])


# Records


@each_dialect
def test_records(wire, dialect):
    """As Python's readers have them; cut short they are partial; what is behind is not read."""
    decode = records.decode_record if dialect is FFI else records.decode_legacy_record
    bodies = [packet[12:] for packet in PACKETS if packet[8] in (6, 7)]
    mutator = Mutator(2, bodies, [b"\0" * 8])
    read = 0
    for content in [*bodies, *(mutator.one() for _ in range(3000))]:
        content = content[:2000]
        found = wire.read_record(number_of(dialect), content)
        try:
            record, end = decode(content, 0, len(content))
        except RemoteProtocolError as error:
            is_cut = "ends within" in str(error)
            assert (type(found).__name__, found[1]) == ("Refused", is_cut), content.hex()
            continue
        read += 1
        assert found == (end, (record, nbytes_in(dialect, record)), None)
    assert read > 100


@pytest.mark.parametrize(
    ("dtype", "shape", "ffi", "legacy"),
    [
        ("float32", (2, 3), 24, 24),
        ("float32", (), 4, 4),
        ("int4", (5,), 3, 5),
        ("int4", (0, 1 << 62, 1 << 62), 0, 0),
        ("int8x3", (5,), 15, 15),
        ("uint1", (9,), 9, 9),
        ("bool", (9,), 9, 9),
        ("uint1x4", (3,), 2, 3),
        ("int8", ((1 << 60) - 1,), (1 << 60) - 1, (1 << 60) - 1),
        ("int8", (1 << 60,), -1, -1),
        ("int8", (1 << 31, 1 << 31, 1 << 31), -1, -1),
        ("int1", ((1 << 63) - 1,), 1 << 60, (1 << 63) - 1),
        ("int8", (-1,), -1, -1),
        ("int8", (-1, 0), -1, -1),
    ],
)
def test_sizes(wire, dtype, shape, ffi, legacy):
    """Types of less than a byte are packed in the FFI dialect; sizes beyond 2**63 bits are none."""
    kind = DataType.of(1, 1) if dtype == "uint1" else DataType(dtype)
    assert (wire.nbytes_of(0, kind, shape), wire.nbytes_of(1, kind, shape)) == (ffi, legacy)


def test_a_type_without_a_size(wire):
    """There are no tensors of void."""
    assert wire.nbytes_of(0, DataType.of(3, 0, 0), (0,)) == -1


# Dialects


def assert_dialects_alike(wire: Any, code: int, body: bytes) -> Any:
    """Both sides take the client of a request for the same; returns what for."""
    found = wire.dialect_of(code, body)
    try:
        dialect = of_client(code, body)
    except RemoteProtocolError as error:
        reason, likely = str(error), error.dialect
        if code not in set(RPCCode):
            reason = reason.replace(f"unknown code {code}", "unknown code")
            reason = reason.replace("of unknown", "a packet of unknown")
        assert found == ((reason, False), number_of(likely)), (code, body.hex())
        return likely
    assert found == (2 if dialect is None else number_of(dialect)), (code, body.hex())
    return dialect


def test_clients_are_told_apart(wire):
    """By each golden request, whole, with bytes changed, and under the code of another."""
    told = [assert_dialects_alike(wire, code, body) for code, body in REQUESTS]
    assert told.count(FFI) > 20
    assert told.count(LEGACY) > 20
    mutator = Mutator(3, [body for _, body in REQUESTS], [b"\0" * 8])
    for _ in range(3000):
        assert_dialects_alike(wire, mutator.chance.randrange(-1, 25), mutator.one()[:60000])


def test_clients_whose_request_has_not_arrived(wire):
    """What is told by the part of a request is what the whole of it tells, or nothing."""
    told = 0
    for code, body in REQUESTS:
        whole = wire.dialect_of(code, body)
        for cut in range(len(body)):
            found = wire.dialect_of(code, body[:cut], len(body) - cut)
            assert found in (whole, 2)
            told += found != 2
            dialect = of_client(code, body[:cut], len(body) - cut)
            if dialect is not None:
                assert found == number_of(dialect)
    assert told > 100
