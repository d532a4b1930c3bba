from __future__ import annotations

import ctypes
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
        *(None, True, 5, 2**70, 2.5, 1j, b"bytes", np.float32(2), np.int64(3), String("s")),
        *(runtime.ShapeTuple((1,)), runtime.cpu(0), runtime.DataType("int8"), ValueError("x")),
        *(Array([1]), Map({}), runtime.empty((1,)), PackedFunc(len), ctypes.c_void_p(5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stays_as_it_is(value: Any) -> None:
    assert convert(value) is value


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


@pytest.mark.parametrize("value", [object(), {1, 2}, range(3), int])
def test_what_cannot_be_converted(value: Any) -> None:
    """It is refused, by itself and within a container."""
    with pytest.raises(TypeError, match="cannot be converted"):
        convert(value)
    with pytest.raises(TypeError, match="cannot be given to compiled code"):
        convert([value])
