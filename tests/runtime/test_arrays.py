"""Tests of elements as NumPy arrays: types of NumPy and ml_dtypes, and other libraries' tensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pytest_tvmrpc
from pytest_tvmrpc import runtime
from pytest_tvmrpc.data_type import DataType, DataTypeCode
from pytest_tvmrpc.runtime import arrays

FLOATS = [code.name.lower() for code in DataTypeCode if code.name.startswith("FLOAT8")]


class Foreign:
    """A tensor of a library that knows DLPack and nothing of NumPy."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["bfloat16", *FLOATS, "float4_e2m1fn"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_small_floats_there_and_back(dtype, shape):
    """An array of ml_dtypes goes into a tensor of the same name, and comes back bit by bit."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    count = int(np.prod(shape))
    array = np.asarray([2.0**n for n in range(count)]).reshape(shape)
    array = np.clip(array, 1, 4).astype(getattr(ml_dtypes, dtype))
    tensor = runtime.tensor(array)
    back = tensor.numpy()
    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    assert (back.dtype, back.shape) == (array.dtype, shape)
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_four_bit_integers_of_ml_dtypes(dtype):
    """They are packed as TVM packs them, and come back in a byte each, as with TVM."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = [-8, -1, 7] if dtype == "int4" else [0, 9, 15]
    tensor = runtime.tensor(np.array(values).astype(getattr(ml_dtypes, dtype)))
    assert (tensor.dtype, tensor.nbytes) == (dtype, 2)
    assert bytes(tensor.memory.view[:2]) == (b"\x8f\x70" if dtype == "int4" else b"\x09\xf0")
    assert tensor.numpy().dtype == ("int8" if dtype == "int4" else "uint8")
    assert tensor.numpy().tolist() == values


def test_both_bools_are_one_to_numpy():
    """Whether a peer says bool with the numbers of today or with those of TVM up to 0.22."""
    flags = np.array([True, False, True])
    for numbers in ((6, 8), (1, 1)):
        tensor = runtime.empty((3,), DataType.of(*numbers)).copyfrom(flags)
        assert tensor.dtype == "bool"
        assert tensor.numpy().dtype == bool
        assert tensor.numpy().tolist() == flags.tolist()
        assert tensor.copyto(runtime.empty((3,), "bool")).numpy().tolist() == flags.tolist()


@pytest.mark.parametrize("cut", ["columns", "reversed", "transposed", "fortran"])
def test_tensors_of_other_libraries_are_packed(cut):
    """Whatever strides they have; a tensor is made of one, or filled from it."""
    array = np.arange(24, dtype="float32").reshape(4, 6)
    strided = {
        "columns": array[:, 1::2],
        "reversed": array[::-1],
        "transposed": array.T,
        "fortran": np.asfortranarray(array),
    }[cut]
    np.testing.assert_array_equal(runtime.tensor(Foreign(strided)).numpy(), strided)
    filled = runtime.empty(strided.shape, "float64").copyfrom(Foreign(strided))
    np.testing.assert_array_equal(filled.numpy(), strided)


def test_sharing_asks_for_packed_memory():
    """A tensor over another library's memory cannot have gaps; the error says what can."""
    array = np.arange(6, dtype="int32")
    shared = runtime.from_dlpack(Foreign(array))
    array[0] = 9
    assert shared.numpy()[0] == 9
    with pytest.raises(ValueError, match=r"not contiguous.*use tensor\(\), which copies"):
        runtime.from_dlpack(Foreign(array[::2]))


def test_types_are_remembered_but_not_without_end():
    """A peer chooses the numbers of types; they may not fill this process's memory."""
    for lanes in range(1, 600):
        arrays.layout_of(DataType.of(DataTypeCode.INT, 8, lanes))
        arrays.data_type_of(f"int8x{lanes}")
    assert len(arrays.layouts) <= 256
    assert len(arrays.data_types) <= 256


def test_without_ml_dtypes_the_extra_is_named():
    """An error says what to install, also where bfloat16 could be given as its bits."""
    script = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "import numpy as np; from pytest_tvmrpc import runtime\n"
        "tensor = runtime.empty((2,), 'bfloat16')\n"
        "assert tensor.numpy().dtype == 'uint16'\n"
        "for call in (lambda: tensor.copyfrom(np.zeros(2, 'float32')),\n"
        "             lambda: runtime.empty((2,), 'float8_e4m3fn').numpy(),\n"
        "             lambda: runtime.empty((2,), 'float4_e2m1fn').numpy()):\n"
        "    try: call()\n"
        "    except TypeError as error: assert 'pytest-tvmrpc[dtypes]' in str(error), error\n"
        "    else: raise AssertionError('no error')\n"
        "assert runtime.empty((3,), 'int4').copyfrom([1, -2, 3]).numpy().tolist() == [1, -2, 3]\n"
    )
    folder = str(Path(pytest_tvmrpc.__file__).parents[1])
    path = f"import sys; sys.path.insert(0, {folder!r})\n"
    subprocess.run([sys.executable, "-c", path + script], check=True, timeout=60)
