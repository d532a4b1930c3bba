from __future__ import annotations

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.runtime.function import PackedFunc


def test_calls() -> None:
    """A call is the call of the function, errors included."""
    function = PackedFunc(divmod)
    assert function(7, 3) == (2, 1)
    assert function.name == "divmod"
    assert not function.is_global
    assert function.handle == 0
    with pytest.raises(ZeroDivisionError):
        function(1, 0)


def test_names() -> None:
    """The name may be given; without one of its own a callable has none."""
    assert PackedFunc(len, "length").name == "length"
    assert repr(PackedFunc(len)) == "PackedFunc('len')"
    assert PackedFunc(type("Callable", (), {"__call__": lambda self: 1})()).name == ""


def test_prepare() -> None:
    """A prepared call can be made many times."""
    seen = []
    run = PackedFunc(lambda *args: seen.append(args)).prepare(1, "two")
    run()
    run()
    assert seen == [(1, "two"), (1, "two")]


def test_what_cannot_be_called() -> None:
    """It is refused when the function is made, not when it is called."""
    with pytest.raises(TypeError, match="5 cannot be called"):
        PackedFunc(5)  # type: ignore[arg-type]


def test_the_handle_of_a_remote_function() -> None:
    """It is the number under which the session's server knows the function."""
    with rpc.LocalSession() as session:
        one, other = (session.get_function(name) for name in ("rpc.test.addone", "testing.echo"))
        assert one.handle
        assert one.handle != other.handle
        assert isinstance(one, PackedFunc)
