from __future__ import annotations

import contextlib
import struct
import tracemalloc
from typing import Callable, List, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc.runtime import imports
from pytest_tvmrpc.runtime.imports import Imported


def name(text: str) -> bytes:
    """A name or a module's content as both tables have it."""
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
"""The beginning of what TVM 0.27 writes for a model, up to the length of its kind's name."""

READERS: List[Callable[[bytes], object]] = [imports.imported_modules, imports.entry_kinds]


def test_modules_of_a_new_table() -> None:
    """Each module with its content and those it imports; what is behind a foreign one counts."""
    assert imports.imported_modules(NEW) == [
        Imported("_lib", b"", (1,)),
        Imported("cuda", b"its content"),
    ]
    content = name("as TVM saves it")
    recorded = bytes.fromhex(RELAX) + b"relax.VMExecutable" + content + name("_lib")
    assert imports.imported_modules(recorded) == [
        Imported("relax.VMExecutable", b"as TVM saves it", (1,)),
        Imported("_lib", b""),
    ]


def test_kinds_of_an_old_table() -> None:
    """Without the entry that is the tree; the table may be without a tree, or empty."""
    assert imports.entry_kinds(OLD) == ["_lib", "c"]
    assert imports.entry_kinds(struct.pack("<Q", 1) + name("_lib")) == ["_lib"]
    assert imports.entry_kinds(bytes(8)) == []


@pytest.mark.parametrize("length", range(len(NEW)))
def test_new_tables_that_are_cut(length: int) -> None:
    """A table that does not hold what it says is damaged."""
    with pytest.raises(struct.error):
        imports.imported_modules(NEW[:length])


@pytest.mark.parametrize("length", range(len(OLD) - len("its content")))
def test_old_tables_that_are_cut(length: int) -> None:
    """So is one of the old form."""
    with pytest.raises(struct.error):
        imports.entry_kinds(OLD[:length])


@pytest.mark.parametrize("words", [[1 << 60, 0], [2**64 - 1], [1, 1 << 62]])
def test_numbers_that_cannot_be(words: Sequence[int]) -> None:
    """A count or length beyond the table is not believed."""
    table = struct.pack(f"<{len(words)}Q", *words)
    for read in READERS:
        with pytest.raises(struct.error):
            read(table)


@pytest.mark.parametrize(
    ("starts", "children"), [((0, 1), ()), ((1, 0), (0,)), ((0, 1), (1,)), ((0, 1), (1 << 63,))]
)
def test_trees_that_cannot_be(starts: Tuple[int, ...], children: Tuple[int, ...]) -> None:
    """A module imports only modules of the table."""
    with pytest.raises(struct.error, match="a module imports"):
        imports.imported_modules(vector(*starts) + vector(*children) + name("_lib"))


def test_more_than_the_modules() -> None:
    """Bytes behind the last module belong to nobody."""
    with pytest.raises(struct.error, match="3 bytes follow"):
        imports.imported_modules(NEW + b"xyz")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A table with some of its numbers changed, cut somewhere, or any bytes at all."""
    table = bytearray(draw(st.sampled_from([NEW, OLD, NEW * 2, bytes.fromhex(RELAX)])))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(table) - 8))
        table[place : place + 8] = struct.pack("<Q", draw(st.integers(0, 2**64 - 1)))
    cut = draw(st.integers(0, len(table)))
    return draw(st.sampled_from([bytes(table), bytes(table[:cut]), draw(st.binary(max_size=99))]))


@given(damaged())
def test_damaged_tables(table: bytes) -> None:
    """Whatever a table claims, it is read or refused, in memory of about its own size."""
    tracemalloc.start()
    try:
        for read in READERS:
            with contextlib.suppress(struct.error):
                read(table)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
