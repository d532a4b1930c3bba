"""The words protocol and runtime share: devices, data types, tensor descriptions.

Names and numbers are those of DLPack and of TVM's FFI. Nothing here owns memory or drives a
device.
"""

from __future__ import annotations

import enum
import itertools
import operator
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

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


class DataTypeCode(enum.IntEnum):
    """DLDataTypeCode (DLPack 1.3)."""

    INT = 0
    UINT = 1
    FLOAT = 2
    HANDLE = 3
    BFLOAT = 4
    COMPLEX = 5
    BOOL = 6
    FLOAT8_E3M4 = 7
    FLOAT8_E4M3 = 8
    FLOAT8_E4M3B11FNUZ = 9
    FLOAT8_E4M3FN = 10
    FLOAT8_E4M3FNUZ = 11
    FLOAT8_E5M2 = 12
    FLOAT8_E5M2FNUZ = 13
    FLOAT8_E8M0FNU = 14
    FLOAT6_E2M3FN = 15
    FLOAT6_E3M2FN = 16
    FLOAT4_E2M1FN = 17


_PLAIN = {"int": 0, "uint": 1, "float": 2, "handle": 3, "bfloat": 4, "complex": 5}
_PLAIN_NAMES = {code: name for name, code in _PLAIN.items()}
_DTYPE_TEXT = re.compile(r"(int|uint|float|handle|bfloat|complex)([0-9]*)(?:x([0-9]+))?")
_SMALL_TEXT = re.compile(r"(bool|float[468]_[a-z0-9]+?)(?:x([0-9]+))?")
_LEGACY_TEXT = re.compile(r"(e4m3|e5m2)_float8(x[0-9]+)?")
_LEGACY_NAMES = {"e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}


class DataType:
    """The type of a tensor's elements: a code, its bits, and how many lanes form one element.

    Args:
        text: as TVM writes it: ``float32``, ``int8x4``, ``bool``, ``bfloat16``, ``handle``.

    Raises:
        ValueError: the text names no data type.
    """

    __slots__ = ("bits", "code", "lanes")

    code: int
    bits: int
    lanes: int

    def __init__(self, text: Union[str, "DataType"]) -> None:
        self.code, self.bits, self.lanes = _parse_dtype(str(text))

    @classmethod
    def of(cls, code: int, bits: int, lanes: int = 1) -> "DataType":
        """The data type with these numbers; the same object for the same numbers."""
        known = _dtypes.get((code, bits, lanes))
        if known is None:
            known = cls.__new__(cls)
            known.code, known.bits, known.lanes = code, bits, lanes
            if len(_dtypes) < 1024:  # a peer chooses these numbers: it may not fill our memory
                _dtypes[code, bits, lanes] = known
        return known

    @property
    def itemsize(self) -> int:
        """Bytes of one element, rounded up."""
        return (self.bits * self.lanes + 7) // 8

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DataType):
            return (self.code, self.bits, self.lanes) == (other.code, other.bits, other.lanes)
        if isinstance(other, str):
            return str(self) == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        lanes = f"x{self.lanes}" if self.lanes != 1 else ""
        if (self.code, self.bits) in ((DataTypeCode.BOOL, 8), (DataTypeCode.UINT, 1)):
            return "bool" + lanes
        if (self.code, self.bits, self.lanes) == (DataTypeCode.HANDLE, 0, 0):
            return "void"
        name = _PLAIN_NAMES.get(self.code)
        if name is not None:
            return f"{name}{'' if self.code == DataTypeCode.HANDLE else self.bits}{lanes}"
        try:
            return DataTypeCode(self.code).name.lower() + lanes
        except ValueError:
            return f"custom[{self.code}]{self.bits}{lanes}"

    def __repr__(self) -> str:
        return f"DataType({str(self)!r})"


_dtypes: Dict[Tuple[int, int, int], DataType] = {}


def _parse_dtype(text: str) -> Tuple[int, int, int]:
    if text in ("", "void"):
        return DataTypeCode.HANDLE, 0, 0
    legacy = _LEGACY_TEXT.fullmatch(text)
    if legacy is not None:
        text = _LEGACY_NAMES[legacy.group(1)] + (legacy.group(2) or "")
    plain = _DTYPE_TEXT.fullmatch(text)
    small = _SMALL_TEXT.fullmatch(text)
    code, bits, lanes = -1, 0, 1
    if plain is not None:
        code = _PLAIN[plain.group(1)]
        bits = int(plain.group(2) or (64 if code == DataTypeCode.HANDLE else 32))
        lanes = int(plain.group(3) or 1)
    elif small is not None and small.group(1).upper() in DataTypeCode.__members__:
        code = DataTypeCode[small.group(1).upper()]
        bits = 8 if code == DataTypeCode.BOOL else int(text[5])
        lanes = int(small.group(2) or 1)
    if code < 0 or not 0 < bits < 256 or not 0 < lanes < 65536:  # DLDataType: u8, u16
        raise ValueError(f"{text!r} is no data type; expected e.g. 'float32', 'int8x4', 'bool'")
    return int(code), bits, lanes


_LEGACY_NUMBERS: Dict[Tuple[int, int], Tuple[int, int]] = {
    (DataTypeCode.BOOL, 8): (DataTypeCode.UINT, 1),
    (DataTypeCode.FLOAT8_E4M3FN, 8): (DataTypeCode.BOOL, 8),
    (DataTypeCode.FLOAT8_E5M2, 8): (DataTypeCode.FLOAT8_E3M4, 8),
}
_LEGACY_CUSTOM = 129
"""From here on the numbers of TVM up to 0.20 belong to types that users registered."""


def to_legacy(dtype: DataType) -> DataType:
    """The type under the numbers of TVM up to 0.20, to which a 6 is a float8, and bool is uint1.

    Raises:
        ValueError: it had no such type, or had it with another size.
    """
    if dtype.code < DataTypeCode.BOOL or dtype.code >= _LEGACY_CUSTOM:
        return dtype
    numbers = _LEGACY_NUMBERS.get((dtype.code, dtype.bits))
    if numbers is None or (dtype.code == DataTypeCode.BOOL and dtype.lanes != 1):
        raise ValueError(
            f"TVM up to 0.20 has no {dtype}; send the bytes through a view: "
            "tensor._create_view((tensor.nbytes,), 'uint8')"
        )
    return DataType.of(int(numbers[0]), numbers[1], dtype.lanes)


def from_legacy(dtype: DataType) -> DataType:
    """What TVM up to 0.20 means by a type's numbers; uint1, its bool, is understood as it is."""
    if dtype.bits == 8 and dtype.code in (DataTypeCode.BOOL, DataTypeCode.FLOAT8_E3M4):
        is_e4m3 = dtype.code == DataTypeCode.BOOL
        meant = DataTypeCode.FLOAT8_E4M3FN if is_e4m3 else DataTypeCode.FLOAT8_E5M2
        return DataType.of(int(meant), 8, dtype.lanes)
    return dtype


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
    if not size:
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
    if not isinstance(length, bool):
        try:
            return operator.index(length)
        except TypeError:
            pass
    raise TypeError(
        f"the lengths of a shape are integers; {_shown(length)} in {_shown(shape)} is of type "
        f"{type(length).__name__}"
    )


def _shown(value: object) -> str:
    """A value in a message: not all of a long one."""
    try:
        text = repr(value)
    except ValueError:  # an int of over 4,300 digits has no text (Python 3.11)
        text = f"({type(value).__name__})"
    return text if len(text) <= 200 else text[:200] + "..."
