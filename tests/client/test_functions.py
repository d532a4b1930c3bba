"""Functions of a server on their own: measured without their module at hand."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.runtime.profiling import Timing
from pytest_tvmrpc.runtime.tensor import tensor


def test_a_function_is_measured(remote: rpc.RPCSession, vector_add: Any) -> None:
    """As its module would measure it; the seconds count as the device's."""
    np = pytest.importorskip("numpy")
    device = remote.cpu(0)
    a = tensor(np.zeros(8, "float32"), device)
    result = vector_add["vector_add"].make_evaluator(device, Timing(5, 3))(a, a, a)
    assert len(result.results) == 3
    assert remote.meter.device_s == pytest.approx(5 * sum(result.results))


def test_a_function_outlives_its_module(remote: rpc.RPCSession, library: str) -> None:
    """The server keeps a module for its last function: it is called and measured as before."""
    np = pytest.importorskip("numpy")
    remote.upload(library)
    add = remote.load_module("vector_add.so")["vector_add"]
    device = remote.cpu(0)
    a = tensor(np.ones(8, "float32"), device)
    add(a, a, a)
    assert add.make_evaluator(device, Timing())(a, a, a).min > 0


def test_a_module_is_let_go_with_its_last_function(inside: Any) -> None:
    """Dropping module and function frees both on the server, without the garbage collector."""
    remote, session = inside
    module = remote.system_lib()
    before = len(session.handles)
    del module
    remote.get_function("rpc.test.addone")(1)
    assert len(session.handles) < before


def test_a_global_function_is_measured(remote: rpc.RPCSession) -> None:
    """The server finds it by its name."""
    echo = remote.get_function("testing.echo")
    assert echo.make_evaluator(remote.cpu(0), Timing(5))(1).min > 0


def test_a_function_without_a_name(remote: rpc.RPCSession) -> None:
    """What a function returned cannot be found again, and the message says what can."""
    add = remote.get_function("rpc.test.add_to_lhs")(1)
    with pytest.raises(ValueError, match=r"the server measures what it finds by name; take"):
        add.make_evaluator(remote.cpu(0), Timing())


def test_the_key_of_a_session(remote: rpc.RPCSession) -> None:
    """The one that was asked for; none if none was."""
    assert remote.key == ""
    with rpc.Server(port=0, key="jetson", silent=True) as jetson, rpc.connect(
        jetson.host, jetson.port, "jetson"
    ) as session:
        assert session.key == "jetson"
