"""Tests of the words protocol and runtime share: shapes, sizes, records, kinds of values."""

from __future__ import annotations

import itertools

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import (
    DEVICE_TYPES,
    ArgTypeCode,
    Device,
    DeviceType,
    OpaquePointer,
    TensorRecord,
    checked_shape,
    tensor_nbytes,
)


@pytest.mark.parametrize(
    ("shape", "dtype", "nbytes"),
    [
        ((), "float64", 8),
        ((3,), "float32", 12),
        ((2, 3), "int8x4", 24),
        ((0, 5), "int64", 0),
        ((3,), "int4", 2),
        ((9,), "float6_e2m3fn", 7),
        ((9,), "bool", 9),
        ((9,), DataType.of(1, 1, 1), 9),
        ((9,), DataType.of(1, 1, 2), 3),
        ((4,), "void", 0),
        ((2**40, 2**40), "int8", 2**80),
    ],
)
def test_bytes_of_a_tensor(shape, dtype, nbytes):
    """All bits together, rounded up; TVM's old bool takes a byte for each element."""
    dtype = DataType(dtype) if isinstance(dtype, str) else dtype
    assert tensor_nbytes(shape, dtype) == nbytes
    assert TensorRecord(0, Device(1), shape, dtype).nbytes == nbytes


def test_records_are_values():
    """Equal by what they say, not by what the protocol remembers with them."""
    one, same = (TensorRecord(5, Device(1, 0), (2,), DataType("int8"), 4) for _ in range(2))
    one.encoded = b"something"
    assert one == same
    assert hash(one) == hash(same)
    assert one != TensorRecord(5, Device(1, 0), (2,), DataType("int8"), 0)
    assert one != 5
    assert repr(one) == (
        "TensorRecord(data=0x5, device=(1, 0), shape=(2,), dtype=int8, byte_offset=4)"
    )


def test_opaque_pointer_is_an_int_that_says_so():
    """It goes back as it came."""
    pointer = OpaquePointer(0xFFFF_FFFF_FFFF_FFF0)
    assert pointer == 2**64 - 16
    assert repr(pointer) == "OpaquePointer(0xfffffffffffffff0)"


def test_device_names_have_numbers():
    """Every kind by its own name, and TVM's other names."""
    assert all(DEVICE_TYPES[kind.name.lower()] == kind for kind in DeviceType)
    assert (DEVICE_TYPES["llvm"], DEVICE_TYPES["cl"], DEVICE_TYPES["gpu"]) == (1, 4, 2)
    assert Device(1) == (1, 0)


def test_codes_of_values() -> None:
    """The numbers are TVM's, not ours to choose."""
    expected = ["INT", "UINT", "FLOAT", "HANDLE", "NULL", "DATA_TYPE", "DEVICE", "DL_TENSOR"]
    expected += ["OBJECT", "MODULE", "FUNCTION", "STR", "BYTES", "NDARRAY", "OBJECT_RVALUE_REF"]
    assert [code.name for code in ArgTypeCode] == [*expected, "BOOL"]
    assert [int(code) for code in ArgTypeCode] == list(range(16))


SHAPES = [  # given, meant
    ((2, 3), (2, 3)),
    ([2, 3], (2, 3)),
    (range(2), (0, 1)),
    (iter([2, 3]), (2, 3)),
    (5, (5,)),
    ((), ()),
    ((0, 7), (0, 7)),
    ((2**59,), (2**59,)),
]


@pytest.mark.parametrize(("shape", "meant"), SHAPES)
def test_shapes(shape, meant):
    """Any sequence of integers, or one; plain ints come of it."""
    checked = checked_shape(shape)
    assert checked == meant
    assert {type(length) for length in checked} <= {int}


def test_integers_of_numpy_are_lengths():
    """Each of its integer types, as a scalar and in an array; plain ints come of them."""
    numpy = pytest.importorskip("numpy")
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        kind = numpy.dtype(name).type
        for shape in ((kind(2), 3), numpy.array([2, 3], name), [numpy.array(2, name), 3]):
            assert checked_shape(shape) == (2, 3)
            assert {type(length) for length in checked_shape(shape)} == {int}
        assert checked_shape(kind(4)) == checked_shape(numpy.array(4, name)) == (4,)
    for shape in ([numpy.float32(2)], [numpy.bool_(True)], [numpy.array([2])], numpy.ones(2)):
        with pytest.raises(TypeError, match="lengths of a shape are integers"):
            checked_shape(shape)


NO_SHAPES = [
    *("23", "", b"23", bytearray(b"23"), {2: 3}, {2, 3}, None, 2.5, object),
    *((2.5,), (2.0,), ("2",), (True,), [None], ((2, 3),), (b"2",), [2, 3j]),
]


@pytest.mark.parametrize("shape", NO_SHAPES, ids=itertools.count())
def test_what_is_no_shape(shape):
    """Nothing is rounded, and no text or truth is a number; the message shows what was given."""
    with pytest.raises(TypeError, match="shape") as refused:
        checked_shape(shape)
    assert type(shape).__name__ in str(refused.value) or "lengths" in str(refused.value)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((-1,), None, "lengths are 0 or more"),
        ((0, -1), None, "lengths are 0 or more"),
        ((-(2**63), 2), "int8", "lengths are 0 or more"),
        ((2**63,), None, "beyond any memory"),
        ((2**64, 0), None, "beyond any memory"),
        ((2**60,), None, "beyond any memory"),
        ((2**58,), "float32", "beyond any memory"),
        ((2**40, 2**40), "int8", "beyond any memory"),
        ((0, 2**40, 2**40), "int8", "beyond any memory"),
        ((10**5000,), None, "beyond any memory"),
        ((-(10**5000),), None, "lengths are 0 or more"),
        ((1,) * 65, None, "more than 64 dimensions"),
        (itertools.repeat(1), None, "more than 64 dimensions"),
        ((3,), "void", "no tensors of void"),
    ],
    ids=itertools.count(),
)
def test_shapes_that_cannot_be(shape, dtype, message):
    """Negative, too large alone or together, too many: an error, without a tensor being tried."""
    with pytest.raises(ValueError, match=message) as refused:
        checked_shape(shape, None if dtype is None else DataType(dtype))
    assert len(str(refused.value)) < 500


def test_largest_shapes():
    """The limits themselves are within."""
    assert checked_shape((2**60 - 1,)) == (2**60 - 1,)
    assert checked_shape((2**63 - 1,), DataType.of(1, 1)) == (2**63 - 1,)
    assert len(checked_shape((1,) * 64)) == 64
