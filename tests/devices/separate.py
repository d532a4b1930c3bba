"""A kind of device from outside the package, as a user would write it.

Its memory is reached through its API only: what a tensor has as its address is a number of the
device. Copies from one memory to another wait in their stream until somebody waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from pytest_tvmrpc.dlpack import Device, tensor_nbytes
from pytest_tvmrpc.errors import DeviceError
from pytest_tvmrpc.runtime.device.api import DeviceAPI, DeviceAttribute

if TYPE_CHECKING:
    from pytest_tvmrpc.data_type import DataType
    from pytest_tvmrpc.runtime.tensor import Tensor

CAPACITY = 1 << 20
"""Bytes of each device."""

COUNT = 2
"""Devices of this kind."""


class SeparateMemory:
    """A part of a device's memory, given back when this is dropped."""

    def __init__(self, memories: Dict[int, bytearray], data: int, nbytes: int) -> None:
        self._memories = memories
        self.data = data
        self.nbytes = nbytes
        memories[data] = bytearray(b"\xaa") * nbytes

    def __del__(self) -> None:
        del self._memories[self.data]


class SeparateAPI(DeviceAPI):
    """Drives `COUNT` devices of `CAPACITY` bytes each."""

    def __init__(self) -> None:
        self.memories: List[Dict[int, bytearray]] = [{} for _ in range(COUNT)]
        self._current = [0] * COUNT
        self._waiting: List[Dict[int, List[Callable[[], None]]]] = [{0: []} for _ in range(COUNT)]
        self._last = 0x5000

    def get_attr(self, device: Device, attribute: int) -> Any:
        """What this device has to say."""
        if attribute == DeviceAttribute.EXIST:
            return int(device.device_id < COUNT)
        if attribute == DeviceAttribute.DEVICE_NAME:
            return "separate memory"
        if attribute == DeviceAttribute.TOTAL_GLOBAL_MEMORY:
            return CAPACITY
        if attribute == DeviceAttribute.AVAILABLE_GLOBAL_MEMORY:
            return CAPACITY - sum(map(len, self._memories(device).values()))
        if attribute == DeviceAttribute.MAX_THREAD_DIMENSIONS:
            return "[8, 4, 2]"
        return None

    def alloc(
        self, device: Device, shape: Tuple[int, ...], dtype: DataType, mem_scope: Optional[str]
    ) -> SeparateMemory:
        """A new part of the device's memory."""
        nbytes = tensor_nbytes(shape, dtype)
        if mem_scope not in (None, "", "global"):
            raise DeviceError(f"this device has no memory scope {mem_scope}")
        if nbytes > self.get_attr(device, DeviceAttribute.AVAILABLE_GLOBAL_MEMORY):
            raise DeviceError(f"this device has no {nbytes} bytes left")
        self._last += 1
        return SeparateMemory(self._memories(device), self._last, nbytes)

    def copy_from_host(self, source: memoryview, target: Tensor) -> None:
        """Done on return, after what waits."""
        self._finish(target.device)
        self.content(target)[:] = source

    def copy_to_host(self, source: Tensor, target: memoryview) -> None:
        """Done on return, after what waits."""
        self._finish(source.device)
        target[:] = self.content(source)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Waits in the current stream of the target's device."""
        if source.device != target.device:
            self._finish(source.device)
        number = target.device.device_id

        def act() -> None:
            self.content(target)[:] = bytes(self.content(source))

        self._waiting[number][self._current[number]].append(act)

    def sync(self, device: Device, stream: int) -> None:
        """Does what waits in the stream."""
        waiting = self._stream(device, stream)
        while waiting:
            waiting.pop(0)()

    def create_stream(self, device: Device) -> int:
        """A new one."""
        self._memories(device)
        self._last += 1
        self._waiting[device.device_id][self._last] = []
        return self._last

    def free_stream(self, device: Device, stream: int) -> None:
        """With what waits in it."""
        self._stream(device, stream)
        del self._waiting[device.device_id][stream]

    def set_stream(self, device: Device, stream: int) -> None:
        """For copies from here on."""
        self._stream(device, stream)
        self._current[device.device_id] = stream

    def get_stream(self, device: Device) -> int:
        """The one that copies go to."""
        self._memories(device)
        return self._current[device.device_id]

    def content(self, tensor: Tensor) -> memoryview:
        """The bytes of a tensor, for code that runs on the device."""
        return self.part(tensor.device, tensor.memory.data, tensor.byte_offset, tensor.nbytes)

    def part(self, device: Device, data: int, start: int, nbytes: int) -> memoryview:
        """Bytes of the device by what a DLTensor says."""
        return memoryview(self._memories(device)[data])[start : start + nbytes]

    def _memories(self, device: Device) -> Dict[int, bytearray]:
        if device.device_id >= COUNT:
            raise DeviceError(f"there are {COUNT} devices of this kind, counted from 0")
        return self.memories[device.device_id]

    def _stream(self, device: Device, stream: int) -> List[Callable[[], None]]:
        self._memories(device)
        if stream not in self._waiting[device.device_id]:
            raise DeviceError(f"the device has no stream {stream}")
        return self._waiting[device.device_id][stream]

    def _finish(self, device: Device) -> None:
        for stream in self._waiting[device.device_id]:
            self.sync(device, stream)


API = SeparateAPI()


def scale(kind: int, number: int, data: int, start: int, count: int, factor: int) -> None:
    """The kernel of this device: multiplies bytes, found by what a DLTensor says of them."""
    content = API.part(Device(kind, number), int(data), start, count)
    content[:] = bytes(element * factor % 256 for element in content)
