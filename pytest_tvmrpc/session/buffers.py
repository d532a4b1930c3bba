"""Byte arrays for long contents that are received at once. Receives nothing."""

from __future__ import annotations

import contextlib

_LARGE = 4 << 20
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 2 << 20


def unfilled(nbytes: int) -> bytearray:
    """A byte array of undefined content, which the caller fills.

    ``bytearray(n)`` writes zeros first, and takes a fault for each page of 4 KiB. Measured with
    64 MiB from a socket on loopback: 0.9 GB/s into one of those, 2.5 GB/s into one of these.
    """
    if nbytes < _LARGE:
        return bytearray(nbytes)
    try:
        import ctypes

        make = ctypes.pythonapi.PyByteArray_FromStringAndSize
    except (ImportError, AttributeError):  # not CPython
        return bytearray(nbytes)
    make.restype = ctypes.py_object
    make.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)
    content: bytearray = make(None, nbytes)
    with contextlib.suppress(AttributeError, OSError):  # no madvise: only slower
        start = ctypes.addressof(ctypes.c_char.from_buffer(content))
        aligned = -(-start // _HUGE_PAGE) * _HUGE_PAGE
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        advise(aligned, max(start + nbytes - aligned, 0), _MADV_HUGEPAGE)
    return content
