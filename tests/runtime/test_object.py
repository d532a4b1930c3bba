from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.runtime import Array, Object, ObjectConvertible, ShapeTuple, String


def test_what_is_an_object() -> None:
    """Tensors, functions, modules and containers are, and are compared by identity."""
    tensor = runtime.empty((2,))
    function = runtime.PackedFunc(len)
    for one in (Object(), tensor, function, runtime.Module(), Array([1])):
        assert isinstance(one, Object)
        assert one.same_as(one)
        assert not one.same_as(Object())
        assert one.is_(one)
        assert not one.is_(Object())
        assert one.id_ == one.id_
        assert one == one
        assert one != Object()
    assert Array([1]) == Array([1])
    assert not Array([1]).same_as(Array([1]))
    inner = Array([1])
    assert Array([inner])[0].id_ == inner.id_
    assert runtime.empty((2,)) != tensor


def test_what_stands_for_an_object() -> None:
    """A class says what stands for it; the older name is the same class."""

    class Pair(ObjectConvertible):
        def asobject(self) -> Any:
            return Array([1, 2])

    assert runtime.convert(Pair()) == [1, 2]
    assert Array([Pair()])[0] == [1, 2]
    assert runtime.ObjectGeneric is ObjectConvertible
    with pytest.raises(NotImplementedError, match="ObjectConvertible has no method asobject"):
        ObjectConvertible().asobject()


def test_a_string_is_a_str() -> None:
    text = String("größer")
    assert (text, type(text), text.upper(), hash(text)) == (
        *("größer", String, "GRÖSSER", hash("größer")),
    )
    assert isinstance(text, str)
    assert text.same_as(text)
    assert pickle.loads(pickle.dumps(text)) == text
    wrong: Any = 5
    with pytest.raises(TypeError, match="a String is made of a str, not of a int"):
        String(wrong)


def test_a_shape_is_a_tuple() -> None:
    """Of integers, whatever they were given as; it may stand where a shape is wanted."""
    shape = ShapeTuple([2, np.int32(3), -1])
    assert (shape, shape[0], shape[-1], shape[1:], len(shape)) == ((2, 3, -1), 2, -1, (3, -1), 3)
    assert type(shape[1]) is int
    assert hash(shape) == hash((2, 3, -1))
    assert shape.same_as(shape)
    assert pickle.loads(pickle.dumps(shape)) == copy.deepcopy(shape) == shape
    assert runtime.empty(ShapeTuple((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("23", TypeError, "a sequence of integers, not '23'"),
        (b"23", TypeError, "a sequence of integers"),
        ((2.5,), TypeError, "2.5 is none"),
        ((True,), TypeError, "True is none"),
        (("2",), TypeError, "'2' is none"),
        (5, TypeError, "not iterable"),
        ((2**63,), ValueError, "9223372036854775808 in a shape is no 64-bit integer"),
        ((-(2**63) - 1,), ValueError, "no 64-bit integer"),
    ],
)
def test_what_is_no_shape(value: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ShapeTuple(value)


def test_references_cannot_be_copied_by_content() -> None:
    """A shallow copy is the reference itself; an object of C's memory cannot travel."""
    array = Array([1])
    assert copy.copy(array) is array
    with pytest.raises(TypeError, match=r"\(ffi.Array\) cannot be pickled"):
        pickle.dumps(array)
