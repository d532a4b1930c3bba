"""Equality part by part, and the place where it ends."""

from __future__ import annotations

import copy
import dataclasses
import math
import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import OpaquePointer
from pytest_tvmrpc.runtime import assert_structural_equal, first_mismatch, structural_equal


class Point(NamedTuple):
    """A tuple with a class of its own."""

    x: Any
    y: Any


@dataclasses.dataclass
class Layer:
    """Something that consists of attributes."""

    name: str
    weights: Any


class Told:
    """Something that says which attributes it consists of, as objects of compiled code do."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def field_names(self) -> List[str]:
        return sorted(self.__dict__)


class Elements(Sequence[Any]):
    """A sequence of another class."""

    def __init__(self, *elements: Any) -> None:
        self.elements = elements

    def __getitem__(self, index: Any) -> Any:
        return self.elements[index]

    def __len__(self) -> int:
        return len(self.elements)


def floats(*values: float) -> runtime.Tensor:
    return runtime.tensor(np.array(values, "float32"))


NAN = math.nan

EQUAL = [
    (None, None),
    ([1, "a", b"b", None, 2.5], [1, "a", b"b", None, 2.5]),
    ((1, 2), [1, 2]),
    (Elements(1, [2]), [1, (2,)]),
    ({"a": 1, 2: "b"}, {2: "b", "a": 1}),
    ({(1, 2): 3}, {(1, 2): 3}),
    (NAN, -NAN),
    ([NAN], [float("nan")]),
    (b"ab", bytearray(b"ab")),
    (np.int64(3), 3),
    (np.float64(2.5), 2.5),
    (np.arange(3), np.arange(3)),
    (floats(1, NAN), floats(1, NAN)),
    (runtime.empty((0, 3)), runtime.empty((0, 3))),
    (runtime.cpu(0), runtime.cpu(0)),
    (DataType("int8"), DataType("int8")),
    (Point(1, [2]), Point(1, [2])),
    (Layer("a", [floats(1)]), Layer("a", [floats(1)])),
    (Told(a=1, b=[2]), Told(a=1, b=[2])),
    (runtime.const(3, "int8"), runtime.const(3, "int8")),
    (runtime.PackedFunc(len), runtime.PackedFunc(len)),
    (len, len),
]
DIFFERENT = [
    ([1, 2, 3], [1, 2, 4], "<root>[2]: 3 and 4"),
    ([1, 2], [1, 2, 3], "<root>[<missing element #2>] and <root>[2]: 2 elements and 3"),
    ([1, 2, 3], [1, 2], "<root>[2] and <root>[<missing element #2>]: 3 elements and 2"),
    ({"a": 1, "b": 2}, {"a": 1, "b": 3}, '<root>["b"]: 2 and 3'),
    (
        *({"a": 1, "b": 1}, {"a": 1}),
        "<root>[\"b\"] and <root>[<missing entry>]: the key 'b' is missing in the second",
    ),
    (
        *({"a": 1}, {"a": 1, "b": 1}),
        "<root>[<missing entry>] and <root>[\"b\"]: the key 'b' is missing in the first",
    ),
    ({"a": [1, {"x": 2}]}, {"a": [1, {"x": 3}]}, '<root>["a"][1]["x"]: 2 and 3'),
    ("a", "b", "<root>: 'a' and 'b'"),
    ([1], {"a": 1}, "<root>: array and mapping"),
    (1, 1.0, "<root>: 1 (int) and 1.0 (float)"),
    (1, True, "<root>: 1 (int) and True (bool)"),
    ({1: 2}, {True: 2}, "the key 1 is missing in the second"),
    (0.0, -0.0, "<root>: 0.0 and -0.0"),
    (None, 0, "<root>: None (NoneType) and 0 (int)"),
    (b"a", "a", "<root>: b'a' (bytes) and 'a' (str)"),
    (OpaquePointer(5), 5, "OpaquePointer(0x5) (pointer) and 5 (int)"),
    (runtime.cpu(0), runtime.cpu(1), "<root>: cpu(0) and cpu(1)"),
    (DataType("int8"), DataType("int16"), "<root>: DataType('int8') and DataType('int16')"),
    (Point(1, 2), Point(1, 3), "<root>.y: 2 and 3"),
    (Layer("a", [1]), Layer("a", [2]), "<root>.weights[0]: 1 and 2"),
    (Told(a=1, b=[2]), Told(a=1, b=[3]), "<root>.b[0]: 2 and 3"),
    (floats(1, 2), floats(1, 3), "<root>: element [1] is 2.0 and 3.0"),
    ([floats(0)], [floats(-0.0)], "<root>[0]: element [0] is 0.0 and -0.0"),
    (floats(1), floats(1, 2), "<root>: a tensor of shape (1,) and one of (2,)"),
    (
        *(runtime.tensor(np.zeros((2, 2), "int8")), runtime.tensor(np.eye(2, dtype="int8"))),
        "<root>: element [0, 0] is 0 and 1",
    ),
    (
        *(runtime.tensor(np.int8(1)), runtime.tensor(np.int16(1))),
        "<root>: a tensor of int8 and one of int16",
    ),
    (np.arange(3), np.arange(1, 4), "<root>: element [0] is 0 and 1"),
    (runtime.const(3, "int8"), runtime.const(3, "int16"), "T.int8(3) and T.int16(3)"),
    (runtime.const(3), 3, "3 (int)"),
    (runtime.PackedFunc(len), runtime.PackedFunc(max), "PackedFunc('len')"),
    (len, max, "<built-in function len> and <built-in function max>"),
]


@pytest.mark.parametrize(("lhs", "rhs"), EQUAL)
def test_what_is_equal(lhs: Any, rhs: Any) -> None:
    """In both directions; and there is no mismatch."""
    assert structural_equal(lhs, rhs)
    assert structural_equal(rhs, lhs)
    assert first_mismatch(lhs, rhs) is None
    assert_structural_equal([lhs], [rhs])


@pytest.mark.parametrize(("lhs", "rhs", "text"), DIFFERENT)
def test_what_differs(lhs: Any, rhs: Any, text: str) -> None:
    """The message has the paths and both values, and the error has the message."""
    assert not structural_equal(lhs, rhs)
    assert not structural_equal(rhs, lhs)
    found = first_mismatch(lhs, rhs)
    assert isinstance(found, runtime.ObjectPathPair)
    assert text in str(found)
    assert runtime.get_first_structural_mismatch(lhs, rhs) == found
    with pytest.raises(ValueError, match=r"^the two values differ at <root>") as caught:
        assert_structural_equal(lhs, rhs)
    assert str(caught.value).endswith(str(found))


def test_content_of_tensors_may_be_left_out() -> None:
    """Then type, shape and device count alone."""
    assert structural_equal([floats(1)], [floats(2)], skip_tensor_content=True)
    assert not structural_equal([floats(1)], [floats(1, 2)], skip_tensor_content=True)


def test_tensors_of_different_bits_that_are_no_numbers() -> None:
    """NaN is NaN, whatever its bits are; a real difference behind it is found."""
    quiet, other = (
        runtime.numpyasarray(np.frombuffer(struct.pack("<2I", bits, 0), "float32").copy())
        for bits in (0x7FC00000, 0x7FC00001)
    )
    assert structural_equal(quiet, other)
    other.copyfrom(np.array([NAN, 1], "float32"))
    assert str(first_mismatch(quiet, other)) == "<root>: element [1] is 0.0 and 1.0"


def test_what_a_session_has() -> None:
    """Remote tensors by their elements and their session; functions by what the server calls."""
    with rpc.LocalSession() as one, rpc.LocalSession() as two:
        content = np.arange(3, dtype="float32")
        first, second, third = (
            runtime.tensor(content, session.cpu(0)) for session in (one, one, two)
        )
        assert structural_equal([first], [second])
        assert "a tensor on" in str(first_mismatch(first, third))
        assert "a tensor on" in str(first_mismatch(first, runtime.tensor(content)))
        echo = one.get_function("testing.echo")
        assert structural_equal([echo], [echo])
        assert not structural_equal(echo, two.get_function("testing.echo"))


VALUES = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=2), st.binary(max_size=2)),
        st.floats(width=16),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=2), st.integers(0, 2)), inner, max_size=3),
    ),
    max_leaves=8,
)


def places(value: Any) -> Iterator[Any]:
    """Each container within a value, and its keys."""
    if isinstance(value, (list, dict)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@given(VALUES)
def test_a_copy_is_equal(value: Any) -> None:
    """Whatever a value consists of."""
    assert structural_equal(value, copy.deepcopy(value))
    assert first_mismatch([value], (copy.deepcopy(value),)) is None


@given(VALUES, VALUES)
def test_both_directions_agree(lhs: Any, rhs: Any) -> None:
    """The mismatch of the exchanged values has the exchanged paths, for want of extra entries."""
    there, back = first_mismatch(lhs, rhs), first_mismatch(rhs, lhs)
    assert (there is None) == (back is None) == structural_equal(lhs, rhs)


@given(VALUES.filter(lambda value: any(places(value))), st.data())
def test_a_change_is_found_where_it_is(value: Any, data: st.DataObject) -> None:
    """One part is replaced by what occurs nowhere else: the path leads there, on both sides."""
    changed = copy.deepcopy(value)
    container, key = data.draw(st.sampled_from(list(places(changed))))
    container[key] = marker = "a text that nothing else is"
    found = first_mismatch(value, changed)
    assert found is not None
    here = changed
    for _, name in found.rhs_path._steps()[1:]:
        here = here[name]
    assert here is marker
    assert found.lhs_path == found.rhs_path


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, iter(()), Ellipsis, np.array([object()], dtype=object)]
)
def test_what_cannot_be_told(value: Any) -> None:
    """It is an error that names the place, not an answer; the same object is equal to itself."""
    assert structural_equal([value], [value])
    other = copy.copy(value) if value is not Ellipsis else type(value)
    if value is not Ellipsis:
        with pytest.raises((TypeError, ValueError)):
            structural_equal({"a": [value]}, {"a": [other]})
    with pytest.raises(TypeError, match=r'<root>\["a"\]\[0\] is .* cannot be compared'):
        structural_equal({"a": [object()]}, {"a": [object()]})


def test_what_contains_itself() -> None:
    """It has no end, so there is no answer."""
    lists: List[List[Any]] = [[], []]
    dicts: List[Dict[str, Any]] = [{}, {}]
    for one in lists:
        one.append([one])
    for entry in dicts:
        entry["a"] = {"b": entry}
    with pytest.raises(ValueError, match=r"<root>\[0\]\[0\] contains itself"):
        structural_equal(*lists)
    with pytest.raises(ValueError, match=r'<root>\["a"\]\["b"\] contains itself'):
        structural_equal(*dicts)


def test_what_is_deep_and_what_is_shared() -> None:
    """Depth is not limited by Python's stack, and parts that occur often are compared once."""
    deep = []
    for last in (1, 2):
        value: Any = [last]
        for _ in range(20_000):
            value = [value]
        deep.append(value)
    found = first_mismatch(*deep)
    assert found is not None
    assert found.lhs_path.length == 20_002
    assert found.reason == "1 and 2"
    shared = []
    for _ in range(2):
        value = [1]
        for _ in range(60):
            value = [value, value]
        shared.append(value)
    assert structural_equal(*shared)
    for value in deep:  # Python takes such lists apart by its own stack, a level at a time
        while value:
            value = value.pop() if isinstance(value, list) else None


def test_elements_that_numpy_lacks() -> None:
    """Tensors of handles are compared by their bytes, and the first that differs is named."""
    one, other = np.arange(16, dtype="u1"), np.arange(16, dtype="u1")
    other[9] = 77
    lhs, same, rhs = (
        runtime.tensor(array)._create_view((2,), "handle") for array in (one, one, other)
    )
    assert structural_equal({"x": lhs}, {"x": same})
    found = first_mismatch({"x": lhs}, {"x": rhs})
    assert str(found) == '<root>["x"]: byte 9 of the contents is 9 and 77'
