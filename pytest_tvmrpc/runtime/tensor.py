"""Tensors: memory of a device with a shape and an element type. No arithmetic, no strides."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Callable, Iterable, Optional, Tuple, Union

from .. import dlpack
from ..data_type import DataType, integer_of
from ..dlpack import OpaquePointer, TensorRecord, TypeIndex, checked_shape, tensor_nbytes
from ..errors import DeviceError, RPCError
from ..owners import not_copied
from .arrays import (
    array_of,
    converted,
    data_type_of,
    data_types,
    layout_of,
    layouts,
    unpacked,
)
from .copying import copy
from .device.api import Device, Memory
from .object import Object

if TYPE_CHECKING:
    from .arrays import Array

__all__ = ["NDArray", "Tensor", "array", "empty", "from_dlpack", "numpyasarray", "tensor"]

_CPU = Device(int(dlpack.DeviceType.CPU), 0)
_BYTE = DataType("uint8")
_ARGUMENT = struct.Struct("<QQ")
_DLTENSOR = "@PiiiBBHPPQ"


@not_copied("pickle tensor.numpy(), and make a tensor of it there")
class Tensor(Object):
    """Some elements on a device, in C order without gaps.

    Args:
        memory: where they are; the tensor keeps it alive.
        shape: the length of each axis.
        dtype: of each element.
        device: where the memory is.
        byte_offset: of the first element in the memory.

    Attributes:
        word: `argument`, once that was asked for; empty before.
    """

    __slots__ = (
        "__weakref__",
        "_described",
        "_nbytes",
        "_record",
        "byte_offset",
        "data_type",
        "device",
        "memory",
        "shape",
        "word",
    )

    def __init__(
        self,
        memory: Memory,
        shape: Tuple[int, ...],
        dtype: DataType,
        device: Device,
        byte_offset: int = 0,
    ) -> None:
        self.memory = memory
        self.shape = shape
        self.data_type = dtype
        self.device = device
        self.byte_offset = byte_offset
        self._nbytes: Optional[int] = None
        self._record: Optional[TensorRecord] = None
        self._described: Optional[Tuple[bytearray, int]] = None
        self.word = b""

    @property
    def dtype(self) -> DataType:
        """The element type, which is its text, too."""
        return self.data_type

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def size(self, idx: int) -> int:
        """The length of one axis; negative numbers count from the last.

        Raises:
            IndexError: there is no such axis.
            TypeError: the number is no integer.
        """
        axis = integer_of(idx)
        if axis is None:
            raise TypeError(f"idx is {idx!r}; expected an integer")
        if not -len(self.shape) <= axis < len(self.shape):
            raise IndexError(f"axis {idx} of a tensor of {len(self.shape)} dimensions")
        return self.shape[axis]

    def numel(self) -> int:
        """The number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def strides(self) -> Tuple[int, ...]:
        """For each axis the distance of two neighbours, in elements."""
        return dlpack.compact_strides(self.shape)

    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps, which is so of every tensor."""
        return True

    def data_ptr(self) -> int:
        """The address of the first element: what a DLTensor of it says.

        Raises:
            DeviceError: the memory is not in this process.
        """
        described = self._described or self.device.api.describe(self)
        record = struct.unpack_from(_DLTENSOR, described[0])
        return int(record[0] + record[-1])

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        if self._nbytes is None:
            self._nbytes = tensor_nbytes(self.shape, self.data_type)
        return self._nbytes

    @property
    def record(self) -> TensorRecord:
        """The tensor as another machine is told of it, with the device's plain numbers."""
        if self._record is None:
            device = dlpack.Device(self.device.device_type, self.device.device_id)
            self._record = TensorRecord(
                self.memory.data, device, self.shape, self.data_type, self.byte_offset
            )
        return self._record

    @property
    def dltensor(self) -> int:
        """The address of a DLTensor for compiled code, valid as long as this tensor is.

        Raises:
            DeviceError: the memory is not in this process, or is read-only.
        """
        described = self._described
        if described is None:
            view = self.host_view() if self.nbytes else None
            if view is not None and view.readonly:
                raise DeviceError(
                    "the tensor's memory is read-only, as whoever shared it said, and compiled "
                    "code can write to what it is given; give it a copy: tensor.copyto(cpu(0))"
                )
            described = self._described = self.device.api.describe(self)
        return described[1]

    @property
    def argument(self) -> bytes:
        """`dltensor` as an argument of compiled code: a TVMFFIAny of type DL_TENSOR_PTR.

        Raises:
            DeviceError: the memory is not in this process, or is read-only.
        """
        if not self.word:
            self.word = _ARGUMENT.pack(TypeIndex.DL_TENSOR_PTR, self.dltensor)
        return self.word

    @property
    def handle(self) -> OpaquePointer:
        """`dltensor` as a value that can be passed to a function."""
        return OpaquePointer(self.dltensor)

    def numpy(self) -> Array:
        """A copy of the elements as a NumPy array; waits for the device.

        Lanes become a last axis; ``int4`` becomes ``int8``. ``bfloat16`` and the small floats are
        types of the package ml_dtypes; without it, ``bfloat16`` comes as its bits in ``uint16``.

        Raises:
            TypeError: NumPy has no such element type.
        """
        dtype = self.data_type
        layout = layouts.get((dtype.code, dtype.bits, dtype.lanes)) or layout_of(dtype)
        if layout.is_packed:
            packed: Any = layout.empty((self.nbytes,), "u1")
            if packed.nbytes:
                self.device.api.copy_to_host(self, memoryview(packed))
            return unpacked(packed, self.shape + layout.lanes, layout)
        array = layout.empty(self.shape + layout.lanes, layout.dtype)
        if array.nbytes:
            flat: Any = array.reshape(-1).view("u1") if layout.is_foreign else array
            self.device.api.copy_to_host(self, memoryview(flat).cast("B"))
        return array

    def asnumpy(self) -> Array:
        """`numpy` in the spelling of old."""
        import warnings

        warnings.warn("asnumpy() is deprecated; use numpy()", DeprecationWarning, stacklevel=2)
        return self.numpy()

    def copyfrom(self, source_array: Any) -> Tensor:
        """Fill this tensor from an array, something like one, or another tensor.

        An array is converted to this tensor's element type, if that has its values: a number may
        be rounded to a floating-point type, and nothing else is changed. A contiguous array of the
        right type is not copied on the way.

        Raises:
            ValueError: the shape differs; for a tensor: the element type or the number of bytes;
                for an array: an element is no value of this tensor's type, or is masked.
            TypeError: this is nothing like an array, or NumPy has no such element type.
        """
        if isinstance(source_array, Tensor):
            copy(source_array, self)
            return self
        dtype = self.data_type
        layout = layouts.get((dtype.code, dtype.bits, dtype.lanes)) or layout_of(dtype)
        if type(source_array) is not layout.array_type:
            source_array = array_of(source_array)
        if source_array.shape != self.shape + layout.lanes:
            raise ValueError(
                "array shape do not match the shape of NDArray "
                f"{source_array.shape} vs {self.shape + layout.lanes}"
            )
        if (
            layout.is_foreign
            or source_array.dtype != layout.dtype
            or not source_array.flags.c_contiguous
        ):
            source_array = converted(source_array, layout)
        if source_array.nbytes:
            self.device.api.copy_from_host(memoryview(source_array).cast("B"), self)
        return self

    def copyto(self, target: Union[Tensor, Device], mem_scope: Optional[str] = None) -> Tensor:
        """Copy to another tensor, or to a new one on a device; returns the target tensor.

        Raises:
            ValueError: the target is neither, or a tensor of another type or number of bytes.
        """
        if isinstance(target, Device):
            target = _allocated(self.shape, self.data_type, target, mem_scope)
        elif not isinstance(target, Tensor):
            raise ValueError(
                f"Unsupported target type {type(target)}; expected a Tensor or a Device"
            )
        copy(self, target)
        return target

    def __deepcopy__(self, memo: object) -> Tensor:
        return self.copyto(self.device)

    def __setitem__(self, in_slice: slice, value: Any) -> None:
        if in_slice != slice(None):
            raise ValueError("Array only support set from numpy array: tensor[:] = array")
        if value is not self:
            self.copyfrom(value)

    def _create_view(
        self,
        shape: Iterable[int],
        dtype: Union[str, DataType, None] = None,
        relative_byte_offset: int = 0,
    ) -> Tensor:
        """The same memory under another shape or type, or a part of it.

        Raises:
            ValueError: it would reach beyond this tensor, or there can be no such shape.
            TypeError: the shape or the offset is not of integers.
        """
        data_type = self.data_type if dtype is None else data_type_of(dtype)
        lengths = checked_shape(shape, data_type)
        nbytes = tensor_nbytes(lengths, data_type)
        start = integer_of(relative_byte_offset)
        if start is None:
            raise TypeError(
                f"relative_byte_offset is {relative_byte_offset!r}; expected an integer"
            )
        if not 0 <= start <= self.nbytes - nbytes:
            raise ValueError(
                f"a view of shape {lengths} and type {data_type} at byte {start} "
                f"takes {nbytes} bytes; the tensor being viewed has {self.nbytes} "
                f"(shape {self.shape}, type {self.dtype})"
            )
        return Tensor(self.memory, lengths, data_type, self.device, self.byte_offset + start)

    def host_view(self) -> Optional[memoryview]:
        """The bytes, where this process can read and write them; None where it cannot."""
        return self.device.api.host_view(self.memory, self.byte_offset, self.nbytes)

    def part(self, start: int, nbytes: int) -> Tensor:
        """Some of the bytes; the tensor itself where that is all of them."""
        if nbytes == self.nbytes:
            return self
        return Tensor(self.memory, (nbytes,), _BYTE, self.device, self.byte_offset + start)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Optional[Tuple[int, int]] = None,
        dl_device: Optional[Tuple[int, int]] = None,
        copy: Optional[bool] = None,
    ) -> Any:
        """For ``from_dlpack`` of other libraries: the memory itself, not a copy.

        Args:
            stream: where the caller goes on; the device has finished before this returns.
            max_version: the newest DLPack that the caller knows; None: one before 1.0.
            dl_device: kind and number of the device where it is wanted; None: where it is.
            copy: True: a copy; False: no copy, or an error.

        Returns:
            A capsule. Lanes are a last axis in it.

        Raises:
            DeviceError: the memory is not in this process.
            BufferError: it cannot be had there, not without a copy, or not read-only.
            TypeError: an element is less than a byte.
        """
        from .capsules import given

        return given(self, max_version, dl_device, copy)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return self.device.device_type, self.device.device_id

    def to_dlpack(self) -> Any:
        """The DLPack capsule of this tensor."""
        return self.__dlpack__()

    def __repr__(self) -> str:
        return f"<runtime.Tensor shape={self.shape}, {self.device!r}>\n{self._text(repr)}"

    def __str__(self) -> str:
        return self._text(str)

    def _text(self, written: Callable[[Any], str]) -> str:
        try:
            return written(self.numpy())
        except (ImportError, TypeError, RPCError) as error:  # a text must come, of whatever tensor
            return f"({self.dtype}, contents not available: {error})"


NDArray = Tensor


def tensor(arr: Any, device: Optional[Device] = None, mem_scope: Optional[str] = None) -> Tensor:
    """A new tensor with the elements of an array, something like one, or another tensor.

    Args:
        arr: what to copy; a contiguous array is sent as it lies in memory.
        device: where to; None: the CPU of this process.
        mem_scope: the device's name for a special kind of memory.

    Raises:
        TypeError: the device is no `Device`.
        ValueError: TVM has no such element type.
    """
    if isinstance(arr, Tensor):
        data_type = arr.data_type
    else:
        import numpy

        if type(arr) is not numpy.ndarray:
            arr = array_of(arr)
        data_type = data_types.get(arr.dtype) or data_type_of(arr.dtype)
    return _allocated(checked_shape(arr.shape, data_type), data_type, device, mem_scope).copyfrom(
        arr
    )


array = tensor


def empty(
    shape: Union[int, Iterable[int]],
    dtype: Any = "float32",
    device: Optional[Device] = None,
    mem_scope: Optional[str] = None,
) -> Tensor:
    """A new tensor with undefined contents.

    Args:
        shape: the length of each axis.
        dtype: TVM's text for the element type, or a NumPy type.
        device: where; None: the CPU of this process.
        mem_scope: the device's name for a special kind of memory.

    Raises:
        TypeError: a length is no integer, or the device is no `Device`.
        ValueError: no tensor can have this shape, or TVM has no such element type.
        DeviceError: the device is not there, or has not so much memory.
    """
    data_type = data_type_of(dtype)
    return _allocated(checked_shape(shape, data_type), data_type, device, mem_scope)


def numpyasarray(np_data: Array) -> Tensor:
    """A CPU tensor over an array's own memory: what one writes, the other shows.

    Into an array that is read-only nothing can be copied, and compiled code does not get it.

    Raises:
        ValueError: the array is not contiguous, or TVM has no such element type; its bytes are in
            the order of another machine, or some elements are masked.
    """
    from .device.cpu import HostMemory

    np_data = array_of(np_data)
    data_type = data_type_of(np_data.dtype)
    if not np_data.dtype.isnative:
        raise ValueError(
            f"the array's type is {np_data.dtype}, of another byte order; use tensor(), which "
            "converts"
        )
    if not np_data.flags.c_contiguous or tensor_nbytes(np_data.shape, data_type) != np_data.nbytes:
        raise ValueError("the array is not contiguous, or not packed; use tensor(), which copies")
    flat: Any = np_data.reshape(-1).view("u1") if np_data.nbytes else b""
    memory = HostMemory(np_data.ctypes.data, memoryview(flat))
    return Tensor(memory, np_data.shape, data_type, _CPU)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor over the memory of another library's tensor: what one writes, the other shows.

    Into memory that is read-only nothing can be copied, and compiled code does not get it.

    Args:
        ext_tensor: has ``__dlpack__``, or is a capsule that ``to_dlpack`` made.

    Raises:
        ValueError: it is not contiguous, or what describes it makes no sense.
        TypeError: it is nothing of the kind, or its elements are less than a byte each.
    """
    from .capsules import taken

    return taken(ext_tensor)


def _allocated(
    shape: Tuple[int, ...], dtype: DataType, device: Optional[Device], mem_scope: Optional[str]
) -> Tensor:
    place = _CPU if device is None else device
    if not isinstance(place, Device):
        raise TypeError(
            f"device is {place!r}; expected a Device, as runtime.device('cuda') or runtime.cpu(0)"
        )
    return Tensor(place.api.alloc(place, shape, dtype, mem_scope), shape, dtype, place)
