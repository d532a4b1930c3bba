"""What a remote function raises, at its worst: of any length, in any characters, of any type."""

from __future__ import annotations

import time
from typing import Iterator

import pytest

from pytest_tvmrpc import rpc


def register() -> None:
    """Called in the server: functions that raise."""
    from pytest_tvmrpc.runtime.registry import register_global_func

    class OwnError(Exception):
        """One that no client knows."""

    class SilentError(Exception):
        """One that cannot even be printed."""

        def __str__(self) -> str:
            raise KeyError("no text")

    def fail(kind: str) -> None:
        if kind == "long":
            raise ValueError("x" * 100_000_000)
        if kind == "surrogates":
            raise ValueError("file-\udcff\ud800-\xe9")
        if kind == "own":
            raise OwnError("mine")
        if kind == "silent":
            raise SilentError
        if kind == "nothing":
            raise ValueError
        if kind == "nul":
            raise ValueError("a\0b")
        if kind == "exit":
            raise SystemExit(3)
        if kind == "deep":
            fail(kind)

    register_global_func("faults.fail", fail, override=True)


@pytest.fixture(name="raising", scope="module")
def _raising() -> Iterator[rpc.Server]:
    """A server that has the function."""
    pytest.importorskip("cloudpickle")
    with rpc.Server(port=0, silent=True, server_init_callback=register) as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "expected", "text"),
    [
        ("long", ValueError, "xxx... (99"),
        ("surrogates", ValueError, "file-"),
        ("own", rpc.RemoteError, "OwnError: mine"),
        ("silent", rpc.RemoteError, "SilentError"),
        ("nothing", ValueError, ""),
        ("nul", ValueError, "a\\0b"),
        ("exit", rpc.RemoteError, "SystemExit"),
        ("deep", RecursionError, "recursion"),
    ],
)
def test_what_is_raised(raising: rpc.Server, kind: str, expected: type, text: str) -> None:
    """The same type with a text of bounded length; the session goes on."""
    with rpc.connect(raising.host, raising.port) as remote:
        fail = remote.get_function("faults.fail")
        started = time.monotonic()
        with pytest.raises(expected) as caught:
            fail(kind)
        assert isinstance(caught.value, rpc.RemoteError)
        assert text in str(caught.value)
        assert len(str(caught.value)) < 100_000
        assert time.monotonic() - started < 5
        assert fail("none") is None
        assert remote.get_function("rpc.test.addone")(1) == 2
