"""The names of tvm.rpc: all there, each from its own home, none imported before it is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_tvmrpc
from pytest_tvmrpc import client, errors, rpc

FOLDER = str(Path(__file__).parents[1])


def test_every_name_is_there() -> None:
    """What is listed can be had."""
    assert dir(rpc) == rpc.__all__
    for name in rpc.__all__:
        assert getattr(rpc, name).__name__.rpartition(".")[2] == name
    assert rpc.RPCError is errors.RPCError
    assert rpc.connect.__module__ == f"{client.__name__}.connect"


def test_the_files_of_tvm() -> None:
    """What is imported from TVM's own files is here under the same names, and the same thing."""
    from pytest_tvmrpc.rpc.base import RPC_CODE_SUCCESS, TrackerCode
    from pytest_tvmrpc.rpc.client import LocalSession
    from pytest_tvmrpc.rpc.proxy import Proxy
    from pytest_tvmrpc.rpc.server import Server
    from pytest_tvmrpc.rpc.tracker import Tracker

    assert (Tracker, Proxy, Server) == (rpc.Tracker, rpc.Proxy, rpc.Server)
    assert (RPC_CODE_SUCCESS, TrackerCode.PUT) == (0xFF271, 3)
    with LocalSession() as session:
        assert isinstance(session, rpc.client.LocalSession)
    for name in ("base", "client", "minrpc", "proxy", "server", "tracker"):
        file = importlib.import_module(f"pytest_tvmrpc.rpc.{name}")
        assert file is getattr(rpc, name)
        for member in file.__all__:
            assert getattr(file, member) is getattr(rpc, member, getattr(file, member))


def test_the_package_lists_its_names() -> None:
    """What is loaded when it is asked for is listed all the same."""
    assert dir(pytest_tvmrpc) == ["__version__", "rpc", "runtime"]
    with pytest.raises(AttributeError, match="'nonsense'"):
        getattr(pytest_tvmrpc, "nonsense")  # noqa: B009  (mypy knows that it is not there)


def test_a_name_that_is_not() -> None:
    """Is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="'no_such_name'"):
        getattr(rpc, "no_such_name")  # noqa: B009  (mypy knows that it is not there)


def test_importing_costs_nothing() -> None:
    """Neither client nor server, NumPy nor ctypes, until something is used."""
    script = (
        f"import sys; sys.path.insert(0, {FOLDER!r}); before = set(sys.modules); "
        "from pytest_tvmrpc import rpc, runtime; "
        "print(*sorted(name for name in set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "pytest_tvmrpc.rpc" in loaded
    assert not loaded & {"numpy", "ctypes", "asyncio", "socket", "subprocess", "logging"}
    assert not any(name.startswith("pytest_tvmrpc.server") for name in loaded)


def test_the_names_work_together() -> None:
    """A tracker, a server, a client: the whole of it in five lines, and nothing stays."""
    with rpc.Tracker(port=0, silent=True) as tracker, rpc.Server(
        port=0, tracker_addr=(tracker.host, tracker.port), key="board", silent=True
    ), rpc.connect_tracker(tracker.host, tracker.port) as farm:
        assert isinstance(farm, rpc.TrackerSession)
        assert "board" in farm.text_summary()
        with farm.request("board") as remote:
            assert isinstance(remote, rpc.RPCSession)
            assert remote.get_function("rpc.test.addone")(41) == 42
            with pytest.raises(rpc.RemoteError):
                remote.get_function("rpc.test.except")("x")
