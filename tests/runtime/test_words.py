from __future__ import annotations

import ctypes
import math
from fractions import Fraction
from typing import Any

import pytest

from pytest_tvmrpc import dlpack
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.errors import LibraryError
from pytest_tvmrpc.runtime import abi, words


@pytest.mark.parametrize("address", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_addresses(address: int) -> None:
    """Addresses with the top bit set survive as signed words."""
    assert -(2**63) <= words.signed(address) < 2**63
    assert words.unsigned(words.signed(address)) == address


@pytest.mark.parametrize("value", [0.0, -2.5, 1e300, math.inf])
def test_floats(value: float) -> None:
    """A double is the same after its bits were an integer."""
    assert words.float_of(words.float_bits(value)) == value


@pytest.mark.parametrize("value", [DataType("int8x4"), DataType("bfloat16")])
def test_data_types(value: DataType) -> None:
    """So is a data type."""
    kind, _, word = words.plain_word(value) or (0, 0, 0)
    assert kind == abi.TypeIndex.DATA_TYPE
    assert words.dtype_of(word) == value


@pytest.mark.parametrize("value", [dlpack.Device(1, 0), dlpack.Device(2, -1)])
def test_devices(value: dlpack.Device) -> None:
    """So is a device."""
    kind, _, word = words.plain_word(value) or (0, 0, 0)
    assert kind == abi.TypeIndex.DEVICE
    assert words.device_of(word) == value


@pytest.mark.parametrize("value", ["text", b"bytes", [1], 1])
def test_what_is_not_plain(value: Any) -> None:
    """Text, objects and numbers in general are left to others."""
    assert words.plain_word(value) is None


def test_numbers() -> None:
    """What counts as a number is one; what is too large says what it is."""
    assert words.number_word("it", 5) == (abi.TypeIndex.INT, 0, 5)
    half = (abi.TypeIndex.FLOAT, 0, words.float_bits(0.5))
    assert words.number_word("it", Fraction(1, 2)) == half
    assert words.number_word("it", "5") is None
    with pytest.raises(ValueError, match=r"^the result is 18446744073709551616, which is no 64"):
        words.number_word("the result", 1 << 64)


def test_text_and_bytes() -> None:
    """They are copied from where they are, and refused where they cannot be."""
    text = words.c_string("it", "größer")
    assert words.text_at(ctypes.addressof(text)) == "größer"
    array, memory = words.byte_array(b"a\0b")
    assert words.bytes_at(ctypes.addressof(array)) == b"a\0b"
    assert len(memory) == 3
    with pytest.raises(ValueError, match="it holds a NUL"):
        words.c_string("it", "a\0b")
    with pytest.raises(LibraryError, match="not UTF-8"):
        words.text_at(ctypes.addressof(ctypes.create_string_buffer(b"\xff")))


def test_nothing_where_something_should_be() -> None:
    """NULL is no text and no bytes; an empty array may be anywhere."""
    with pytest.raises(LibraryError, match="text at NULL"):
        words.text_at(0)
    with pytest.raises(LibraryError, match="bytes at NULL"):
        words.bytes_at(0)
    missing, empty = abi.TVMFFIByteArray(None, 3), abi.TVMFFIByteArray(None, 0)
    with pytest.raises(LibraryError, match="bytes at NULL"):
        words.bytes_at(ctypes.addressof(missing))
    assert words.bytes_at(ctypes.addressof(empty)) == b""
