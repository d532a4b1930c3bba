from __future__ import annotations

import pytest

from pytest_tvmrpc.runtime.function import PackedFunc


def test_calls() -> None:
    """A call is the call of the function, errors included."""
    function = PackedFunc(divmod)
    assert function(7, 3) == (2, 1)
    assert function.name == "divmod"
    assert not function.is_global
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
