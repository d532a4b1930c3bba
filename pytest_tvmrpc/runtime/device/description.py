"""DLTensors that describe tensors to compiled code of this process. Knows no kind of memory."""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING, Tuple

from ...dlpack import compact_strides

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["described"]

_FORM = "@PiiiBBHPPQ{}q"
"""DLTensor (dlpack.h): data, device, ndim, dtype, shape, strides, byte_offset; then what shape and
strides point to. Strides are always there: C++ code of the tvm-ffi world reads them unasked.

Laid out as this machine's C compiler does it: its pointers have 4 bytes or 8.
"""

_DESCRIPTIONS = [struct.Struct(_FORM.format(2 * ndim)) for ndim in range(7)]

_SHAPE_AT = _DESCRIPTIONS[0].size


def described(tensor: Tensor, data: int, byte_offset: int) -> Tuple[bytearray, int]:
    """A DLTensor for compiled code, and its address; it is valid while the bytes are kept.

    Args:
        tensor: says device, element type and shape.
        data: the pointer, whatever that means for the device.
        byte_offset: of the first element from there. Most compiled code expects 0.
    """
    shape, dtype = tensor.shape, tensor.data_type
    ndim = len(shape)
    block = bytearray(_SHAPE_AT + 16 * ndim)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    form = _DESCRIPTIONS[ndim] if ndim < 7 else struct.Struct(_FORM.format(2 * ndim))
    form.pack_into(
        block,
        0,
        data,
        *tensor.device,
        ndim,
        dtype.code,
        dtype.bits,
        dtype.lanes,
        address + _SHAPE_AT,
        address + _SHAPE_AT + 8 * ndim,
        byte_offset,
        *shape,
        *compact_strides(shape),
    )
    return block, address
