"""Arrays and maps of compiled code: read where they are, and made in the form that C++ reads.

The layouts are those of tvm-ffi 0.1.12 to 0.1.15 (include/tvm/ffi/container), of TVM 0.25 and
later. Code that reads or changes them is compiled into each library, so they cannot change there
without notice either.
"""

from __future__ import annotations

import ctypes
import math
import operator
import struct
from typing import (
    Any,
    Dict,
    Hashable,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ..dlpack import OpaquePointer
from . import hashing
from .abi import ANY_SIZE, HEADER_SIZE, TypeIndex, new_cell, release
from .calling import owned_word, value_of_word
from .foreign import Reference
from .native import NativeObject, native_class
from .object import ShapeTuple
from .owned import read_any
from .words import Word, bytes_at, number_of, unsigned

__all__ = ["Array", "FFIDict", "FFIList", "Map", "new_array", "new_map", "new_shape", "shape_at"]

_any = struct.Struct("<iIq")


class TVMFFISeqCell(ctypes.Structure):
    """What follows the header of an array or list; the elements of an array come behind it."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("data_deleter", ctypes.c_void_p),
    ]


class TVMFFIShapeCell(ctypes.Structure):
    """What follows the header of a shape; its lengths come behind it."""

    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class MapCell(ctypes.Structure):
    """What follows the header of a map or dict; of one with few pairs, they come behind it.

    The rest is for those with many: C++ may turn one into the other, and needs room for it.
    """

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("slots", ctypes.c_uint64),
        ("data_deleter", ctypes.c_void_p),
        ("shift", ctypes.c_uint32),
        ("first", ctypes.c_uint64),
        ("last", ctypes.c_uint64),
    ]


_PAIRS_AT = MapCell.shift.offset
_PAIR_SIZE = 2 * ANY_SIZE
_IS_SMALL = 1 << 63
_SMALL_SLOTS = 4  # a map of fewer pairs is a list of them
_DATA_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

# ------------------------------------------------------------------------------------ making them


def new_array(values: Iterable[Any], depth: int = 0) -> int:
    """The address of a new array with one reference, which the caller owns.

    Raises:
        TypeError, ValueError: compiled code cannot take a value, or there are too many levels.
    """
    words = _owned_words(values, depth)
    cell = TVMFFISeqCell(None, len(words), len(words), None)
    content = b"".join(_any.pack(*word) for word in words)
    address = new_cell(TypeIndex.ARRAY, None, bytes(cell) + content, drop=_drop_sequence)
    place = TVMFFISeqCell.from_address(address + HEADER_SIZE)
    place.data = address + HEADER_SIZE + ctypes.sizeof(TVMFFISeqCell)
    return address


def new_map(pairs: Iterable[Tuple[Any, Any]], depth: int = 0) -> int:
    """The address of a new map with one reference, which the caller owns.

    Args:
        pairs: keys and values; of a key that comes again, the last value counts.
        depth: how many containers it is in.

    Raises:
        TypeError, ValueError: as `new_array`.
    """
    words = _owned_words((part for pair in pairs for part in pair), depth)
    kept: Dict[Hashable, Tuple[Word, Word]] = {}
    for key, value in zip(words[::2], words[1::2]):
        known = kept.get(_identity(key))
        if known is not None:
            _drop(key)
            _drop(known[1])
            key = known[0]
        kept[_identity(key)] = key, value
    content = [_any.pack(*key) + _any.pack(*value) for key, value in kept.values()]
    if len(content) < _SMALL_SLOTS:
        return _small_map(content)
    table = hashing.table_of([_hash(key) for key, _ in kept.values()], content)
    block = ctypes.create_string_buffer(table.blocks, len(table.blocks))
    _blocks[ctypes.addressof(block)] = block
    cell = MapCell(
        *(ctypes.addressof(block), len(content), table.slots, _free_block_address),
        *(table.shift, table.first, table.last),
    )
    return new_cell(TypeIndex.MAP, None, bytes(cell), drop=_drop_map)


def _small_map(content: List[bytes]) -> int:
    slots = max(len(content), 2)  # which leaves the room that a MapCell takes
    head = bytes(MapCell(None, len(content), slots | _IS_SMALL, None))[:_PAIRS_AT]
    memory = head + b"".join(content).ljust(slots * _PAIR_SIZE, b"\0")
    address = new_cell(TypeIndex.MAP, None, memory, drop=_drop_map)
    place = MapCell.from_address(address + HEADER_SIZE)
    place.data = address + HEADER_SIZE + _PAIRS_AT
    return address


def new_shape(shape: Sequence[int]) -> int:
    """The address of a new shape with one reference, which the caller owns."""
    content = struct.pack(f"<{len(shape)}q", *shape)
    head = bytes(TVMFFIShapeCell(None, len(shape)))
    address = new_cell(TypeIndex.SHAPE, None, head + content)
    place = TVMFFIShapeCell.from_address(address + HEADER_SIZE)
    place.data = address + HEADER_SIZE + ctypes.sizeof(TVMFFIShapeCell)
    return address


def shape_at(address: int) -> ShapeTuple:
    """The content of a shape."""
    cell = TVMFFIShapeCell.from_address(address + HEADER_SIZE)
    if not cell.size or not cell.data:
        return ShapeTuple(())
    return ShapeTuple((ctypes.c_int64 * cell.size).from_address(cell.data))


def _owned_words(values: Iterable[Any], depth: int) -> List[Word]:
    words: List[Word] = []
    try:
        for value in values:
            words.append(owned_word(value, depth + 1))
    except BaseException:
        for word in words:
            _drop(word)
        raise
    return words


def _hash(word: Word) -> int:
    """What C++ takes for the hash of a key."""
    kind, _, number = word
    if kind == TypeIndex.SMALL_STR:
        return hashing.combined(TypeIndex.STR, hashing.of_bytes(_small(number, 8)))
    if kind == TypeIndex.SMALL_BYTES:
        return hashing.combined(TypeIndex.BYTES, hashing.of_bytes(_small(number, 8)))
    if kind in (TypeIndex.STR, TypeIndex.BYTES):
        content = bytes_at(unsigned(number) + HEADER_SIZE)
        return hashing.combined(kind, hashing.of_bytes(content))
    return hashing.combined(kind, unsigned(number))


def _small(number: int, length: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)[:length]


# ----------------------------------------------------------------------------------- ending them


def _drop(word: Word) -> None:
    if word[0] >= TypeIndex.OBJECT and word[2]:
        release(unsigned(word[2]))


def _drop_sequence(address: int) -> None:
    """Give back what the array holds now: C++ may have changed it."""
    cell = TVMFFISeqCell.from_address(address + HEADER_SIZE)
    size, cell.size = cell.size, 0
    for index in range(size):
        _drop(read_any(cell.data + index * ANY_SIZE))


def _drop_map(address: int) -> None:
    pairs = list(_pairs(address))
    cell = MapCell.from_address(address + HEADER_SIZE)
    cell.size = 0
    for pair in pairs:
        _drop(read_any(pair))
        _drop(read_any(pair + ANY_SIZE))
    if cell.data and cell.data_deleter:
        _DATA_DELETER(cell.data_deleter)(cell.data)


_blocks: Dict[int, Any] = {}  # the pairs of large maps, by address


def _free_block(address: int) -> None:
    _blocks.pop(address, None)


_on_free_block = _DATA_DELETER(_free_block)
_free_block_address = ctypes.cast(_on_free_block, ctypes.c_void_p).value or 0


# ---------------------------------------------------------------------------------- reading them


def _pairs(address: int) -> Iterator[int]:
    """Where the keys of a map are, each with its value behind it, in their order."""
    cell = MapCell.from_address(address + HEADER_SIZE)
    if cell.slots & _IS_SMALL:
        for index in range(cell.size):
            yield cell.data + index * _PAIR_SIZE
        return
    index = cell.first
    for _ in range(cell.size):
        place = hashing.place(index)
        yield cell.data + place
        index = hashing.next_of(cell.data + place)


class _Elements(NativeObject, Sequence[Any]):
    """What arrays and lists have in common."""

    __slots__ = ()

    def _cell(self) -> TVMFFISeqCell:
        return TVMFFISeqCell.from_address(self.address + HEADER_SIZE)

    def __len__(self) -> int:
        return int(self._cell().size)

    def __getitem__(self, index: Any) -> Any:
        """One element, or a list of them for a slice.

        Raises:
            IndexError: there is no such element.
            TypeError: the index is neither an integer nor a slice.
        """
        size = len(self)
        if isinstance(index, slice):
            return [self._element(at) for at in range(*index.indices(size))]
        try:
            position = operator.index(index)
        except TypeError:
            raise TypeError(
                f"indices must be integers or slices, not {type(index).__name__}"
            ) from None
        if not -size <= position < size:
            raise IndexError(f"Index out of range. size: {size}, got index {position}")
        return self._element(position % size)

    def _element(self, position: int) -> Any:
        return value_of_word(read_any(self._cell().data + position * ANY_SIZE), owned=False)

    def __contains__(self, value: object) -> bool:
        return any(_is_same(element, value) for element in self)

    def index(self, value: Any, start: int = 0, stop: Optional[int] = None) -> int:
        """The position of the first element that is equal to the value.

        Raises:
            ValueError: there is none.
        """
        for position in range(*slice(start, stop).indices(len(self))):
            if _is_same(self._element(position), value):
                return position
        raise ValueError(f"{value!r} is not in this {type(self).__name__}")

    def count(self, value: Any) -> int:
        """How many elements are equal to the value."""
        return sum(_is_same(element, value) for element in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, type(self)):
            return self.same_as(other) or _are_equal(self, other)
        if isinstance(other, (list, tuple)):
            return _are_equal(self, other)
        return NotImplemented

    def __hash__(self) -> int:
        """That of a tuple of the elements, since a tuple may be equal; of NaN each has its own."""
        return hash(tuple(math.nan if element != element else element for element in self))


@native_class(TypeIndex.ARRAY)
class Array(_Elements):
    """A sequence that cannot be changed, as an object that compiled code can take.

    It is equal to a list or tuple of equal elements. Of numbers, ``1``, ``1.0`` and ``True``
    differ, and so do ``0.0`` and ``-0.0``; NaN equals NaN; one of NumPy's or of `const` is the
    plain number that an array would hold.

    Args:
        input_list: the values; lists, tuples and dicts among them become objects, too.

    Raises:
        TypeError, ValueError: compiled code cannot take one of them.
    """

    __slots__ = ()

    def __init__(self, input_list: Iterable[Any]) -> None:
        super().__init__(Reference(new_array(input_list)))

    def __add__(self, other: Iterable[Any]) -> Array:
        return Array([*self, *other])

    def __radd__(self, other: Iterable[Any]) -> Array:
        return Array([*other, *self])

    def __repr__(self) -> str:
        content = ", ".join(map(repr, self))
        return f"({content},)" if len(self) == 1 else f"({content})"


@native_class(TypeIndex.LIST)
class FFIList(_Elements):
    """A list that compiled code made, and may change; here it is only read."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as a list: its content can change

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"


class _Pairs(NativeObject, Mapping[Any, Any]):
    """What maps and dicts have in common."""

    __slots__ = ()

    def __len__(self) -> int:
        return int(MapCell.from_address(self.address + HEADER_SIZE).size)

    def __iter__(self) -> Iterator[Any]:
        for pair in list(_pairs(self.address)):
            yield value_of_word(read_any(pair), owned=False)

    def _places(self) -> Dict[Hashable, int]:
        """Where the values are, by what tells their keys apart."""
        return {_identity(read_any(pair)): pair + ANY_SIZE for pair in _pairs(self.address)}

    def __getitem__(self, key: Any) -> Any:
        """The value of a key; ``1``, ``1.0`` and ``True`` are three keys.

        Raises:
            KeyError: there is no such key.
        """
        place = self._place(key)
        if place is None:
            raise KeyError(key)
        return value_of_word(read_any(place), owned=False)

    def _place(self, key: Any) -> Optional[int]:
        try:
            word = owned_word(key)
        except (TypeError, ValueError):  # no map can have it
            return None
        try:
            return self._places().get(_identity(word))
        finally:
            _drop(word)

    def __contains__(self, key: object) -> bool:
        return self._place(key) is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (type(self), dict)):
            return NotImplemented
        if len(self) != len(other):
            return False
        mine = {_key(key): value for key, value in self.items()}
        try:
            return all(_is_same(mine[_key(key)], value) for key, value in other.items())
        except KeyError:
            return False

    def __hash__(self) -> int:
        return hash(frozenset((_key(key), _key(value)) for key, value in self.items()))

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key!r}: {value!r}' for key, value in self.items())}}}"


@native_class(TypeIndex.MAP)
class Map(_Pairs):
    """A mapping that cannot be changed, as an object that compiled code can take.

    Args:
        input_dict: the keys and values; its order is kept.

    Raises:
        TypeError: it is no mapping, or compiled code cannot take a key or value.
        ValueError: it cannot take a value.
    """

    __slots__ = ("_known",)

    def __init__(self, input_dict: Mapping[Any, Any]) -> None:
        if not isinstance(input_dict, Mapping):
            raise TypeError(
                f"a Map is made of a dict or another mapping, not of a {type(input_dict).__name__}"
            )
        super().__init__(Reference(new_map(input_dict.items())))

    @classmethod
    def of_pairs(cls, pairs: Iterable[Tuple[Any, Any]]) -> Map:
        """A map of keys that Python takes for equal, but compiled code does not: ``1``, ``True``.

        Raises:
            TypeError, ValueError: compiled code cannot take a key or value.
        """
        made = cls.__new__(cls)
        NativeObject.__init__(made, Reference(new_map(pairs)))
        return made

    def _places(self) -> Dict[Hashable, int]:
        try:
            return self._known
        except AttributeError:  # it cannot change, so it is looked through once
            self._known: Dict[Hashable, int] = super()._places()
        return self._known


@native_class(TypeIndex.DICT)
class FFIDict(_Pairs):
    """A dict that compiled code made, and may change; here it is only read."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as a dict: its content can change


# ------------------------------------------------------------------------------- comparing values


def _identity(word: Word) -> Hashable:
    """What tells one key from another: the content of text, of other values the word itself."""
    kind, length, number = word
    if kind == TypeIndex.SMALL_STR:
        return TypeIndex.STR, _small(number, length)
    if kind == TypeIndex.SMALL_BYTES:
        return TypeIndex.BYTES, _small(number, length)
    if kind in (TypeIndex.STR, TypeIndex.BYTES):
        return kind, bytes_at(unsigned(number) + HEADER_SIZE)
    return kind, number


def _number(value: Any) -> Optional[Tuple[type, str]]:
    """The number that an array would hold of a value; None if it would hold none."""
    if value is None or isinstance(value, (str, bytes, OpaquePointer)):
        return None
    try:
        number = value if isinstance(value, bool) else number_of(value)
    except ValueError:  # no array can hold it
        return type(value), ""
    return None if number is None else (type(number), repr(number))


def _key(value: Any) -> Hashable:
    """Something hashable that is equal for two values if `_is_same` holds, and only then."""
    return _number(value) or (None, value)


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal as elements; numbers as C++ compares them, which is by bits."""
    number, its = _number(one), _number(other)
    return bool(one == other) if number is None and its is None else number == its


def _are_equal(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(map(_is_same, one, other))
