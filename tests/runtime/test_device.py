"""Tests of devices: their names, who drives them, and the CPU's memory."""

from __future__ import annotations

import ctypes
import enum
import gc
import itertools
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pytest_tvmrpc
from pytest_tvmrpc import dlpack, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import ALIGNMENT, DeviceType
from pytest_tvmrpc.errors import DeviceError
from pytest_tvmrpc.runtime.device.api import DeviceAttribute
from pytest_tvmrpc.runtime.device.cpu import API, MAPPED_NBYTES, allocate
from pytest_tvmrpc.runtime.device.kinds import find_api

BYTE = DataType("uint8")


@pytest.mark.parametrize(("name", "number"), dlpack.DEVICE_TYPES.items())
def test_device_by_every_name(name, number):
    """Each of TVM's names, also with a number of its own."""
    assert runtime.device(name) == runtime.Device(number, 0)
    assert runtime.device(name, 2) == runtime.device(f"{name}:2") == (number, 2)
    assert runtime.device(number, 1) == (number, 1)


def test_device_takes_a_target():
    """The first word of a target names the device."""
    assert runtime.device("llvm -mcpu=native") == runtime.cpu(0)


@pytest.mark.parametrize("name", ["", " ", "gpux", "cpu:", "cpu:x", "cpu:-1", "cpu:²", "cpu:1_0"])
def test_unknown_device_names_the_known_ones(name):
    """The message lists what would have been right."""
    with pytest.raises(ValueError, match=r"Unknown device .*cpu, cuda"):
        runtime.device(name)


def test_device_numbers_count_from_zero():
    """Neither number may be negative."""
    for arguments in (("cpu", -1), (-1, 0), (0, 0)):
        with pytest.raises(ValueError, match="counted from 0"):
            runtime.device(*arguments)
    with pytest.raises(ValueError, match=r"^device 'cuda' number -1: .*counted from 0"):
        runtime.cuda(-1)


_CONSTRUCTORS = [
    *(runtime.cpu, runtime.cuda, runtime.opencl, runtime.cl, runtime.vulkan, runtime.metal),
    *(runtime.mtl, runtime.vpi, runtime.rocm, runtime.ext_dev, runtime.webgpu, runtime.hexagon),
]


@pytest.mark.parametrize("number", [1.5, 2.0, "1", True, np.bool_(1), None, [0], np.float32(1)])
def test_what_is_no_device_number(number):
    """It is neither rounded nor kept, whoever makes the device."""
    for make in _CONSTRUCTORS:
        with pytest.raises(TypeError, match=r"device_id is .*; expected an integer"):
            make(number)
    for arguments in (("cpu", number), (1, number)):
        for make in (runtime.device, runtime.Device):
            with pytest.raises(TypeError, match=r"expected an integer"):
                make(*arguments)
    if not isinstance(number, str):
        with pytest.raises(TypeError, match=r"device_type is .*; expected an integer"):
            runtime.device(number)


def test_numbers_that_no_device_has_room_for():
    """A DLDevice has 32 bits for each; a part of a number would be another device."""
    for arguments in (("cpu", 2**31), (2**32 + 1,), ("cpu:9999999999",)):
        with pytest.raises(ValueError, match="expected an integer of 32 bits"):
            runtime.device(*arguments)


def test_integers_of_other_libraries():
    """Whatever is an integer is a number of a device, which holds plain ones."""
    for device in (runtime.cuda(np.int64(1)), runtime.device(DeviceType.CUDA, np.uint8(1))):
        assert device == (2, 1)
        assert [type(number) for number in device] == [int, int]


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("llvm", "cpu"),
        ("c", "cpu"),
        ("cuda", "cuda"),
        ("llvm -mcpu=native", "cpu"),
        ({"kind": "opencl", "max_num_threads": 256}, "opencl"),
        ('{"kind": "metal"}', "metal"),
        (SimpleNamespace(kind=SimpleNamespace(name="rocm")), "rocm"),
        (SimpleNamespace(get_target_device_type=lambda: 7), "vulkan"),
    ],
    ids=itertools.count(),
)
def test_the_device_of_a_target(target, kind):
    """device_from_target takes a target in each form that TVM has of it."""
    for index in (None, 0, 2):
        device = runtime.device_from_target(target, index)
        assert (device.type, device.index) == (kind, index or 0)


@pytest.mark.parametrize("target", ["nonsense", "", "nvidia/nvidia-a100", 5, None, {}, "{", "{}"])
def test_targets_that_are_none(target):
    """An error that names those that are."""
    with pytest.raises(ValueError, match="target"):
        runtime.device_from_target(target)


def test_functions_for_each_kind():
    """As TVM names them; gpu() warns."""
    kinds = {
        "cpu": 1,
        "cuda": 2,
        "opencl": 4,
        "cl": 4,
        "vulkan": 7,
        "metal": 8,
        "mtl": 8,
        "vpi": 9,
        "rocm": 10,
        "ext_dev": 12,
        "webgpu": 15,
        "hexagon": 16,
    }
    for name, number in kinds.items():
        assert getattr(runtime, name)() == (number, 0)
        assert getattr(runtime.nd, name)(3) == (number, 3)
    with pytest.warns(DeprecationWarning, match="use cuda"):
        assert runtime.gpu(1) == runtime.cuda(1)


def test_targets_that_are_enabled():
    """What can run here is, however it is named; what nothing drives is not."""
    for target in ("cpu", "llvm", "llvm -mcpu=native", "c", "rpc", {"kind": "llvm"}):
        assert runtime.enabled(target) is True
    for name in dlpack.DEVICE_TYPES:
        kind = runtime.device(name)
        here = name in ("cpu", "llvm", "c") or (kind.device_type != 1 and kind.exist)
        assert runtime.enabled(name) is here
    target = types.SimpleNamespace(kind=types.SimpleNamespace(name="cuda"))
    assert runtime.enabled(target) is runtime.enabled("cuda")
    assert runtime.enabled(enum.Enum("Target", {"OURS": "llvm"}, type=str).OURS) is True
    for nonsense in ("", "nope", 5, {}, None):
        with pytest.raises(ValueError, match=r"Unknown target .*; expected one of cpu, .*rpc$"):
            runtime.enabled(nonsense)


def test_device_is_a_value():
    """Equal by its numbers, hashable, pickled, with both of TVM's spellings."""
    device = runtime.cuda(1)
    assert device == dlpack.Device(2, 1)
    assert {device: 1}[runtime.cuda(1)] == 1
    assert pickle.loads(pickle.dumps(device)) == device
    assert (device.device_type, device.device_id) == (2, 1)
    assert (device.dlpack_device_type(), device.index, device.type) == (2, 1, "cuda")
    assert runtime.Device(99, 0).type == "99"


def test_text():
    """The name of the kind and the number; a kind without a name has its number."""
    assert [repr(runtime.cpu(0)), str(runtime.ext_dev(2))] == ["cpu(0)", "ext_dev(2)"]
    assert repr(runtime.Device(99, 1)) == "99(1)"


def test_cpu_exists_and_says_little():
    """Its memory is known; all else is None, as with TVM."""
    device = runtime.cpu(0)
    assert device.exist is True
    if sys.platform != "win32":
        assert device.total_global_memory > 1 << 20
    for name in (
        "max_threads_per_block",
        "warp_size",
        "max_shared_memory_per_block",
        "compute_version",
        "device_name",
        "max_clock_rate",
        "multi_processor_count",
        "max_thread_dimensions",
        "api_version",
        "driver_version",
        "max_registers_per_block",
        "gcn_arch",
        "l2_cache_size_bytes",
        "available_global_memory",
        "image_pitch_alignment",
    ):
        assert getattr(device, name) is None
    assert device.texture_spatial_limit() is None
    assert API.get_attr(device, 1234) is None


def test_answers_of_a_device_are_typed():
    """Numbers, texts, and a list that travels as JSON."""

    class Talker(type(API)):
        def get_attr(self, device, attribute):
            answers = {
                DeviceAttribute.WARP_SIZE: 32,
                DeviceAttribute.COMPUTE_VERSION: "8.6",
                DeviceAttribute.GCN_ARCH: "gfx90a",
                DeviceAttribute.MAX_REGISTERS_PER_BLOCK: 65536,
                DeviceAttribute.IMAGE_PITCH_ALIGNMENT: 64,
                DeviceAttribute.MAX_THREAD_DIMENSIONS: "[1024, 1024, 64]",
            }
            return answers.get(attribute, 0)

    class TalkingDevice(runtime.Device):
        api = Talker()

    device = TalkingDevice(2, 0)
    assert not device.exist
    assert (device.warp_size, device.compute_version) == (32, "8.6")
    assert device.max_thread_dimensions == [1024, 1024, 64]
    assert (device.max_registers_per_block, device.gcn_arch) == (65536, "gfx90a")
    assert device.image_pitch_alignment == 64


@pytest.mark.parametrize("nonsense", ["Test Device", "[" * 100_000, float("nan")])
def test_answers_of_a_device_that_mean_nothing(nonsense):
    """They may come from another machine: an error of the device, with what was asked."""

    class Babbler(type(API)):
        def get_attr(self, device, attribute):
            return nonsense

    class BabblingDevice(runtime.Device):
        api = Babbler()

    device = BabblingDevice(2, 0)
    assert device.exist
    for name in ("warp_size", "max_thread_dimensions"):
        with pytest.raises(DeviceError, match=f"its {name}; expected"):
            getattr(device, name)


def test_streams_of_the_cpu_mean_nothing():
    """They can be made, used and freed all the same."""
    device = runtime.cpu(0)
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    device.sync(stream)
    device.sync()
    device.free_raw_stream(stream)
    assert stream == device.get_raw_stream() == 0


@pytest.mark.parametrize("device_type", [DeviceType.MAIA, 99, 129, 0, -1])
def test_kind_that_is_not_here(device_type):
    """It does not exist, which is no error; using it is one that names the kinds that are here."""
    device = runtime.Device(device_type, 0)
    assert device.exist is False
    assert device.warp_size is device.device_name is device.max_thread_dimensions is None
    assert device.texture_spatial_limit() is None
    for use in (device.sync, device.create_raw_stream, device.get_raw_stream):
        with pytest.raises(DeviceError, match="is not enabled"):
            use()
    with pytest.raises(DeviceError, match=r"Device API \w+|-1 is not enabled.*cpu"):
        runtime.empty((2,), "float32", device)


def test_api_of_a_kind_is_found_once():
    """The same object drives every device of a kind."""
    assert runtime.cpu(0).api is runtime.cpu(1).api is find_api(1) is API


@pytest.mark.parametrize(
    "nbytes", [0, 1, 63, 64, 65, 4096, MAPPED_NBYTES - 1, MAPPED_NBYTES, MAPPED_NBYTES + 1]
)
def test_memory_is_aligned_zeroed_and_writable(nbytes):
    """To the last byte, whichever way it is taken from the system."""
    memory = allocate(nbytes)
    assert memory.data % ALIGNMENT == 0
    assert memory.nbytes == len(memory.view) == nbytes
    assert (memory.view.format, memory.view.contiguous) == ("B", True)
    if nbytes:
        assert (memory.view[0], memory.view[-1]) == (0, 0)
        memory.view[-1] = 7
        assert _byte_at(memory.data + nbytes - 1) == 7


def _byte_at(address: int) -> int:
    return ctypes.string_at(address, 1)[0]


def test_memory_lives_as_long_as_a_part_of_it_is_seen():
    """A slice of the view keeps all of it."""
    for nbytes in (100, MAPPED_NBYTES):
        memory = allocate(nbytes)
        part = memory.view[10:20]
        del memory
        gc.collect()
        part[0] = 1
        assert part.tolist() == [1] + [0] * 9


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((2**50,), DeviceError, "cannot allocate"),
        ((2**40, 2**40), ValueError, "beyond any memory"),
        ((2**62, 2**62, 2**62), ValueError, "beyond any memory"),
    ],
)
def test_absurd_size_is_an_error(shape, error, message):
    """Not a crash, and not a MemoryError from somewhere; the next allocation works."""
    with pytest.raises(error, match=message):
        runtime.empty(shape)
    assert runtime.empty((2,)).nbytes == 8


@pytest.mark.parametrize("shape", [(-1,), (-2, -3), (0, -1)])
def test_negative_length_is_an_error(shape):
    """Also where the product would be none."""
    with pytest.raises(ValueError, match="lengths are 0 or more"):
        runtime.empty(shape)


def test_memory_scopes():
    """The CPU has one kind of memory; the refusal has TVM's words."""
    device = runtime.cpu(0)
    for scope in (None, "", "global"):
        assert API.alloc(device, (3,), BYTE, scope).nbytes == 3
    words = "Device does not support allocate data space with specified memory scope: texture"
    with pytest.raises(DeviceError, match=words):
        runtime.empty((3,), "uint8", device, "texture")


class DLTensor(ctypes.Structure):
    """As dlpack.h has it, laid out by this machine's compiler."""

    _fields_ = (
        ("pointer", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_description_is_laid_out_as_the_compiler_does_it(shape):
    """Whatever the size of the machine's pointers."""
    tensor = runtime.empty(shape, "int8x4", runtime.cpu(3))
    seen = DLTensor.from_address(tensor.dltensor)
    assert seen.pointer == tensor.memory.data
    assert (tuple(seen.device), seen.ndim) == ((1, 3), len(shape))
    assert (seen.code, seen.bits, seen.lanes) == (0, 8, 4)
    assert tuple(seen.shape[: len(shape)]) == shape
    assert ctypes.addressof(seen.shape.contents) % ctypes.alignment(ctypes.c_int64) == 0
    assert tuple(seen.strides[: len(shape)]) == dlpack.compact_strides(shape)
    assert seen.byte_offset == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_memory_is_not_shared_with_a_forked_child():
    """A session that is forked from this process cannot write into its tensors."""
    script = (
        "import os\n"
        "from pytest_tvmrpc.runtime.device.cpu import MAPPED_NBYTES, allocate\n"
        "memory = allocate(MAPPED_NBYTES)\n"
        "child = os.fork()\n"
        "if not child: memory.view[0] = 9; os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0 and memory.view[0] == 0\n"
    )
    folder = str(Path(pytest_tvmrpc.__file__).parents[1])
    path = f"import sys; sys.path.insert(0, {folder!r})\n"
    subprocess.run([sys.executable, "-c", path + script], check=True, timeout=60)
