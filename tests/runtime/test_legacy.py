from __future__ import annotations

import ctypes
import struct
from typing import Any, List

import pytest

from pytest_tvmrpc import dlpack, runtime
from pytest_tvmrpc.data_type import DataType, to_legacy
from pytest_tvmrpc.errors import LibraryError
from pytest_tvmrpc.runtime import abi, legacy
from pytest_tvmrpc.runtime.module import Module

CPU = runtime.cpu(0)


def unpacked(packed: Any) -> List[Any]:
    """Code and word of each argument."""
    count = len(packed.codes) // 4
    codes = struct.unpack(f"<{count}i", packed.codes)
    return list(zip(codes, struct.unpack(f"<{count}q", packed.values)))


@pytest.mark.parametrize(
    ("value", "code", "word"),
    [
        (None, 4, 0),
        (-1, 0, -1),
        (2**63 - 1, 0, 2**63 - 1),
        (True, 0, 1),
        (1.0, 2, 0x3FF0000000000000),
        (dlpack.OpaquePointer(2**64 - 2), 3, -2),
        (ctypes.c_void_p(0x1234), 3, 0x1234),
        (DataType("int8x4"), 5, 0x0004_08_00),
        (DataType("bool"), 5, 0x0001_01_01),
        (DataType("float8_e4m3fn"), 5, 0x0001_08_06),
        (dlpack.Device(2, 3), 6, 0x0000_0003_0000_0002),
    ],
)
def test_values_that_fit_into_a_word(value: Any, code: int, word: int) -> None:
    """Plain values have TVM's code and bits; data types the numbers that they had up to 0.20."""
    packed = legacy.pack_arguments("f", (value,))
    assert unpacked(packed) == [(code, word)]
    assert packed.cells == []


def test_text_bytes_and_objects() -> None:
    """What does not fit is pointed to: text, a description of bytes, and objects of ours."""
    before = len(abi._cells)
    packed = legacy.pack_arguments("f", ("größer", b"a\0b", len, Module()))
    text, array, function, module = unpacked(packed)
    assert [pair[0] for pair in (text, array, function, module)] == [11, 12, 10, 9]
    assert ctypes.string_at(text[1]) == "größer".encode()
    described = abi.TVMFFIByteArray.from_address(array[1])
    assert ctypes.string_at(described.data, described.size) == b"a\0b"
    assert packed.cells == [function[1], module[1]]
    for cell in packed.cells:
        abi.release(cell)
    assert len(abi._cells) == before


@pytest.mark.parametrize("dtype", ["bool", "float8_e5m2"])
def test_tensors_of_types_that_had_other_numbers(dtype: str) -> None:
    """The description that compiled code sees is renumbered, the tensor's own is not."""
    tensor = runtime.empty((2, 3), dtype, CPU)
    packed = legacy.pack_arguments("f", (tensor,))
    ((code, address),) = unpacked(packed)
    seen = abi.DLTensor.from_address(address)
    expected = to_legacy(DataType(dtype))
    assert code == 7
    assert (seen.code, seen.bits, seen.lanes) == (expected.code, expected.bits, expected.lanes)
    assert (seen.data, seen.ndim) == (tensor.memory.data, 2)
    assert abi.DLTensor.from_address(tensor.dltensor).code == tensor.data_type.code


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (2**63, ValueError, "argument 1 of f is 9223372036854775808, which is no 64-bit integer"),
        ("a\0b", ValueError, "argument 1 of f holds a NUL character"),
        ({1}, TypeError, "argument 1 of f is a builtins.set, which compiled code cannot take"),
        (int, TypeError, "argument 1 of f is a builtins.type"),
        (DataType("float4_e2m1fn"), ValueError, "TVM up to 0.20 has no float4_e2m1fn"),
    ],
)
def test_arguments_that_cannot_be_passed(value: Any, error: type, message: str) -> None:
    """They are refused by position and name, and objects made before them are gone."""
    before = len(abi._cells)
    with pytest.raises(error) as caught:
        legacy.pack_arguments("f", (len, value))
    assert message in str(caught.value)
    assert len(abi._cells) == before


@pytest.mark.parametrize("code", [7, 11, 12, 13, 14, 16, -1, 2**31 - 1])
def test_results_that_cannot_be(code: int) -> None:
    """Text, arrays, objects and codes that do not exist are refused, wherever they point."""
    for word in (0, 1, -1):
        with pytest.raises(LibraryError, match=f"type code {code}\\b.*expected None"):
            legacy.result_value(code, word)


@pytest.mark.parametrize("code", [8, 9, 10])
@pytest.mark.parametrize("word", [0, 1, -1, 0x7FFF_0000_1234])
def test_objects_that_are_not_ours(code: int, word: int) -> None:
    """An object at an address that we do not know is not looked at."""
    with pytest.raises(LibraryError, match="not one of this runtime"):
        legacy.result_value(code, word)


def test_unsigned_and_bool_results() -> None:
    """An unsigned number has no sign; a bool of 0.18 is one."""
    assert legacy.result_value(1, -1) == 2**64 - 1
    assert legacy.result_value(15, 1) is True
    assert legacy.result_value(15, 0) is False


@pytest.mark.parametrize("code", [11, 12, 7, 13, 14, 99])
def test_passed_values_that_point_nowhere(code: int) -> None:
    """NULL as text, bytes or tensor is an error, not a crash."""
    words = (ctypes.c_int64 * 1)(0)
    codes = (ctypes.c_int32 * 1)(code)
    with pytest.raises(LibraryError, match="compiled code"):
        legacy.values_at(ctypes.addressof(words), ctypes.addressof(codes), 1)
    assert legacy.values_at(ctypes.addressof(words), ctypes.addressof(codes), -1) == []


def test_what_is_given_is_given_once() -> None:
    """An object that compiled code owns is released when it comes back, and only then."""
    before = len(abi._cells)
    address = legacy.give_function(runtime.PackedFunc(len))
    assert not legacy.give_back(address + 8)
    assert legacy.result_value(10, address)("four") == 4
    assert not legacy.give_back(address)
    assert len(abi._cells) == before
