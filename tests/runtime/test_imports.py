from __future__ import annotations

import struct
from typing import Sequence

import pytest

from pytest_tvmrpc.runtime import imports


def name(text: str) -> bytes:
    """A name as both tables have it."""
    return struct.pack("<Q", len(text)) + text.encode()


def vector(*numbers: int) -> bytes:
    """A list of numbers as both tables have it."""
    return struct.pack(f"<Q{len(numbers)}Q", len(numbers), *numbers)


NEW = vector(0, 1, 1) + vector(1) + name("_lib") + name("cuda") + name("its content")
OLD = struct.pack("<Q", 3) + name("_lib") + name("_import_tree") + vector(0, 0) + vector()
OLD += name("c") + b"its content"
RELAX = (
    "0300000000000000 0000000000000000 0100000000000000 0100000000000000"
    "0100000000000000 0100000000000000 1200000000000000"
)


def test_kinds_of_a_new_table() -> None:
    """The modules in order; after the first foreign one nothing can be read."""
    assert imports.import_kinds(NEW) == ["_lib", "cuda"]
    recorded = bytes.fromhex(RELAX) + b"relax.VMExecutable" + bytes(8) + name("_lib")
    assert imports.import_kinds(recorded) == ["relax.VMExecutable"]


def test_kinds_of_an_old_table() -> None:
    """The same, without the entry that is the tree; the table may be without a tree, or empty."""
    assert imports.entry_kinds(OLD) == ["_lib", "c"]
    assert imports.entry_kinds(struct.pack("<Q", 1) + name("_lib")) == ["_lib"]
    assert imports.entry_kinds(bytes(8)) == []


@pytest.mark.parametrize("length", range(len(NEW) - len(name("its content"))))
def test_new_tables_that_are_cut(length: int) -> None:
    """A table that does not hold what it says is damaged."""
    with pytest.raises(struct.error):
        imports.import_kinds(NEW[:length])


@pytest.mark.parametrize("length", range(len(OLD) - len("its content")))
def test_old_tables_that_are_cut(length: int) -> None:
    """So is one of the old form."""
    with pytest.raises(struct.error):
        imports.entry_kinds(OLD[:length])


@pytest.mark.parametrize("words", [[1 << 60, 0], [2**64 - 1], [1, 1 << 62]])
def test_numbers_that_cannot_be(words: Sequence[int]) -> None:
    """A count or length beyond the table is not believed."""
    table = struct.pack(f"<{len(words)}Q", *words)
    for read in (imports.import_kinds, imports.entry_kinds):
        with pytest.raises(struct.error):
            read(table)
