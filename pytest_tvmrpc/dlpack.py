"""The words protocol and runtime share: devices, kinds of values, tensor descriptions.

Names and numbers are those of DLPack and of TVM's FFI. Nothing here owns memory or drives a
device.
"""

from __future__ import annotations

import enum
import itertools
from typing import Any, Dict, NamedTuple, Optional, Tuple

from .data_type import DataType, DataTypeCode, integer_of

ALIGNMENT = 64
"""Bytes; TVM's kAllocAlignment. Compiled code may load vectors on the strength of it."""


class DeviceType(enum.IntEnum):
    """DLDeviceType, with TVM's additions."""

    CPU = 1
    CUDA = 2
    CUDA_HOST = 3
    OPENCL = 4
    VULKAN = 7
    METAL = 8
    VPI = 9
    ROCM = 10
    ROCM_HOST = 11
    EXT_DEV = 12
    CUDA_MANAGED = 13
    ONEAPI = 14
    WEBGPU = 15
    HEXAGON = 16
    MAIA = 17
    TRN = 18


DEVICE_TYPES: Dict[str, int] = {
    **{kind.name.lower(): int(kind) for kind in DeviceType},
    **dict.fromkeys(("llvm", "stackvm", "c", "test", "hybrid", "composite"), 1),
    "nvptx": 2,
    "gpu": 2,
    "cl": 4,
    "mtl": 8,
}
"""The names under which TVM knows a kind of device."""


class Device(NamedTuple):
    """A device of some machine: its kind and its number."""

    device_type: int
    device_id: int = 0


class TypeIndex(enum.IntEnum):
    """The kind of a value (TVMFFITypeIndex; tvm-ffi, include/tvm/ffi/c_api.h).

    In memory, where compiled code reads it, and on the wire in the FFI dialect.
    """

    NONE = 0
    INT = 1
    BOOL = 2
    FLOAT = 3
    OPAQUE_PTR = 4
    DATA_TYPE = 5
    DEVICE = 6
    DL_TENSOR_PTR = 7
    RAW_STR = 8
    BYTE_ARRAY_PTR = 9
    OBJECT_RVALUE_REF = 10
    SMALL_STR = 11
    SMALL_BYTES = 12
    OBJECT = 64
    STR = 65
    BYTES = 66
    ERROR = 67
    FUNCTION = 68
    SHAPE = 69
    TENSOR = 70
    ARRAY = 71
    MAP = 72
    MODULE = 73
    LIST = 75
    DICT = 76
    RPC_OBJECT_REF = 115


class ArgTypeCode(enum.IntEnum):
    """The kind of a value up to TVM 0.20 (TVMArgTypeCode; tvm/runtime/c_runtime_api.h).

    In memory, where compiled code reads it, and on the wire in the legacy dialect.
    """

    INT = 0
    UINT = 1
    FLOAT = 2
    HANDLE = 3
    NULL = 4
    DATA_TYPE = 5
    DEVICE = 6
    DL_TENSOR = 7
    OBJECT = 8
    MODULE = 9
    FUNCTION = 10
    STR = 11
    BYTES = 12
    NDARRAY = 13
    OBJECT_RVALUE_REF = 14
    BOOL = 15


class OpaquePointer(int):
    """An address on the machine that serves; meaningless here, passed back as it came."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"OpaquePointer({int(self):#x})"


class TensorRecord:
    """A tensor as it is described to another machine: where, and of what form; no strides.

    ``data`` is a handle that the machine which owns the memory chose, ``byte_offset`` counts from
    the memory's start. The elements lie in C order without gaps. Immutable by convention;
    ``encoded`` is where the protocol keeps its bytes, since the same few records are sent with
    call after call.
    """

    __slots__ = ("byte_offset", "data", "device", "dtype", "encoded", "shape")

    def __init__(
        self,
        data: int,
        device: Device,
        shape: Tuple[int, ...],
        dtype: DataType,
        byte_offset: int = 0,
    ) -> None:
        self.data = data
        self.device = device
        self.shape = shape
        self.dtype = dtype
        self.byte_offset = byte_offset
        self.encoded: Optional[bytes] = None

    @property
    def nbytes(self) -> int:
        """Bytes the elements take: all bits together, rounded up (sub-byte types are packed)."""
        return tensor_nbytes(self.shape, self.dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorRecord) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return (
            f"TensorRecord(data={self.data:#x}, device={tuple(self.device)}, shape={self.shape}, "
            f"dtype={self.dtype}, byte_offset={self.byte_offset})"
        )

    def _fields(self) -> Tuple[object, ...]:
        return (self.data, tuple(self.device), self.shape, self.dtype, self.byte_offset)


def tensor_nbytes(shape: Tuple[int, ...], dtype: DataType) -> int:
    """Bytes a tensor of this shape and type takes; sub-byte types are packed.

    ``uint1``, the bool of TVM up to 0.22, is not: it takes one byte, as bool does.
    """
    count = 1
    for length in shape:
        count *= length
    if dtype.bits == 1 and dtype.code == DataTypeCode.UINT and dtype.lanes == 1:
        return count
    return (count * dtype.bits * dtype.lanes + 7) // 8


MAX_NDIM = 64
"""Axes of a tensor; NumPy has no more either, and a peer's number may not fill our memory."""

_END = 1 << 63  # of what int64 counts


def checked_shape(shape: Any, dtype: Optional[DataType] = None) -> Tuple[int, ...]:
    """The lengths of a tensor's axes as plain ints, if there can be such a tensor.

    Every shape comes through here where it enters, whoever gives it: what is no shape is an error
    at that place, and nothing is rounded or read as a number that is none.

    Args:
        shape: integers, or one integer for a tensor of one axis. What has ``__index__`` is an
            integer, such as NumPy's; a bool, a float, or a text is none.
        dtype: the element type; with it, the size of all elements together is checked, too.

    Raises:
        TypeError: the shape is no sequence, or an element is no integer.
        ValueError: a length is negative, there are over `MAX_NDIM` of them, the elements have
            2**63 bits or more, or the element type has no size (``void``).
    """
    lengths = shape if type(shape) is tuple else _sequence_of(shape)
    if len(lengths) > MAX_NDIM:
        raise ValueError(f"a tensor of more than {MAX_NDIM} dimensions; 0 to {MAX_NDIM} can be")
    for length in lengths:
        if type(length) is not int:
            lengths = tuple(_length_of(each, shape) for each in lengths)
            break
    size = 8 if dtype is None else dtype.bits * dtype.lanes
    if not size or (dtype is not None and dtype.is_scalable):
        raise ValueError(f"there are no tensors of {dtype}: its elements have no size")
    for length in lengths:
        if length > 0:  # a length of 0 hides no others: strides are products without it
            size *= length
        elif length < 0:
            raise ValueError(
                f"a tensor cannot have the shape {_shown(lengths)}: lengths are 0 or more"
            )
    if size >= _END:
        raise ValueError(
            f"a tensor of shape {_shown(lengths)} and type {dtype or 'uint8'} is beyond any "
            "memory: its elements have 2**63 bits or more"
        )
    return lengths


def compact_strides(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """The distance of neighbours along each axis, in elements, in C order without gaps."""
    strides = []
    distance = 1
    for length in reversed(shape):
        strides.append(distance)
        distance *= length
    return tuple(reversed(strides))


def _sequence_of(shape: Any) -> Tuple[Any, ...]:
    """The elements of a shape that is no plain tuple."""
    if hasattr(shape, "__index__") and getattr(shape, "ndim", 0) == 0:
        return (shape,)
    if isinstance(shape, (str, bytes, bytearray, dict, set, frozenset)) or not hasattr(
        shape, "__iter__"
    ):
        raise TypeError(
            f"a shape is a sequence of integers or one integer, not {type(shape).__name__} "
            f"{_shown(shape)}"
        )
    return tuple(itertools.islice(shape, MAX_NDIM + 1))


def _length_of(length: Any, shape: Any) -> int:
    """One element of a shape as a plain int."""
    number = integer_of(length)
    if number is None:
        raise TypeError(
            f"the lengths of a shape are integers; {_shown(length)} in {_shown(shape)} is of type "
            f"{type(length).__name__}"
        )
    return number


def _shown(value: object) -> str:
    """A value in a message: not all of a long one."""
    try:
        text = repr(value)
    except ValueError:  # an int of over 4,300 digits has no text (Python 3.11)
        text = f"({type(value).__name__})"
    return text if len(text) <= 200 else text[:200] + "..."
