"""What every kind of device does: the CPU, and one that a file outside the package drives.

The same tests for both, in this process and over a session with a server.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import CompilerError, DeviceError, RPCError
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

from . import separate

FOLDER = Path(__file__).parent


def scale_on_cpu(kind: int, number: int, data: int, start: int, count: int, factor: int) -> None:
    """The kernel of the CPU: multiplies bytes, found by what a DLTensor says of them."""
    content = (ctypes.c_ubyte * count).from_address(int(data) + start)
    content[:] = [element * factor % 256 for element in content]


def take_part(folder: str) -> None:
    """Has the device driven in a server, and its kernels found there."""
    sys.path.insert(0, folder)
    from separate import API, scale  # type: ignore[import-not-found]  # by the path above

    runtime.register_device_api("ext_dev", API)
    runtime.register_global_func("test.scale.ext_dev", scale)
    runtime.register_global_func("test.scale.cpu", scale_on_cpu)
    runtime.register_global_func("test.same", lambda tensor: tensor)
    runtime.register_global_func("test.dltensor", lambda tensor: tensor.dltensor % 8)
    runtime.register_global_func("test.copied", lambda tensor: tensor.copyto(runtime.cpu(0)))


NAMES = [f"test.{name}" for name in ("scale.ext_dev", "scale.cpu", "same", "dltensor", "copied")]


class Place(NamedTuple):
    """Where the tests are done."""

    kind: str
    device: Callable[[int], runtime.Device]
    cpu: runtime.Device
    function: Callable[[str], Any]
    load: Callable[[str], Any]

    def scale(self) -> Any:
        """The kernel of this kind."""
        return self.function(f"test.scale.{self.kind}")


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[rpc.Server]:
    """One that has the device."""

    def begin(folder: str = str(FOLDER), act: Callable[[str], None] = take_part) -> None:
        act(folder)

    with rpc.Server(port=0, silent=True, server_init_callback=begin) as server:
        yield server


@pytest.fixture(name="here")
def _here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The device and its kernels in this process."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "separate", separate)
    take_part(str(FOLDER))
    yield
    runtime.unregister_device_api("ext_dev")
    for name in NAMES:
        runtime.remove_global_func(name)
    gc.collect()
    assert not any(separate.API.memories), "memory of the device was not given back"


@pytest.fixture(
    name="place",
    params=[(kind, way) for kind in ("cpu", "ext_dev") for way in ("here", "remote")],
    ids="-".join,
)
def _place(request: pytest.FixtureRequest, server: rpc.Server) -> Iterator[Place]:
    """Each kind of device, here and on a server."""
    kind, way = request.param
    if way == "here":
        request.getfixturevalue("here")
        yield Place(
            kind,
            lambda number: runtime.device(kind, number),
            runtime.cpu(0),
            runtime.get_global_func,
            runtime.load_module,
        )
        return
    with rpc.connect(server.host, server.port) as remote:

        def load(path: str) -> Any:
            remote.upload(path)
            return remote.load_module(Path(path).name)

        yield Place(
            kind,
            lambda number: remote.device(kind, number),
            remote.cpu(0),
            remote.get_function,
            load,
        )


@pytest.fixture(name="kernels", scope="module")
def _kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    return compile_library(FOLDER / "kernels.c", tmp_path_factory.mktemp("c") / "kernels.so")


def test_attributes(place: Place) -> None:
    """A device exists, or it does not; what it does not say is None."""
    device = place.device(0)
    assert device.exist
    assert device.warp_size is None
    assert device.total_global_memory
    if place.kind == "ext_dev":
        assert (device.device_name, device.max_thread_dimensions) == (
            "separate memory",
            [8, 4, 2],
        )
        absent = place.device(separate.COUNT)
        assert absent.exist is False
        with pytest.raises((DeviceError, RPCError), match="counted from 0"):
            runtime.empty((4,), "int8", absent)
        with pytest.raises((DeviceError, RPCError), match="counted from 0"):
            absent.sync()


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int4", "bool", "float16x4"])
def test_memory_keeps_what_is_put_in(place: Place, dtype: str, shape: Any) -> None:
    """Of each form and type, on both devices of a kind, beside one another."""
    lanes = (4,) if dtype.endswith("x4") else ()
    array = np.arange(np.prod(shape + lanes)).reshape(shape + lanes) % (1 + 6 * (dtype != "bool"))
    tensors = [runtime.empty(shape, dtype, place.device(number)) for number in (0, 1)]
    for number, tensor in enumerate(tensors):
        tensor.copyfrom((array + number).astype("float32"))
        assert tensor.device == place.device(number)
    for number, tensor in enumerate(tensors):
        back = tensor.numpy()
        np.testing.assert_array_equal(back, (array + number).astype(back.dtype))


def test_memory_is_given_back(place: Place) -> None:
    """When the tensor is dropped; another of the same size has room then."""
    if place.kind == "cpu":
        pytest.skip("the CPU has more memory than a test should take")
    device = place.device(0)
    first = runtime.empty((separate.CAPACITY - 100,), "uint8", device)
    view = first._create_view((5,), relative_byte_offset=5)
    assert device.available_global_memory == 100
    with pytest.raises((DeviceError, RPCError), match="bytes left"):
        runtime.empty((200,), "uint8", device)
    del first
    assert device.available_global_memory == 100
    view.copyfrom(np.arange(5))
    assert view.numpy().tolist() == [0, 1, 2, 3, 4]
    del view
    gc.collect()
    assert device.available_global_memory == separate.CAPACITY


def test_memory_scopes(place: Place) -> None:
    """One scope is there; another is refused."""
    tensor = runtime.empty((4,), "uint8", place.device(0), "global")
    assert tensor.copyto(place.device(0), "global").nbytes == 4
    place.device(0).sync()
    with pytest.raises((DeviceError, RPCError), match="memory scope"):
        runtime.empty((4,), "uint8", place.device(0), "texture")


def test_copies(place: Place) -> None:
    """From and to this process, the CPU over there, the same device and its neighbour."""
    array = np.arange(12, dtype="int16").reshape(3, 4)
    source = runtime.tensor(array, place.device(0))
    others = [place.device(0), place.device(1), place.cpu, runtime.cpu(0)]
    for target in others:
        copied = source.copyto(target)
        assert copied.device == target
        np.testing.assert_array_equal(copied.numpy(), array)
        again = runtime.empty((4, 3), "int16", place.device(0)).copyfrom(copied)
        np.testing.assert_array_equal(again.numpy(), array.reshape(4, 3))
    with pytest.raises(ValueError, match="array shape do not match"):
        source.copyto(runtime.empty((11,), "int16", place.device(1)))


def test_views(place: Place) -> None:
    """Offsets count in each direction, also in copies from view to view, and in views of views."""
    whole = runtime.tensor(np.arange(16, dtype="int32"), place.device(0))
    view = whole._create_view((2, 3), relative_byte_offset=8)
    inner = view._create_view((2,), relative_byte_offset=16)
    assert view.numpy().tolist() == [[2, 3, 4], [5, 6, 7]]
    assert inner.numpy().tolist() == [6, 7]
    inner.copyfrom(np.array([-6, -7]))
    assert whole.numpy().tolist() == [0, 1, 2, 3, 4, 5, -6, -7, *range(8, 16)]
    for device in (place.device(0), place.device(1), place.cpu, runtime.cpu(0)):
        other = runtime.tensor(np.zeros(8, "int32"), device)
        part = other._create_view((6,), relative_byte_offset=4)
        view.copyto(part)
        assert other.numpy().tolist() == [0, 2, 3, 4, 5, -6, -7, 0]
        part._create_view((1,)).copyto(whole._create_view((1,), relative_byte_offset=60))
        assert whole.numpy()[15] == 2
        whole._create_view((1,)).copyto(part._create_view((1,), relative_byte_offset=20))
        assert other.numpy()[6] == 0


def test_streams(place: Place) -> None:
    """One can be made, be the current one, be waited for and freed; each device has its own."""
    device, neighbour = place.device(0), place.device(1)
    stream = device.create_raw_stream()
    before = neighbour.get_raw_stream()
    device.set_raw_stream(stream)
    assert device.get_raw_stream() == stream
    assert neighbour.get_raw_stream() == before
    source = runtime.tensor(np.arange(4, dtype="uint8"), device)
    target = runtime.empty((4,), "uint8", device)
    source.copyto(target)
    device.sync(stream)
    device.set_raw_stream(0)
    device.free_raw_stream(stream)
    device.sync()
    assert target.numpy().tolist() == [0, 1, 2, 3]
    if place.kind == "ext_dev":
        assert stream != 0
        with pytest.raises((DeviceError, RPCError), match="no stream"):
            device.set_raw_stream(stream)


def test_compiled_code_gets_a_dltensor(place: Place, kernels: str) -> None:
    """Of this device: kind, number, the device's own pointer, the offset, the shape."""
    module = place.load(kernels)
    for number in (0, 1):
        whole = runtime.tensor(np.arange(8, dtype="uint8"), place.device(number))
        module["scale"](place.scale(), whole, 3)
        assert whole.numpy().tolist() == [0, 3, 6, 9, 12, 15, 18, 21]
        view = whole._create_view((2,), relative_byte_offset=3)
        module["scale"](place.scale(), view, 2)
        assert whole.numpy().tolist() == [0, 3, 6, 18, 24, 15, 18, 21]


def test_time_of_compiled_code(place: Place, kernels: str) -> None:
    """Is measured on the device like anywhere else."""
    module = place.load(kernels)
    tensor = runtime.tensor(np.ones(2, "uint8"), place.device(0))
    timed = module.time_evaluator("scale", place.device(0), number=2, repeat=3)
    assert len(timed(place.scale(), tensor, 3).results) == 3
    assert tensor.numpy().tolist() == [3 ** (1 + 2 * 3) % 256] * 2


def test_functions_of_python_get_and_return_tensors(place: Place) -> None:
    """Of this device; the one that returns lives as long as it is held."""
    tensor = runtime.tensor(np.arange(4, dtype="uint8"), place.device(1))
    same = place.function("test.same")(tensor)
    assert same.device == place.device(1)
    assert place.function("test.dltensor")(same) == 0
    same.copyfrom(np.full(4, 9))
    assert tensor.numpy().tolist() == [9] * 4
    del tensor
    assert same.numpy().tolist() == [9] * 4
    copied = place.function("test.copied")(same)
    assert copied.device == place.cpu
    assert copied.numpy().tolist() == [9] * 4


def test_memory_of_the_device_is_not_of_this_process(here: None) -> None:
    """DLPack shares it as memory of that device; for the CPU it is copied."""
    tensor = runtime.tensor(np.arange(2, dtype="float32"), runtime.ext_dev(1))
    assert tensor.host_view() is None
    shared = runtime.from_dlpack(tensor)
    assert (shared.device, shared.data_ptr()) == (runtime.ext_dev(1), tensor.memory.data)
    copied = runtime.from_dlpack(tensor.__dlpack__(dl_device=(1, 0)))
    assert copied.device == runtime.cpu(0)
    assert copied.numpy().tolist() == [0, 1]
    with pytest.raises(BufferError, match=r"ext_dev\(1\) cannot be had on device"):
        tensor.__dlpack__(dl_device=(1, 0), copy=False)
