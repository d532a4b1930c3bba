from __future__ import annotations

import ctypes
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.runtime import Array, Map, PackedFunc, String, convert, convert_to_object


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("text", String),
        ([1, ["x"]], Array),
        ((1, None), Array),
        ({"a": [1]}, Map),
        (bytearray(b"ab"), bytes),
        (memoryview(b"ab"), bytes),
    ],
)
def test_values(value: Any, kind: type) -> None:
    """They become what TVM makes of them, and are equal to what they were made of."""
    for function in (convert, convert_to_object):
        made = function(value)
        assert type(made) is kind
        assert made == value


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 5, 2**63 - 1, 2.5, b"bytes", np.float32(2), np.int64(3), String("s")),
        *(np.bool_(True), np.longdouble(2), Fraction(1, 2), runtime.const(3, "int8")),
        *(runtime.ShapeTuple((1,)), runtime.cpu(0), runtime.DataType("int8"), ValueError("x")),
        *(Array([1]), Map({}), runtime.empty((1,)), PackedFunc(len), ctypes.c_void_p(5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stays_as_it_is(value: Any) -> None:
    """Objects, and numbers that an integer or a float of 64 bits can be."""
    assert convert(value) is value


def test_numbers_of_other_libraries() -> None:
    """What is a number without being one of Python's kinds of numbers stays, too."""
    number = pytest.importorskip("ml_dtypes").bfloat16(1.5)
    assert convert(number) is number
    assert convert([number]) == [1.5]


def test_functions_and_arrays() -> None:
    """A callable becomes a function; an array a tensor over its memory; a data type ours."""
    function = convert(lambda x: x + 1)
    assert type(function) is PackedFunc
    assert function(2) == 3
    array = np.arange(4, dtype="int32")
    tensor = convert(array)
    array[0] = 7
    assert isinstance(tensor, runtime.Tensor)
    assert tensor.numpy().tolist() == [7, 1, 2, 3]
    assert convert(np.dtype("int16")) == runtime.DataType("int16")


def test_elements_of_containers() -> None:
    """Each becomes what it would become by itself, at any depth: arrays are looked at in place."""
    array = np.arange(3, dtype="float32")
    made = convert([array, {"a": (array, np.bool_(True))}, np.dtype("int8"), {(1,): [5]}])
    array[1] = 7
    assert made[0].numpy().tolist() == [0, 7, 2]
    inner, flag = made[1]["a"]
    assert inner.numpy().tolist() == [0, 7, 2]
    assert flag is True
    assert made[2] == runtime.DataType("int8")
    assert [*made[3].items()] == [((1,), [5])]


def test_containers_that_are_too_deep() -> None:
    """One that holds itself is refused at once, however often it does."""
    deep: Any = []
    for _ in range(63):
        deep = [deep]
    assert len(convert(deep)) == 1
    circle: Any = {}
    circle["a"] = [circle, circle]
    for value in ([deep], circle):
        with pytest.raises(ValueError, match="more than 64 containers deep, or holds itself"):
            convert(value)


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 10**5000, Fraction(1, 3), np.uint64(2**63)],
    ids=itertools.count(),
)
def test_numbers_beyond_64_bits(value: Any) -> None:
    """They are refused, by themselves and within a container."""
    for given in (value, [value], {"a": (value,)}):
        with pytest.raises(ValueError, match=r"64-bit integer|float of 64 bits"):
            convert(given)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, range(3), int, 1j, np.complex64(1)], ids=itertools.count()
)
def test_what_cannot_be_converted(value: Any) -> None:
    """It is refused, by itself and within a container."""
    for given in (value, [value], {"a": (value,)}):
        with pytest.raises(TypeError, match="cannot be converted"):
            convert(given)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(1, "M8[s]")])
def test_arrays_of_no_numbers(array: Any) -> None:
    """The error names the type of their elements, and what would do."""
    for function in (convert, runtime.from_dlpack):
        with pytest.raises(TypeError, match=r"ndarray of dtype .*expected numbers") as caught:
            function(array)
        assert str(array.dtype) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.arange(6).reshape(2, 3).T, ValueError),
        (np.array(["a"]), TypeError),
        (object(), TypeError),
        (10**400, ValueError),
    ],
    ids=["gaps", "texts", "object", "number"],
)
def test_errors_name_the_element(value: Any, error: Any) -> None:
    """By the positions and keys that lead to it."""
    with pytest.raises(error, match=r"the value\[0\]\['a'\]\[2\]"):
        convert([{"a": (1, 2, value)}])
