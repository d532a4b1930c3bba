"""The answers that wire.c packs, byte for byte those of protocol/, in both dialects."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import LocalProtocolError
from pytest_tvmrpc.protocol import packets
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, Dialect
from pytest_tvmrpc.protocol.values import FunctionHandle, ModuleHandle, ObjectHandle, TensorResult

DIALECTS = (FFI, LEGACY)
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def number_of(dialect: Dialect) -> int:
    """What wire.h calls it."""
    return DIALECTS.index(dialect)


VALUES = [
    *(None, 0, -1, 1 << 62, -(1 << 63), True, False, 1.5, -0.0, math.inf),
    *(OpaquePointer(0), OpaquePointer((1 << 64) - 1), Device(1, 0), Device(12, -1)),
    *map(DataType, ("float32", "int8x4", "bool", "uint1", "float8_e4m3fn", "float8_e5m2")),
    *(
        DataType.of(129, 16, 1),
        DataType("float8_e3m4"),
        DataType("boolx2"),
        DataType("float4_e2m1fn"),
    ),
]
DTYPES = [value for value in VALUES if type(value) is DataType]
TENSORS = [
    TensorResult(TensorRecord(1 << 40, Device(1, 0), shape, dtype, 64), 1 << 50)
    for dtype in DTYPES
    for shape in ((), (2, 3), (1,) * 64)
]
TEXTS = ["", "a", "1234567", "12345678", "\u20ac" * 3, "caf\udce9", "a\0b", "x" * 5000]
RESULTS = [
    *(*VALUES, *TENSORS, *TEXTS, *(text.encode("utf-8", "surrogateescape") for text in TEXTS)),
    *(FunctionHandle(7), ModuleHandle(8), ObjectHandle((1 << 64) - 1)),
]


def python_packs(encode: Any, value: Any) -> bytes:
    """The packet; none if the dialect has no such value."""
    if type(value) is TensorResult:
        value.record.encoded = None  # it keeps its bytes in the dialect of before
    try:
        packed = encode(value)
    except LocalProtocolError:
        return b""
    return packed if isinstance(packed, bytes) else b"".join(packed)


@each_dialect
@pytest.mark.parametrize("value", RESULTS, ids=lambda value: type(value).__name__)
def test_results(wire, dialect, value):
    """The bytes that Python packs, up to the content of a text."""
    expected = python_packs(dialect.encode_result, value)
    content = value.encode("utf-8", "surrogateescape") if type(value) is str else value
    nbytes = len(content) if type(content) is bytes else 0
    packed = wire.return_result(number_of(dialect), value)
    assert packed == expected[: len(expected) - nbytes]
    assert len(packed) <= 640


@each_dialect
@pytest.mark.parametrize("value", [*VALUES, *TEXTS[:-1]], ids=lambda value: type(value).__name__)
def test_answers_of_one_value(wire, dialect, value):
    """The bytes that Python packs; what the dialect has not, is not written."""
    expected = python_packs(dialect.encode_return, value)
    assert wire.return_value(number_of(dialect), value) == expected


@each_dialect
def test_a_text_that_does_not_fit(wire, dialect):
    """It is not written, rather than cut."""
    assert wire.return_value(number_of(dialect), "x" * 612)
    assert not wire.return_value(number_of(dialect), "x" * 613)


@each_dialect
def test_answers_of_nothing(wire, dialect):
    """What answers InitServer, and what answers requests whose result is void."""
    assert wire.return_nothing() == packets.RETURN_NOTHING
    assert wire.return_void(number_of(dialect)) == dialect.encode_return(None)


@each_dialect
@pytest.mark.parametrize("text", ["", "ValueError: boom", "\u20ac" * 1000])
def test_exceptions(wire, dialect, text):
    """The bytes before the text."""
    encoded = text.encode()
    head = wire.exception(number_of(dialect), len(encoded))
    assert head + encoded == packets.exception(dialect, text)


@pytest.mark.parametrize("nbytes", [0, 1, 5000])
def test_content(wire, nbytes):
    """The bytes before what was asked for."""
    packed = packets.copy_ack(memoryview(bytes(nbytes)))
    assert wire.copy_ack(nbytes) + bytes(nbytes) == b"".join(
        [packed] if isinstance(packed, bytes) else packed
    )
    assert wire.copy_ack(1 << 37) == struct.pack("<Qi", (1 << 37) + 4, 8)


@each_dialect
def test_objects_keep_their_type(wire, dialect):
    """A client of the FFI dialect is told what it is that it refers to."""
    packed = wire.return_result(number_of(dialect), ObjectHandle(9), 71)
    (kind,) = struct.unpack_from("<q", packed, 20 if dialect is FFI else 24)
    assert kind == (71 if dialect is FFI else 8)


@given(st.binary(max_size=40))
def test_any_text_is_made_fit_for_clients(wire, content):
    """What has a NUL, or is not UTF-8, becomes so, byte for byte; what is fit stays as it is."""
    clean = wire.clean_text(content)
    clean.decode()
    assert b"\0" not in clean
    assert len(clean) == len(content)
    try:
        content.decode()
    except UnicodeDecodeError:
        assert b"?" in clean
    else:
        assert clean == content.replace(b"\0", b"?")


@pytest.mark.parametrize(
    ("content", "clean"),
    [
        ("h\u00e9, \u20ac, \U0001f600".encode(), "h\u00e9, \u20ac, \U0001f600".encode()),
        (b"\xc0\xaf", b"??"),
        (b"\xe0\x80\xaf|", b"???|"),
        (b"\xed\xa0\x80", b"???"),
        (b"\xf4\x90\x80\x80", b"????"),
        (b"\xf0\x80\x80\x80\xff", b"?????"),
        (b"a\xe2\x82", b"a??"),
        (b"\xe2\x82z", b"??z"),
    ],
)
def test_texts_that_are_no_utf_8(wire, content, clean):
    """Overlong forms, halves of surrogate pairs, what is beyond the last character, cut ones."""
    assert wire.clean_text(content) == clean
