"""Errors of functions and of requests: their texts and kinds, and that the session goes on."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import ConnectionLostError, RemoteError, SessionCrashedError
from pytest_tvmrpc.protocol.codes import RPCCode

if TYPE_CHECKING:
    from .kinds import Kind

CPU = Device(1, 0)
WILD = 0x7EAD_BEEF
"""A handle that no server gave."""


@pytest.mark.parametrize("text", ["boom", "x" * 10_000, "ö 緑", "two\nlines", "a: b", ""])
def test_what_a_function_raises(remote: rpc.RPCSession, text: str) -> None:
    """Its text arrives whole."""
    with pytest.raises(ValueError) as caught:
        remote.get_function("rpc.test.except")(text)
    assert str(caught.value) == text
    assert isinstance(caught.value, RemoteError)


KNOWN = ["TypeError", "ValueError", "IndexError", "KeyError", "AttributeError", "RuntimeError"]


@pytest.mark.parametrize("name", [*KNOWN, "MyOwnError"])
def test_kinds(remote: rpc.RPCSession, name: str) -> None:
    """An error that has a type here is of that type; another one has its name in the text."""
    with pytest.raises(RemoteError) as caught:
        remote.get_function("testing.test_raise_error")(name, "what happened")
    if name == "MyOwnError":
        assert str(caught.value) == "MyOwnError: what happened"
    else:
        assert str(caught.value) == "what happened"
        assert isinstance(caught.value, getattr(builtins, name))


def test_what_a_kernel_raises(module: Any) -> None:
    """The kind and the text that the C code gave."""
    with pytest.raises(TypeError, match=r"^want one int$"):
        module["addone"]("text")
    with pytest.raises(TypeError, match=r"^want tensor, float$"):
        module["fill"]()
    with pytest.raises(ValueError, match=r"^no such kind$"):
        module["give"](99)


def test_wrong_arguments(remote: rpc.RPCSession) -> None:
    """A type or a number of arguments that a function does not take is the function's error."""
    addone = remote.get_function("rpc.test.addone")
    for arguments in (("text",), (), (1, 2), (None,)):
        with pytest.raises(RemoteError):
            addone(*arguments)
        assert addone(1) == 2
    for name in ("load_module", "upload", "download"):
        with pytest.raises(RemoteError):
            remote.get_function(f"tvm.rpc.server.{name}")(5)


def test_no_such_function(remote: rpc.RPCSession, module: Any) -> None:
    """A name that is not there is an AttributeError with the name."""
    with pytest.raises(AttributeError, match=r"no\.such\.function"):
        remote.get_function("no.such.function")
    with pytest.raises(AttributeError, match="no_such_function"):
        module["no_such_function"]
    assert remote._endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "n" * 70_000) == 0
    assert remote._endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "") == 0


def test_a_handle_that_nobody_gave(remote: rpc.RPCSession) -> None:
    """It is refused wherever it stands."""
    endpoint = remote._endpoint
    with pytest.raises(RemoteError):
        endpoint.call(WILD, (), "a call")
    record = TensorRecord(WILD, CPU, (4,), DataType("float32"), 0)
    with pytest.raises(RemoteError):
        remote.get_function("testing.echo")(record)
    with pytest.raises(RemoteError):
        endpoint.copy_from_remote(record, memoryview(bytearray(16)))
    with pytest.raises(RemoteError):
        endpoint.copy_to_remote(record, memoryview(bytes(16)), is_awaited=True)
    with pytest.raises(RemoteError):
        endpoint.syscall(RPCCode.COPY_AMONG_REMOTE, record, record, OpaquePointer(0))


def test_a_handle_of_something_else(remote: rpc.RPCSession) -> None:
    """Memory is no function, and a function no memory."""
    endpoint = remote._endpoint
    function = int(endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "rpc.test.addone"))
    memory = endpoint.syscall(RPCCode.DEV_ALLOC_DATA, CPU, 64, 64, DataType("uint8"))
    with pytest.raises(RemoteError, match="not of a function"):
        endpoint.call(int(memory), (1,), "a call")
    record = TensorRecord(function, CPU, (4,), DataType("uint8"), 0)
    with pytest.raises(RemoteError, match="not of memory"):
        endpoint.copy_from_remote(record, memoryview(bytearray(4)))
    with pytest.raises(RemoteError, match="not of memory"):
        endpoint.syscall(RPCCode.DEV_FREE_DATA, CPU, OpaquePointer(function))
    assert endpoint.call(function, (1,), "a call") == 2


def test_freed_twice(remote: rpc.RPCSession) -> None:
    """What is not there any more is freed already, and what was freed is not there any more."""
    endpoint = remote._endpoint
    for _ in range(2):
        endpoint.syscall(RPCCode.FREE_HANDLE, OpaquePointer(WILD))
    function = endpoint.syscall(RPCCode.GET_GLOBAL_FUNC, "rpc.test.addone")
    for _ in range(2):
        endpoint.syscall(RPCCode.FREE_HANDLE, function)
    with pytest.raises(RemoteError):
        endpoint.call(int(function), (1,), "a call")
    memory = endpoint.syscall(RPCCode.DEV_ALLOC_DATA, CPU, 64, 64, DataType("uint8"))
    for _ in range(2):
        endpoint.syscall(RPCCode.DEV_FREE_DATA, CPU, memory)
    gone = TensorRecord(int(memory), CPU, (4,), DataType("uint8"), 0)
    with pytest.raises(RemoteError):
        endpoint.copy_from_remote(gone, memoryview(bytearray(4)))


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 17), (4, 16), (64, 1), (2**63, 1), (0, 2**40)], ids=str
)
def test_beyond_the_memory(remote: rpc.RPCSession, offset: int, count: int) -> None:
    """What a tensor's memory does not have is neither read nor written, by whatever request."""
    endpoint = remote._endpoint
    tensor = runtime.tensor(bytes_of(64), remote.cpu(0))
    good = tensor.record
    wrong = TensorRecord(good.data, CPU, (4 * count,), good.dtype, offset)
    other = TensorRecord(good.data, CPU, wrong.shape, good.dtype, 0)
    nbytes = min(4 * count, 100)
    with pytest.raises(RemoteError):
        remote.get_function("testing.echo")(wrong)
    with pytest.raises(RemoteError):
        endpoint.syscall(RPCCode.COPY_AMONG_REMOTE, wrong, other, OpaquePointer(0))
    if nbytes + offset > 64:
        with pytest.raises(RemoteError):
            endpoint.copy_from_remote(wrong, memoryview(bytearray(nbytes)))
        with pytest.raises(RemoteError):
            endpoint.copy_to_remote(wrong, memoryview(bytes(nbytes)), is_awaited=True)
    assert tensor.numpy().tolist() == list(range(64))


def bytes_of(count: int) -> Any:
    """An array of so many bytes, each its place."""
    import numpy as np

    return np.arange(count, dtype="uint8")


def test_memory_that_nobody_has(remote: rpc.RPCSession) -> None:
    """An error, and no end of the session."""
    with pytest.raises(RemoteError):
        remote._endpoint.syscall(RPCCode.DEV_ALLOC_DATA, CPU, 2**60, 64, DataType("uint8"))
    with pytest.raises(RemoteError):
        remote._endpoint.syscall(RPCCode.DEV_ALLOC_DATA, CPU, -1, 64, DataType("uint8"))
    with pytest.raises((RemoteError, ValueError)):
        runtime.empty((2**40, 2**40), "float32", remote.cpu(0))


def test_a_device_that_is_not_there(remote: rpc.RPCSession) -> None:
    """Memory, attributes and waiting are errors; whether it exists is none."""
    for device in (remote.cuda(0), remote.device(99, 1)):
        assert not device.exist
        with pytest.raises(RemoteError):
            runtime.empty((4,), "float32", device)
        with pytest.raises(RemoteError):
            device.warp_size  # noqa: B018  (asks the server)
        with pytest.raises(RemoteError):
            device.sync()
        with pytest.raises(RemoteError):
            remote._endpoint.syscall(RPCCode.DEV_SET_DEVICE, Device(*device))


def test_values_that_a_request_does_not_take(remote: rpc.RPCSession) -> None:
    """Wrong types and numbers of values are refused by each request."""
    endpoint = remote._endpoint
    assert remote.get_function("rpc.test.addone")(1) == 2  # by which the dialect is known
    for code in range(RPCCode.GET_GLOBAL_FUNC, RPCCode.DEV_GET_CURRENT_STREAM + 1):
        with pytest.raises(RemoteError):
            endpoint.syscall(code, 1.5)
        with pytest.raises(RemoteError):
            endpoint.syscall(code)


ENDING = """
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#define FUNCTION(name) int __tvm_ffi_##name(void *self, const void *args, int count, void *result)
FUNCTION(say) { return fflush(stdout), puts("a line of C") < 0 || fflush(stdout); }
FUNCTION(complain) { return fputs("a complaint\\n", stderr) < 0; }
FUNCTION(die) { abort(); }
FUNCTION(segfault) { return *(volatile int *)count; }
FUNCTION(leave) { exit(5); }
FUNCTION(vanish) { _exit(0); }
"""


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("die", "was killed by SIGABRT"),
        ("segfault", "was killed by SIGSEGV"),
        ("leave", "exited with 5"),
        ("vanish", "exited with 0"),
    ],
)
def test_it_crashes(kind: Kind, remote: rpc.RPCSession, compiled: Any, name: str, how: str) -> None:
    """The error says how the process ended and what it printed; the next session is served."""
    library = compiled(ENDING, "-w")
    remote.upload(library)
    module = remote.load_module(library.name)
    module["say"]()
    printed = remote.output()
    assert printed is not None
    assert printed.text == "a line of C\n"
    module["complain"]()
    with pytest.raises(SessionCrashedError) as caught:
        module[name]()
    assert how in str(caught.value)
    # An emulator has words of its own behind these.
    assert "printed last:\na line of C\na complaint" in str(caught.value)
    with kind.session() as session:
        assert session.get_function("rpc.test.addone")(1) == 2


def test_an_unknown_request(kind: Kind, remote: rpc.RPCSession) -> None:
    """It ends the session and nothing else."""
    channel = remote._endpoint.channel
    channel.send([(4).to_bytes(8, "little") + (77).to_bytes(4, "little")])
    with pytest.raises((ConnectionLostError, RemoteError, rpc.RPCError)):
        remote.get_function("rpc.test.addone")
    remote.close()
    with kind.session() as session:
        assert session.get_function("rpc.test.addone")(1) == 2
