"""DataType: the type of a tensor's elements, as a text and as the numbers of DLPack.

Nothing is converted here; how elements lie in memory is told by `dlpack`.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib
import operator
import re
import sys
from typing import Any, Dict, Optional, Tuple, Union


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
            TypeError: one of them is no integer.
            ValueError: the numbers do not fit a DLDataType.
        """
        code, bits, lanes = map(integer_of, dltype_data_type)
        if code is None or bits is None or lanes is None:
            raise TypeError(f"{dltype_data_type} is no DLDataType; expected three integers")
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
            TypeError: the number is no integer.
            ValueError: there are no such vectors.
        """
        count = integer_of(lanes)
        if count is None:
            raise TypeError(f"lanes is {lanes!r}; expected an integer")
        if not 0 < count < _SCALABLE:
            raise ValueError(f"a vector of {lanes} lanes; 1 to {_SCALABLE - 1} can be")
        return DataType.of(self.code, self.bits, count)

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
            f"{text[:200]!r} is no data type; expected e.g. 'float32', 'int8x4', 'bool'"
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


def integer_of(value: Any) -> Optional[int]:
    """The plain int that a value is, such as an integer of NumPy's; None if it is none.

    A truth value is none, although Python counts its own as an int; neither is a float.
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None  # older versions of NumPy take their bool for an index, with a warning
    try:
        return int.__int__(operator.index(value))  # before 3.10, an IntEnum stays one
    except TypeError:
        return None


def number_text(number: Union[int, float]) -> str:
    """A number for messages; of an integer too long to be read, or to be written, its bits."""
    if isinstance(number, int) and abs(number) >= 1 << 128:
        return f"a number of {number.bit_length()} bits"
    return repr(number)
