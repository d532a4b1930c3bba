"""Tests of the numbers under which objects are known elsewhere."""

from __future__ import annotations

import weakref

import pytest

from pytest_tvmrpc.runtime.handles import FIRST_CHOSEN, HandleError, HandleTable


class Thing:
    """Something that can be watched, and that is equal to all its kind."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    __hash__ = None  # type: ignore[assignment]


def test_numbers_count_from_one_and_are_never_reused():
    """A stale number can therefore never name another object; 0 is no number."""
    table = HandleTable()
    first = table.put(Thing())
    table.free(first)
    assert (first, table.put(Thing())) == (1, 2)


def test_objects_are_told_apart_by_identity():
    """Equal objects, and objects without a hash, have a number each."""
    table = HandleTable()
    one, other = Thing(), Thing()
    numbers = table.put(one), table.put(other)
    assert len(set(numbers)) == 2
    assert table.get(numbers[0]) is one
    assert table.get(numbers[1]) is other
    assert len(table) == 2


def test_references_are_counted():
    """The same object keeps its number, and is dropped with the last reference."""
    table = HandleTable()
    thing = Thing()
    watch = weakref.ref(thing)
    numbers = {table.put(thing) for _ in range(3)}
    assert numbers == {1}
    del thing
    assert table.free(1)
    assert table.free(1)
    assert table.get(1) is watch()
    assert table.free(1)
    assert watch() is None
    assert not table.free(1)


def test_freed_object_gets_a_new_number():
    """Coming back, an object is as good as new."""
    table = HandleTable()
    thing = Thing()
    assert table.put(thing) == 1
    assert table.free(1)
    assert table.put(thing) == 2
    assert table.free(2)
    assert not len(table)


@pytest.mark.parametrize("handle", [0, 7, -1, 2**64 - 1])
def test_unknown_number_is_an_error_to_get_and_none_to_free(handle):
    """TVM's clients free what was never given out; that is answered, not obeyed."""
    table = HandleTable()
    table.put(Thing())
    with pytest.raises(HandleError, match="was never given out in this session"):
        table.get(handle)
    assert not table.free(handle)


def test_freed_number_says_so():
    """The message tells a use after free from a number out of nowhere."""
    table = HandleTable()
    table.free(table.put(Thing()))
    with pytest.raises(LookupError, match="handle 0x1 was freed"):
        table.get(1)


def test_none_can_be_kept():
    """No object is special."""
    table = HandleTable()
    assert table.get(table.put(None)) is None
    assert table.get(table.put(table)) is table


def test_clear_drops_everything():
    """And what an object does when it is dropped may use the table."""
    table = HandleTable()
    dropped = []

    class Last:
        def __del__(self) -> None:
            dropped.append(table.free(1))

    table.put(Last())
    table.put(Thing())
    table.clear()
    assert dropped == [False]
    assert not len(table)
    assert table.put(Thing()) == 3


def test_chosen_numbers() -> None:
    """A user may choose a number beyond all that are given out, once."""
    table = HandleTable()
    first, second = object(), object()
    table.put_as(FIRST_CHOSEN + 5, first)
    assert table.get(FIRST_CHOSEN + 5) is first
    for taken in (FIRST_CHOSEN + 5, 1, FIRST_CHOSEN - 1, 0):
        with pytest.raises(HandleError, match="cannot be chosen"):
            table.put_as(taken, second)
    assert table.free(FIRST_CHOSEN + 5)
    with pytest.raises(HandleError, match="was freed"):
        table.get(FIRST_CHOSEN + 5)
    with pytest.raises(HandleError, match="never given out"):
        table.get(FIRST_CHOSEN + 6)
