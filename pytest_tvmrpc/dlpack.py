"""The words protocol and runtime share: devices, data types, tensor descriptions.

Names and numbers are those of DLPack and of TVM's FFI. Nothing here owns memory or drives a
device.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib
import itertools
import operator
import re
import sys
from typing import Any, Dict, NamedTuple, Optional, Tuple

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

    # The same under TVM's names
    Float8E3M4 = 7
    Float8E4M3 = 8
    Float8E4M3B11FNUZ = 9
    Float8E4M3FN = 10
    Float8E4M3FNUZ = 11
    Float8E5M2 = 12
    Float8E5M2FNUZ = 13
    Float8E8M0FNU = 14
    Float6E2M3FN = 15
    Float6E3M2FN = 16
    Float4E2M1FN = 17


_LEGACY_CUSTOM = 129
"""From here on the numbers of TVM up to 0.20 belong to types that users registered."""

_PLAIN = {"int": 0, "uint": 1, "float": 2, "handle": 3, "bfloat": 4, "complex": 5, "bool": 6}
_PLAIN_NAMES = {code: name for name, code in _PLAIN.items()}
_PLAIN_BITS = {"int": 32, "uint": 32, "float": 32, "handle": 64, "bfloat": 16, "bool": 8}
"""Those that are meant where a text has none."""

_DTYPE_TEXT = re.compile(
    r"(?:(int|uint|float|handle|bfloat|complex|bool|custom\[([0-9]{1,3})\])([0-9]{0,9})"
    r"|(float[468]_[a-z0-9]+?))(?:x(vscalex)?([0-9]{1,9}))?"
)
_OLD_NAMES = {"e4m3_float8": "float8_e4m3fn", "e5m2_float8": "float8_e5m2"}
_OLD_TEXT = re.compile("|".join(_OLD_NAMES))

_SCALABLE = 1 << 15
"""From here on lanes are those of a vector whose length the processor decides, counted from 2**16
downwards: 65532 for four times as many as it says (TVM's scalable vectors)."""


class DataType(str):
    """The type of a tensor's elements: a code, its bits, and how many lanes form one element.

    It is its text as TVM writes it, and can be used where a text is asked for, such as
    ``numpy.dtype(DataType("float32"))``. Two are equal if their numbers are; ``uint1``, the bool of
    TVM up to 0.22, has the text of today's bool and is another type.

    Args:
        text: as any version of TVM writes it, such as ``float32``, ``int8x4``, ``bool``,
            ``bfloat16``, ``handle`` or ``float32xvscalex4``; or a type of NumPy's, as
            ``numpy.float32`` or ``array.dtype``; or what has such a text. Bits that are left out
            are 32, or what the type is named for.

    Attributes:
        code: a `DataTypeCode`, or the number of a type of somebody else's.
        bits: of one lane.
        lanes: 1, but for vectors.

    Raises:
        ValueError: this names no data type.
    """

    __slots__ = ("bits", "code", "lanes")

    code: int
    bits: int
    lanes: int

    def __new__(cls, text: object) -> "DataType":
        if isinstance(text, DataType):
            return text
        numbers = _parse_dtype(text if isinstance(text, str) else _text_of(text))
        if numbers[0] >= DataTypeCode.BFLOAT or numbers[1] < 8:
            _let_numpy_know()
        return cls.of(*numbers)

    @classmethod
    def of(cls, code: int, bits: int, lanes: int = 1) -> "DataType":
        """The data type with these numbers; the same object for the same numbers."""
        known = _dtypes.get((code, bits, lanes))
        if known is None:
            known = str.__new__(cls, _dtype_text(code, bits, lanes))
            known.code, known.bits, known.lanes = code, bits, lanes
            if len(_dtypes) < 1024:  # a peer chooses these numbers: it may not fill our memory
                _dtypes[code, bits, lanes] = known
        return known

    @staticmethod
    def from_dlpack_data_type(dltype_data_type: Tuple[int, int, int]) -> "DataType":
        """The data type of a DLDataType.

        Args:
            dltype_data_type: its code, bits and lanes.

        Raises:
            ValueError: the numbers do not fit a DLDataType.
        """
        code, bits, lanes = map(operator.index, dltype_data_type)
        if not (0 <= code < 256 and 0 <= bits < 256 and 0 <= lanes < 65536):
            raise ValueError(f"{dltype_data_type} is no DLDataType; expected code, bits and lanes")
        return DataType.of(code, bits, lanes)

    @staticmethod
    def is_dtype(arg: object) -> bool:
        """Whether this is a data type, or the text of one."""
        try:
            DataType(arg)
        except ValueError:
            return False
        return True

    def with_lanes(self, lanes: int) -> "DataType":
        """The vector of so many elements of this type; 1 for the element itself.

        Raises:
            ValueError: there are no such vectors.
        """
        if not 0 < operator.index(lanes) < _SCALABLE:
            raise ValueError(f"a vector of {lanes} lanes; 1 to {_SCALABLE - 1} can be")
        return DataType.of(self.code, self.bits, lanes)

    @property
    def type_code(self) -> int:
        """The number of the kind of type: a `DataTypeCode`, if it is one of DLPack's."""
        return self.code

    @property
    def itemsize(self) -> int:
        """Bytes of one element with all its lanes, rounded up.

        Raises:
            ValueError: nobody knows, of a scalable vector.
        """
        if self.is_scalable:
            raise ValueError(f"the size of {self} is known to the processor only")
        return (self.bits * self.lanes + 7) // 8

    @property
    def is_bool(self) -> bool:
        """Whether it is bool, as today or as in TVM up to 0.22 (``uint1``)."""
        return self.code == 6 or (self.code, self.bits) == (1, 1)

    @property
    def is_int(self) -> bool:
        """Whether its elements are integers with a sign."""
        return self.code == 0

    @property
    def is_uint(self) -> bool:
        """Whether its elements are integers without one."""
        return self.code == 1 and not self.is_bool

    @property
    def is_integer(self) -> bool:
        """Whether its elements are integers; bools are not."""
        return self.is_int or self.is_uint

    @property
    def is_float(self) -> bool:
        """Whether its elements are floating-point numbers of any format."""
        return self.code in (2, 4) or 7 <= self.code <= 17

    @property
    def is_float16(self) -> bool:
        """Whether its elements are IEEE's of 16 bits."""
        return (self.code, self.bits) == (2, 16)

    @property
    def is_bfloat16(self) -> bool:
        """Whether its elements are ``bfloat16``."""
        return (self.code, self.bits) == (4, 16)

    @property
    def is_handle(self) -> bool:
        """Whether its elements are addresses; void is not."""
        return self.code == 3 and self.bits != 0

    @property
    def is_vector(self) -> bool:
        """Whether an element has several lanes."""
        return self.lanes > 1

    @property
    def is_scalable(self) -> bool:
        """Whether it is a vector whose length the processor decides (``xvscalex``)."""
        return self.lanes >= _SCALABLE

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DataType):
            return (self.code, self.bits, self.lanes) == (other.code, other.bits, other.lanes)
        return str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __str__(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        return f"DataType({str(self)!r})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return DataType.of, (self.code, self.bits, self.lanes)


_dtypes: Dict[Tuple[int, int, int], DataType] = {}


def _dtype_text(code: int, bits: int, lanes: int) -> str:
    if lanes >= _SCALABLE:
        several = f"xvscalex{2 * _SCALABLE - lanes}"
    else:
        several = f"x{lanes}" if lanes != 1 else ""
    if (code, bits) in ((DataTypeCode.BOOL, 8), (DataTypeCode.UINT, 1)):
        return "bool" + several
    if (code, bits, lanes) == (DataTypeCode.HANDLE, 0, 0):
        return "void"
    name = _PLAIN_NAMES.get(code)
    if name is not None:
        return f"{name}{'' if (code, bits) == (DataTypeCode.HANDLE, 64) else bits}{several}"
    if code in _SMALL_BITS and bits == _SMALL_BITS[code]:
        return DataTypeCode(code).name.lower() + several
    return f"custom[{code}]{bits}{several}"


_SMALL_BITS = {int(kind): int(kind.name[5]) for kind in DataTypeCode if kind > DataTypeCode.BOOL}


def _parse_dtype(text: str) -> Tuple[int, int, int]:
    if text in ("", "void"):
        return DataTypeCode.HANDLE, 0, 0
    found = _DTYPE_TEXT.fullmatch(_OLD_TEXT.sub(lambda old: _OLD_NAMES[old.group()], text, count=1))
    code, bits, lanes, most = -1, 0, 1, _SCALABLE
    if found is not None:
        plain, custom, digits, small, scalable, several = found.groups()
        if custom is not None:
            code, bits = int(custom), int(digits or 0)
            code = code if code >= _LEGACY_CUSTOM else -1
        elif plain is not None:
            code, bits = _PLAIN[plain], int(digits or _PLAIN_BITS.get(plain, 0))
        elif small.upper() in DataTypeCode.__members__:
            code, bits = int(DataTypeCode[small.upper()]), int(small[5])
        lanes = int(several or 1)
        if lanes and scalable:
            lanes, most = 2 * _SCALABLE - lanes, 2 * _SCALABLE
    least = _SCALABLE if most > _SCALABLE else 1
    if not 0 <= code < 256 or not 0 < bits < 256 or not least <= lanes < most:  # DLDataType
        raise ValueError(
            f"{_shown(text)} is no data type; expected e.g. 'float32', 'int8x4', 'bool'"
        )
    return code, bits, lanes


def _text_of(given: Any) -> str:
    """What stands for a data type, as a text: a class or dtype of NumPy, or what prints as one."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(given, type) and issubclass(given, numpy.generic):
        with contextlib.suppress(TypeError, ValueError):  # of a class of classes, such as floating
            given = getattr(given(0), "dtype", given)
    if numpy is not None and isinstance(given, numpy.dtype) and given.num in (13, 16):
        raise ValueError(  # longdouble and its complex: a format of each machine's own
            f"NumPy's {given} is no data type of TVM; convert to float64 or complex128 first"
        )
    return str(given)


def _let_numpy_know() -> None:
    """Has ``numpy.dtype`` know the names of types that ml_dtypes has, where both are installed."""
    if "numpy" in sys.modules:
        _load_ml_dtypes()


@functools.lru_cache(maxsize=None)
def _load_ml_dtypes() -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module("ml_dtypes")


_LEGACY_NUMBERS: Dict[Tuple[int, int], Tuple[int, int]] = {
    (DataTypeCode.BOOL, 8): (DataTypeCode.UINT, 1),
    (DataTypeCode.FLOAT8_E4M3FN, 8): (DataTypeCode.BOOL, 8),
    (DataTypeCode.FLOAT8_E5M2, 8): (DataTypeCode.FLOAT8_E3M4, 8),
}


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


def integer_of(value: Any) -> Optional[int]:
    """The plain int that a value is, such as an integer of NumPy's; None if it is none.

    A truth value is none, although Python counts its own as an int; neither is a float.
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None  # older versions of NumPy take their bool for an index, with a warning
    try:
        return int(operator.index(value))  # Python before 3.10 leaves an IntEnum what it is
    except TypeError:
        return None


def _shown(value: object) -> str:
    """A value in a message: not all of a long one."""
    try:
        text = repr(value)
    except ValueError:  # an int of over 4,300 digits has no text (Python 3.11)
        text = f"({type(value).__name__})"
    return text if len(text) <= 200 else text[:200] + "..."
