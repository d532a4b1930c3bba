from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import Array, Map, ShapeTuple, get_global_func, list_global_func_names
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler


def call(name: str, *args: Any) -> Any:
    """What a global function returns."""
    function = get_global_func(name)
    assert function is not None
    return function(*args)


@pytest.mark.parametrize("era", ["ffi", "runtime"])
def test_arrays(era: str) -> None:
    """They are made and looked into under the names of both eras."""
    array = call(f"{era}.Array", 1, "x", [2])
    assert type(array) is Array
    assert call(f"{era}.ArraySize", array) == 3
    assert [call(f"{era}.ArrayGetItem", array, index) for index in range(3)] == [1, "x", [2]]
    for index in (3, -1):
        with pytest.raises(IndexError, match=f"Index {index} out of bounds 3"):
            call(f"{era}.ArrayGetItem", array, index)
    for index in ("0", True, 1.0):
        with pytest.raises(TypeError, match="takes an int as the index"):
            call(f"{era}.ArrayGetItem", array, index)


@pytest.mark.parametrize("era", ["ffi", "runtime"])
def test_maps(era: str) -> None:
    """Keys that Python takes for equal are told apart; of one key the last value counts."""
    made = call(f"{era}.Map", 1, "int", True, "bool", 1.0, "float", "a", None, 1, "again")
    assert type(made) is Map
    assert call(f"{era}.MapSize", made) == 4
    for key, value in ((1, "again"), (True, "bool"), (1.0, "float"), ("a", None)):
        assert call(f"{era}.MapCount", made, key) == 1
        assert call(f"{era}.MapGetItem", made, key) == value
    assert call(f"{era}.MapCount", made, "z") == 0
    with pytest.raises(KeyError, match="key is not in Map"):
        call(f"{era}.MapGetItem", made, "z")
    with pytest.raises(ValueError, match="keys and values, not of 3 values"):
        call(f"{era}.Map", 1, 2, 3)


def test_going_through_a_map() -> None:
    """Since TVM 0.21 step by step, before as one array."""
    made = call("ffi.Map", *(part for number in range(20) for part in (number, f"v{number}")))
    step = call("ffi.MapForwardIterFunctor", made)
    seen = [(step(0), step(1))]
    while step(2):
        seen.append((step(0), step(1)))
    assert seen == [(number, f"v{number}") for number in range(20)]
    with pytest.raises(IndexError, match="no more pairs"):
        step(0)
    assert call("runtime.MapItems", Map({"a": 1, "b": 2})) == ["a", 1, "b", 2]


@pytest.mark.parametrize(
    ("make", "size", "element"),
    [
        ("ffi.Shape", "rpc.testing.GetShapeSize", "rpc.testing.GetShapeElem"),
        ("runtime.ShapeTuple", "runtime.GetShapeTupleSize", "runtime.GetShapeTupleElem"),
    ],
)
def test_shapes(make: str, size: str, element: str) -> None:
    shape = call(make, 2, 3)
    assert type(shape) is ShapeTuple
    assert (call(size, shape), call(element, shape, 1)) == (2, 3)
    with pytest.raises(IndexError, match="Index 2 out of bounds 2"):
        call(element, shape, 2)
    with pytest.raises(TypeError, match="a sequence of integers"):
        call(make, 2.5)


def test_texts() -> None:
    text = call("runtime.String", "x")
    assert call("ffi.String", "x") == call("runtime.GetFFIString", text) == "x"
    assert call("ffi.Bytes", bytearray(b"x")) == b"x"
    with pytest.raises(TypeError, match=r"ffi\.String takes an object, not a int"):
        call("ffi.String", 1)


def test_what_is_in_a_container(tmp_path: Path) -> None:
    """Lists and dicts, which compiled code makes, are asked as arrays and maps are."""
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    source = Path(__file__).parent / "containers.c"
    library = LibraryModule(compile_library(source, tmp_path / "containers.so"))
    listed = library["make_sequence"](75, 1, 2)
    assert call("ffi.ArrayContains", Array([1, [2]]), [2]) is True
    assert call("ffi.ListContains", listed, 2) is True
    assert call("ffi.ListContains", listed, 3) is False
    assert call("ffi.ListGetItem", listed, 1) == 2
    made = library["make_map"](76, 5, 6)
    assert (call("ffi.DictSize", made), call("ffi.DictCount", made, 5)) == (1, 1)
    assert call("ffi.DictGetItem", made, 5) == 6
    step = call("ffi.DictForwardIterFunctor", made)
    assert (step(0), step(1), step(2)) == (5, 6, False)


@pytest.mark.parametrize(
    "name",
    [
        *("ffi.ArraySize", "ffi.ListSize", "ffi.MapSize", "ffi.DictSize"),
        *("ffi.MapForwardIterFunctor", "runtime.MapItems", "rpc.testing.GetShapeSize"),
    ],
)
def test_what_is_no_container(name: str) -> None:
    """Another kind of argument is refused by the function's name."""
    for wrong in (None, 5, [1], {"a": 1}, "text"):
        with pytest.raises(TypeError, match=f"{name} takes an object, not a"):
            call(name, wrong)
    assert name in list_global_func_names()
