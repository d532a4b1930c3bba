"""The table of modules that a compiled library brings with it. Loads none of them."""

from __future__ import annotations

import struct
from typing import List, NamedTuple, Tuple

__all__ = ["Imported", "entry_kinds", "imported_modules"]

LIBRARY = "_lib"
"""The kind of the library itself in its table."""

_TREE = "_import_tree"


class Imported(NamedTuple):
    """A module in a library's table.

    Attributes:
        kind: what it is made of.
        content: what it was saved as; nothing for the library itself.
        children: the places of the modules it imports, in the table.
    """

    kind: str
    content: bytes
    children: Tuple[int, ...] = ()


def imported_modules(table: bytes) -> List[Imported]:
    """The modules in a table of TVM 0.22 and later; the first is the root of the others.

    Raises:
        struct.error: the table is damaged.
    """
    starts, place = _vector(table, 0)
    children, place = _vector(table, place)
    modules: List[Imported] = []
    count = len(starts) - 1
    for first, last in zip(starts, starts[1:]):
        if not first <= last <= len(children):
            raise struct.error(f"a module imports those from {first} to {last}")
        below = children[first:last]
        if any(child >= count for child in below):
            raise struct.error(f"a module imports one that is not among the {count}")
        kind, place = _name(table, place)
        content = b""
        if kind != LIBRARY:
            content, place = _bytes(table, place)
        modules.append(Imported(kind, content, below))
    if place != len(table):
        raise struct.error(f"{len(table) - place} bytes follow its last module")
    return modules


def entry_kinds(table: bytes) -> List[str]:
    """The kinds of the modules in a table of TVM up to 0.21, up to the first foreign one.

    What follows that is its content, which only its own loader can skip. Entries may be the import
    tree, too.

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
        if kind != LIBRARY:
            break
    return kinds


def _bytes(table: bytes, place: int) -> Tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", table, place)
    place += 8
    if length > len(table) - place:
        raise struct.error("a module or a name is longer than the table")
    return table[place : place + length], place + length


def _name(table: bytes, place: int) -> Tuple[str, int]:
    text, place = _bytes(table, place)
    return text.decode("utf-8", "replace"), place


def _vector(table: bytes, place: int) -> Tuple[Tuple[int, ...], int]:
    (count,) = struct.unpack_from("<Q", table, place)
    if count > (len(table) - place - 8) // 8:
        raise struct.error("a list is longer than the table")
    return struct.unpack_from(f"<{count}Q", table, place + 8), place + 8 + 8 * count
