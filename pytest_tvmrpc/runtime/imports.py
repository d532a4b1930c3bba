"""The table of modules that a compiled library brings with it. Loads none of them."""

from __future__ import annotations

import struct
from typing import List, Tuple

__all__ = ["entry_kinds", "import_kinds"]

_LIBRARY = "_lib"  # the library itself
_TREE = "_import_tree"


def import_kinds(table: bytes) -> List[str]:
    """The kinds of the modules in a table of TVM 0.22 and later, up to the first foreign one.

    Raises:
        struct.error: the table is damaged.
    """
    starts, place = _vector(table, 0)
    _, place = _vector(table, place)
    kinds: List[str] = []
    for _ in range(len(starts) - 1):
        kind, place = _name(table, place)
        kinds.append(kind)
        if kind != _LIBRARY:
            break  # what follows is that module's content, which only its loader can skip
    return kinds


def entry_kinds(table: bytes) -> List[str]:
    """The same of a table of TVM up to 0.21, whose entries may be the import tree, too.

    Raises:
        struct.error: the table is damaged.
    """
    (count,) = struct.unpack_from("<Q", table, 0)
    if count > len(table) // 8:
        raise struct.error("it has more entries than bytes")
    place = 8
    kinds: List[str] = []
    for _ in range(count):
        kind, place = _name(table, place)
        if kind == _TREE:
            _, place = _vector(table, place)
            _, place = _vector(table, place)
            continue
        kinds.append(kind)
        if kind != _LIBRARY:
            break
    return kinds


def _name(table: bytes, place: int) -> Tuple[str, int]:
    (length,) = struct.unpack_from("<Q", table, place)
    place += 8
    if length > len(table) - place:
        raise struct.error("a name is longer than the table")
    return table[place : place + length].decode("utf-8", "replace"), place + length


def _vector(table: bytes, place: int) -> Tuple[Tuple[int, ...], int]:
    (count,) = struct.unpack_from("<Q", table, place)
    if count > (len(table) - place - 8) // 8:
        raise struct.error("a list is longer than the table")
    return struct.unpack_from(f"<{count}Q", table, place + 8), place + 8 + 8 * count
