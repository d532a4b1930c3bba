"""Popen sessions: TVM's client and ours with our program, and kernels that TVM compiles into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

import numpy as np
import pytest

from pytest_tvmrpc import rpc as our_rpc
from pytest_tvmrpc.runtime.native_programs import build_server

from .clients import CLIENTS, Client

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["tvm", "ours"], scope="module")
def guest(request: pytest.FixtureRequest) -> Client:
    """Either client."""
    return CLIENTS[request.param]()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel of TVM for LLVM, as a system library, in our program."""
    import tvm
    from tvm import te
    from tvm.support import cc

    a = te.placeholder((64,), name="a")
    b = te.compute((64,), lambda i: a[i] + 1.0, name="b")
    kernel = te.create_prim_func((a, b)).with_attr("global_symbol", "add_one")
    module = tvm.IRModule({"add_one": kernel}).with_attr("system_lib_prefix", "")
    compiled = tvm.compile(module, target="llvm")
    path = tmp_path_factory.mktemp("minrpc") / "kernels.minrpc"
    compiled.export_library(str(path), fcompile=our_rpc.with_minrpc(cc.create_executable))
    return path


@pytest.fixture
def session(guest: Client, program: Path) -> Iterator[Any]:
    """A session with it."""
    session = guest.rpc.PopenSession(str(program))
    yield session
    guest.end(session)


def test_kernels_of_tvm(guest: Client, session: Any) -> None:
    """`with_minrpc` of ours in `export_library` of TVM; the kernel is in the system library."""
    values = np.arange(64, dtype="float32")
    tensors = [guest.runtime.tensor(x, session.cpu(0)) for x in (values, np.zeros_like(values))]
    session.system_lib()["add_one"](*tensors)
    np.testing.assert_array_equal(tensors[1].numpy(), values + 1)


def test_our_program(guest: Client) -> None:
    """Functions, files and errors of the program by itself."""
    session = guest.rpc.PopenSession(build_server(kind="popen"))
    try:
        assert session.get_function("rpc.test.addone")(41) == 42
        session.upload(bytearray(b"content"), "file.bin")
        assert bytes(session.download("file.bin")) == b"content"
        with pytest.raises(guest.remote_error, match="boom"):
            session.get_function("rpc.test.except")("boom")
    finally:
        guest.end(session)
