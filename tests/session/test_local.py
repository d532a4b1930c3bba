"""What a session does on its own machine, and what it holds for its client."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tvmrpc.dlpack import DataType, Device, TensorRecord
from pytest_tvmrpc.errors import DeviceError, LocalProtocolError
from pytest_tvmrpc.protocol.values import FunctionHandle, ObjectHandle, TensorResult
from pytest_tvmrpc.runtime import registry
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.runtime.handles import HandleError
from pytest_tvmrpc.session.environment import Environment
from pytest_tvmrpc.session.local import LocalSession

if TYPE_CHECKING:
    from pathlib import Path

CPU = Device(1, 0)
FLOAT = DataType("float32")


@pytest.fixture(name="session")
def _session(folder: Path) -> LocalSession:
    """A session of its own."""
    return LocalSession(Environment(str(folder)))


def run(session: LocalSession, function: Any, *arguments: Any) -> Any:
    """The result of a function of Python's, called as a client would."""
    return session.call(
        session.handles.put(PackedFunc(function)), [session.resolve(value) for value in arguments]
    )


def floats(session: LocalSession, *shape: int) -> TensorRecord:
    """A new tensor."""
    record = TensorRecord(0, CPU, shape, FLOAT)
    return TensorRecord(session.alloc_tensor(record, None), CPU, shape, FLOAT)


def test_functions_by_name(session: LocalSession) -> None:
    """The session's own come before registered ones; 0 stands for none."""
    registry.register_func("test.local", lambda: "registered")
    try:
        handle = session.get_function("test.local")
        assert session.call(handle, []) == "registered"
        session.environment.functions["test.local"] = PackedFunc(lambda: "own")
        assert session.call(session.get_function("test.local"), []) == "own"
    finally:
        registry.remove_global_func("test.local")
    assert session.get_function("no.such") == 0
    with pytest.raises(LocalProtocolError, match="a function's name is a str, not int"):
        session.get_function(5)  # type: ignore[arg-type]


def test_handles_become_what_they_stand_for(session: LocalSession) -> None:
    """Functions, objects, tensors and devices reach the function as themselves."""
    thing = object()
    handle = ObjectHandle(session.handles.put(thing))
    assert run(session, lambda value: value is thing, handle) is True
    function = FunctionHandle(session.handles.put(PackedFunc(lambda x: x + 1)))
    assert run(session, lambda value: value(4), function) == 5
    assert run(session, lambda value: (value.exist, repr(value))[1], CPU) == "cpu(0)"
    assert run(session, lambda value: repr(value.shape), floats(session, 3, 4)) == "(3, 4)"


def test_results_are_named_by_handles(session: LocalSession) -> None:
    """Whatever has no bytes of its own on the wire is held for the client."""
    thing = object()
    result = run(session, lambda: thing)
    assert type(result) is ObjectHandle
    assert session.handles.get(result) is thing
    assert type(run(session, lambda: len)) is FunctionHandle
    assert run(session, lambda: CPU) == CPU
    assert run(session, lambda: memoryview(b"abc")) == b"abc"
    with pytest.raises(LocalProtocolError, match="returned a list"):
        run(session, lambda: [1])


def test_what_the_client_frees_is_gone(session: LocalSession) -> None:
    """The last reference is the client's."""

    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    handle = session.handles.put(thing)
    del thing
    gc.collect()
    assert gone() is not None
    session.free(handle)
    gc.collect()
    assert gone() is None
    session.free(handle)
    with pytest.raises(HandleError, match="was freed"):
        session.handles.get(handle)


def test_a_returned_tensor(session: LocalSession) -> None:
    """It has a handle for its memory and one for itself; the latter frees both."""
    record = floats(session, 2, 3)
    session.memory(record, 24)[:] = bytes(range(24))
    held = len(session.handles)
    result = run(session, lambda tensor: tensor, record)
    assert isinstance(result, TensorResult)
    assert result.record.shape == (2, 3)
    assert bytes(session.memory(result.record, 24)) == bytes(range(24))
    session.free(result.handle)
    assert len(session.handles) == held + 1  # the function that `run` made
    assert bytes(session.memory(record, 24)) == bytes(range(24))


@pytest.mark.parametrize(("offset", "shape"), [(0, (7,)), (4, (6,)), (1 << 63, (1,)), (24, (1,))])
def test_tensors_out_of_bounds(session: LocalSession, offset: int, shape: Any) -> None:
    """A tensor that leaves its memory reaches no function."""
    data = floats(session, 6).data
    with pytest.raises(ValueError, match="has to lie within its memory"):
        run(session, lambda tensor: None, TensorRecord(data, CPU, shape, FLOAT, offset))


def test_freed_memory_is_not_used_again(session: LocalSession) -> None:
    """Not even when the same record was used before."""
    record = floats(session, 6)
    assert run(session, lambda tensor: repr(tensor.shape), record) == "(6,)"
    session.known[b"record"] = session.resolve(record)
    session.free_data(CPU, record.data)
    assert session.known == {}
    with pytest.raises(HandleError, match="was freed"):
        session.memory(record, 24)


def test_devices_that_are_not_here(session: LocalSession) -> None:
    """Whether one exists is never an error; anything else about it is."""
    absent = Device(99, 0)
    assert session.get_attr(absent, 0) == 0
    for act in (
        lambda: session.get_attr(absent, 1),
        lambda: session.set_device(absent),
        lambda: session.sync(absent, 0),
        lambda: session.alloc(absent, 8, 64, FLOAT),
        lambda: session.create_stream(absent),
    ):
        with pytest.raises(DeviceError):
            act()


def test_streams(session: LocalSession) -> None:
    """The one that was set last is the current one."""
    stream = session.create_stream(CPU)
    session.set_stream(CPU, 5)
    assert session.get_stream(CPU) == 5
    assert session.get_stream(Device(1, 1)) == 0
    session.free_stream(CPU, stream)
    session.sync(CPU, 0)


def test_memory_scopes(session: LocalSession) -> None:
    """A CPU has one scope only."""
    record = TensorRecord(0, CPU, (4,), FLOAT)
    assert session.alloc_tensor(record, "global")
    with pytest.raises(DeviceError, match="memory scope: texture"):
        session.alloc_tensor(record, "texture")


def test_constructors(session: LocalSession) -> None:
    """This session itself can be asked for; others are not known."""
    session.construct(["rpc.LocalSession"])
    with pytest.raises(ValueError, match=r"constructor rpc\.Other; this server knows"):
        session.construct(["rpc.Other", 1])
