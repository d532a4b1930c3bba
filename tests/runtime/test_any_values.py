"""Values of any kind, however nested, through compiled code and back."""

from __future__ import annotations

import gc
import math
import struct
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import Array, DataType, Map, ShapeTuple, abi
from pytest_tvmrpc.runtime.calling import MAX_DEPTH
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

HERE = Path(__file__).parent
INT64 = 1 << 63


@pytest.fixture(name="echo", scope="module")
def _echo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    path = compile_library(HERE / "containers.c", tmp_path_factory.mktemp("c") / "containers.so")
    return LibraryModule(path)["echo"]


numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-INT64, INT64 - 1),
    st.floats(),
)
others = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(["float32", "int8x4", "bool", "handle", "bfloat16"]).map(DataType),
    st.builds(runtime.Device, st.integers(1, 18), st.integers(0, 2**31 - 1)),
    st.lists(st.integers(-INT64, INT64 - 1), max_size=6).map(ShapeTuple),
    st.just(runtime.empty((2,))),
)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
keys = st.one_of(st.integers(-INT64, INT64 - 1), texts, st.binary(max_size=12), st.none())
values = st.recursive(
    st.one_of(numbers, others, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=8),
    ),
    max_leaves=20,
)
in_c = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def is_same(sent: Any, seen: Any) -> bool:
    """Whether a value came back as it went, to the last bit and with its type."""
    if isinstance(sent, float):
        return type(seen) is float and struct.pack("<d", sent) == struct.pack("<d", seen)
    if isinstance(sent, (list, tuple)) and not isinstance(sent, (ShapeTuple, runtime.Device)):
        return (
            type(seen) is Array and len(seen) == len(sent) and all(map(is_same, sent, list(seen)))
        )
    if isinstance(sent, dict):
        return (
            type(seen) is Map
            and list(seen) == list(sent)
            and all(is_same(value, seen[key]) for key, value in sent.items())
        )
    return type(seen) is type(sent) and bool(seen == sent)


@in_c
@given(value=values)
def test_what_goes_in_comes_out(echo: Callable[[Any], Any], value: Any) -> None:
    """As an argument where C can take it, and within an array in any case."""
    assert is_same([value], echo([value]))
    if isinstance(value, str) and "\0" in value:
        return  # refused as an argument: C would end there
    if isinstance(value, runtime.Tensor):
        return  # lent to C, which cannot return it
    assert is_same(value, echo(value))


@in_c
@given(value=values)
def test_nothing_stays(echo: Callable[[Any], Any], value: Any) -> None:
    """When the values are gone, so are their objects."""
    before = len(abi._cells)
    echo([value, [value], {"a": value}])
    Map({"a": [value]})
    assert len(abi._cells) <= before or gc.collect() or len(abi._cells) <= before


refused = st.one_of(
    st.integers(min_value=INT64),
    st.integers(max_value=-INT64 - 1),
    st.text(st.characters(categories=("Cs",)), min_size=1, max_size=3),
    st.complex_numbers(),
    st.frozensets(st.integers(), max_size=2),
    st.builds(object),
)


@in_c
@given(before=st.lists(values, max_size=3), value=refused, depth=st.integers(0, 5))
def test_what_cannot_go_is_refused(
    echo: Callable[[Any], Any], before: Any, value: Any, depth: int
) -> None:
    """At the line that gives it, however deep it is; nothing that was made before it stays."""
    cells = len(abi._cells)
    for _ in range(depth):
        value = [*before, value]
    with pytest.raises((TypeError, ValueError)):
        echo(value)
    with pytest.raises((TypeError, ValueError)):
        Map({"key": [*before, value]})
    assert len(abi._cells) <= cells or gc.collect() or len(abi._cells) <= cells


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 5000])
def test_depth_has_an_end(echo: Callable[[Any], Any], depth: int) -> None:
    """So many levels pass; one more is an error that says so, and no overflow of the stack."""
    value: Any = []
    for number in range(depth):
        value = [value] if number % 2 else {"k": value}
    if depth < MAX_DEPTH:
        assert is_same(value, echo(value))
    else:
        with pytest.raises(ValueError, match=f"nested more than {MAX_DEPTH} deep"):
            echo(value)


def test_special_floats_keep_their_bits(echo: Callable[[Any], Any]) -> None:
    for value in (math.nan, -math.nan, math.inf, -0.0, 5e-324):
        assert is_same(value, echo(value))
        assert is_same([value], echo([value]))
