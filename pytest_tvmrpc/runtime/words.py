"""Plain values as the 64-bit words of C, in every convention of TVM: numbers, devices, text.

Neither objects nor calls: those are `calling` and `legacy`, for the convention that each is about.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import operator
import struct
from typing import Any, Optional, Tuple, Union

from ..data_type import DataType, number_text
from ..dlpack import Device as PlainDevice
from ..dlpack import OpaquePointer
from ..errors import LibraryError
from .abi import TVMFFIByteArray, TypeIndex
from .device.api import Device

_int64 = struct.Struct("<q")
_float64 = struct.Struct("<d")
_two_int32 = struct.Struct("<ii")

Word = Tuple[int, int, int]
"""The three fields of a TVMFFIAny: type index, length of small text, value."""

Bytes = Union[bytes, bytearray, memoryview]


def signed(address: int) -> int:
    """A 64-bit word as struct's ``q`` takes it; tagged pointers have the top bit set."""
    return address - (1 << 64) if address >> 63 else address


def unsigned(number: int) -> int:
    """The address that a signed word stands for."""
    return number & 0xFFFFFFFFFFFFFFFF


def float_bits(value: float) -> int:
    """A double's bits, as an integer."""
    return _int64.unpack(_float64.pack(value))[0]  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------- values to words


def plain_word(value: Any) -> Optional[Word]:
    """The word of a value that has no memory of its own; None for others, and for most numbers.

    Of numbers, it knows bools, floats and addresses; `number_word` knows the others.
    """
    if value is None:
        return TypeIndex.NONE, 0, 0
    if isinstance(value, bool):
        return TypeIndex.BOOL, 0, int(value)
    if isinstance(value, float):
        return TypeIndex.FLOAT, 0, float_bits(value)
    if isinstance(value, OpaquePointer):
        return TypeIndex.OPAQUE_PTR, 0, signed(int(value))
    if isinstance(value, ctypes.c_void_p):
        return TypeIndex.OPAQUE_PTR, 0, signed(value.value or 0)
    if isinstance(value, DataType):
        return TypeIndex.DATA_TYPE, 0, value.code | value.bits << 8 | value.lanes << 16
    if isinstance(value, PlainDevice):
        number = value.device_type & 0xFFFFFFFF | (value.device_id & 0xFFFFFFFF) << 32
        return TypeIndex.DEVICE, 0, signed(number)
    return None


def number_of(value: Any) -> Union[bool, int, float, None]:
    """The plain number that a value is, such as one of NumPy's; None if it is none.

    An array without axes counts as its element. A text, a date or a complex number is none,
    whatever it can be converted to, and neither is an element that is masked.

    Raises:
        ValueError: it is a number that no integer and no float of 64 bits is.
    """
    dtype = getattr(value, "dtype", None)
    if getattr(value, "shape", ()) != () or getattr(dtype, "kind", "") in _NO_NUMBERS:
        return None
    is_void = str(getattr(dtype, "name", "")).startswith("void")
    if is_void or bool(getattr(value, "mask", False)):
        return None
    if str(dtype).endswith("bool"):
        return bool(value)
    with contextlib.suppress(TypeError):
        return int.__int__(operator.index(value))  # before 3.10, an IntEnum stays one
    if isinstance(value, float):
        return float.__float__(value)  # the number it is, whatever a subclass says it is
    try:
        number = float(value) if hasattr(value, "__float__") else None
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        return None
    if number is not None and number != value and value == value:
        raise ValueError(
            f"{type(value).__name__} {str(value)[:80]} is not exactly a float of 64 bits; "
            "pass float(value) if its rounded value will do"
        )
    return number


_NO_NUMBERS = tuple("cmMSUO")
"""Kinds of NumPy's types: complex numbers, durations, dates, bytes, texts, objects."""


def number_word(what: str, value: Any) -> Optional[Word]:
    """An int or float, or what counts as one (NumPy's scalars do), but no array of one element.

    Raises:
        ValueError: a number that is none of 64 bits; of an int, the message calls it `what`.
    """
    number = number_of(value)
    if number is None:
        return None
    if isinstance(number, bool):
        return TypeIndex.BOOL, 0, int(number)
    if isinstance(number, float):
        return TypeIndex.FLOAT, 0, float_bits(number)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(
            f"{what} is {number_text(number)}, which is no 64-bit integer; pass a float or a tensor"
        )
    return TypeIndex.INT, 0, number


def c_string(what: str, value: str) -> ctypes.Array[ctypes.c_char]:
    """Text as C has it, in memory of its own.

    Raises:
        ValueError: it holds a NUL; the message calls it `what`.
    """
    encoded = value.encode()
    if b"\0" in encoded:
        raise ValueError(
            f"{what} holds a NUL character, at which C ends a str; "
            "expected text without it; pass bytes"
        )
    return ctypes.create_string_buffer(encoded)


def bytes_of(value: Bytes) -> bytes:
    """The bytes that a value has, whatever a subclass says that they are."""
    return value if type(value) is bytes else memoryview(value).tobytes()


def byte_array(value: Bytes) -> Tuple[TVMFFIByteArray, ctypes.Array[ctypes.c_char]]:
    """A description of a copy of bytes, and the copy, which must live as long."""
    content = bytes_of(value)
    memory = ctypes.create_string_buffer(content, max(len(content), 1))
    return TVMFFIByteArray(ctypes.addressof(memory), len(content)), memory


# ----------------------------------------------------------------------------- values from words


def float_of(number: int) -> float:
    """The double with these bits."""
    return _float64.unpack(_int64.pack(number))[0]  # type: ignore[no-any-return]


def dtype_of(number: int) -> DataType:
    """The DLDataType in a word."""
    return DataType.of(number & 0xFF, number >> 8 & 0xFF, number >> 16 & 0xFFFF)


def device_of(number: int) -> Device:
    """The DLDevice in a word."""
    return Device(*_two_int32.unpack(_int64.pack(number)))


def text_at(number: int) -> str:
    """The C string to which a word points.

    Raises:
        LibraryError: it points nowhere, or to something else than UTF-8.
    """
    if not number:
        raise LibraryError("compiled code gave text at NULL; expected a string that ends with NUL")
    return decoded(ctypes.string_at(unsigned(number)))


def bytes_at(number: int) -> bytes:
    """The bytes that the byte array has to which a word points.

    Raises:
        LibraryError: it, or what it describes, is NULL.
    """
    array = TVMFFIByteArray.from_address(unsigned(number)) if number else None
    if array is None or (array.size and not array.data):
        raise LibraryError("compiled code gave bytes at NULL; expected their address and number")
    return ctypes.string_at(array.data, array.size) if array.size else b""


def decoded(encoded: bytes) -> str:
    """Text of compiled code.

    Raises:
        LibraryError: it is not UTF-8.
    """
    try:
        return encoded.decode()
    except UnicodeDecodeError as error:
        raise LibraryError(
            f"text from compiled code is not UTF-8 ({error}); return it as bytes"
        ) from None
