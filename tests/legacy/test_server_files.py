"""Our server and a client of TVM 0.8 to 0.20: files, modules, measuring and time limits."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Callable, List

import pytest

from .clients import LegacyClient, PeerClosedError, RemoteRaisedError
from .sequences import (
    BYTES,
    DEVICE,
    FLOAT,
    FLOAT32,
    FUNCTION,
    MODULE,
    NONE,
    TENSOR,
    Device,
    DType,
    Value,
    integer,
    text,
)

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc

CPU = Device(1, 0)
CUDA = Device(2, 0)

Connect = Callable[..., LegacyClient]

upload = "tvm.rpc.server.upload"
load_module = "tvm.rpc.server.load_module"
module_function = "tvm.rpc.server.ModuleGetFunction"
evaluator = "runtime.RPCTimeEvaluator"


def loaded(client: LegacyClient, library: bytes, name: str = "kernel.so") -> Value:
    """The module of a library."""
    client.call_name(upload, text(name), Value(BYTES, library))
    module = client.call_name(load_module, text(name))
    assert module.code == MODULE
    return module


def function(client: LegacyClient, module: Value, name: str) -> int:
    """The handle of a module's function."""
    found = client.call_name(module_function, module, text(name), integer(1))
    assert found.code == FUNCTION, f"no {name}: {found}"
    handle: int = found.content
    return handle


def test_files(legacy: Connect) -> None:
    """Up, down and away; as bytes and as text."""
    client = legacy()
    name = text("x.bin")
    client.call_name(upload, name, Value(BYTES, b"hello"))
    assert client.call_name("tvm.rpc.server.download", name) == Value(BYTES, b"hello")
    client.call_name(upload, name, text("a text"))
    assert client.call_name("tvm.rpc.server.download", name) == Value(BYTES, b"a text")
    path = client.call_name("tvm.rpc.server.workpath", name)
    assert path.content.endswith("/x.bin")
    assert "x.bin" in client.call_name("tvm.rpc.server.listdir", text(".")).content
    assert client.call_name("tvm.rpc.server.remove", name) == NONE
    assert client.call_name("tvm.rpc.server.remove", name) == NONE
    with pytest.raises(RemoteRaisedError, match=r"x\.bin"):
        client.call_name("tvm.rpc.server.download", name)
    for outside in ("../x", "/tmp/x"):
        with pytest.raises(RemoteRaisedError):
            client.call_name(upload, text(outside), Value(BYTES, b"x"))
    with pytest.raises(RemoteRaisedError, match="none"):
        client.call_name(load_module, text("none.so"))


def test_a_library_of_those_days(legacy: Connect, kernel: bytes) -> None:
    """Is called in its convention, and sees the codes of its time."""
    client = legacy()
    module = loaded(client, kernel)
    assert client.call(function(client, module, "addone"), integer(41)) == integer(42)
    assert client.call(function(client, module, "__tvm_main__"), integer(1)) == integer(2)
    missing = client.call_name(module_function, module, text("nofunc"), integer(1))
    assert missing == NONE
    codes = function(client, module, "codes")
    tensor = client.alloc((4,), FLOAT32)
    assert client.call(codes, integer(1), Value(FLOAT, 1.0), text("x")).content == 2 * 100 + 11
    assert client.call(codes, NONE, Value(BYTES, b"x")).content == 4 * 100 + 12
    assert client.call(codes, Value(DEVICE, CPU), Value(TENSOR, tensor)).content in (607, 613)
    client.call(function(client, module, "fill"), Value(TENSOR, tensor), Value(FLOAT, 2.5))
    assert struct.unpack("<4f", client.copy_from(tensor)) == (2.5,) * 4
    with pytest.raises(RemoteRaisedError, match="addone wants one int"):
        client.call(function(client, module, "addone"), text("x"))
    assert client.call(function(client, module, "addone"), integer(1)) == integer(2)
    client.shutdown()


def test_what_a_library_of_those_days_sees(legacy: Connect, kernel: bytes) -> None:
    """The numbers of types are those that its compiler knew: booleans are uint1."""
    client = legacy()
    dtype = function(client, loaded(client, kernel), "dtype")
    for wanted in (DType(1, 1), FLOAT32, DType(6, 8), DType(0, 8)):
        tensor = client.alloc((4,), wanted)
        number = 10000 * wanted.code + 100 * wanted.bits + wanted.lanes
        assert client.call(dtype, Value(TENSOR, tensor)) == integer(number), wanted
    client.shutdown()


def test_a_crash(legacy: Connect, kernel: bytes) -> None:
    """Within a call, it is an exception of those days; the next client is served."""
    client = legacy()
    crash = function(client, loaded(client, kernel), "crash")
    with pytest.raises(RemoteRaisedError, match=r"^SessionCrashedError: "):
        client.call(crash)
    client.close()
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)


def test_a_library_of_today(legacy: Connect, vector_add: bytes) -> None:
    """Works for a client of those days, whose board has simply been updated."""
    client = legacy()
    add = function(client, loaded(client, vector_add), "vector_add")
    a, b, c = (client.alloc((4,), FLOAT32) for _ in range(3))
    client.copy_to(a, struct.pack("<4f", 1, 2, 3, 4))
    client.copy_to(b, struct.pack("<4f", 10, 20, 30, 40))
    client.call(add, Value(TENSOR, a), Value(TENSOR, b), Value(TENSOR, c))
    assert struct.unpack("<4f", client.copy_from(c)) == (11, 22, 33, 44)


def test_modules_as_values(legacy: Connect, kernel: bytes, vector_add: bytes) -> None:
    """They are imported by others, passed, returned and freed."""
    client = legacy()
    parent, child = loaded(client, kernel), loaded(client, vector_add, "child.so")
    assert client.call_name(module_function, parent, text("vector_add"), integer(1)) == NONE
    assert client.call_name("tvm.rpc.server.ImportModule", parent, child) == NONE
    assert function(client, parent, "vector_add")
    again = client.call_name("testing.echo", parent)
    assert again.code == MODULE
    assert function(client, again, "addone")
    for module in (again, child, parent):
        client.free_handle(module.content, MODULE)
    system = client.call_name("runtime.SystemLib")
    assert system.code == MODULE
    client.shutdown()


@pytest.mark.parametrize(
    "middle",
    [[], [0, 1], [100, 0, 1], [100, 0, 1, 0]],
    ids=["0.8", "0.9", "0.13", "0.14"],
)
def test_time_evaluators(legacy: Connect, kernel: bytes, middle: List[int]) -> None:
    """Whatever they were told in the course of the years, they measure."""
    client = legacy()
    module = loaded(client, kernel)
    setup = [module, text("addone"), *map(integer, [1, 0, 3, 2, 0, *middle]), text("")]
    assert len(setup) in (8, 10, 11, 12)
    measure = client.call_name(evaluator, *setup)
    assert measure.code == FUNCTION
    result = client.call(measure.content, integer(1))
    assert result.code == BYTES
    seconds = struct.unpack("<2d", result.content)
    assert all(0 < each < 1 for each in seconds)
    assert client.call(function(client, module, "count")) == integer(7)
    with pytest.raises(RemoteRaisedError):
        client.call_name(evaluator, module, text("nofunc"), *setup[2:])
    with pytest.raises(RemoteRaisedError, match="addone wants one int"):
        client.call(measure.content, text("x"))
    client.shutdown()


def test_time_evaluators_of_global_functions(legacy: Connect) -> None:
    """With null for the module."""
    client = legacy()
    setup = [text("rpc.test.addone"), *map(integer, [1, 0, 3, 2, 0, 100, 0, 1]), text("")]
    measure = client.call_name(evaluator, NONE, *setup)
    assert len(client.call(measure.content, integer(1)).content) == 16


def test_a_session_is_over(legacy: Connect) -> None:
    """An idle client is told with its next request."""
    client = legacy(options="-timeout=0.3")
    addone = client.get_function("rpc.test.addone")
    with pytest.raises(RemoteRaisedError, match=r"^RPCSessionTimeoutError: Your 0\.3s session"):
        client.returned(4)
    with pytest.raises((PeerClosedError, OSError)):
        client.call(addone, integer(1))


def test_a_call_lasts_too_long(legacy: Connect, kernel: bytes) -> None:
    """It is ended, and the client is told in its words."""
    client = legacy(options="-timeout=2")
    nap = function(client, loaded(client, kernel), "nap")
    with pytest.raises(RemoteRaisedError, match=r"^RPCSessionTimeoutError: Your 2\.0s session"):
        client.call(nap)
    client.close()
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)


def test_the_server_is_ended(legacy: Connect, second_server: rpc.Server) -> None:
    """Its last words are in the client's dialect."""
    client = legacy(port=second_server.port)
    assert client.get_function("rpc.test.addone")
    second_server.terminate()
    with pytest.raises(RemoteRaisedError, match=r"^SessionCrashedError: "):
        client.returned(4)
