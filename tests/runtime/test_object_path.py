"""Paths to parts of a value."""

from __future__ import annotations

import pickle
from typing import Any, Callable, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc.runtime import ObjectPath, ObjectPathPair

ROOT = ObjectPath.root()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (ROOT, "<root>"),
        (ObjectPath.root("mod"), "mod"),
        (ROOT.attr("body"), "<root>.body"),
        (ROOT.attr(None), "<root>.<unknown attribute>"),
        (ROOT.array_index(3), "<root>[3]"),
        (ROOT.missing_array_element(4), "<root>[<missing element #4>]"),
        (ROOT.map_value("k"), '<root>["k"]'),
        (ROOT.map_value('a"b'), '<root>["a\\"b"]'),
        (ROOT.map_value(5), "<root>[5]"),
        (ROOT.missing_map_entry(), "<root>[<missing entry>]"),
        (ObjectPath.root("mod").attr("a").array_index(0).map_value("x"), 'mod.a[0]["x"]'),
    ],
)
def test_text_is_that_of_tvm(path: ObjectPath, text: str) -> None:
    """Each step has TVM's form (0.19 gave these texts, but for the key that is a number)."""
    assert str(path) == repr(path) == text
    assert pickle.loads(pickle.dumps(path)) == path


def test_parents_and_prefixes() -> None:
    """A path knows the paths on its way, by their number of steps."""
    path = ROOT.attr("a").array_index(0).map_value("x")
    assert len(path) == path.length == 4
    assert path.parent == ROOT.attr("a").array_index(0)
    assert ROOT.parent is None
    assert [str(path.get_prefix(n)) for n in range(1, 5)] == [
        *("<root>", "<root>.a", "<root>.a[0]", '<root>.a[0]["x"]')
    ]
    assert ROOT.is_prefix_of(path)
    assert path.is_prefix_of(path)
    assert not path.is_prefix_of(ROOT)
    assert not ObjectPath.root("mod").is_prefix_of(path)
    for length in (0, 5, -1):
        with pytest.raises(IndexError, match="expected 1 to 4"):
            path.get_prefix(length)


@pytest.mark.parametrize("key", [[], {}, ([1],)])
def test_what_is_no_key(key: Any) -> None:
    """A path is a key itself, so all of it has a hash."""
    with pytest.raises(TypeError, match=r"a \w+ cannot be the key of a mapping: .*expected e\.g\."):
        ROOT.map_value(key)


STEPS: st.SearchStrategy[Callable[[ObjectPath], ObjectPath]] = st.one_of(
    st.text(max_size=3).map(lambda key: lambda path: path.attr(key)),
    st.just(lambda path: path.attr(None)),
    st.integers(0, 3).map(lambda index: lambda path: path.array_index(index)),
    st.integers(0, 3).map(lambda index: lambda path: path.missing_array_element(index)),
    st.one_of(st.text(max_size=3), st.integers(0, 3), st.booleans(), st.binary(max_size=2)).map(
        lambda key: lambda path: path.map_value(key)
    ),
    st.just(lambda path: path.missing_map_entry()),
)


def built(steps: List[Callable[[ObjectPath], ObjectPath]]) -> ObjectPath:
    """The path of these steps."""
    path = ObjectPath.root()
    for step in steps:
        path = step(path)
    return path


@given(st.lists(STEPS, max_size=6), st.lists(STEPS, max_size=6))
def test_paths_are_values(first: Any, second: Any) -> None:
    """Equal by their steps, with equal hashes; every prefix is one, and nothing else is."""
    one, same, other = built(first), built(first), built(second)
    assert one == same
    assert hash(one) == hash(same)
    assert (one == other) == (one._steps() == other._steps() and repr(one) == repr(other))
    for length in range(1, len(one) + 1):
        prefix = one.get_prefix(length)
        assert prefix.is_prefix_of(one)
        assert len(prefix) == length
        assert prefix == built(first[: length - 1])
    assert one.is_prefix_of(other) == (len(one) <= len(other) and one == other.get_prefix(len(one)))
    assert pickle.loads(pickle.dumps(one)) == one


def test_what_is_equal_to_python_but_another_key() -> None:
    """1, True and 1.0 are three keys; another kind of thing is never equal."""
    assert ROOT.map_value(1) != ROOT.map_value(True)
    assert ROOT.map_value(1) != ROOT.map_value(1.0)
    assert ROOT.map_value(1) != ROOT.array_index(1)
    assert ROOT != "<root>"
    assert len({ROOT, ObjectPath.root(), ObjectPath.root("other")}) == 2


def test_long_paths() -> None:
    """Their length is not limited by Python's own stack."""
    path = ROOT
    for _ in range(20_000):
        path = path.array_index(0)
    other = ROOT
    for _ in range(20_000):
        other = other.array_index(0)
    assert path == other
    assert len(str(path)) == len("<root>") + 3 * 20_000
    assert pickle.loads(pickle.dumps(path)) == path


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (lambda: ObjectPath(), ValueError),
        (lambda: ObjectPath.root(5), TypeError),  # type: ignore[arg-type]
        (lambda: ROOT.attr(5), TypeError),  # type: ignore[arg-type]
        (lambda: ROOT.array_index(-1), ValueError),
        (lambda: ROOT.array_index("0"), TypeError),  # type: ignore[arg-type]
        (lambda: ROOT.array_index(True), TypeError),
        (lambda: ROOT.missing_array_element(1.0), TypeError),  # type: ignore[arg-type]
        (lambda: ROOT.map_value([]), TypeError),
        (lambda: ROOT.get_prefix("1"), TypeError),  # type: ignore[arg-type]
        (lambda: ROOT.is_prefix_of("<root>"), TypeError),  # type: ignore[arg-type]
        (lambda: ObjectPathPair(ROOT, "<root>"), TypeError),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_path(step: Callable[[], Any], error: type) -> None:
    """It is refused where it is said."""
    with pytest.raises(error):
        step()


def test_pairs() -> None:
    """Two paths, and in words what differs between them."""
    pair = ObjectPathPair(ROOT.array_index(1), ROOT.array_index(1), "1 and 2")
    assert (pair.lhs_path, pair.rhs_path, pair.reason) == (*pair, "1 and 2")
    assert str(pair) == "<root>[1]: 1 and 2"
    assert repr(pair) == "ObjectPathPair(<root>[1]: 1 and 2)"
    other = ObjectPathPair(ROOT.array_index(1), ROOT.missing_array_element(1))
    assert str(other) == "<root>[1] and <root>[<missing element #1>]"
    assert pair != other
    assert len({pair, other, ObjectPathPair(*pair)}) == 2
