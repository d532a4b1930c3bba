"""Elements of tensors as NumPy arrays: which type of NumPy's, and how they are packed. Copies none.

NumPy is imported when an array is made or taken, not before: a server has none.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Tuple

from ..data_type import DataType, DataTypeCode

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

__all__ = [
    "Layout",
    "array_of",
    "converted",
    "data_type_of",
    "data_types",
    "layout_of",
    "layouts",
    "unpacked",
]

_KNOWN = 256
"""Types that are remembered; a peer chooses their numbers, and may not fill our memory."""

data_types: Dict[Any, DataType] = {}
"""What texts and NumPy's types mean, as far as anybody asked."""


def data_type_of(dtype: Any) -> DataType:
    """The type that a text, a NumPy type or a `DataType` means; remembered, save the latter.

    Raises:
        ValueError: TVM has no such type.
    """
    if isinstance(dtype, DataType):
        return dtype
    known = data_types.get(dtype)
    if known is None:
        if isinstance(dtype, str):
            known = DataType(dtype)
        else:
            import numpy

            known = _stored_as(numpy.dtype(dtype))
        if len(data_types) < _KNOWN:
            data_types[dtype] = known
    return known


def _stored_as(dtype: numpy.dtype[Any]) -> DataType:
    """The type under which elements of a type of NumPy's can be stored exactly.

    Raises:
        ValueError: there is none.
    """
    if dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"NumPy's {dtype} is no data type of TVM; give each field by itself")
    return DataType(dtype.newbyteorder("="))


class Layout(NamedTuple):
    """How NumPy holds elements of a type."""

    dtype: numpy.dtype[Any]
    lanes: Tuple[int, ...]
    is_foreign: bool  # an array of it cannot be sent as it is: no buffer protocol, or to be packed
    is_packed: bool  # two elements in each byte
    is_bits: bool  # the dtype only stands in for one that NumPy lacks
    array_type: type
    empty: Callable[..., Array]


layouts: Dict[Tuple[int, int, int], Layout] = {}
"""By code, bits and lanes, as far as anybody asked."""

_NUMPY_CODES = (
    DataTypeCode.INT,
    DataTypeCode.UINT,
    DataTypeCode.FLOAT,
    DataTypeCode.COMPLEX,
    DataTypeCode.BOOL,
)


_MOST_BITS = 128
"""Of complex numbers; a ``float128`` is another format on each machine."""


def layout_of(data_type: DataType) -> Layout:
    """How NumPy holds elements of this type.

    Raises:
        TypeError: neither NumPy nor ml_dtypes, if that is installed, can hold them.
    """
    import numpy

    element = DataType.of(data_type.code, data_type.bits)
    layout = Layout(
        _numpy_type(element, is_bool=_is_bool(data_type)),
        () if data_type.lanes == 1 else (data_type.lanes,),
        element.bits == 4 or element.code not in _NUMPY_CODES,
        element.bits == 4,
        element.code == DataTypeCode.BFLOAT and not _ml_dtypes(),
        numpy.ndarray,
        numpy.empty,
    )
    if len(layouts) < _KNOWN:
        layouts[data_type.code, data_type.bits, data_type.lanes] = layout
    return layout


def _numpy_type(element: DataType, *, is_bool: bool) -> numpy.dtype[Any]:
    import numpy

    name, bits, package = str(element), element.bits, _ml_dtypes()
    try:
        if element.code in _NUMPY_CODES and (bits % 8 == 0 or is_bool) and bits <= _MOST_BITS:
            return numpy.dtype(name)
        if bits == 4 and element.code in (DataTypeCode.INT, DataTypeCode.UINT):
            return numpy.dtype("int8" if element.code == DataTypeCode.INT else "uint8")
        if bits == 16 and element.code == DataTypeCode.BFLOAT and not package:
            return numpy.dtype("uint16")
        if bits in (4, 8, 16) and package:
            theirs: numpy.dtype[Any] = numpy.dtype(getattr(package, name))
            return theirs
    except (AttributeError, TypeError):  # neither has it; said below
        pass
    more = "install ml_dtypes, which has more (pip install 'pytest-tvmrpc[dtypes]'), or "
    raise TypeError(
        f"there is no NumPy type for {name}; {'' if package else more}look at the bytes: "
        "tensor._create_view((tensor.nbytes,), 'uint8').numpy()"
    )


def _is_bool(data_type: DataType) -> bool:
    """Whether this is the bool of TVM up to 0.22, which takes a byte for its bit."""
    return (data_type.code, data_type.bits, data_type.lanes) == (DataTypeCode.UINT, 1, 1)


@functools.lru_cache(maxsize=None)
def _ml_dtypes() -> Any:
    try:
        return importlib.import_module("ml_dtypes")
    except ImportError:
        return None


def array_of(source: Any) -> Array:
    """An array of what only is like one; another library's tensor is looked at in place.

    Raises:
        TypeError: it is nothing like an array of numbers.
        ValueError: some elements are masked.
        BufferError, RuntimeError: NumPy cannot take it, for example because of its device.
    """
    import numpy

    if hasattr(source, "__dlpack__") and not hasattr(source, "__array__"):
        return numpy.from_dlpack(source)
    if numpy.any(getattr(source, "mask", False)):
        raise ValueError(
            "some elements of the array are masked, which a tensor cannot say; "
            "give them a value: array.filled(value)"
        )
    try:
        array = numpy.asarray(source)
    except Exception as error:  # whatever the elements raise when they are asked for a number
        raise TypeError(
            f"array must be an array_like data, type {type(source)} is not supported: {error}"
        ) from error
    if array.dtype.kind in "OSUMmT" or array.dtype.names is not None:
        raise TypeError(
            f"array must be an array_like data, type {type(source)} is not supported: "
            f"its elements are of NumPy's type {array.dtype}; expected numbers"
        )
    return array


def converted(source: Array, layout: Layout) -> Array:
    """A contiguous array that NumPy lends as bytes; flat, if the type is not NumPy's own.

    Raises:
        ValueError: a value would become another one; rounding to a floating-point type is none.
        TypeError: bfloat16 is asked for, and nobody here can convert to it.
    """
    import numpy

    if layout.is_bits and source.dtype != layout.dtype:
        raise TypeError(
            f"{source.dtype} cannot be converted to bfloat16 without the package ml_dtypes; "
            "install it (pip install 'pytest-tvmrpc[dtypes]'), or give the bits as uint16"
        )
    if layout.dtype.name != "bfloat16" or source.dtype != "uint16":  # uint16: bits, as in TVM
        source = _cast(source, layout)
    if not layout.is_foreign:
        return source
    flat = numpy.ascontiguousarray(source).reshape(-1).view("u1")
    return _packed(flat) if layout.is_packed else flat


def _cast(source: Array, layout: Layout) -> Array:
    """The array with another element type or another order in memory, with the same values."""
    import numpy

    result: Array
    with numpy.errstate(all="ignore"):
        is_complex = source.dtype.kind == "c" and layout.dtype.kind != "c"
        result = (source.real if is_complex else source).astype(layout.dtype, order="C", copy=False)
        if source.dtype.newbyteorder("=") != layout.dtype:
            data_type_of(source.dtype)  # raises for what no tensor has
            if layout.dtype.kind in "iub":
                same = result == source
            else:
                same = numpy.isfinite(result) == numpy.isfinite(source)
            if is_complex:
                same = same & (source.imag == 0)
            _refuse_unless(same, source, layout)
    if layout.is_packed and layout.dtype.kind in "iu":
        least, most = (-8, 7) if layout.dtype.kind == "i" else (0, 15)
        _refuse_unless((result >= least) & (result <= most), source, layout)
    return result


def _refuse_unless(fits: Any, source: Array, layout: Layout) -> None:
    """Name the first element that does not fit, if there is one."""
    import numpy

    if not numpy.all(fits):
        at = tuple(map(int, numpy.argwhere(~numpy.asarray(fits))[0]))
        kind = f"{layout.dtype}, 4 bits of it" if layout.is_packed else str(layout.dtype)
        raise ValueError(
            f"element {at} of the array is {source[at]}, which is no value of the tensor's type "
            f"({kind}); convert the array first, with astype()"
        )


def _packed(elements: Array) -> Array:
    """Two elements of four bits to a byte, the first in the upper half, as TVM does it."""
    import numpy

    halves = numpy.zeros(elements.size + elements.size % 2, numpy.uint8)
    halves[: elements.size] = elements & 0x0F
    packed: Array = (halves[0::2] << 4) | halves[1::2]
    return packed


def unpacked(packed: Array, shape: Tuple[int, ...], layout: Layout) -> Array:
    """Elements of four bits in a byte each.

    Args:
        packed: bytes of two elements each.
        shape: of the result, lanes included.
    """
    import numpy

    halves = numpy.empty(packed.size * 2, "u1")
    halves[0::2] = packed >> 4
    halves[1::2] = packed & 0x0F
    if layout.dtype == numpy.int8:
        halves = (halves ^ 8) - numpy.uint8(8)  # extends the sign; wraps, as bytes do
    count = 1
    for length in shape:
        count *= length
    elements: Array = halves[:count].copy().view(layout.dtype).reshape(shape)
    return elements
