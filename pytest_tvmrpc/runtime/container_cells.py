"""Arrays, maps and shapes in C's memory: made in the form that C++ reads, freed, and gone through.

The layouts are those of tvm-ffi 0.1.12 to 0.1.15 (include/tvm/ffi/container), of TVM 0.25 and
later. Code that reads or changes them is compiled into each library, so they cannot change there
without notice either.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Dict, Hashable, Iterable, Iterator, List, Sequence, Tuple

from . import hashing
from .abi import ANY_SIZE, HEADER_SIZE, TypeIndex, new_cell
from .calling import owned_word
from .object import ShapeTuple
from .owned import drop_any, words_at
from .words import Word, bytes_at, unsigned

__all__ = [
    "MapCell",
    "TVMFFISeqCell",
    "identity",
    "new_array",
    "new_map",
    "new_shape",
    "pairs_at",
    "pairs_of_hash",
    "shape_at",
    "words_of_pairs",
]

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
        known = kept.get(identity(key))
        if known is not None:
            drop_any(key)
            drop_any(known[1])
            key = known[0]
        kept[identity(key)] = key, value
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
            drop_any(word)
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


def _drop_sequence(address: int) -> None:
    """Give back what the array holds now: C++ may have changed it."""
    cell = TVMFFISeqCell.from_address(address + HEADER_SIZE)
    size, cell.size = cell.size, 0
    for word in words_at(cell.data, size):
        drop_any(word)


def _drop_map(address: int) -> None:
    pairs = words_of_pairs(address)
    cell = MapCell.from_address(address + HEADER_SIZE)
    cell.size = 0
    for pair in pairs:
        for word in pair:
            drop_any(word)
    if cell.data and cell.data_deleter:
        _DATA_DELETER(cell.data_deleter)(cell.data)


_blocks: Dict[int, Any] = {}  # the pairs of large maps, by address


def _free_block(address: int) -> None:
    _blocks.pop(address, None)


_on_free_block = _DATA_DELETER(_free_block)
_free_block_address = ctypes.cast(_on_free_block, ctypes.c_void_p).value or 0


# ---------------------------------------------------------------------------------- reading them


def pairs_at(address: int) -> Iterator[int]:
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


def words_of_pairs(address: int) -> List[List[Word]]:
    """The keys of a map and their values, in their order and as they are now."""
    return [words_at(pair, 2) for pair in pairs_at(address)]


def pairs_of_hash(address: int, key: Word) -> Iterator[int]:
    """Where a map may have a key: all pairs where only C++ knows the hash of such keys."""
    cell = MapCell.from_address(address + HEADER_SIZE)
    is_text = key[0] in (TypeIndex.STR, TypeIndex.BYTES)
    if not cell.slots & _IS_SMALL and (is_text or key[0] < TypeIndex.OBJECT) and cell.size:
        table = hashing.Place(cell.data, cell.slots, cell.shift)
        found = hashing.with_hash(table, _hash(key))
        if found is not None:
            return iter(found)
    return pairs_at(address)


def identity(word: Word) -> Hashable:
    """What tells one key from another: the content of text, of other values the word itself."""
    kind, length, number = word
    if kind == TypeIndex.SMALL_STR:
        return TypeIndex.STR, _small(number, length)
    if kind == TypeIndex.SMALL_BYTES:
        return TypeIndex.BYTES, _small(number, length)
    if kind in (TypeIndex.STR, TypeIndex.BYTES):
        return kind, bytes_at(unsigned(number) + HEADER_SIZE)
    return kind, number
