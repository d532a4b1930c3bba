"""Tensors whose memory is on a server."""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Tuple

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.client.tensors import PACKET_LIMIT
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, DeviceType, OpaquePointer, TensorRecord
from pytest_tvmrpc.errors import (
    DeviceError,
    LocalProtocolError,
    RemoteError,
    RemoteProtocolError,
)
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.runtime.device import kinds
from pytest_tvmrpc.runtime.device.cpu import CPUDevice
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.session.local import LocalSession

Inside = Tuple[rpc.RPCSession, LocalSession]

SHAPES = [(), (0,), (1,), (1024,), (1025,), (3, 4, 5), (0, 3), (300, 300), (2, 1_000_000)]
DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int32", "int64", "uint16", "bool"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(remote: rpc.RPCSession, shape: Any) -> None:
    """There and back without a change."""
    array = np.asarray(np.random.random_sample(shape), "float32")
    tensor = runtime.tensor(array, remote.cpu(0))
    assert tensor.shape == shape
    assert tensor.device == remote.cpu(0)
    np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_type(remote: rpc.RPCSession, dtype: str) -> None:
    """The type stays what it was."""
    array = (np.arange(100) % 2).astype(dtype)
    tensor = runtime.tensor(array, remote.cpu(0))
    assert tensor.dtype == dtype
    assert tensor.numpy().dtype == array.dtype
    np.testing.assert_array_equal(tensor.numpy(), array)


def test_arrays_with_gaps(remote: rpc.RPCSession) -> None:
    """Slices, transposed and reversed arrays are sent in their own order."""
    array = np.arange(1200, dtype="int32").reshape(30, 40)
    for view in (array[::2, ::3], array.T, array[::-1]):
        np.testing.assert_array_equal(runtime.tensor(view, remote.cpu(0)).numpy(), view)


def test_what_is_no_tensor_of_the_server(remote: rpc.RPCSession, inside: Inside) -> None:
    """Arrays, other libraries' tensors, and tensors elsewhere: the error says what to do."""

    class Foreign:
        shape = (2,)

        def __dlpack__(self) -> None:
            raise AssertionError("nobody asked for a copy")

    function = remote.get_function("rpc.test.addone")
    for array in (np.zeros((4, 6))[:, ::2], np.zeros((0,)), Foreign()):
        with pytest.raises(LocalProtocolError, match=r"runtime\.tensor\(array, remote"):
            function(array)
    for elsewhere in (runtime.cpu(0), inside[0].cpu(0)):
        with pytest.raises(ValueError, match=r"not on this server.* copy it there with copyto"):
            function(runtime.empty((2,), "float32", elsewhere))
    assert function(np.int64(1)) == 2


def test_new_content(remote: rpc.RPCSession) -> None:
    """copyfrom replaces it, small or large, and gives the tensor back; another shape cannot be."""
    for count in (10, 100_000):
        tensor = runtime.empty((count,), "float32", remote.cpu(0))
        array = np.random.rand(count).astype("float32")
        assert tensor.copyfrom(array) is tensor
        np.testing.assert_array_equal(tensor.numpy(), array)
        with pytest.raises(ValueError):
            tensor.copyfrom(np.zeros(count + 1, "float32"))
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_copies_between_places(remote: rpc.RPCSession) -> None:
    """Here and there, there and here, and on the server, which costs one request of few bytes."""
    array = np.random.rand(64, 64).astype("float32")
    here = runtime.tensor(array)
    there = here.copyto(remote.cpu(0))
    assert there.device == remote.cpu(0)
    again = runtime.empty((64, 64), "float32", remote.cpu(0))
    calls, sent, received = counted(remote)
    there.copyto(again)
    after = counted(remote)
    assert after[0] - calls == 1
    assert after[1] - sent < 256
    assert after[2] - received < 256
    np.testing.assert_array_equal(again.copyto(runtime.cpu(0)).numpy(), array)
    np.testing.assert_array_equal(runtime.empty((64, 64)).copyfrom(again).numpy(), array)


def counted(remote: rpc.RPCSession) -> Tuple[int, int, int]:
    """Requests, and bytes both ways, of a session so far."""
    meter = remote.meter
    return meter.calls, meter.bytes_sent, meter.bytes_received


@pytest.mark.parametrize("shape", [(), (0, 3), (64, 64), (9 << 20,)], ids=str)
def test_copies_between_two_servers(remote: rpc.RPCSession, inside: Inside, shape: Any) -> None:
    """By way of this process; both ways, and to a new tensor."""
    array = np.arange(np.prod(shape), dtype="int32").astype("uint8").reshape(shape)
    there = runtime.tensor(array, remote.cpu(0))
    elsewhere = there.copyto(inside[0].cpu(0))
    assert elsewhere.device == inside[0].cpu(0)
    np.testing.assert_array_equal(elsewhere.numpy(), array)
    there.copyfrom(np.zeros(shape, "uint8"))
    assert elsewhere.copyto(there) is there
    np.testing.assert_array_equal(there.numpy(), array)


def test_copies_of_the_wrong_form(remote: rpc.RPCSession, inside: Inside) -> None:
    """Are refused before anything is sent, with both forms in the message."""
    source = runtime.tensor(np.arange(6, dtype="float32"), remote.cpu(0))
    for device in (remote.cpu(0), inside[0].cpu(0), runtime.cpu(0)):
        with pytest.raises(ValueError, match=r"\(6,\) float32 vs \(7,\) float32"):
            source.copyto(runtime.empty((7,), "float32", device))
        with pytest.raises(ValueError, match="float32 cannot be copied to one of int32"):
            source.copyto(runtime.empty((6,), "int32", device))
    with pytest.raises(ValueError, match="Unsupported target"):
        source.copyto("cpu")


def test_copies_between_kinds_of_devices(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol has none between two that are not CPUs; a CPU tensor there stands between."""
    remote, session = inside
    for kind in (DeviceType.EXT_DEV, DeviceType.OPENCL):
        monkeypatch.setitem(kinds.apis, int(kind), CPUDevice())
    copied = recorded(session, monkeypatch, "copy_among")
    array = np.arange(12, dtype="int16").reshape(3, 4)
    source = runtime.tensor(array, remote.cpu(0)).copyto(remote.ext_dev(0))
    part = source._create_view((4,), relative_byte_offset=8)
    target = runtime.empty((4,), "int16", remote.cl(1))
    assert part.copyto(target) is target
    assert target.copyto(remote.cpu(0)).numpy().tolist() == [4, 5, 6, 7]
    ways = [(one.device.device_type, other.device.device_type) for one, other, _ in copied]
    assert ways == [(1, 12), (12, 1), (1, 4), (4, 1)]


@pytest.mark.parametrize("shape", [(-1,), (2**62, 4), "23", (2.5,), (1,) * 65])
def test_shapes_that_cannot_be(remote: rpc.RPCSession, shape: Any) -> None:
    """An error at the line that gives the shape; the calls after it go on."""
    with pytest.raises((TypeError, ValueError)):
        runtime.empty(shape, "float32", remote.cpu(0))
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_views(remote: rpc.RPCSession) -> None:
    """A view at an offset reads and writes there; TVM's goes to the start of the memory."""
    array = np.arange(24, dtype="float32")
    tensor = runtime.tensor(array, remote.cpu(0))
    view = tensor._create_view((3, 4), relative_byte_offset=16)
    np.testing.assert_array_equal(view.numpy(), array[4:16].reshape(3, 4))
    view.copyfrom(np.zeros((3, 4), "float32"))
    expected = array.copy()
    expected[4:16] = 0
    np.testing.assert_array_equal(tensor.numpy(), expected)
    with pytest.raises(ValueError):
        tensor._create_view((24,), relative_byte_offset=4)


def test_a_returned_tensor(remote: rpc.RPCSession) -> None:
    """A tensor that a function returns is held as long as it is held here."""
    made = remote.get_function("rpc.test.remote_return_nd")
    tensor = made("get_arr")()
    assert tensor.shape == (10,)
    np.testing.assert_array_equal(tensor.numpy(), np.zeros(10, "float32"))
    tensor.copyfrom(np.arange(10, dtype="float32"))
    np.testing.assert_array_equal(tensor.numpy(), np.arange(10, dtype="float32"))


def test_more_memory_than_there_is(remote: rpc.RPCSession) -> None:
    """Is an error of the device, and the session goes on."""
    with pytest.raises(RemoteError, match="cannot allocate"):
        runtime.empty((1 << 50,), "uint8", remote.cpu(0))
    assert remote.cpu(0).exist


def test_a_memory_scope_that_is_not_there(remote: rpc.RPCSession) -> None:
    """TVM's words, as an error of this session's."""
    with pytest.raises(RemoteError, match=r"memory scope: global\.texture"):
        runtime.empty((4,), "float32", remote.cpu(0), mem_scope="global.texture")


def test_nothing_is_sent_of_nothing(remote: rpc.RPCSession) -> None:
    """A tensor without elements is made and freed; copies of it need no packet."""
    array = np.empty((0, 3), "float32")
    tensor = runtime.tensor(array, remote.cpu(0))
    before = counted(remote)
    tensor.copyfrom(array)
    assert tensor.numpy().shape == (0, 3)
    assert tensor.copyto(runtime.empty((0, 3), "float32", runtime.cpu(0))).nbytes == 0
    assert counted(remote) == before


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)], ids=str)
def test_scalars_and_nothing_as_arguments_and_results(inside: Inside, shape: Any) -> None:
    """A tensor of no dimensions, or of no elements, reaches a function and returns from one."""
    remote, session = inside
    session.environment.functions["same"] = PackedFunc(lambda tensor: tensor)
    session.environment.functions["shape"] = PackedFunc(lambda tensor: repr(tensor.shape))
    array = np.full(shape, 7, "int64")
    tensor = runtime.tensor(array, remote.cpu(0))
    assert remote.get_function("shape")(tensor) == repr(shape)
    returned = remote.get_function("same")(tensor)
    assert returned.shape == shape
    np.testing.assert_array_equal(returned.numpy(), array)


def test_slices_as_arguments_and_results(inside: Inside) -> None:
    """A function sees the elements of the slice, and so does whoever gets one back."""
    remote, session = inside

    def doubled(tensor: runtime.Tensor) -> runtime.Tensor:
        tensor.copyfrom(tensor.numpy() * 2)
        return tensor._create_view((2,), relative_byte_offset=4)

    session.environment.functions["doubled"] = PackedFunc(doubled)
    whole = runtime.tensor(np.arange(8, dtype="int32"), remote.cpu(0))
    part = whole._create_view((3,), relative_byte_offset=8)
    returned = remote.get_function("doubled")(part)
    assert whole.numpy().tolist() == [0, 1, 4, 6, 8, 5, 6, 7]
    assert (returned.byte_offset, returned.numpy().tolist()) == (12, [6, 8])
    returned.copyfrom(np.array([-1, -2]))
    assert whole.numpy().tolist() == [0, 1, 4, -1, -2, 5, 6, 7]


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn"]
)
def test_small_floats(remote: rpc.RPCSession, dtype: str) -> None:
    """Those of ml_dtypes, there and back, and on the way through another tensor."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1, 2, 4, 1, 2], "float32").astype(getattr(ml_dtypes, dtype))
    tensor = runtime.tensor(array, remote.cpu(0))
    assert (tensor.dtype, tensor.numpy().dtype) == (dtype, array.dtype)
    assert tensor.numpy().tobytes() == array.tobytes()
    assert tensor.copyto(remote.cpu(0)).copyto(runtime.cpu()).numpy().tobytes() == array.tobytes()


def test_four_bits(remote: rpc.RPCSession) -> None:
    """Two elements share a byte on the way."""
    values = np.arange(-8, 7, dtype="int8")
    tensor = runtime.empty((15,), "int4", remote.cpu(0)).copyfrom(values)
    assert tensor.nbytes == 8
    assert tensor.numpy().tolist() == values.tolist()


def test_bools_of_both_numbers(remote: rpc.RPCSession) -> None:
    """Of today and of TVM up to 0.22; a tensor of one can be copied to one of the other."""
    flags = np.array([True, False, True])
    today = runtime.tensor(flags, remote.cpu(0))
    old = runtime.empty((3,), DataType.of(1, 1), remote.cpu(0)).copyfrom(~flags)
    assert old.numpy().dtype == bool
    assert old.copyto(today).numpy().tolist() == [False, True, False]


def test_streams_and_attributes(remote: rpc.RPCSession) -> None:
    """The device's own functions go over the session."""
    device = remote.cpu(0)
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    device.sync(stream)
    assert device.get_raw_stream() == stream
    device.free_raw_stream(stream)
    device.sync()
    assert device.total_global_memory
    assert device.warp_size is None


def test_text(remote: rpc.RPCSession) -> None:
    """A tensor says where it is."""
    text = repr(runtime.tensor(np.ones(2, "float32"), remote.cpu(0)))
    assert "remote[" in text
    assert "cpu(0)" in text


# Servers that take short packets only


def recorded(session: LocalSession, monkeypatch: pytest.MonkeyPatch, *methods: str) -> List[Any]:
    """The arguments of each call of some methods of a session from now on."""
    calls: List[Any] = []

    def watch(done: Callable[..., Any]) -> Callable[..., Any]:
        def record(*arguments: Any) -> Any:
            calls.append(arguments)
            return done(*arguments)

        return record

    for method in methods:
        monkeypatch.setattr(session, method, watch(getattr(session, method)))
    return calls


def limited(session: LocalSession, limit: Any) -> List[int]:
    """Gives a server a limit; what is returned grows with each time that it is asked for it."""
    asked: List[int] = []

    def answer() -> Any:
        asked.append(1)
        return limit

    session.environment.functions[PACKET_LIMIT] = PackedFunc(answer)
    return asked


def test_copies_are_cut_to_a_servers_limit(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of what 100 bytes have room for, each at its own offset; asked for once."""
    remote, session = inside
    asked = limited(session, 100)
    blocks = recorded(session, monkeypatch, "memory", "content")
    array = np.arange(30, dtype="int32")
    tensor = runtime.tensor(array, remote.cpu(0))
    expected = [(0, 48), (48, 48), (96, 24)]
    assert [(record.byte_offset, nbytes) for record, nbytes in blocks] == expected
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert [(record.byte_offset, nbytes) for record, nbytes in blocks] == expected * 2
    assert {record.shape for record, _ in blocks} == {(30,)}
    blocks.clear()
    view = tensor._create_view((20,), relative_byte_offset=12).copyfrom(np.zeros(20))
    assert [(record.byte_offset, nbytes) for record, nbytes in blocks] == [(12, 48), (60, 32)]
    assert view.numpy().tolist() == [0] * 20
    array[3:23] = 0
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert len(asked) == 1


@pytest.mark.parametrize("limit", [52, 0])
def test_a_limit_without_room(inside: Inside, limit: int) -> None:
    """An error that names the limit; nothing is copied, and the session goes on."""
    remote, session = inside
    limited(session, limit)
    tensor = runtime.empty((3,), "int32", remote.cpu(0))
    with pytest.raises(DeviceError, match=rf"packets of {limit} bytes.* needs 52 beside"):
        tensor.copyfrom([1, 2, 3])
    with pytest.raises(DeviceError, match="Invalid block size"):
        tensor.numpy()
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_a_limit_of_one_byte_each(inside: Inside) -> None:
    """The least that works."""
    remote, session = inside
    limited(session, 53)
    assert runtime.tensor(np.arange(9), remote.cpu(0)).numpy().tolist() == list(range(9))


@pytest.mark.parametrize("answer", ["much", None, 1.5])
def test_a_limit_that_is_none(inside: Inside, answer: Any) -> None:
    """A server that answers with something else is told of."""
    remote, session = inside
    limited(session, answer)
    with pytest.raises(RemoteProtocolError, match="expected a number of bytes"):
        runtime.tensor(np.arange(9), remote.cpu(0))


def test_no_limit(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative one, as with TVM, or no such function: copies stay whole."""
    remote, session = inside
    limited(session, -1)
    blocks = recorded(session, monkeypatch, "memory", "content")
    runtime.tensor(np.arange(100_000), remote.cpu(0)).numpy()
    assert [nbytes for _, nbytes in blocks] == [800_000] * 2


def test_devices_with_memory_of_their_own_take_whole_tensors(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So blocks go to a CPU tensor beside it, which is freed when it has been copied."""
    remote, session = inside
    monkeypatch.setitem(kinds.apis, int(DeviceType.EXT_DEV), CPUDevice())
    limited(session, 100)
    blocks = recorded(session, monkeypatch, "memory", "content")
    array = np.arange(30, dtype="int32")
    tensor = runtime.empty((30,), "int32", remote.ext_dev(0)).copyfrom(array)
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert {record.device.device_type for record, _ in blocks} == {DeviceType.CPU}
    assert [nbytes for _, nbytes in blocks] == [48, 48, 24] * 2
    remote.cpu(0).sync()
    assert len(session._kinds) == 1
    blocks.clear()
    runtime.tensor(np.arange(3, dtype="int32"), remote.ext_dev(0))
    assert {record.device.device_type for record, _ in blocks} == {DeviceType.EXT_DEV}


def test_asking_for_the_limit_costs_no_round_trip(remote: rpc.RPCSession) -> None:
    """The allocation goes along with the look-up, and that is made once."""
    tensor = runtime.empty((2048,), "uint8", remote.cpu(0))
    assert remote.meter.calls == 0
    tensor.copyfrom(np.zeros(2048))
    tensor.numpy()
    assert remote.meter.calls == 2
    remote.upload(b"content", "file")
    runtime.empty((4,), "uint8", remote.cpu(0)).numpy()
    assert remote.meter.calls == 5


def test_a_first_allocation_that_fails(remote: rpc.RPCSession) -> None:
    """Its error comes through the look-up that goes along; the session goes on."""
    with pytest.raises(RemoteError, match="cannot allocate"):
        runtime.empty((1 << 50,), "uint8", remote.cpu(0))
    assert runtime.tensor(np.arange(3), remote.cpu(0)).numpy().tolist() == [0, 1, 2]


def test_a_real_server_with_a_limit() -> None:
    """A server offers the limit when a function of that name is registered on it."""
    name = PACKET_LIMIT

    def register() -> None:
        from pytest_tvmrpc.runtime import register_global_func

        register_global_func(name, lambda: 1000)

    array = np.arange(2500, dtype="int32")
    with rpc.Server(port=0, silent=True, server_init_callback=register) as server, rpc.connect(
        server.host, server.port
    ) as remote:
        tensor = runtime.empty((2500,), "int32", remote.cpu(0))
        before = remote.meter.calls
        np.testing.assert_array_equal(tensor.copyfrom(array).numpy(), array)
        blocks = -(-10_000 // (1000 - 52))
        assert remote.meter.calls - before == 2 + 2 * blocks


# In both dialects, with a real server


@pytest.fixture(name="spoken", params=[FFI, LEGACY], ids=["ffi", "legacy"])
def _spoken(server: rpc.Server, request: pytest.FixtureRequest) -> Iterator[rpc.RPCSession]:
    """A session in which this client speaks one of the dialects; the server has to notice."""
    with rpc.connect(server.host, server.port) as remote:
        remote._endpoint.speak(request.param)
        yield remote


@pytest.mark.parametrize(
    "dtype", ["bool", "float32", "int8x4", "bfloat16", "float8_e4m3fn", "float8_e5m2", "uint64"]
)
@pytest.mark.parametrize("shape", [(), (0,), (6,)], ids=str)
def test_types_in_both_dialects(spoken: rpc.RPCSession, dtype: str, shape: Any) -> None:
    """A tensor is of its type there, whatever numbers the dialect has for it, and here again."""
    if dtype.startswith(("bf", "float8")):
        pytest.importorskip("ml_dtypes")
    lanes = (4,) if dtype.endswith("x4") else ()
    array = np.ones(shape + lanes, "int8")
    tensor = runtime.empty(shape, dtype, spoken.cpu(0)).copyfrom(array)
    np.testing.assert_array_equal(tensor.numpy().astype("int8"), array)
    tensor = tensor.copyto(spoken.cpu(0))
    np.testing.assert_array_equal(tensor.numpy().astype("int8"), array)


def test_types_that_the_legacy_dialect_lacks(spoken: rpc.RPCSession) -> None:
    """Are refused before anything is sent, in words that help."""
    if spoken._endpoint.dialect is FFI:
        assert runtime.empty((4,), "float8_e8m0fnu", spoken.cpu(0)).nbytes == 4
        return
    with pytest.raises(LocalProtocolError, match=r"TVM up to 0\.20 has no float8_e8m0fnu.*view"):
        runtime.empty((4,), "float8_e8m0fnu", spoken.cpu(0))
    assert runtime.tensor(np.arange(3), spoken.cpu(0)).numpy().tolist() == [0, 1, 2]


@pytest.mark.parametrize("stream", [1.5, "1", True, b"1"], ids=repr)
def test_what_is_no_stream(spoken: rpc.RPCSession, stream: Any) -> None:
    """Is an error of that line; a part of a number is not cut off."""
    device = spoken.cpu(0)
    for ask in (device.sync, device.set_raw_stream, device.free_raw_stream):
        with pytest.raises(TypeError, match="is no stream; expected what create_raw_stream"):
            ask(stream)
    device.sync()


@pytest.mark.parametrize("handle", [-1, 1 << 64])
def test_handles_out_of_range(spoken: rpc.RPCSession, handle: int) -> None:
    """Are refused before anything is sent, and the session goes on."""
    device, addone = spoken.cpu(0), spoken.get_function("rpc.test.addone")
    asks = (addone, device.sync, device.set_raw_stream, device.free_raw_stream)
    for ask, value in zip(asks, (OpaquePointer(handle), handle, handle, handle)):
        with pytest.raises(LocalProtocolError, match="out of range: a handle has 64 bits"):
            ask(value)
    assert addone(1) == 2


def test_streams_in_both_dialects(spoken: rpc.RPCSession) -> None:
    """Each request about streams, and attributes."""
    device = spoken.cpu(0)
    assert device.exist
    assert device.max_thread_dimensions is None
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    assert device.get_raw_stream() == stream
    device.sync(stream)
    device.free_raw_stream(stream)
    assert not spoken.ext_dev(0).exist
    with pytest.raises(RemoteError, match="ext_dev is not enabled"):
        spoken.ext_dev(0).sync()


@pytest.mark.parametrize("nbytes", [16, 100_000])
@pytest.mark.parametrize("wrong", ["never given out", "was freed", "not of memory", "lie within"])
def test_what_a_client_may_not_touch(spoken: rpc.RPCSession, wrong: str, nbytes: int) -> None:
    """Foreign, freed and other handles, and bytes beyond: an error each; the worker lives."""
    endpoint = spoken._endpoint
    kept = runtime.tensor(np.full(nbytes, 7, "uint8"), spoken.cpu(0))
    freed = runtime.empty((nbytes,), "uint8", spoken.cpu(0)).record
    function = spoken.get_function("rpc.test.addone")
    handles = {
        "never given out": 12345,
        "was freed": freed.data,
        "not of memory": function.handle,
        "lie within": kept.record.data,
    }
    offset = (1 << 64) - nbytes if wrong == "lie within" else 0
    record = TensorRecord(handles[wrong], Device(1), (nbytes,), DataType("uint8"), offset)
    content = memoryview(bytearray(nbytes))
    with pytest.raises(RemoteError, match=wrong):
        endpoint.copy_to_remote(record, content, is_awaited=True)
    with pytest.raises(RemoteError, match=wrong):
        endpoint.copy_from_remote(record, content)
    for pair in ((record, kept.record), (kept.record, record)):
        with pytest.raises(RemoteError, match=wrong):
            endpoint.syscall(RPCCode.COPY_AMONG_REMOTE, *pair, OpaquePointer(0))
    with pytest.raises(RemoteError, match=wrong):
        spoken.get_function("rpc.test.remote_tensor_func")(record)
    assert set(kept.numpy().tolist()) == {7}
