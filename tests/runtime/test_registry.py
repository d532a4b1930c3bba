from __future__ import annotations

import functools
from typing import Any, Iterator

import pytest

from pytest_tvmrpc.runtime import registry
from pytest_tvmrpc.runtime.function import PackedFunc


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    before = set(registry.list_global_func_names())
    yield
    for name in set(registry.list_global_func_names()) - before:
        registry.remove_global_func(name)


def test_register_and_get() -> None:
    """A function is found under its name, and returned as it was from registering."""

    def double(value: int) -> int:
        return 2 * value

    assert registry.register_func("test.double", double) is double
    found = registry.get_global_func("test.double")
    assert isinstance(found, PackedFunc)
    assert found(21) == 42
    assert found.is_global
    assert found.name == "test.double"
    assert "test.double" in registry.list_global_func_names()


def test_decorators() -> None:
    """With a name or without, the function stays what it was."""

    @registry.register_func("test.named")
    def one() -> int:
        return 1

    @registry.register_global_func
    def test_two() -> int:
        return 2

    assert (one(), test_two()) == (1, 2)
    for name, value in (("test.named", 1), ("test_two", 2)):
        function = registry.get_global_func(name)
        assert function is not None
        assert function() == value


def test_names_that_are_taken() -> None:
    """A name is given once, unless the new function shall replace the old one."""
    registry.register_func("test.taken", lambda: 1)
    with pytest.raises(ValueError, match=r"test\.taken is already registered; pass override=True"):
        registry.register_func("test.taken", lambda: 2)
    registry.register_func("test.taken", lambda: 3, override=True)
    function = registry.get_global_func("test.taken")
    assert function is not None
    assert function() == 3


def test_missing_names() -> None:
    """TVM's words for a function that is not there; None when that is allowed, or to remove."""
    with pytest.raises(ValueError, match=r"^Cannot find global function test\.none"):
        registry.get_global_func("test.none")
    assert registry.get_global_func("test.none", allow_missing=True) is None
    registry.remove_global_func("test.none")


def test_remove() -> None:
    """A removed function can be called by those who have it, and its name is free."""
    registry.register_func("test.gone", lambda: 1)
    function = registry.get_global_func("test.gone")
    assert function is not None
    registry.remove_global_func("test.gone")
    assert not function.is_global
    assert function() == 1
    registry.register_func("test.gone", function)
    assert registry.get_global_func("test.gone") is function


@pytest.mark.parametrize("name", [5, None, b"test.x", ["test.x"]])
def test_names_are_texts(name: Any) -> None:
    """Anything else is refused, whatever is asked of the registry."""
    for ask in (registry.get_global_func, registry.remove_global_func, registry.register_func):
        with pytest.raises(TypeError, match="is no name of a function; expected a str"):
            ask(name)
    with pytest.raises(TypeError, match="is no name of a function"):
        registry.get_global_func(name, allow_missing=True)


def test_a_function_without_a_name() -> None:
    """It is given one, or refused; it is not registered under an empty one."""
    nameless = functools.partial(int, "7")
    with pytest.raises(ValueError, match="has no name of its own; give it one as func_name"):
        registry.register_func(nameless)
    registry.register_func("test.seven", nameless)
    found = registry.get_global_func("test.seven")
    assert found is not None
    assert found() == 7


def test_what_cannot_be_called() -> None:
    """It cannot be registered."""
    with pytest.raises(TypeError, match="cannot be called"):
        registry.register_func("test.number", 5)  # type: ignore[arg-type]
