"""The hash table of a large map, as C++ looks keys up in it. Knows bytes and numbers only.

Slots are in blocks of 16: a byte for each, then the pairs, each with the slots of the pair before
and behind it in the order of the map. The byte says whether a slot is free, whether its pair is
the first of those with one hash, and how far it is to the next of them
(tvm-ffi, include/tvm/ffi/container/map_base.h).
"""

from __future__ import annotations

import ctypes
import struct
from typing import List, NamedTuple, Optional, Sequence, Tuple

_MASK = 0xFFFFFFFFFFFFFFFF
_NONE = _MASK  # a slot that is none
_FREE = 0xFF
_IS_NEXT = 0x80  # the pair is not the first with its hash
_BLOCK = 16
_ITEM = struct.Struct("<32sQQ")
_BLOCK_SIZE = _BLOCK + _BLOCK * _ITEM.size

_DISTANCES = [*range(16), *(number * (number + 1) // 2 for number in range(6, 73))]
"""How far the next pair may be, by the number that the byte has; C++ knows larger ones, too."""


class Table(NamedTuple):
    """A table, and the slots of its first and last pair."""

    blocks: bytes
    slots: int
    shift: int
    first: int
    last: int


def combined(kind: int, content: int) -> int:
    """The hash of a key of this type index, from that of its content."""
    return kind ^ (content + 0x9E3779B9 + (kind << 6) + (kind >> 2) & _MASK)


def of_bytes(content: bytes) -> int:
    """The hash of text or bytes: by eight, and zeros at the end."""
    result = 0
    for (part,) in struct.iter_unpack("<Q", content + bytes(-len(content) % 8)):
        result = (result * 1099511628211 + part & _MASK) % 2147483647
    return result


def table_of(hashes: Sequence[int], pairs: Sequence[bytes]) -> Table:
    """A table of pairs, in their order.

    Args:
        hashes: of their keys, which all differ.
        pairs: 32 bytes each.
    """
    bits = max(len(pairs), 1).bit_length()
    if 1 << bits < 2 * len(pairs):
        bits += 1
    while True:
        placed = _placed(hashes, bits)
        if placed is not None:
            break
        bits += 1
    marks, slots = placed
    blocks = bytearray(-(-len(marks) // _BLOCK) * _BLOCK_SIZE)
    for slot in range(-(-len(marks) // _BLOCK) * _BLOCK):
        mark = marks[slot] if slot < len(marks) else _FREE
        blocks[slot // _BLOCK * _BLOCK_SIZE + slot % _BLOCK] = mark
    before = [_NONE, *slots[:-1]]
    behind = [*slots[1:], _NONE]
    for slot, pair, previous, following in zip(slots, pairs, before, behind):
        _ITEM.pack_into(blocks, place(slot), pair, previous, following)
    return Table(bytes(blocks), len(marks), 64 - bits, slots[0], slots[-1])


def _home(value: int, shift: int) -> int:
    """The slot where the first pair with a hash is."""
    return (11400714819323198485 * value & _MASK) >> shift


def _placed(hashes: Sequence[int], bits: int) -> Optional[Tuple[bytearray, List[int]]]:
    """The bytes of all slots, and the slot of each pair; None where one does not fit."""
    count = 1 << bits
    marks = bytearray([_FREE]) * count
    homes = [_home(value, 64 - bits) for value in hashes]
    slots = [_NONE] * len(hashes)
    for number, home in enumerate(homes):  # all the first ones, so that none is in their way
        if marks[home] == _FREE:
            marks[home] = 0
            slots[number] = home
    for number, home in enumerate(homes):
        if slots[number] != _NONE:
            continue
        last = home
        while marks[last] & 0x7F:
            last = (last + _DISTANCES[marks[last] & 0x7F]) % count
        for jump in range(1, len(_DISTANCES)):
            free = (last + _DISTANCES[jump]) % count
            if marks[free] == _FREE:
                marks[last] |= jump
                marks[free] = _IS_NEXT
                slots[number] = free
                break
        else:
            return None
    return marks, slots


class Place(NamedTuple):
    """Where a table is in memory."""

    blocks: int
    slots: int
    shift: int


def with_hash(table: Place, value: int) -> Optional[List[int]]:
    """The addresses of the pairs whose keys may have this hash.

    Returns:
        None where one of them is further away than is known here.
    """
    slot = _home(value, table.shift)
    found: List[int] = []
    mark = _mark(table, slot)
    if mark & _IS_NEXT:  # free, or taken by another hash
        return found
    while True:
        found.append(table.blocks + place(slot))
        jump = mark & 0x7F
        if not jump:
            return found
        if jump >= len(_DISTANCES):
            return None
        slot = (slot + _DISTANCES[jump]) % table.slots
        mark = _mark(table, slot)


def _mark(table: Place, slot: int) -> int:
    at = table.blocks + slot // _BLOCK * _BLOCK_SIZE + slot % _BLOCK
    return ctypes.c_uint8.from_address(at).value


def place(slot: int) -> int:
    """Where the pair of a slot is in the blocks, in bytes."""
    return slot // _BLOCK * _BLOCK_SIZE + _BLOCK + slot % _BLOCK * _ITEM.size


def next_of(address: int) -> int:
    """The slot behind that of the pair at this address."""
    return ctypes.c_uint64.from_address(address + _ITEM.size - 8).value
