"""What a session does on its own machine, and what it holds for its client."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any, Dict

import numpy as np
import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, TensorRecord
from pytest_tvmrpc.errors import DeviceError, LocalProtocolError
from pytest_tvmrpc.protocol.values import FunctionHandle, ObjectHandle, TensorResult
from pytest_tvmrpc.runtime import Array, Map, Object, ShapeTuple, registry
from pytest_tvmrpc.runtime.device import kinds
from pytest_tvmrpc.runtime.device.cpu import allocate
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.runtime.handles import HandleError
from pytest_tvmrpc.runtime.tensor import Tensor
from pytest_tvmrpc.session.environment import Environment
from pytest_tvmrpc.session.local import LocalSession

from ..devices.separate import SeparateAPI

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
    with pytest.raises(LocalProtocolError, match="returned a set"):
        run(session, lambda: {1})


@pytest.mark.parametrize(
    "made",
    [
        np.ma.masked,
        np.ma.array(3, mask=True),
        np.timedelta64(5, "ns"),
        np.datetime64("2020-01-01T00:00:00.000000001"),
        np.complex64(1j),
        memoryview(np.zeros(2)),
        memoryview(bytes(4)).cast("B", (2, 2)),
    ],
    ids=["masked", "masked array", "duration", "date", "complex", "floats", "two axes"],
)
def test_results_that_would_become_something_else(session: LocalSession, made: Any) -> None:
    """They are refused, as arguments of their kind are."""
    with pytest.raises(LocalProtocolError, match="a function returned"):
        run(session, lambda: made)


def test_results_of_numpy(session: LocalSession) -> None:
    """Numbers, texts and bytes without axes are returned as what they are."""
    values = [np.bool_(True), np.uint8(200), np.float32(1.5), np.longdouble(1.5), np.array(7)]
    assert [run(session, lambda: value) for value in values] == [True, 200, 1.5, 1.5, 7]  # noqa: B023
    assert run(session, lambda: np.array("text")) == "text"


def test_containers_become_objects(session: LocalSession) -> None:
    """They are held for the client, whoever made them, and come back as they were."""
    for made in ([1, ["x"]], (1, 2), {"a": [1]}, Array([1]), Map({1: 2}), ShapeTuple((2, 3))):
        handle = run(session, lambda: made)  # noqa: B023  (called at once)
        assert type(handle) is ObjectHandle
        assert isinstance(session.handles.get(handle), (Object, ShapeTuple))
        assert run(session, lambda value: value == made, handle) is True  # noqa: B023
        session.free(handle)
        with pytest.raises(HandleError, match="was freed"):
            run(session, lambda value: value, handle)
    with pytest.raises(LocalProtocolError, match="returned a list, which cannot become an object"):
        run(session, lambda: [object()])


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


def test_a_returned_tensor_is_freed_by_its_memory(session: LocalSession) -> None:
    """Clients of TVM 0.21 to 0.23 free it so; each time one of those that have this memory."""
    held = len(session.handles)
    made = runtime.empty((6,))
    first, second = (run(session, lambda: made) for _ in range(2))
    assert isinstance(first, TensorResult)
    assert isinstance(second, TensorResult)
    assert first.record.data == second.record.data
    session.free(first.record.data)
    assert len(session.memory(first.record, 24)) == 24
    session.free(first.record.data)
    assert len(session.handles) == held + 2  # the functions that `run` made
    with pytest.raises(HandleError, match="was freed"):
        session.memory(first.record, 24)
    session.free(first.record.data)
    session.free(first.handle)


def test_memory_may_be_freed_before_a_returned_tensor(session: LocalSession) -> None:
    """Both are released, whichever comes first."""
    record = floats(session, 6)
    held = len(session.handles)
    result = run(session, lambda tensor: tensor, record)
    assert isinstance(result, TensorResult)
    session.free_data(CPU, record.data)
    assert len(session.memory(result.record, 24)) == 24
    session.free(result.handle)
    assert len(session.handles) == held  # without the memory, but with the function of `run`
    with pytest.raises(HandleError, match="was freed"):
        session.memory(record, 24)


def use_as_memory(session: LocalSession, record: TensorRecord) -> Dict[str, Any]:
    """Everything that a client can do with memory, by name."""
    good = floats(session, 6)
    return {
        "read or write": lambda: session.memory(record, 4),
        "pass": lambda: session.resolve(record),
        "copy from": lambda: session.copy_among(record, good, 0),
        "copy to": lambda: session.copy_among(good, record, 0),
    }


ACTS = ["read or write", "pass", "copy from", "copy to"]


@pytest.mark.parametrize("act", ACTS)
def test_handles_that_are_no_memory(session: LocalSession, act: str) -> None:
    """Of a function, an object, an array, another session; freed, or never given out."""
    freed = floats(session, 6)
    session.free_data(CPU, freed.data)
    wrong = {
        session.handles.put(PackedFunc(len)): "not of memory",
        session.handles.put(object()): "not of memory",
        session.handles.put(bytearray(24)): "not of memory",
        session.handles.put(runtime.empty((6,))): "not of memory",
        freed.data: "was freed",
        0: "never given out",
        1 << 63: "never given out",
    }
    for handle, reason in wrong.items():
        record = TensorRecord(handle, CPU, (6,), FLOAT)
        with pytest.raises((DeviceError, HandleError), match=reason):
            use_as_memory(session, record)[act]()


@pytest.mark.parametrize("act", ACTS)
def test_memory_of_another_kind_of_device(session: LocalSession, act: str) -> None:
    """A device reads no memory but its own, whatever a client says of it."""
    record = TensorRecord(floats(session, 6).data, Device(12, 0), (6,), FLOAT)
    with pytest.raises(DeviceError, match=r"memory of cpu\(0\), not of ext_dev\(0\)"):
        use_as_memory(session, record)[act]()


@pytest.mark.parametrize("act", ["pass", "copy from", "copy to"])
@pytest.mark.parametrize(
    ("offset", "shape"), [(4, (6,)), (24, (1,)), (1 << 63, (6,)), ((1 << 64) - 4, (6,))]
)
def test_copies_and_arguments_out_of_bounds(
    session: LocalSession, offset: int, shape: Any, act: str
) -> None:
    """Offset and size are added without overflow; nothing is written."""
    outside = TensorRecord(floats(session, 6).data, CPU, shape, FLOAT, offset)
    same_size = floats(session, *shape)
    acts = {
        "pass": lambda: session.resolve(outside),
        "copy from": lambda: session.copy_among(outside, same_size, 0),
        "copy to": lambda: session.copy_among(same_size, outside, 0),
    }
    with pytest.raises(ValueError, match="has to lie within its memory"):
        acts[act]()


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(0, 25), (24, 1), (1, 24), (8, 1 << 63), (1 << 63, 1 << 63), (25, 0)]
)
def test_reads_and_writes_out_of_bounds(session: LocalSession, offset: int, nbytes: int) -> None:
    """A copy's own size counts, whatever the shape of its tensor."""
    record = TensorRecord(floats(session, 6).data, CPU, (1,), FLOAT, offset)
    with pytest.raises(ValueError, match="has to lie within its memory"):
        session.memory(record, nbytes)


def test_only_memory_is_freed_as_memory(session: LocalSession) -> None:
    """A function's handle is no memory's; one that is not known is no error."""
    function = session.handles.put(PackedFunc(len))
    with pytest.raises(DeviceError, match="a PackedFunc, not of memory"):
        session.free_data(CPU, function)
    assert session.handles.get(function)
    session.free_data(CPU, 12345)


def test_copies_among_tensors(session: LocalSession) -> None:
    """From view to view, of one size; nothing happens to empty ones."""
    source, target = floats(session, 6), floats(session, 6)
    session.memory(source, 24)[:] = bytes(range(24))
    session.copy_among(
        TensorRecord(source.data, CPU, (2,), FLOAT, 8),
        TensorRecord(target.data, CPU, (2,), FLOAT, 12),
        0,
    )
    assert bytes(session.memory(target, 24)) == bytes(12) + bytes(range(8, 16)) + bytes(4)
    with pytest.raises(ValueError, match="24 bytes to a tensor of 4;"):
        session.copy_among(source, floats(session, 1), 0)
    session.copy_among(floats(session, 0), floats(session, 3, 0), 0)


def test_a_device_with_memory_of_its_own(
    session: LocalSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies go by way of the CPU's memory, to and from the right place."""
    monkeypatch.setitem(kinds.apis, 12, SeparateAPI())
    device = Device(12, 0)
    record = TensorRecord(0, device, (6,), FLOAT)
    record = TensorRecord(session.alloc_tensor(record, None), device, (6,), FLOAT, 4)
    target = session.memory(record, 8)
    target[:] = b"12345678"
    session.written(record, target)
    assert bytes(session.content(record, 8)) == b"12345678"
    record = TensorRecord(record.data, device, (6,), FLOAT)
    assert bytes(session.content(record, 14)) == b"\xaa" * 4 + b"12345678" + b"\xaa" * 2
    session.written(record, session.memory(record, 0))
    assert bytes(session.content(record, 0)) == b""
    for copy in (session.memory, session.content):
        with pytest.raises(ValueError, match="has to lie within its memory"):
            copy(record, 25)
    monkeypatch.setitem(kinds.apis, 4, SeparateAPI())
    other = TensorRecord(0, Device(4, 0), (6,), FLOAT)
    other = TensorRecord(session.alloc_tensor(other, None), Device(4, 0), (6,), FLOAT)
    session.copy_among(record, other, 0)
    assert bytes(session.content(other, 14)) == b"\xaa" * 4 + b"12345678" + b"\xaa" * 2


def test_memory_that_a_library_owns(session: LocalSession) -> None:
    """A compiled function may return a tensor of which only the address is known."""
    owner = allocate(24)
    owner.view[:] = bytes(range(24))

    class Owned:
        data, nbytes, keeps = owner.data, 24, owner

    result = run(session, lambda: Tensor(Owned(), (6,), FLOAT, runtime.cpu(0)))
    assert isinstance(result, TensorResult)
    assert bytes(session.content(result.record, 24)) == bytes(range(24))
    session.memory(result.record, 4)[:] = b"here"
    assert bytes(owner.view[:5]) == b"here\x04"


@pytest.mark.parametrize(("dtype", "nbytes"), [("int4", 7), ("float6_e2m3fn", 7), ("int4x3", 14)])
def test_small_elements_have_room_for_old_clients(
    session: LocalSession, dtype: str, nbytes: int
) -> None:
    """TVM up to 0.20 reads whole bytes for each element that is smaller."""
    record = TensorRecord(0, CPU, (7,), DataType(dtype))
    record = TensorRecord(session.alloc_tensor(record, None), CPU, (7,), DataType(dtype))
    assert len(session.memory(record, nbytes)) == nbytes
    with pytest.raises(ValueError, match="has to lie within its memory"):
        session.memory(record, nbytes + 1)


@pytest.mark.parametrize("nbytes", [-1, 2.0, "8", True, 2**61, None])
def test_sizes_that_cannot_be(session: LocalSession, nbytes: Any) -> None:
    """Whatever a client asks for: an error of that request, and no memory is made."""
    with pytest.raises((TypeError, ValueError), match=r"shape"):
        session.alloc(CPU, nbytes, 64, FLOAT)
    with pytest.raises((TypeError, ValueError), match=r"shape"):
        session.alloc_tensor(TensorRecord(0, CPU, (nbytes,), FLOAT), None)
    assert not session._kinds
    assert session.handles.get(session.alloc(CPU, 8, 64, FLOAT)).nbytes == 8


def test_devices_do_not_fill_memory(session: LocalSession) -> None:
    """A client that names any number of them is remembered a few."""
    for number in range(1000):
        session.set_stream(Device(1, number), 1)
    assert len(session._places) < 100


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
    """Of the CPU, which has one only, whatever is set."""
    stream = session.create_stream(CPU)
    session.set_stream(CPU, 5)
    assert session.get_stream(CPU) == session.get_stream(Device(1, 1)) == 0
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
