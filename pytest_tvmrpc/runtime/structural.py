"""Whether two values are equal part by part, and where they are not.

What counts as equal is as in TVM: types are compared, too (1 is not 1.0, nor True), NaN equals NaN,
0.0 does not equal -0.0, a list equals a tuple of the same elements. Nothing is converted, and no
value is changed.
"""

from __future__ import annotations

import reprlib
import struct
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ..data_type import DataType
from ..dlpack import OpaquePointer
from .device.api import Device
from .function import PackedFunc
from .module import Module
from .object_path import ObjectPath, ObjectPathPair
from .tensor import Tensor, tensor

if TYPE_CHECKING:
    from .arrays import Array

__all__ = [
    "assert_structural_equal",
    "first_mismatch",
    "get_first_structural_mismatch",
    "structural_equal",
]


def structural_equal(lhs: Any, rhs: Any, *, skip_tensor_content: bool = False) -> bool:
    """Whether two values are equal, part by part.

    Args:
        lhs, rhs: numbers, texts, bytes, None, data types, devices; sequences, mappings, named
            tuples, data classes and objects of compiled code, of each other to any depth; tensors
            by data type, shape, device and elements; functions and modules, which are equal only
            if they are the same.
        skip_tensor_content: whether the elements of tensors do not count.

    Raises:
        TypeError: there is no telling for values of this type; the message names the path.
        ValueError: a value contains itself.
    """
    return first_mismatch(lhs, rhs, skip_tensor_content=skip_tensor_content) is None


def first_mismatch(
    lhs: Any, rhs: Any, *, skip_tensor_content: bool = False
) -> Optional[ObjectPathPair]:
    """Where two values differ first, and how; None if they are equal.

    Args:
        lhs, rhs, skip_tensor_content: as `structural_equal` takes them.

    Returns:
        The paths within both values. The text of the pair says what differs:
        ``<root>["a"][1]: 2 and 3``.

    Raises:
        TypeError, ValueError: as `structural_equal`.
    """
    return _Comparison(skip_tensor_content).run(lhs, rhs)


get_first_structural_mismatch = first_mismatch
"""What tvm_ffi calls `first_mismatch`."""


def assert_structural_equal(lhs: Any, rhs: Any, *, skip_tensor_content: bool = False) -> None:
    """Nothing if two values are equal, part by part.

    Args:
        lhs, rhs, skip_tensor_content: as `structural_equal` takes them.

    Raises:
        ValueError: they are not; the message names the path and what differs there. Or a value
            contains itself.
        TypeError: as `structural_equal`.
    """
    __tracebackhide__ = True
    found = first_mismatch(lhs, rhs, skip_tensor_content=skip_tensor_content)
    if found is not None:
        raise ValueError(f"the two values differ at {found}")


class _Pair(NamedTuple):
    """Two parts to be compared, and where they are."""

    lhs: Any
    rhs: Any
    lhs_path: ObjectPath
    rhs_path: ObjectPath

    def differ(self, reason: str) -> ObjectPathPair:
        return ObjectPathPair(self.lhs_path, self.rhs_path, reason)


_Parts = Iterator["_Pair | ObjectPathPair"]
"""The parts of a pair, one after the other; a mismatch where one has no counterpart."""


class _Comparison:
    """One comparison: a stack of its own in place of Python's, so that depth has no limit."""

    def __init__(self, skip_tensor_content: bool) -> None:
        self._skip_tensor_content = skip_tensor_content
        self._within: Set[Tuple[int, int]] = set()  # the pairs whose parts are being compared
        self._equal: Dict[Tuple[int, int], Tuple[Any, Any]] = {}  # which were, and are kept alive

    def run(self, lhs: Any, rhs: Any) -> Optional[ObjectPathPair]:
        root = ObjectPath.root()
        start = _Pair(lhs, rhs, root, root)
        stack: List[Tuple[Optional[_Pair], _Parts]] = [(None, iter((start,)))]
        while stack:
            whole, parts = stack[-1]
            part = next(parts, None)
            if part is None:
                stack.pop()
                if whole is not None:
                    self._leave(whole)
                continue
            if isinstance(part, ObjectPathPair):
                return part
            found = self._compare(part)
            if isinstance(found, ObjectPathPair):
                return found
            if found is not None and self._enter(part):
                stack.append((part, found))
        return None

    def _enter(self, pair: _Pair) -> bool:
        """Whether the parts of a pair are still to be compared."""
        both = _identity(pair.lhs), _identity(pair.rhs)
        if both in self._within:
            raise ValueError(f"{pair.lhs_path} contains itself, so that it has no end")
        if both in self._equal:
            return False
        self._within.add(both)
        return True

    def _leave(self, pair: _Pair) -> None:
        both = _identity(pair.lhs), _identity(pair.rhs)
        self._within.remove(both)
        self._equal[both] = pair.lhs, pair.rhs

    def _compare(self, pair: _Pair) -> "ObjectPathPair | _Parts | None":
        """A mismatch, or the parts on which it depends; None if the two are equal."""
        if pair.lhs is pair.rhs:
            return None
        kind, other = _kind(pair.lhs), _kind(pair.rhs)
        if kind != other:
            return pair.differ(f"{_named(pair.lhs, kind)} and {_named(pair.rhs, other)}")
        if kind in ("tensor", "numpy.ndarray"):
            first, second = (pair.lhs, pair.rhs) if kind == "tensor" else map(tensor, pair[:2])
            reason = _tensors_differ(first, second, self._skip_tensor_content)
            return pair.differ(reason) if reason else None
        if kind in _SCALARS:
            same = _SCALARS[kind](pair.lhs, pair.rhs)
            return None if same else pair.differ(f"{_short(pair.lhs)} and {_short(pair.rhs)}")
        if kind in ("array", "mapping"):
            return _items(pair) if kind == "array" else _entries(pair)
        names = _field_names(pair.lhs)
        if names is not None:
            return _fields(pair, names)
        if isinstance(pair.lhs, tuple):
            return _items(pair)
        same_as = getattr(pair.lhs, "same_as", None)
        if callable(same_as):
            return None if same_as(pair.rhs) else pair.differ(f"two objects of type {kind}")
        raise TypeError(
            f"{pair.lhs_path} is {_short(pair.lhs)}: values of type {kind} cannot be compared part "
            "by part; expected numbers, texts, sequences, mappings, tensors, data classes"
        )


def _identity(value: Any) -> int:
    """Of an object of compiled code its address: Python has a new reference to it each time."""
    address = getattr(value, "address", None) if hasattr(value, "same_as") else None
    return address if isinstance(address, int) else id(value)


def _kind(value: Any) -> str:
    """What a value is compared as. Two of different kinds are never equal."""
    if isinstance(value, (str, bytes, bytearray, memoryview)) and not isinstance(value, DataType):
        return "str" if isinstance(value, str) else "bytes"
    if value is None or type(value) in (bool, int, float):
        return type(value).__name__
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a scalar of NumPy
        return type(value.item()).__name__
    if isinstance(value, (int, float)) and not hasattr(value, "dtype"):
        return "int" if isinstance(value, int) else "float"
    if isinstance(value, Mapping):
        return "mapping"
    if type(value) in (list, tuple) or (
        isinstance(value, Sequence) and not isinstance(value, (tuple, range))
    ):
        return "array"
    return f"{type(value).__module__}.{type(value).__qualname__}"


_KINDS: Sequence[Tuple[Any, str]] = (
    (Device, "device"),
    (DataType, "data type"),
    (Tensor, "tensor"),
    (Module, "module"),
    (PackedFunc, "function"),
    (OpaquePointer, "pointer"),
)


def _same_float(lhs: Any, rhs: Any) -> bool:
    first, second = float(lhs), float(rhs)
    if first != first:
        return second != second
    return struct.pack("<d", first) == struct.pack("<d", second)


def _same_function(lhs: PackedFunc, rhs: PackedFunc) -> bool:
    if lhs.handle or rhs.handle:
        place = getattr(lhs, "session", None)
        return place is getattr(rhs, "session", None) and lhs.handle == rhs.handle
    return lhs.function is rhs.function


def _same(lhs: Any, rhs: Any) -> bool:
    return bool(lhs == rhs)


_SCALARS: Dict[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys(("NoneType", "bool", "int", "str", "pointer", "data type"), _same),
    "bytes": lambda lhs, rhs: bytes(lhs) == bytes(rhs),
    "float": _same_float,
    "device": lambda lhs, rhs: _same(lhs, rhs) and type(lhs) is type(rhs),
    "function": _same_function,
    "module": lambda lhs, rhs: lhs is rhs,
    "pytest_tvmrpc.runtime.constant.IntImm": lambda lhs, rhs: (
        _same(lhs, rhs) and lhs.dtype == rhs.dtype
    ),
    "pytest_tvmrpc.runtime.constant.FloatImm": lambda lhs, rhs: (
        _same_float(lhs, rhs) and lhs.dtype == rhs.dtype
    ),
    "builtins.function": lambda lhs, rhs: lhs is rhs,
    "builtins.builtin_function_or_method": _same,
    "builtins.method": _same,
    "builtins.type": lambda lhs, rhs: lhs is rhs,
    "builtins.range": _same,
}


def _items(pair: _Pair) -> _Parts:
    lhs, rhs, lhs_path, rhs_path = pair
    for index in range(min(len(lhs), len(rhs))):
        yield _Pair(
            lhs[index], rhs[index], lhs_path.array_index(index), rhs_path.array_index(index)
        )
    if len(lhs) != len(rhs):
        index = min(len(lhs), len(rhs))
        reason = f"{len(lhs)} elements and {len(rhs)}"
        if len(lhs) > index:
            yield ObjectPathPair(
                lhs_path.array_index(index), rhs_path.missing_array_element(index), reason
            )
        else:
            yield ObjectPathPair(
                lhs_path.missing_array_element(index), rhs_path.array_index(index), reason
            )


def _entries(pair: _Pair) -> _Parts:
    lhs, rhs, lhs_path, rhs_path = pair
    there = {_typed(key): key for key in rhs}
    for key in lhs:
        if _typed(key) not in there:
            reason = f"the key {_short(key)} is missing in the second"
            yield ObjectPathPair(lhs_path.map_value(key), rhs_path.missing_map_entry(), reason)
            return
        counterpart = there.pop(_typed(key))
        yield _Pair(
            lhs[key], rhs[counterpart], lhs_path.map_value(key), rhs_path.map_value(counterpart)
        )
    for key in there.values():
        reason = f"the key {_short(key)} is missing in the first"
        yield ObjectPathPair(lhs_path.missing_map_entry(), rhs_path.map_value(key), reason)


def _typed(key: Any) -> Tuple[str, Any]:
    """A key that is equal to those of its own kind only: 1 is not True."""
    kind = _kind(key)
    if kind == "float":
        return kind, "nan" if key != key else struct.pack("<d", float(key))
    if isinstance(key, tuple):
        return kind, tuple(map(_typed, key))
    return kind, key


def _fields(pair: _Pair, names: Sequence[str]) -> _Parts:
    lhs, rhs, lhs_path, rhs_path = pair
    for name in names:
        yield _Pair(
            getattr(lhs, name), getattr(rhs, name), lhs_path.attr(name), rhs_path.attr(name)
        )


def _field_names(value: Any) -> Optional[Sequence[str]]:
    """The attributes of which a value consists; None if it does not say."""
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses  # which whoever has a data class has loaded; a board has none

        return [field.name for field in dataclasses.fields(value) if field.compare]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value._fields)
    names = getattr(value, "field_names", None)
    return names() if callable(names) else None


def _tensors_differ(lhs: Tensor, rhs: Tensor, skip_content: bool) -> str:
    """What differs between two tensors; empty if nothing does."""
    if lhs.dtype != rhs.dtype:
        return f"a tensor of {lhs.dtype} and one of {rhs.dtype}"
    if tuple(lhs.shape) != tuple(rhs.shape):
        return f"a tensor of shape {tuple(lhs.shape)} and one of {tuple(rhs.shape)}"
    if not _SCALARS["device"](lhs.device, rhs.device):
        return f"a tensor on {lhs.device} and one on {rhs.device}"
    if skip_content:
        return ""
    first, second = _content(lhs), _content(rhs)
    if first == second:
        return ""
    try:
        arrays = lhs.numpy(), rhs.numpy()
    except TypeError:  # NumPy has no such elements, but both have bytes
        return _bytes_differ(first, second)
    return _elements_differ(*arrays)


def _content(tensor: Tensor) -> bytes:
    content = bytearray(tensor.nbytes)
    tensor.device.api.copy_to_host(tensor, memoryview(content))
    return bytes(content)


def _elements_differ(lhs: Array, rhs: Array) -> str:
    """The first element that differs; NaN does not differ from NaN, whatever its bits are."""
    first, second = lhs.reshape(-1), rhs.reshape(-1)
    rows = first.size, first.dtype.itemsize
    differ = (first.view("u1").reshape(rows) != second.view("u1").reshape(rows)).any(axis=1)
    differ &= (first == first) | (second == second)
    index = rest = int(differ.argmax())
    if not differ[index]:
        return ""
    place: List[int] = []
    for length in reversed(lhs.shape):
        rest, position = divmod(rest, length)
        place.insert(0, position)
    return f"element {place} is {first[index]} and {second[index]}"


def _bytes_differ(lhs: bytes, rhs: bytes) -> str:
    """The first byte that differs."""
    bits = int.from_bytes(lhs, "little") ^ int.from_bytes(rhs, "little")
    index = ((bits & -bits).bit_length() - 1) // 8
    return f"byte {index} of the contents is {lhs[index]} and {rhs[index]}"


def _named(value: Any, kind: str) -> str:
    return kind if kind in ("array", "mapping", "tensor") else f"{_short(value)} ({kind})"


def _short(value: Any) -> str:
    return _texts.repr(value)


_texts = reprlib.Repr()  # of values of any depth, and with any repr of their own
_texts.maxlevel = 2
_texts.maxstring = _texts.maxother = _texts.maxlong = 80
