"""What TVM's tuners ask of a server: tensors with random contents, and caches without tensors.

Strategy: random elements are drawn once for a block, in Python, and a larger tensor repeats the
block at the speed of a copy. Lines of a cache are flushed by the processor's own instruction, by a
few bytes of machine code; where there is none, other memory takes their place.
"""

from __future__ import annotations

import functools
import itertools
import os
import struct
import sys
from typing import Any, Callable, Dict, List, Tuple

from ..data_type import DataType, DataTypeCode
from ..runtime.tensor import Tensor

BLOCK = 65536
"""Elements that are drawn; 20 to 40 ms of a board's processor. A larger tensor repeats them."""

_LOW, _HIGH = 1, 10
"""All values lie from the first to below the second, as in TVM: none is zero, and none is odd."""

_FORMATS: Dict[int, Tuple[int, int, int]] = {
    DataTypeCode.BFLOAT: (8, 7, 127),
    DataTypeCode.FLOAT8_E3M4: (3, 4, 3),
    DataTypeCode.FLOAT8_E4M3: (4, 3, 7),
    DataTypeCode.FLOAT8_E4M3B11FNUZ: (4, 3, 11),
    DataTypeCode.FLOAT8_E4M3FN: (4, 3, 7),
    DataTypeCode.FLOAT8_E4M3FNUZ: (4, 3, 8),
    DataTypeCode.FLOAT8_E5M2: (5, 2, 15),
    DataTypeCode.FLOAT8_E5M2FNUZ: (5, 2, 16),
    DataTypeCode.FLOAT8_E8M0FNU: (8, 0, 127),
    DataTypeCode.FLOAT6_E2M3FN: (2, 3, 1),
    DataTypeCode.FLOAT6_E3M2FN: (3, 2, 3),
    DataTypeCode.FLOAT4_E2M1FN: (2, 1, 1),
}
"""Bits of the exponent and of the mantissa, and the exponent's bias."""


def random_fill(tensor: Tensor) -> None:
    """Fills a tensor with random elements, uniform from 1 to below 10, whatever its type.

    Integers are whole numbers of that range as far as the type goes, ``bool`` is either. Numbers of
    which the type has few are rounded down. From `BLOCK` elements on, the first ones are repeated.

    Raises:
        TypeError: it is no tensor.
        ValueError: elements of its type are no numbers.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"random_fill takes a tensor, not {type(tensor).__name__}")
    dtype = tensor.data_type
    count = min(BLOCK, -(-tensor.nbytes * 8 // dtype.bits) if dtype.bits else 0)
    block = memoryview(_random_elements(dtype, -(-count // 8) * 8))
    copy = tensor.device.api.copy_from_host
    for start in range(0, tensor.nbytes, len(block) or 1):
        part = block[: tensor.nbytes - start]
        copy(part, tensor.part(start, len(part)))


def _random_elements(dtype: DataType, count: int) -> bytes:
    """So many, without regard to lanes; a multiple of 8, so that they end with a byte."""
    import random  # which few sessions need

    code, bits = dtype.code, dtype.bits
    if code == DataTypeCode.BOOL or (code, bits) == (DataTypeCode.UINT, 1):
        return bytes(random.choices((0, 1), k=count))
    if code == DataTypeCode.COMPLEX and bits in (64, 128):
        return _random_floats(bits // 2, 2 * count)
    if code == DataTypeCode.FLOAT and bits in (16, 32, 64):
        return _random_floats(bits, count)
    if code in (DataTypeCode.INT, DataTypeCode.UINT) and bits:
        most = (1 << (bits - (code == DataTypeCode.INT))) - 1
        numbers = range(min(_LOW, most), min(_HIGH - 1, most) + 1)
        return _packed(random.choices(numbers, k=count), bits)
    if code in _FORMATS:
        patterns, widths = _patterns(*_FORMATS[code])
        return _packed(random.choices(patterns, widths, k=count), bits)
    raise ValueError(f"there are no random elements of type {dtype}; expected a type of numbers")


def _random_floats(bits: int, count: int) -> bytes:
    from random import random

    span = _HIGH - _LOW - 0.01  # or the nearest number of the type may be 10
    kind = {16: "e", 32: "f", 64: "d"}[bits]
    return struct.pack(f"<{count}{kind}", *[_LOW + span * random() for _ in range(count)])


def _patterns(exponent_bits: int, mantissa_bits: int, bias: int) -> Tuple[List[int], List[float]]:
    """The numbers of a format in the range, as bits, with the distance to the next of each."""
    patterns, widths = [], []
    for exponent, mantissa in itertools.product(
        range(bias, min(bias + 4, 1 << exponent_bits)), range(1 << mantissa_bits)
    ):
        width = 2.0 ** (exponent - bias - mantissa_bits)
        value = 2.0 ** (exponent - bias) + mantissa * width
        if value < _HIGH:
            patterns.append(exponent << mantissa_bits | mantissa)
            widths.append(min(width, _HIGH - value))
    return patterns, widths


def _packed(numbers: List[int], bits: int) -> bytes:
    """Numbers of so many bits one behind the other, the first one in the lowest bits."""
    if bits % 8 == 0:
        encoded = {number: number.to_bytes(bits // 8, sys.byteorder) for number in set(numbers)}
        return b"".join([encoded[number] for number in numbers])
    packed = []
    for start in range(0, len(numbers), 8):
        word = 0
        for number in reversed(numbers[start : start + 8]):
            word = word << bits | number
        packed.append(word.to_bytes(bits, "little"))
    return b"".join(packed)


# Caches

_FLUSHES = {
    # and $-64, %rdi; 1: clflush (%rdi); add $64, %rdi; cmp %rsi, %rdi; jb 1b; mfence; ret
    "x86_64": "4883e7c0 0fae3f 4883c740 4839f7 72f4 0faef0 c3",
    # The line's size from ctr_el0; x0 down to a line; 1: dc civac, x0; the next line; dsb sy; ret
    "aarch64": "22003bd5 424c50d3 830080d2 6220c29a 430400d1 0000238a "
    "207e0bd5 0000028b 1f0001eb a3ffff54 9f3f03d5 c0035fd6",
}
"""``void flush(char *start, char *end)`` for the calling conventions of Linux."""

_SWEPT = 32 << 20
"""Bytes that are copied where no line can be flushed; few such processors have as large a cache."""


def flush_all_but_first(*arguments: Any) -> None:
    """Removes the contents of tensors from the CPU's caches; the first argument's may stay.

    Values that are no tensors, and tensors that the CPU cannot read in place, are left alone.
    """
    import ctypes

    flush = _flusher()
    for argument in arguments[1:]:
        view = argument.host_view() if isinstance(argument, Tensor) else None
        if view:
            start = ctypes.addressof(ctypes.c_char.from_buffer(view))
            flush(start, start + len(view))


@functools.lru_cache(maxsize=None)
def _flusher() -> Callable[[int, int], Any]:
    """What flushes the lines between two addresses: machine code, or a sweep of all caches."""
    import ctypes
    import mmap

    code = bytes.fromhex(_FLUSHES.get(_machine(), ""))
    if not code or ctypes.sizeof(ctypes.c_void_p) != 8 or not hasattr(os, "memfd_create"):
        return _sweep
    place = ctypes.CDLL(None).mmap
    place.restype = ctypes.c_void_p
    number = ctypes.c_int
    place.argtypes = (ctypes.c_void_p, ctypes.c_size_t, number, number, number, ctypes.c_long)
    file = os.memfd_create("tvmrpc-flush")  # its pages become code without being writable here
    try:
        os.write(file, code)
        rights = mmap.PROT_READ | mmap.PROT_EXEC
        address = place(None, len(code), rights, mmap.MAP_PRIVATE, file, 0)
    finally:
        os.close(file)
    if address == ctypes.c_void_p(-1).value:  # a system that lets nobody make code
        return _sweep
    return ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t)(address)


def _machine() -> str:
    return os.uname().machine if hasattr(os, "uname") else ""


def _sweep(start: int, end: int) -> None:
    """Other memory takes the place of what lies there, and of everything else in the caches."""
    bytearray(b"\1") * _SWEPT


FUNCTIONS: Dict[str, Callable[..., Any]] = {
    "tvm.contrib.random.random_fill": random_fill,
    "tvm.contrib.random.random_fill_for_measure": random_fill,
    "cache_flush_cpu_non_first_arg": flush_all_but_first,
}
