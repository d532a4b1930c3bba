"""Python's values as those that functions take."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Tuple

from ..data_type import DataType
from ..dlpack import Device as PlainDevice
from .object import Object, ObjectConvertible, ShapeTuple, String
from .words import bytes_of, number_word

__all__ = ["convert", "convert_to_object"]

_AS_THEY_ARE = (
    *(Object, String, ShapeTuple, bool, ctypes.c_void_p),
    *(DataType, PlainDevice, bytes, BaseException, type(None)),
)


def convert(value: Any, span: object = None) -> Any:
    """A value as a function takes it.

    Args:
        value: a list or tuple becomes an `Array`, a dict a `Map`, each of its elements being
            converted; a str a `String`, a bytearray bytes, a callable a `PackedFunc`, an array of
            NumPy or another library that knows DLPack a `Tensor` of the same memory, a data type of
            NumPy a `DataType`; an `ObjectConvertible` says itself. Numbers, None, bytes, errors and
            what is an object stay what they are.
        span: ignored; up to TVM 0.20 a place in source code.

    Raises:
        TypeError: the value, or one in it, is of another type, such as a complex number.
        ValueError: a number is none of 64 bits, containers are nested too deep, or an array is not
            contiguous.
    """
    return _converted(value, ())


def _converted(value: Any, path: Tuple[Any, ...]) -> Any:
    """What a value becomes.

    Args:
        path: the positions and keys that lead to it, from the value that was given.
    """
    if isinstance(value, str) and not isinstance(value, (String, DataType)):
        return String(value)
    if isinstance(value, _AS_THEY_ARE):
        return value
    if isinstance(value, (list, tuple, dict)):
        from .containers import Array, Map

        elements = _elements(value, path)
        return Map(elements) if isinstance(value, dict) else Array(elements)
    if isinstance(value, (bytearray, memoryview)):
        return bytes_of(value)
    if isinstance(value, ObjectConvertible):
        return value.asobject()
    is_array = hasattr(value, "__dlpack__")
    if not is_array and number_word(_named(path), value) is not None:
        return value
    if callable(value) and not isinstance(value, type):
        from .function import PackedFunc

        return PackedFunc(value)
    if is_array:
        from .tensor import from_dlpack

        try:
            return from_dlpack(value)
        except ValueError as error:
            raise ValueError(f"{_named(path)}: {error}") from error
        except TypeError as error:
            raise TypeError(f"{_named(path)}: {error}") from error
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.dtype):
        from .arrays import data_type_of

        return data_type_of(value)
    raise TypeError(
        f"{_named(path)} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be "
        "converted; "
        "expected None, a number, text, bytes, a data type, a device, a function, an array, "
        "a tensor, an object, or a list, tuple or dict of these"
    )


def _named(path: Tuple[Any, ...]) -> str:
    """The value at a path, for messages."""
    return "the value" + "".join(f"[{repr(step)[:80]}]" for step in path)


def _elements(container: Any, path: Tuple[Any, ...]) -> Any:
    """A list, tuple or dict with what its elements become, for a container that is made of it."""
    from .calling import MAX_DEPTH

    if len(path) >= MAX_DEPTH:
        raise ValueError(
            f"a {type(container).__name__} is more than {MAX_DEPTH} containers deep, or holds "
            "itself; expected fewer levels"
        )

    def element(step: Any, value: Any) -> Any:
        if isinstance(value, (list, tuple, dict)) and not isinstance(value, _AS_THEY_ARE):
            return _elements(value, (*path, step))
        return _converted(value, (*path, step))

    if isinstance(container, dict):
        return {convert(key): element(key, value) for key, value in container.items()}
    return [element(*pair) for pair in enumerate(container)]


def convert_to_object(value: Any, span: object = None) -> Any:
    """What TVM called `convert` of values that are no functions, up to 0.20; the same here."""
    return convert(value, span)
