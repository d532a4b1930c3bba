"""Packed sequences as every dialect has them: what holds whatever the bytes of a value are.

Which bytes those are, `test_ffi` and `test_legacy` say.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any, Dict, List

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import LocalProtocolError, RemoteProtocolError
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, Dialect
from pytest_tvmrpc.protocol.values import (
    LARGE,
    MAX_VALUES,
    ByteSource,
    FunctionHandle,
    ModuleHandle,
    ObjectHandle,
)

RECORD = TensorRecord(0x7FFA10010080, Device(1, 0), (2, 3), DataType("float32"), 8)
RESOLVED = (Device, TensorRecord, FunctionHandle, ModuleHandle, ObjectHandle)

IN_BOTH: List[Any] = [
    *(None, 0, -1, 2**63 - 1, -(2**63), 1.5, -math.inf),
    *(OpaquePointer(0), OpaquePointer(2**64 - 1), Device(1, 0), Device(-3, 7), RECORD),
    *("", "abc", "größer", "\udcff\udc80", b"", b"\0\1\2", b"1234567", b"12345678"),
    *(FunctionHandle(7), ModuleHandle(2**64 - 1), ObjectHandle(9)),
]
EVERY = {
    LEGACY: IN_BOTH,  # in which bool and data types come back as something else
    FFI: [*IN_BOTH, True, False, DataType("float32"), DataType("void")],
}
EACH = [
    pytest.param(dialect, value, id=f"{dialect.name}-{type(value).__name__}-{number}")
    for dialect, values in EVERY.items()
    for number, value in enumerate(values)
]


@pytest.fixture(params=[FFI, LEGACY], ids=["ffi", "legacy"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Each dialect in turn."""
    found: Dialect = request.param
    return found


def joined(buffers: Any) -> bytes:
    return buffers if isinstance(buffers, bytes) else b"".join(buffers)


def encoded(dialect: Dialect, *values: Any) -> bytes:
    return joined(dialect.encode_values(values))


def whole(dialect: Dialect, content: bytes) -> List[Any]:
    return dialect.decode_values(content, 0, len(content))


@pytest.mark.parametrize(("dialect", "value"), EACH)
def test_values_cut_short(dialect: Dialect, value: Any) -> None:
    """Cut after any byte, alone or with other bytes behind in the buffer, a sequence is refused."""
    for values in ([value], [None, value], [value, None], [value, 5]):
        content = encoded(dialect, *values)
        for end in range(len(content)):
            for buffer in (content[:end], content + b"\xff" * 40, content + bytes(40)):
                for more in ((), ({},), (None, repr), ({}, repr)):
                    with pytest.raises(RemoteProtocolError):
                        dialect.decode_values(buffer, 0, end, *more)


@pytest.mark.parametrize(("dialect", "value"), EACH)
def test_bytes_left_over_are_refused(dialect: Dialect, value: Any) -> None:
    """A sequence fills its packet; what follows the last value is an error."""
    content = encoded(dialect, value)
    for trailing in (b"\0", bytes(4), bytes(12), content):
        with pytest.raises(RemoteProtocolError):
            whole(dialect, content + trailing)


def test_every_kind_at_once(dialect: Dialect) -> None:
    """All kinds in one sequence, read from bytes, a bytearray and a view, at any place."""
    every = EVERY[dialect]
    content = encoded(dialect, *every)
    for buffer in (content, bytearray(content), memoryview(content)):
        assert dialect.decode_values(buffer, 0, len(content)) == every
    around = b"\xff" * 13 + content + b"\xee" * 9
    assert dialect.decode_values(around, 13, 13 + len(content)) == every
    assert dialect.decode_values(memoryview(around), 13, 13 + len(content), {}) == every


def test_not_a_number_both_ways(dialect: Dialect) -> None:
    """The one value that does not equal itself."""
    (found,) = whole(dialect, encoded(dialect, math.nan))
    assert math.isnan(found)


def test_no_values(dialect: Dialect) -> None:
    """An empty sequence is its count."""
    assert dialect.encode_values([]) == [bytes(4)]
    assert whole(dialect, bytes(4)) == []


@pytest.mark.parametrize("count", [15, 16, 17, 18, MAX_VALUES])
def test_many_values(dialect: Dialect, count: int) -> None:
    """Any number up to the limit is taken; a count without its values is refused."""
    content = encoded(dialect, *[None] * count)
    assert whole(dialect, content) == [None] * count
    with pytest.raises(RemoteProtocolError):
        whole(dialect, content[:-4])


@pytest.mark.parametrize("count", [-1, -(2**31), MAX_VALUES + 1, 2**31 - 1])
def test_numbers_of_values_that_cannot_be(dialect: Dialect, count: int) -> None:
    """Fewer than none, or more than any call has, are refused at once."""
    for tail in (b"", bytes(12), bytes(4 * MAX_VALUES + 8)):
        with pytest.raises(RemoteProtocolError, match=f"sequence of {count} values"):
            whole(dialect, struct.pack("<i", count) + tail)


def test_records_that_are_none_are_refused(dialect: Dialect) -> None:
    """A bad tensor breaks a sequence, with the record's own words."""
    bad = bytearray(encoded(dialect, RECORD))
    ndim_at = len(bad) - len(dialect.encode_record(RECORD)) + 16
    struct.pack_into("<i", bad, ndim_at, -1)
    for known in (None, {}):
        with pytest.raises(RemoteProtocolError, match="tensor of -1 dimensions"):
            dialect.decode_values(bad, 0, len(bad), known)


def test_records_are_found_again(dialect: Dialect) -> None:
    """The same tensor twice, in one sequence or in two, is one object."""
    known: Dict[bytes, TensorRecord] = {}
    content = encoded(dialect, RECORD, RECORD)
    first, second = dialect.decode_values(content, 0, len(content), known)
    assert first is second
    assert dialect.decode_values(bytearray(content), 0, len(content), known)[0] is first
    assert len(known) == 1


def test_handles_and_tensors_can_be_resolved(dialect: Dialect) -> None:
    """The serving side reads a sequence straight into its own things; plain values stay."""
    known: Dict[bytes, Any] = {}
    asked: List[Any] = []

    def resolve(value: Any) -> Any:
        asked.append(value)
        return type(value).__name__

    every = EVERY[dialect]
    content = encoded(dialect, *every)
    expected = [resolve(value) if type(value) in RESOLVED else value for value in every]
    assert dialect.decode_values(content, 0, len(content), known, resolve) == expected
    assert list(known.values()) == ["TensorRecord"]
    asked.clear()
    assert dialect.decode_values(content, 0, len(content), known, resolve) == expected
    assert RECORD not in asked, "what came of a record is kept"


@pytest.mark.parametrize(
    "value", [object(), [1], (1,), {}, {1}, 1j, range(3)], ids=lambda v: type(v).__name__
)
def test_values_of_other_types_are_refused(dialect: Dialect, value: Any) -> None:
    """What the protocol cannot carry is refused with its type and with what it can."""
    for encode in (
        dialect.encode_values,
        lambda values: dialect.encode_call(7, values),
        lambda values: dialect.encode_request(9, values),
    ):
        with pytest.raises(LocalProtocolError, match=f"type {type(value).__name__} cannot be sent"):
            encode([1, value])
    with pytest.raises(LocalProtocolError, match=f"type {type(value).__name__} cannot be sent"):
        dialect.encode_result(value)


def test_lone_surrogates_are_refused(dialect: Dialect) -> None:
    """A text that stands for no bytes is our own error, not one of the codec's."""
    with pytest.raises(LocalProtocolError, match="surrogate"):
        dialect.encode_values(["half \ud800 a pair"])
    with pytest.raises(LocalProtocolError, match="surrogate"):
        dialect.encode_result("half \ud800 a pair")


def test_translate_is_asked_for_other_types_only(dialect: Dialect) -> None:
    """A foreign value is sent as what stands for it; a value of ours is never asked about."""
    asked: List[Any] = []

    def translate(value: Any) -> Any:
        asked.append(value)
        return 7 if value is Ellipsis else value

    assert joined(dialect.encode_values([1, "a", ...], translate)) == encoded(dialect, 1, "a", 7)
    assert asked == [...]
    with pytest.raises(LocalProtocolError, match="type list"):
        dialect.encode_values([[1]], translate)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("nbytes", [LARGE, LARGE + 1, 1 << 20])
def test_long_byte_strings_are_not_copied(dialect: Dialect, wrap: Any, nbytes: int) -> None:
    """They travel as buffers of their own, between what stands before and behind them."""
    content = bytearray(bytes(range(256)) * (nbytes // 256 + 1))[:nbytes]
    long = content if wrap is bytearray else wrap(content)
    for values, sizes in (
        (["a", long, 5, long], [None, nbytes, None, nbytes]),
        ([long, long, None, 5], [None, nbytes, None, nbytes, None]),
    ):
        buffers = dialect.encode_values(values)
        assert [len(buffer) if len(buffer) >= LARGE else None for buffer in buffers] == sizes
        if wrap is not bytes:
            assert memoryview(buffers[1]).obj is content
        assert whole(dialect, b"".join(buffers)) == values


def test_views_of_any_form_are_byte_strings(dialect: Dialect) -> None:
    """A view of other items is sent as the bytes it has."""
    view = memoryview(struct.pack("<3d", 1, 2, 3)).cast("d")
    assert whole(dialect, encoded(dialect, view)) == [bytes(view)]
    assert whole(dialect, encoded(dialect, memoryview(b""))) == [b""]


def test_calls(dialect: Dialect) -> None:
    """A call is a frame, a handle and a sequence; in one piece unless something long is in it."""
    every = EVERY[dialect]
    for values in ([], [10], [1.5], every, [bytes(LARGE)], ["x", bytearray(LARGE + 1), None]):
        call = dialect.encode_call(0x1122334455667788, values)
        assert (type(call) is bytes) == all(
            not isinstance(value, (bytes, bytearray)) or len(value) < LARGE for value in values
        )
        packet = joined(call)
        assert struct.unpack_from("<QiQ", packet) == (len(packet) - 8, 3, 0x1122334455667788)
        assert dialect.decode_values(packet, 20, len(packet)) == values


def test_requests(dialect: Dialect) -> None:
    """A request of values only, or an answer, is a frame and a sequence, in one piece."""
    every = EVERY[LEGACY]  # without data types, whose names are sent to functions only
    for code, values in [(9, ("name",)), (4, (None,)), (15, (Device(1, 0), 0)), (21, every)]:
        packet = dialect.encode_request(code, values)
        assert struct.unpack_from("<Qi", packet) == (len(packet) - 8, code)
        assert packet[12:] == encoded(dialect, *values)


@pytest.mark.parametrize(("dialect", "value"), EACH)
def test_answers_to_syscalls(dialect: Dialect, value: Any) -> None:
    """One value of any kind in a Return packet."""
    assert dialect.encode_return(value) == dialect.encode_request(4, (value,))


def test_whole_sequences_have_nothing_pending(dialect: Dialect) -> None:
    """With the whole packet there, the values are all there is."""
    content = encoded(dialect, *EVERY[dialect])
    found = dialect.decode_values_before(content, 0, len(content), len(content))
    assert found == (EVERY[dialect], None)


@pytest.mark.parametrize("nbytes", [LARGE - 1, LARGE, 1 << 20])
@pytest.mark.parametrize("wrap", [bytes, bytearray])
def test_long_results(dialect: Dialect, wrap: Any, nbytes: int) -> None:
    """Long byte strings stand apart from their head; a file's bytes come from elsewhere."""
    content = wrap(b"x" * nbytes)
    result = dialect.encode_result(content)
    packet = joined(result)
    assert struct.unpack_from("<Qi", packet) == (len(packet) - 8, 4)
    assert dialect.decode_result(packet, 12, len(packet)) == content
    if nbytes >= LARGE:
        assert result[1] is content
    head = dialect.encode_result(ByteSource(io.BytesIO(), nbytes))
    assert packet == joined(head) + content
