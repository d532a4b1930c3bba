"""Tests of data types: texts, numbers, NumPy's types, and those of older versions."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc import data_type
from pytest_tvmrpc.data_type import DataType, DataTypeCode, from_legacy, to_legacy
from pytest_tvmrpc.dlpack import (
    checked_shape,
    tensor_nbytes,
)

TEXTS = [  # text, code, bits, lanes; the same both ways
    ("int8", 0, 8, 1),
    ("int4", 0, 4, 1),
    ("uint64", 1, 64, 1),
    ("float16", 2, 16, 1),
    ("float32x4", 2, 32, 4),
    ("handle", 3, 64, 1),
    ("void", 3, 0, 0),
    ("bfloat16", 4, 16, 1),
    ("complex64", 5, 64, 1),
    ("bool", 6, 8, 1),
    ("boolx4", 6, 8, 4),
    ("float8_e3m4", 7, 8, 1),
    ("float8_e4m3fn", 10, 8, 1),
    ("float8_e5m2fnuz", 13, 8, 1),
    ("float8_e8m0fnu", 14, 8, 1),
    ("float6_e2m3fn", 15, 6, 1),
    ("float4_e2m1fn", 17, 4, 1),
    ("float4_e2m1fnx2", 17, 4, 2),
    ("uint4", 1, 4, 1),
    ("complex128", 5, 128, 1),
    ("float8_e4m3", 8, 8, 1),
    ("float8_e4m3b11fnuz", 9, 8, 1),
    ("float8_e4m3fnuz", 11, 8, 1),
    ("float8_e5m2", 12, 8, 1),
    ("float6_e3m2fn", 16, 6, 1),
]


@pytest.mark.parametrize(("text", "code", "bits", "lanes"), TEXTS)
def test_data_type_and_its_text(text, code, bits, lanes):
    """TVM's spelling, in both directions."""
    dtype = DataType(text)
    assert (dtype.code, dtype.bits, dtype.lanes) == (code, bits, lanes)
    assert str(DataType.of(code, bits, lanes)) == text
    assert repr(dtype) == f"DataType({text!r})"
    assert DataType(dtype) == dtype


@pytest.mark.parametrize(
    ("text", "meant"),
    [("float", "float32"), ("int", "int32"), ("uintx2", "uint32x2"), ("", "void")],
)
def test_bits_may_be_left_out(text, meant):
    """32 are meant, as with TVM."""
    assert DataType(text) == DataType(meant)


@pytest.mark.parametrize(
    "text",
    [
        "float33x",
        "float-1",
        "int0",
        "int256",
        "float32x0",
        "float32x65536",
        "floaty",
        "bool8x",
        "complex",
        "custom[200]",
        "custom[myfloat]32",
        "float32x32768",
        "float32xvscalex0",
        "float32xvscalex32769",
        "float32xvscalex",
        "x4",
        "int8x4x2",
        "int-8",
        "float16x-4",
        "float8_e9m9",
        "Float32",
        " float32",
        "float32\n",
        "int٣٢",
        "custom[7]8",
        "int" + "9" * 10_000,
    ],
)
def test_text_of_no_data_type(text):
    """The message shows one that would be."""
    with pytest.raises(ValueError):
        DataType(text)


OTHER_SPELLINGS = [
    ("float", "float32"),
    ("bfloat", "bfloat16"),
    ("uintx2", "uint32x2"),
    ("bool8", "bool"),
    ("handle64", "handle"),
    ("int08x04", "int8x4"),
    ("float64x1", "float64"),
    ("e4m3_float8x4", "float8_e4m3fnx4"),
    ("e5m2_float8", "float8_e5m2"),
    ("", "void"),
]


@pytest.mark.parametrize(("text", "meant"), OTHER_SPELLINGS)
def test_other_spellings(text, meant):
    """Of other versions of TVM, and with what may be left out; the text is always the same."""
    assert str(DataType(text)) == meant
    assert DataType(text) == DataType(meant) == meant


def test_data_type_is_a_text():
    """Wherever a text can be, the type can; a NumPy type is a text of one, too."""
    dtype = DataType("float32")
    assert isinstance(dtype, str)
    assert "a tensor of " + dtype == f"a tensor of {dtype}" == "a tensor of float32"
    assert dtype.startswith("float")
    numpy = pytest.importorskip("numpy")
    for text in ("float32", "int8", "uint64", "bool", "complex64"):
        assert numpy.dtype(DataType(text)) == numpy.dtype(text)
        assert DataType(numpy.dtype(text)) == text
        assert numpy.zeros(2, DataType(text)).dtype == text
    for text in ("handle", "float32x4", "float32xvscalex4"):
        with pytest.raises(TypeError, match="not understood"):
            numpy.dtype(DataType(text))


@pytest.mark.parametrize(
    "name", ["float32", "int8", "uint64", "bool_", "complex64", "float16", "intc", "longlong"]
)
def test_classes_of_numpy(name):
    """They mean the type that arrays of them have."""
    numpy = pytest.importorskip("numpy")
    kind = getattr(numpy, name)
    assert DataType(kind) == DataType(numpy.dtype(kind)) == numpy.dtype(kind).name
    assert DataType.is_dtype(kind)


def test_classes_of_ml_dtypes():
    """They are types of NumPy."""
    package = pytest.importorskip("ml_dtypes")
    for name in ("bfloat16", "float8_e4m3fn", "int4"):
        assert DataType(getattr(package, name)) == name


@pytest.mark.parametrize(
    "name",
    ["generic", "floating", "integer", "str_", "void", "datetime64", "object_", "longdouble"],
)
def test_classes_of_numpy_that_are_no_data_types(name):
    """Classes of several types, texts, dates, and what each machine has another format for."""
    numpy = pytest.importorskip("numpy")
    kind = getattr(numpy, name)
    with pytest.raises(ValueError, match="is no data type"):
        DataType(kind)
    assert not DataType.is_dtype(kind)
    for other in (numpy.ndarray, float, numpy.dtype("clongdouble"), numpy.dtype("m8[s]")):
        assert not DataType.is_dtype(other)


@pytest.mark.parametrize("text", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_numpy_knows_the_names_of_ml_dtypes(text):
    """Without anybody's import of that package."""
    pytest.importorskip("ml_dtypes")
    folder = str(Path(data_type.__file__).parents[1])
    script = (
        f"import sys; sys.path.insert(0, {folder!r})\n"
        "from pytest_tvmrpc.data_type import DataType\n"
        f"DataType({text!r})\n"
        "assert 'ml_dtypes' not in sys.modules\n"
        "import numpy\n"
        f"assert numpy.dtype(DataType({text!r})).name == {text!r}\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


PROPERTIES = {
    "float32": "is_float",
    "float16": "is_float is_float16",
    "bfloat16x2": "is_float is_bfloat16 is_vector",
    "float8_e8m0fnu": "is_float",
    "float4_e2m1fnx2": "is_float is_vector",
    "int4": "is_int is_integer",
    "uint8": "is_uint is_integer",
    "bool": "is_bool",
    "uint1": "is_bool",
    "handle": "is_handle",
    "complex64": "",
    "void": "",
    "custom[200]8": "",
    "int8xvscalex4": "is_int is_integer is_vector is_scalable",
}


@pytest.mark.parametrize(("text", "true"), PROPERTIES.items())
def test_properties_of_data_types(text, true):
    """What kind of elements it has: is_bool, is_int, is_uint, is_integer, is_float, and so on."""
    dtype = DataType(text)
    names = [name for name in dir(DataType) if name.startswith("is_")]
    names = [name for name in names if isinstance(getattr(DataType, name), property)]
    assert {name for name in names if getattr(dtype, name)} == set(true.split())
    assert dtype.type_code == dtype.code


def test_lanes_can_be_changed():
    """with_lanes makes a vector of an element and the other way round."""
    assert DataType("float32").with_lanes(4) == "float32x4"
    assert DataType("float4_e2m1fnx2").with_lanes(1) == "float4_e2m1fn"
    for lanes in (0, -1, 2**15):
        with pytest.raises(ValueError, match=f"a vector of {lanes} lanes"):
            DataType("int8").with_lanes(lanes)
    for lanes in (2.5, True, "4"):
        with pytest.raises(TypeError, match=r"lanes is .*; expected an integer"):
            DataType("int8").with_lanes(lanes)


def test_vectors_of_unknown_length():
    """TVM counts their lanes from 2**16 downwards; nobody knows their size: no tensor has one."""
    dtype = DataType("float32xvscalex4")
    assert (dtype.lanes, str(dtype)) == (65532, "float32xvscalex4")
    assert dtype.is_scalable
    with pytest.raises(ValueError, match="known to the processor"):
        _ = dtype.itemsize
    with pytest.raises(ValueError, match="no size"):
        checked_shape((2,), dtype)


def test_data_types_from_their_numbers():
    """from_dlpack_data_type takes what a DLDataType can hold, and is_dtype says what has a text."""
    assert DataType.from_dlpack_data_type((2, 16, 3)) == "float16x3"
    for numbers in ((-1, 8, 1), (256, 8, 1), (0, 256, 1), (0, 8, 65536), (0, -8, 1), (0, 8)):
        with pytest.raises(ValueError):
            DataType.from_dlpack_data_type(numbers)
    for numbers in ((0.0, 8, 1), (0, True, 1), ("0", 8, 1)):
        with pytest.raises(TypeError, match="is no DLDataType; expected three integers"):
            DataType.from_dlpack_data_type(numbers)
    assert DataType.is_dtype("int8")
    assert DataType.is_dtype(DataType("int8"))
    for other in ("floaty", 8, None, ">i4"):
        assert not DataType.is_dtype(other)


@given(code=st.integers(0, 255), bits=st.integers(1, 255), lanes=st.integers(1, 65535))
def test_every_type_has_a_text_of_its_own(code, bits, lanes):
    """And comes back from it, as from a pickle; those that TVM never had are the exception."""
    dtype = DataType.of(code, bits, lanes)
    text = str(dtype)
    assert pickle.loads(pickle.dumps(dtype)) == dtype
    assert (str(copy.deepcopy(dtype)), dtype.code, dtype.bits, dtype.lanes) == (
        text,
        code,
        bits,
        lanes,
    )
    if (code, bits) == (DataTypeCode.UINT, 1):
        assert text.startswith("bool")  # its text is that of today's bool
    elif not text.startswith("custom") or code >= 129:
        assert DataType(text) == dtype


@given(
    st.text(max_size=30)
    | st.from_regex(r"(u?int|b?float|bool|handle|custom\[\d*\])?\d*(_e\dm\d\w*)?(x(vscalex)?\d*)?")
)
def test_any_text_is_a_type_or_refused(text):
    """Whatever a peer writes; what is a type keeps its text."""
    try:
        dtype = DataType(text)
    except ValueError:
        return
    assert DataType(str(dtype)) == dtype
    assert 0 <= dtype.code < 256
    assert 0 <= dtype.bits < 256
    assert 0 <= dtype.lanes < 65536


def test_uint1_is_the_bool_of_old():
    """It is called bool, and is another type all the same."""
    old = DataType.of(DataTypeCode.UINT, 1)
    assert str(old) == "bool"
    assert old != DataType("bool")
    assert old == "bool"
    assert DataType("uint1") == old
    assert DataType("uint1x2").itemsize == 1


LEGACY = [("bool", 1, 1), ("float8_e4m3fn", 6, 8), ("float8_e5m2x4", 7, 8)]


@pytest.mark.parametrize(("text", "code", "bits"), LEGACY)
def test_numbers_of_tvm_up_to_0_20(text, code, bits):
    """They are others for bool and the small floats; the size in memory is the same."""
    old = to_legacy(DataType(text))
    assert (old.code, old.bits, old.lanes) == (code, bits, DataType(text).lanes)
    assert str(from_legacy(old)) == text
    assert tensor_nbytes((9,), old) == tensor_nbytes((9,), DataType(text))


@pytest.mark.parametrize("text", ["float32x4", "int4", "handle", "bfloat16", "complex64", "void"])
def test_most_numbers_never_changed(text):
    """The same type object comes back."""
    dtype = DataType(text)
    assert to_legacy(dtype) is from_legacy(dtype) is dtype
    custom = DataType.of(130, 8)
    assert to_legacy(custom) is from_legacy(custom) is custom


@pytest.mark.parametrize("text", ["float8_e4m3", "float8_e8m0fnu", "float4_e2m1fn", "boolx4"])
def test_types_that_tvm_up_to_0_20_lacked(text):
    """The error says how to send the bytes all the same."""
    with pytest.raises(ValueError, match=rf"TVM up to 0\.20 has no {text}.*'uint8'"):
        to_legacy(DataType(text))


def test_numbers_of_the_codes():
    """Those of DLPack, each of which has a data type with a name."""
    assert (DataTypeCode.INT, DataTypeCode.UINT, DataTypeCode.FLOAT) == (0, 1, 2)
    assert (DataTypeCode.HANDLE, DataTypeCode.BFLOAT, DataTypeCode.COMPLEX) == (3, 4, 5)
    small = (
        *(DataTypeCode.BOOL, DataTypeCode.FLOAT8_E3M4, DataTypeCode.FLOAT8_E4M3),
        *(DataTypeCode.FLOAT8_E4M3B11FNUZ, DataTypeCode.FLOAT8_E4M3FN),
        *(DataTypeCode.FLOAT8_E4M3FNUZ, DataTypeCode.FLOAT8_E5M2, DataTypeCode.FLOAT8_E5M2FNUZ),
        *(DataTypeCode.FLOAT8_E8M0FNU, DataTypeCode.FLOAT6_E2M3FN, DataTypeCode.FLOAT6_E3M2FN),
        DataTypeCode.FLOAT4_E2M1FN,
    )
    assert small == tuple(range(6, 18))
    assert small[1:] == (
        *(DataTypeCode.Float8E3M4, DataTypeCode.Float8E4M3, DataTypeCode.Float8E4M3B11FNUZ),
        *(DataTypeCode.Float8E4M3FN, DataTypeCode.Float8E4M3FNUZ, DataTypeCode.Float8E5M2),
        *(DataTypeCode.Float8E5M2FNUZ, DataTypeCode.Float8E8M0FNU, DataTypeCode.Float6E2M3FN),
        *(DataTypeCode.Float6E3M2FN, DataTypeCode.Float4E2M1FN),
    )
    for code in small:
        assert DataType(code.name.lower()).code == code


def test_names_of_tvm_up_to_0_20():
    """The small floats had other names, and their clients still send them."""
    assert DataType("e4m3_float8") == DataType("float8_e4m3fn")
    assert DataType("e5m2_float8x2") == DataType("float8_e5m2x2")


def test_data_types_are_values():
    """Equal by numbers, and to their text; usable as keys together with it."""
    assert DataType("int8") == DataType.of(0, 8) == "int8"
    assert DataType("int8") != DataType("uint8")
    assert DataType("int8") != 8
    assert {DataType("int8"): 1}["int8"] == 1
    assert DataType.of(2, 32) is DataType.of(2, 32)
    assert pickle.loads(pickle.dumps(DataType("int8"))) == "int8"


def test_numbers_of_a_peer_do_not_fill_memory():
    """Types that nobody uses are not remembered without end; unknown ones have a text."""
    kept = len([DataType.of(code, 8, lanes) for code in range(256) for lanes in range(8)])
    assert kept == 2048
    from pytest_tvmrpc import data_type

    assert len(data_type._dtypes) <= 1024
    assert str(DataType.of(200, 8, 2)) == "custom[200]8x2"


def test_bytes_of_one_element():
    """Rounded up, lanes counted."""
    assert [DataType(text).itemsize for text in ("int8", "int4", "float32x4")] == [1, 1, 16]


def test_any_text_is_a_type_or_a_value_error():
    """Whatever a peer writes."""
    dice = random.Random(0)
    pieces = ["int", "float", "bool", "8_e4m3", "x", "4", "0", "32", "_", "é", "\0", "custom["]
    for _ in range(2_000):
        text = "".join(dice.choices(pieces, k=dice.randint(1, 4)))
        try:
            dtype = DataType(text)
        except ValueError:
            continue
        assert DataType(str(dtype)) == dtype
        assert sys.getsizeof(dtype) < 200
