"""The CPU as a device: aligned memory of this process, and copies. Runs nothing."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple, Union

from ...dlpack import ALIGNMENT, DataType, Device, tensor_nbytes
from ...errors import DeviceError
from .api import DeviceAttribute, Memory

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["API", "CPUDevice", "HostMemory", "allocate", "describe", "host_view"]

MAPPED_NBYTES = 4 << 20
"""From here on memory is mapped, with huge pages where the kernel has them, as NumPy does.

Measured, to allocate and fill 64 MiB: bytearray 40 ms (its zeros touch each page), mapped 28 ms,
mapped with huge pages 6.5 ms. Below, a bytearray reuses pages that are there already.
"""

_MADV_HUGEPAGE: Optional[int] = getattr(mmap, "MADV_HUGEPAGE", None)
_MAP_OPTIONS: Dict[str, int] = (
    # Private: with Python's default a forked child would share the tensor with its parent.
    {} if os.name == "nt" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANON}
)


class HostMemory:
    """Bytes of this process.

    Args:
        data: the address of the first byte.
        view: the bytes, as a flat view; it keeps them alive.
    """

    __slots__ = ("data", "nbytes", "view")

    def __init__(self, data: int, view: memoryview) -> None:
        self.data = data
        self.view = view
        self.nbytes = len(view)


def allocate(nbytes: int) -> HostMemory:
    """Zeroed memory, aligned as compiled code wants it.

    Raises:
        DeviceError: there is not so much.
    """
    block: Union[bytearray, mmap.mmap]
    try:
        if nbytes < MAPPED_NBYTES:
            block = bytearray(nbytes + ALIGNMENT - 1)
        else:
            block = mmap.mmap(-1, nbytes, **_MAP_OPTIONS)
            if _MADV_HUGEPAGE is not None:
                with contextlib.suppress(OSError):  # a kernel without huge pages
                    block.madvise(_MADV_HUGEPAGE)
    except (MemoryError, OverflowError, OSError, ValueError):
        raise DeviceError(
            f"cannot allocate {nbytes} bytes of CPU memory; free tensors, or use smaller ones"
        ) from None
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    start = -address % ALIGNMENT
    return HostMemory(address + start, memoryview(block)[start : start + nbytes])


class CPUDevice:
    """What `DeviceAPI` asks for. Copies are done on return; streams mean nothing here."""

    def get_attr(self, device: Device, attribute: int) -> Any:
        if attribute == DeviceAttribute.EXIST:
            return 1
        if attribute == DeviceAttribute.TOTAL_GLOBAL_MEMORY and hasattr(os, "sysconf"):
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return None

    def alloc(
        self, device: Device, shape: Tuple[int, ...], dtype: DataType, mem_scope: Optional[str]
    ) -> HostMemory:
        if mem_scope and mem_scope != "global":
            raise DeviceError(
                "Device does not support allocate data space with specified memory scope: "
                + mem_scope
            )
        return allocate(tensor_nbytes(shape, dtype))

    def copy_from_host(self, source: memoryview, target: Tensor) -> None:
        host_view(target)[:] = source

    def copy_to_host(self, source: Tensor, target: memoryview) -> None:
        target[:] = host_view(source)

    def copy(self, source: Tensor, target: Tensor) -> None:
        host_view(target)[:] = host_view(source)

    def sync(self, device: Device, stream: int) -> None:
        pass

    def create_stream(self, device: Device) -> int:
        return 0

    def free_stream(self, device: Device, stream: int) -> None:
        pass

    def set_stream(self, device: Device, stream: int) -> None:
        pass

    def get_stream(self, device: Device) -> int:
        return 0


def host_view(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in this process's memory.

    Raises:
        DeviceError: they are elsewhere.
    """
    memory, start = _host_memory(tensor), tensor.byte_offset
    if isinstance(memory, HostMemory):
        return memory.view[start : start + tensor.nbytes]
    kind = ctypes.c_ubyte * tensor.nbytes  # of a library, which knows no views
    return memoryview(kind.from_address(memory.data + start)).cast("B")


def _host_memory(tensor: Tensor) -> Memory:
    memory = tensor.memory
    if type(memory) is HostMemory or tensor.device.api is API:
        return memory
    raise DeviceError(
        f"the memory of this tensor on {tensor.device!r} is not in this process; "
        "copy the tensor to the CPU with copyto(cpu(0))"
    )


_FORM = "@PiiiBBHPPQ{}q"
"""DLTensor (dlpack.h): data, device, ndim, dtype, shape, strides, byte_offset; then the shape.

Laid out as this machine's C compiler does it: its pointers have 4 bytes or 8.
"""

_DESCRIPTIONS = [struct.Struct(_FORM.format(ndim)) for ndim in range(7)]

_SHAPE_AT = _DESCRIPTIONS[0].size


def describe(tensor: Tensor) -> Tuple[bytearray, int]:
    """A DLTensor for compiled code, and its address; it is valid while the bytes are kept.

    Compiled code wants `byte_offset` to be 0, so the offset goes into the data pointer.

    Raises:
        DeviceError: the tensor's memory is not in this process.
    """
    memory = _host_memory(tensor)
    shape, dtype, device = tensor.shape, tensor.data_type, tensor.device
    ndim = len(shape)
    block = bytearray(_SHAPE_AT + 8 * ndim)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    form = _DESCRIPTIONS[ndim] if ndim < 7 else struct.Struct(_FORM.format(ndim))
    form.pack_into(
        block,
        0,
        memory.data + tensor.byte_offset,
        *device,
        ndim,
        dtype.code,
        dtype.bits,
        dtype.lanes,
        address + _SHAPE_AT,
        0,
        0,
        *shape,
    )
    return block, address


API = CPUDevice()
