"""Containers as global functions, under the names that TVM of every age has for them.

A client that holds an object on another machine has no other way to look into it.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from .containers import Array, FFIDict, FFIList, Map
from .object import ShapeTuple, String

__all__ = ["FUNCTIONS"]


def _taken_by(name: str, kind: Any, value: Any) -> Any:
    """The first argument of a function, which has to be an object of this kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} takes an object, not a {type(value).__name__}; got {value!r}")
    return value


def _size(name: str, kind: Any) -> Callable[[Any], int]:
    return lambda container: len(_taken_by(name, kind, container))


def _element(name: str, kind: Any) -> Callable[[Any, int], Any]:
    def element(container: Any, index: int) -> Any:
        size = len(_taken_by(name, kind, container))
        if not isinstance(index, int) or isinstance(index, bool):
            raise TypeError(f"{name} takes an int as the index, not a {type(index).__name__}")
        if not 0 <= index < size:  # Python's meaning of a negative one is not C's
            raise IndexError(f"Index {index} out of bounds {size}")
        return container[index]

    return element


def _contains(name: str, kind: Any) -> Callable[[Any, Any], bool]:
    return lambda container, value: value in _taken_by(name, kind, container)


def _count(name: str, kind: Any) -> Callable[[Any, Any], int]:
    return lambda container, key: int(key in _taken_by(name, kind, container))


def _value(name: str, kind: Any) -> Callable[[Any, Any], Any]:
    def value(container: Any, key: Any) -> Any:
        if key not in _taken_by(name, kind, container):
            raise KeyError("key is not in Map")
        return container[key]

    return value


def _walker(name: str, kind: Any) -> Callable[[Any], Callable[[int], Any]]:
    """Of a map: a function that returns the key (0) or value (1) of a pair, or goes on (2)."""

    def walk(container: Any) -> Callable[[int], Any]:
        pairs: List[Any] = list(_taken_by(name, kind, container).items())
        position = 0

        def step(command: int) -> Any:
            nonlocal position
            if command in (0, 1):
                if position >= len(pairs):
                    raise IndexError("the map has no more pairs")
                return pairs[position][command]
            position += 1
            return position < len(pairs)

        return step

    return walk


def _map(*keys_and_values: Any) -> Map:
    if len(keys_and_values) % 2:
        raise ValueError(f"a map is made of keys and values, not of {len(keys_and_values)} values")
    return Map.of_pairs(zip(keys_and_values[::2], keys_and_values[1::2]))


def _items(container: Any) -> Array:
    """Key, value, key, value."""
    pairs = _taken_by("runtime.MapItems", Map, container).items()
    return Array([part for pair in pairs for part in pair])


def _text(value: Any) -> str:
    return str.__str__(_taken_by("ffi.String", str, value))


def _bytes(value: Any) -> bytes:
    return bytes(_taken_by("ffi.Bytes", (bytes, bytearray), value))


FUNCTIONS: Dict[str, Callable[..., Any]] = {
    "ffi.Array": lambda *values: Array(values),
    "ffi.Map": _map,
    "ffi.Shape": lambda *lengths: ShapeTuple(lengths),
    "ffi.String": _text,
    "ffi.Bytes": _bytes,
    "rpc.testing.GetShapeSize": _size("rpc.testing.GetShapeSize", ShapeTuple),
    "rpc.testing.GetShapeElem": _element("rpc.testing.GetShapeElem", ShapeTuple),
    "runtime.Array": lambda *values: Array(values),
    "runtime.ArraySize": _size("runtime.ArraySize", Array),
    "runtime.ArrayGetItem": _element("runtime.ArrayGetItem", Array),
    "runtime.Map": _map,
    "runtime.MapSize": _size("runtime.MapSize", Map),
    "runtime.MapCount": _count("runtime.MapCount", Map),
    "runtime.MapGetItem": _value("runtime.MapGetItem", Map),
    "runtime.MapItems": _items,
    "runtime.ShapeTuple": lambda *lengths: ShapeTuple(lengths),
    "runtime.GetShapeTupleSize": _size("runtime.GetShapeTupleSize", ShapeTuple),
    "runtime.GetShapeTupleElem": _element("runtime.GetShapeTupleElem", ShapeTuple),
    "runtime.String": lambda text: String(_text(text)),
    "runtime.GetFFIString": _text,
}
"""By name; those of ``runtime`` are of TVM up to 0.20."""

for _name, _kind in (("ffi.Array", Array), ("ffi.List", FFIList)):
    FUNCTIONS[f"{_name}Size"] = _size(f"{_name}Size", _kind)
    FUNCTIONS[f"{_name}GetItem"] = _element(f"{_name}GetItem", _kind)
    FUNCTIONS[f"{_name}Contains"] = _contains(f"{_name}Contains", _kind)
for _name, _pairs in (("ffi.Map", Map), ("ffi.Dict", FFIDict)):
    FUNCTIONS[f"{_name}Size"] = _size(f"{_name}Size", _pairs)
    FUNCTIONS[f"{_name}Count"] = _count(f"{_name}Count", _pairs)
    FUNCTIONS[f"{_name}GetItem"] = _value(f"{_name}GetItem", _pairs)
    FUNCTIONS[f"{_name}ForwardIterFunctor"] = _walker(f"{_name}ForwardIterFunctor", _pairs)
