"""What compiled code says of its types, and reads of them, as it lies in memory.

The layouts are those of tvm-ffi (include/tvm/ffi/c_api.h).
"""

from __future__ import annotations

import ctypes

from .abi import TVMFFIByteArray

__all__ = [
    "TVMFFIFieldInfo",
    "TVMFFIMethodInfo",
    "TVMFFITypeAttrColumn",
    "TVMFFITypeInfo",
    "TVMFFITypeMetadata",
]

_Any = ctypes.c_int64 * 2


class TVMFFIFieldInfo(ctypes.Structure):
    """A field of a class; its getter takes the field's address and where the value goes."""

    _fields_ = [
        ("name", TVMFFIByteArray),
        ("doc", TVMFFIByteArray),
        ("metadata", TVMFFIByteArray),
        ("flags", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("alignment", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("getter", ctypes.c_void_p),
        ("setter", ctypes.c_void_p),
        ("default_value", _Any),
        ("static_type_index", ctypes.c_int32),
    ]


class TVMFFIMethodInfo(ctypes.Structure):
    """A method of a class, or a global function with its documentation."""

    _fields_ = [
        ("name", TVMFFIByteArray),
        ("doc", TVMFFIByteArray),
        ("metadata", TVMFFIByteArray),
        ("flags", ctypes.c_int64),
        ("method", _Any),
    ]


class TVMFFITypeMetadata(ctypes.Structure):
    """What a class says of itself as a whole."""

    _fields_ = [
        ("doc", TVMFFIByteArray),
        ("creator", ctypes.c_void_p),
        ("total_size", ctypes.c_int32),
        ("structural_eq_hash_kind", ctypes.c_int32),
    ]


class TVMFFITypeAttrColumn(ctypes.Structure):
    """The values of one attribute, by type index."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_int32),
        ("begin_index", ctypes.c_int32),
    ]


class TVMFFITypeInfo(ctypes.Structure):
    """A type as C++ reads it, without a call."""

    _fields_ = [
        ("type_index", ctypes.c_int32),
        ("type_depth", ctypes.c_int32),
        ("type_key", TVMFFIByteArray),
        ("type_ancestors", ctypes.c_void_p),
        ("type_key_hash", ctypes.c_uint64),
        ("num_fields", ctypes.c_int32),
        ("num_methods", ctypes.c_int32),
        ("fields", ctypes.c_void_p),
        ("methods", ctypes.c_void_p),
        ("metadata", ctypes.c_void_p),
    ]
