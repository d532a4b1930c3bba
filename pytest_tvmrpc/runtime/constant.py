"""Numbers with a data type, as `const` makes them. Everything else takes them for plain numbers."""

from __future__ import annotations

import math
import sys
from typing import Any, Optional, Tuple, Union

from ..data_type import DataType, DataTypeCode, number_text
from .words import number_of

__all__ = ["FloatImm", "IntImm", "Scriptable", "const"]


class Scriptable:
    """Something that TVM's script language has a text for."""

    def script(self) -> str:
        """The text, as ``T.int8(3)``."""
        raise TypeError(f"{type(self).__name__} has no form in TVM's script language")

    def show(self) -> None:
        """Writes the text to standard output, with a line break."""
        sys.stdout.write(self.script() + "\n")


class IntImm(int, Scriptable):
    """An integer or truth value with a data type: an `int` wherever one is taken.

    Args:
        dtype: of one lane: ``int32``, ``uint8``, ``bool``.
        value: what fits into it; a float is whole.

    Attributes:
        dtype: the data type.

    Raises:
        TypeError: the value is no number.
        ValueError: the type holds no integers, or not this one.
    """

    dtype: DataType

    def __new__(cls, dtype: Union[str, DataType], value: Union[int, float]) -> IntImm:
        kind = DataType(dtype)
        least, most = _integer_range(kind)
        number = _number(value)
        if isinstance(number, float) and not number.is_integer():
            raise ValueError(
                f"{value!r} does not fit into {kind}; expected an integer: round it first"
            )
        if not least <= number <= most:
            raise ValueError(
                f"{number_text(number)} does not fit into {kind}; expected {least} to {most}"
            )
        made = super().__new__(cls, number)
        made.dtype = kind
        return made

    @property
    def value(self) -> int:
        """The plain number."""
        return int(self)

    def script(self) -> str:
        """The number alone if it is an ``int32``, as in a script."""
        if self.dtype == "int32":
            return str(int(self))
        return f"T.{self.dtype}({bool(self) if self.dtype == 'bool' else int(self)})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return IntImm, (str(self.dtype), int(self))

    __str__ = __repr__ = script


class FloatImm(float, Scriptable):
    """A real number with a data type: a `float` wherever one is taken.

    Args:
        dtype: of one lane: ``float32``, ``bfloat16``, ``float8_e4m3fn``.
        value: within the range of the type; it keeps the digits that the type has no room for.

    Attributes:
        dtype: the data type.

    Raises:
        TypeError: the value is no number.
        ValueError: the type holds no real numbers, or none as large as this one.
    """

    dtype: DataType

    def __new__(cls, dtype: Union[str, DataType], value: float) -> FloatImm:
        kind = DataType(dtype)
        most = _LARGEST.get(str(kind))
        if most is None:
            raise ValueError(f"{kind} holds no real numbers; expected one of {', '.join(_LARGEST)}")
        number = _number(value)
        if math.inf > abs(number) > most:
            raise ValueError(
                f"{number_text(number)} does not fit into {kind}; its largest number is {most!r}"
            )
        made = super().__new__(cls, number)
        made.dtype = kind
        return made

    @property
    def value(self) -> float:
        """The plain number."""
        return float(self)

    def script(self) -> str:
        """As in a script; infinities and NaN are texts there."""
        value = float(self)
        return (
            f"T.{self.dtype}({value!r})" if math.isfinite(value) else f'T.{self.dtype}("{value}")'
        )

    def __reduce__(self) -> Tuple[Any, ...]:
        return FloatImm, (str(self.dtype), float(self))

    __str__ = __repr__ = script


_LARGEST = {
    "float16": 65504.0,
    "float32": 3.4028234663852886e38,
    "float64": sys.float_info.max,
    "bfloat16": 3.3895313892515355e38,
    "float8_e3m4": 15.5,
    "float8_e4m3": 240.0,
    "float8_e4m3b11fnuz": 30.0,
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
    "float8_e8m0fnu": 2.0**127,
    "float6_e2m3fn": 7.5,
    "float6_e3m2fn": 28.0,
    "float4_e2m1fn": 6.0,
}


def const(value: Any, dtype: Any = None, span: Optional[Any] = None) -> Union[IntImm, FloatImm]:
    """A number with a data type.

    Args:
        value: an integer, a real number or a truth value, of Python or of NumPy.
        dtype: of one lane. By default the type that the value has, or, of Python's: ``bool``,
            ``int32`` or, where it does not fit, ``int64``, ``float32`` or ``float64``.
        span: where TVM's sources have the number; not looked at.

    Returns:
        An `IntImm` (an `int`) or a `FloatImm` (a `float`). As an argument of a packed function,
        here or on a server, it is its number, or True or False.

    Raises:
        TypeError: the value is no number.
        ValueError: the type holds no such number (of a float, the integer types hold the whole
            ones), or is none.
    """
    number = _number(value)
    if dtype is None:
        own = getattr(value, "dtype", None)  # of a constant, or of NumPy's
        dtype = _type_of(number) if own is None else str(own)
    kind = DataType(dtype)
    return IntImm(kind, number) if kind.code in _WHOLE else FloatImm(kind, number)


def _number(value: Any) -> Union[int, float]:
    """The plain number of a value, NumPy's included.

    Raises:
        TypeError: it is none.
        ValueError: neither an int nor a float is this number.
    """
    number = value if isinstance(value, bool) else number_of(value)
    if number is None:
        what = type(value).__name__
        raise TypeError(f"{value!r} is a {what}; a constant is an int, a float or a bool")
    return number


_WHOLE = (DataTypeCode.INT, DataTypeCode.UINT, DataTypeCode.BOOL)


def _type_of(number: Union[int, float]) -> DataType:
    if isinstance(number, bool):
        return DataType("bool")
    if isinstance(number, float):
        fits = abs(number) <= _LARGEST["float32"]  # infinities and NaN do not, as in TVM
        return DataType("float32" if fits else "float64")
    return DataType("int32" if -(2**31) <= number < 2**31 else "int64")


def _integer_range(kind: DataType) -> Tuple[int, int]:
    """The least and the largest integer of a type."""
    if kind.code not in _WHOLE or kind.lanes != 1:
        raise ValueError(f"{kind} holds no integers; expected e.g. int32, uint8 or bool")
    if kind == "bool":
        return 0, 1
    if kind.code == DataTypeCode.INT:
        return -(2 ** (kind.bits - 1)), 2 ** (kind.bits - 1) - 1
    return 0, 2**kind.bits - 1
