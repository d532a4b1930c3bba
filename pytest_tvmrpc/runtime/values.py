"""What compiled code gives, as values of Python: arguments of its calls, and results of ours."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional

from ..dlpack import OpaquePointer
from ..errors import LibraryError
from .abi import HEADER_SIZE, TypeIndex, release, retain, value_of_cell
from .foreign import Reference, tensor_at
from .function import PackedFunc
from .owned import SMALL, words_at
from .words import (
    Word,
    bytes_at,
    decoded,
    device_of,
    dtype_of,
    float_of,
    text_at,
    unsigned,
)

__all__ = ["value_of_word", "values_at"]


def value_of_word(word: Word, owned: bool) -> Any:
    """The Python value of a TVMFFIAny.

    Args:
        owned: whether its reference to an object is ours to give back.

    Raises:
        LibraryError: a kind of value that has no form in Python.
    """
    kind, length, number = word
    if kind >= TypeIndex.OBJECT and number:
        return _object_value(kind, unsigned(number), owned)
    if kind == TypeIndex.DL_TENSOR_PTR and number and not owned:
        return tensor_at(unsigned(number))  # of an argument; nobody could tell how long a result
    convert = _conversions.get(kind)
    if convert is None:
        raise LibraryError(
            f"compiled code gave a value of type index {_kind_name(kind)}; expected None, "
            "a number, text, bytes, a data type, a device, a function or a tensor object"
        )
    return convert(length, number)


def _small_text(length: int, number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)[: min(length, SMALL)]


_conversions: Dict[int, Callable[[int, int], Any]] = {
    TypeIndex.NONE: lambda length, number: None,
    TypeIndex.INT: lambda length, number: number,
    TypeIndex.BOOL: lambda length, number: number != 0,
    TypeIndex.FLOAT: lambda length, number: float_of(number),
    TypeIndex.OPAQUE_PTR: lambda length, number: OpaquePointer(unsigned(number)),
    TypeIndex.DATA_TYPE: lambda length, number: dtype_of(number),
    TypeIndex.DEVICE: lambda length, number: device_of(number),
    TypeIndex.RAW_STR: lambda length, number: text_at(number),
    TypeIndex.BYTE_ARRAY_PTR: lambda length, number: bytes_at(number),
    TypeIndex.SMALL_STR: lambda length, number: decoded(_small_text(length, number)),
    TypeIndex.SMALL_BYTES: _small_text,
}


def _object_value(kind: int, address: int, owned: bool) -> Any:
    try:
        if kind == TypeIndex.STR:
            return decoded(bytes_at(address + HEADER_SIZE))
        if kind == TypeIndex.BYTES:
            return bytes_at(address + HEADER_SIZE)
        if kind in (TypeIndex.FUNCTION, TypeIndex.MODULE, TypeIndex.TENSOR):
            value = value_of_cell(address)
            if value is not None:
                is_function = kind == TypeIndex.FUNCTION and not isinstance(value, PackedFunc)
                return PackedFunc(value) if is_function else value
        if kind == TypeIndex.TENSOR:
            retain(address)
            return tensor_at(address + HEADER_SIZE, Reference(address))
        if kind == TypeIndex.FUNCTION:
            from .calling import function_at

            return function_at(address)
        from . import container_cells, containers, failures

        if kind == TypeIndex.ERROR:
            return failures.exception_of(address)
        if kind == TypeIndex.SHAPE:
            return container_cells.shape_at(address)
        return containers.object_at(kind, address)
    finally:
        if owned:
            release(address)


def _kind_name(kind: int) -> str:
    try:
        return f"{kind} ({TypeIndex(kind).name})"
    except ValueError:
        return str(kind)


def values_at(address: Optional[int], count: int) -> List[Any]:
    """The values of a TVMFFIAny array; objects in it stay the caller's."""
    return [value_of_word(word, owned=False) for word in words_at(address, count)]
