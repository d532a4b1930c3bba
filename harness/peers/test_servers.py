"""Our client with the server, tracker and proxy of each age."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterator

import numpy as np
import pytest

from harness.interop.clients import HOST
from harness.interop.servers import KEY, wait_for_queue
from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import RemoteError

if TYPE_CHECKING:
    from pathlib import Path

    from harness.interop.servers import Launcher, Program

    from .conftest import Ready

DTYPES = (
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
)


@pytest.fixture(name="remote")
def _remote(their_server: Program) -> Iterator[rpc.RPCSession]:
    """A session on the peer's server, which has to serve the next client, too."""
    with rpc.connect(HOST, their_server.port, KEY, session_timeout=120) as remote:
        yield remote
    with rpc.connect(HOST, their_server.port, KEY, session_timeout=120) as remote:
        assert remote.get_function("tvm.rpc.server.workpath")("x").endswith("x")


def check_functions(remote: rpc.RPCSession) -> None:
    """Some calls."""
    assert remote.get_function("tvm.rpc.server.workpath")("name").endswith("name")
    remote.upload(b"content", "data.bin")
    assert remote.download("data.bin") == b"content"


def test_the_dialect(remote: rpc.RPCSession, ready: Ready) -> None:
    """It is found out."""
    check_functions(remote)
    assert remote.dialect == ("legacy" if ready.peer.version < (0, 21) else "ffi")


def test_values(remote: rpc.RPCSession) -> None:
    """Every kind of value goes there and comes back."""
    echo = remote.get_function("testing.echo")
    for value in (None, 0, -5, 2**62, 1.5, "", "text", "äß", "x" * 100_000):
        assert echo(value) == value
    for content in (b"", b"\0\1\2", b"1234567", b"12345678", bytes(100_000), bytes(3_000_000)):
        assert bytes(echo(content)) == content
        assert bytes(echo(bytearray(content))) == content
        assert bytes(echo(memoryview(content))) == content
    assert echo(True) == 1


def test_a_text_with_nul_is_refused(remote: rpc.RPCSession) -> None:
    """Before it is sent: nothing is cut, and no server comes to harm."""
    with pytest.raises(ValueError, match="send it as bytes"):
        remote.get_function("testing.echo")("a\0b")


@pytest.mark.parametrize("nbytes", [0, 7, 8, 70_000, 5_000_000])
def test_an_upload(remote: rpc.RPCSession, nbytes: int) -> None:
    """Files of each length come back as they were, and can be removed."""
    content = bytes(range(256)) * (nbytes // 256 + 1)
    remote.upload(content[:nbytes], "data.bin")
    assert remote.download("data.bin") == content[:nbytes]
    remote.remove("data.bin")
    with pytest.raises(RemoteError):
        remote.download("data.bin")


def test_errors(remote: rpc.RPCSession) -> None:
    """What a function there raises is an error here, and the session goes on."""
    for _ in range(3):
        with pytest.raises(RemoteError):
            remote.download("none.bin")
    with pytest.raises(AttributeError, match=r"peers\.none"):
        remote.get_function("peers.none")
    check_functions(remote)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors(remote: rpc.RPCSession, dtype: str) -> None:
    """Tensors of each type and of many shapes go there and come back."""
    for shape in ((), (1,), (3, 4), (2, 3, 5, 7), (0, 3)):
        array = np.ones(shape, dtype)
        found = runtime.tensor(array, remote.cpu(0)).numpy()
        assert (found.dtype, found.shape) == (array.dtype, shape)
        assert (found == array).all()


def test_a_large_tensor(remote: rpc.RPCSession) -> None:
    """In many blocks."""
    array = np.random.default_rng(0).random((3, 500_000), "float32")
    there = runtime.tensor(array, remote.cpu(0))
    np.testing.assert_array_equal(there.numpy(), array)
    np.testing.assert_array_equal(there.copyto(remote.cpu(0)).numpy(), array)


@pytest.mark.parametrize("suffix", ["so", "tar"])
def test_a_library(remote: rpc.RPCSession, libraries: Path, suffix: str) -> None:
    """A library of the peer's compiler runs there: by name, as the module, and measured."""
    remote.upload(str(libraries / f"plus.{suffix}"))
    module = remote.load_module(f"plus.{suffix}")
    x = runtime.tensor(np.arange(1000, dtype="float32"), remote.cpu(0))
    y = runtime.empty((1000,), "float32", remote.cpu(0))
    module["plus"](x, y)
    np.testing.assert_array_equal(y.numpy(), np.arange(1000) + 1)
    measured = module.time_evaluator("plus", remote.cpu(0), number=3, repeat=2)(x, y)
    assert len(measured.results) == 2
    assert all(seconds > 0 for seconds in measured.results)


def test_calling_a_module(remote: rpc.RPCSession, libraries: Path) -> None:
    """The peer's compiler names an entry, by the name of its age; calling the module calls it."""
    remote.upload(str(libraries / "plus.so"))
    module = remote.load_module("plus.so")
    x = runtime.tensor(np.zeros(1000, "float32"), remote.cpu(0))
    y = runtime.empty((1000,), "float32", remote.cpu(0))
    module(x, y)
    assert y.numpy().tolist() == [1.0] * 1000


@pytest.mark.parametrize("whose", ["tvm", "ours"])
def test_at_a_tracker(launcher: Launcher, whose: str) -> None:
    """Their server is in the summary of their tracker, and of ours, which gives it to us."""
    program = launcher.tracker(whose)
    launcher.server("tvm", KEY, program)
    tracker = rpc.connect_tracker(HOST, program.port)
    wait_for_queue(tracker, KEY, free=1)
    with tracker.request(KEY, session_timeout=60) as remote:
        check_functions(remote)
    tracker.close()


@pytest.mark.parametrize(("proxy", "server"), [("tvm", "ours"), ("ours", "tvm"), ("tvm", "tvm")])
def test_through_a_proxy(launcher: Launcher, ready: Ready, proxy: str, server: str) -> None:
    """Their proxy with our server, and ours with theirs."""
    if proxy == "tvm" and not ready.peer.proxy:
        pytest.skip(f"the proxy of TVM {ready.peer.name} does not start")
    if server == "tvm" and not ready.peer.through_proxy:
        pytest.skip(f"the program rpc_server of TVM {ready.peer.name} has no --through-proxy")
    program = launcher.proxy(proxy)
    launcher.server(server, KEY, proxy=program)
    with connected(program) as remote:
        check_functions(remote)


def connected(proxy: Program) -> Any:
    """A session through a proxy; the server may still be on its way there."""
    return rpc.connect(HOST, proxy.port, KEY, session_timeout=60, handshake_timeout=60)
