"""What a device must do: `DeviceAPI`. No device is driven here.

`Device` is the public name of one device; its `api` does the work, here or, in a subclass, on
another machine. `kinds` knows who drives which kind.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING, Any, List, Optional, Protocol, Tuple, Type, TypeVar

from ... import dlpack
from ...data_type import DataType, DataTypeCode, integer_of, number_text
from ...errors import DeviceError
from .kinds import apis, find_api, kind_name

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["Device", "DeviceAPI", "DeviceAttribute", "Memory"]


class DeviceAttribute(enum.IntEnum):
    """What can be asked of a device (include/tvm/runtime/device_api.h, DeviceAttrKind)."""

    EXIST = 0
    MAX_THREADS_PER_BLOCK = 1
    WARP_SIZE = 2
    MAX_SHARED_MEMORY_PER_BLOCK = 3
    COMPUTE_VERSION = 4
    DEVICE_NAME = 5
    MAX_CLOCK_RATE = 6
    MULTI_PROCESSOR_COUNT = 7
    MAX_THREAD_DIMENSIONS = 8
    MAX_REGISTERS_PER_BLOCK = 9
    GCN_ARCH = 10
    API_VERSION = 11
    DRIVER_VERSION = 12
    L2_CACHE_SIZE_BYTES = 13
    TOTAL_GLOBAL_MEMORY = 14
    AVAILABLE_GLOBAL_MEMORY = 15
    IMAGE_PITCH_ALIGNMENT = 16


class Memory(Protocol):
    """Some bytes of a device; freed when the object is dropped."""

    @property
    def data(self) -> int:
        """Where: what a DLTensor has as its pointer, or what another machine calls the place."""

    @property
    def nbytes(self) -> int:
        """How much may be used."""


class DeviceAPI(abc.ABC):
    """What a kind of device does; a subclass drives one kind, and one object all devices of it.

    Three methods have to be there: memory, and copies between it and the host's. The others say
    what a device of the simplest kind does: memory that only these copies reach, one stream, and no
    attributes. `device` is always one of the kind.

    Raises, in each method:
        DeviceError: the device is not there, or refuses.
    """

    def get_attr(self, device: dlpack.Device, attribute: int) -> Any:
        """The value of a `DeviceAttribute`, or None where the device has none.

        `EXIST` is asked of any number: 1, or 0 where there is no device with this number.
        """
        return 1 if attribute == DeviceAttribute.EXIST else None

    # Memory

    @abc.abstractmethod
    def alloc(
        self,
        device: dlpack.Device,
        shape: Tuple[int, ...],
        dtype: DataType,
        mem_scope: Optional[str],
    ) -> Memory:
        """Memory for a tensor, with undefined contents."""

    def alloc_workspace(self, device: dlpack.Device, nbytes: int) -> Memory:
        """Memory that compiled code uses during one call."""
        return self.alloc(device, (nbytes,), _BYTE, None)

    def host_view(self, memory: Memory, start: int, nbytes: int) -> Optional[memoryview]:
        """Some bytes of a memory, where this process can read and write them; else None.

        Args:
            memory: one of this kind of device; also one that compiled code made.
            start: the first of the bytes; they are known to be within the memory.
            nbytes: how many.
        """
        return None

    def describe(self, tensor: Tensor) -> Tuple[bytearray, int]:
        """A DLTensor for compiled code of this process, and its address.

        It is valid while the bytes are kept. Compiled code sees `Memory.data` as the pointer, and
        the offset beside it; a kind whose pointers can be added to gives the sum, as most compiled
        code expects, with `description.described`.
        """
        from .description import described

        return described(tensor, tensor.memory.data, tensor.byte_offset)

    # Copies

    @abc.abstractmethod
    def copy_from_host(self, source: memoryview, target: Tensor) -> None:
        """Fill the whole tensor from contiguous bytes (format ``B``); done on return."""

    @abc.abstractmethod
    def copy_to_host(self, source: Tensor, target: memoryview) -> None:
        """Fill contiguous bytes (format ``B``) with the whole tensor; done on return."""

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy between two tensors of this API with the same number of bytes.

        In the order of the target's stream: it may go on after the return.
        """
        staged = memoryview(bytearray(source.nbytes))
        self.copy_to_host(source, staged)
        self.copy_from_host(staged, target)

    # Streams: a device that knows none does nothing

    def sync(self, device: dlpack.Device, stream: int) -> None:  # noqa: B027  (see above)
        """Wait until everything on the stream (0: the default one) is done."""

    def create_stream(self, device: dlpack.Device) -> int:
        """A new stream; whoever made it frees it."""
        return 0

    def free_stream(self, device: dlpack.Device, stream: int) -> None:  # noqa: B027  (see above)
        """Free a stream that `create_stream` made."""

    def set_stream(self, device: dlpack.Device, stream: int) -> None:  # noqa: B027  (see above)
        """Let what follows on the device go to this stream."""

    def get_stream(self, device: dlpack.Device) -> int:
        """The stream that was set last; 0 is the default one."""
        return 0


_BYTE = DataType.of(int(DataTypeCode.UINT), 8)
_D = TypeVar("_D", bound="Device")


class Device(dlpack.Device):
    """A device that can be asked and used: ``cpu(0)``.

    Each attribute asks the device; None means that this kind of device does not say, or is not
    here. To use one that is not here is a `DeviceError`.

    Args:
        device_type: the number of its kind.
        device_id: its number among those of the kind.

    Raises:
        TypeError: one of them is no integer.
        ValueError: one of them is beyond 32 bits.
    """

    __slots__ = ()

    def __new__(cls: Type[_D], device_type: int, device_id: int = 0) -> _D:
        kind = _int32("device_type", device_type)
        return super().__new__(cls, kind, _int32("device_id", device_id))

    @property
    def api(self) -> DeviceAPI:
        """Who drives the device."""
        return apis.get(self[0]) or find_api(self[0])

    def dlpack_device_type(self) -> int:
        """The number of the device's kind; the newer spelling of `device_type`."""
        return self.device_type

    @property
    def index(self) -> int:  # type: ignore[override]  # TVM's name; nobody searches this tuple
        """The newer spelling of `device_id`."""
        return self.device_id

    @property
    def type(self) -> str:
        """TVM's name of the device's kind; of one that has none its number."""
        return kind_name(self.device_type) or str(self.device_type)

    def __repr__(self) -> str:
        return f"{self.type}({self.device_id})"

    @property
    def exist(self) -> bool:
        """Whether the device is there and can be used."""
        try:
            api = self.api
        except DeviceError:
            return False
        return bool(api.get_attr(self, DeviceAttribute.EXIST))

    @property
    def max_threads_per_block(self) -> Optional[int]:
        """The number of threads in each block."""
        return self._number(DeviceAttribute.MAX_THREADS_PER_BLOCK)

    @property
    def warp_size(self) -> Optional[int]:
        """The number of threads that execute together."""
        return self._number(DeviceAttribute.WARP_SIZE)

    @property
    def max_shared_memory_per_block(self) -> Optional[int]:
        """Bytes of shared memory in each block."""
        return self._number(DeviceAttribute.MAX_SHARED_MEMORY_PER_BLOCK)

    @property
    def compute_version(self) -> Optional[str]:
        """The version of the device's abilities, as ``major.minor``."""
        return self._words(DeviceAttribute.COMPUTE_VERSION)

    @property
    def device_name(self) -> Optional[str]:
        """The vendor's name of the device."""
        return self._words(DeviceAttribute.DEVICE_NAME)

    @property
    def max_clock_rate(self) -> Optional[int]:
        """The highest clock rate in kHz."""
        return self._number(DeviceAttribute.MAX_CLOCK_RATE)

    @property
    def multi_processor_count(self) -> Optional[int]:
        """The number of compute units."""
        return self._number(DeviceAttribute.MULTI_PROCESSOR_COUNT)

    @property
    def max_thread_dimensions(self) -> Optional[List[int]]:
        """The longest axes of a block of threads: x, y, z."""
        text = self._words(DeviceAttribute.MAX_THREAD_DIMENSIONS)
        if text is None:
            return None
        import json

        try:
            dimensions: List[int] = json.loads(text)
        except (ValueError, RecursionError):
            raise self._nonsense(
                DeviceAttribute.MAX_THREAD_DIMENSIONS, text, "a list of numbers"
            ) from None
        return dimensions

    @property
    def max_registers_per_block(self) -> Optional[int]:
        """The number of 32-bit registers in each block."""
        return self._number(DeviceAttribute.MAX_REGISTERS_PER_BLOCK)

    @property
    def gcn_arch(self) -> Optional[str]:
        """The architecture of a GPU of AMD: ``gfx90a``; before TVM 0.14 its number."""
        return self._words(DeviceAttribute.GCN_ARCH)

    @property
    def api_version(self) -> Optional[int]:
        """The version of the development kit that the driver was built with."""
        return self._number(DeviceAttribute.API_VERSION)

    @property
    def driver_version(self) -> Optional[str]:
        """The version of the driver."""
        return self._words(DeviceAttribute.DRIVER_VERSION)

    @property
    def l2_cache_size_bytes(self) -> Optional[int]:
        """Bytes of the second-level cache."""
        return self._number(DeviceAttribute.L2_CACHE_SIZE_BYTES)

    @property
    def total_global_memory(self) -> Optional[int]:
        """Bytes of memory in all."""
        return self._number(DeviceAttribute.TOTAL_GLOBAL_MEMORY)

    @property
    def available_global_memory(self) -> Optional[int]:
        """Bytes of memory that are free."""
        return self._number(DeviceAttribute.AVAILABLE_GLOBAL_MEMORY)

    @property
    def image_pitch_alignment(self) -> Optional[int]:
        """Elements to whose multiple each row of an image is aligned."""
        return self._number(DeviceAttribute.IMAGE_PITCH_ALIGNMENT)

    def texture_spatial_limit(self) -> Any:
        """The longest sides of a texture (TVM asks with the number of `driver_version`)."""
        return self._asked(DeviceAttribute.DRIVER_VERSION)

    def create_raw_stream(self) -> int:
        """A new stream; to be freed with `free_raw_stream`."""
        return self.api.create_stream(self)

    def free_raw_stream(self, stream: int) -> None:
        """Free a stream of `create_raw_stream`."""
        self.api.free_stream(self, _stream(stream))

    def set_raw_stream(self, stream: int) -> None:
        """Let what follows go to this stream."""
        self.api.set_stream(self, _stream(stream))

    def get_raw_stream(self) -> int:
        """The stream that what follows goes to; 0 is the default one.

        A server of TVM before 0.16 does not know the question, and ends the session over it.
        """
        return self.api.get_stream(self)

    def sync(self, stream: Optional[int] = None) -> None:
        """Wait until everything on the stream (None: the default one) is done."""
        self.api.sync(self, 0 if stream is None else _stream(stream))

    def _asked(self, attribute: DeviceAttribute) -> Any:
        try:
            api = self.api
        except DeviceError:  # nobody drives the kind
            return None
        return api.get_attr(self, attribute)

    def _number(self, attribute: DeviceAttribute) -> Optional[int]:
        value = self._asked(attribute)
        try:
            return None if value is None else int(value)
        except (TypeError, ValueError):
            raise self._nonsense(attribute, value, "a number") from None

    def _nonsense(self, attribute: DeviceAttribute, value: object, wanted: str) -> DeviceError:
        return DeviceError(
            f"{self!r} says {repr(value)[:80]} when it is asked for its "
            f"{attribute.name.lower()}; expected {wanted}"
        )

    def _words(self, attribute: DeviceAttribute) -> Optional[str]:
        value = self._asked(attribute)
        return None if value is None else str(value)


def _stream(value: Any) -> int:
    """The number of a stream, which is a pointer as a rule.

    Raises:
        TypeError: it is no integer.
    """
    number = integer_of(value)
    if number is None:
        raise TypeError(f"{value!r} is no stream; expected what create_raw_stream returned, or 0")
    return number


def _int32(name: str, value: Any) -> int:
    """One of a device's numbers, as a DLDevice has it."""
    number = integer_of(value)
    if number is None:
        raise TypeError(f"{name} is {value!r}; expected an integer")
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError(f"{name} is {number_text(number)}; expected an integer of 32 bits")
    return number
