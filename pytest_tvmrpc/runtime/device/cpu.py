"""The CPU as a device: aligned memory of this process, and copies. Runs nothing."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple, Union

from ...dlpack import ALIGNMENT, Device, tensor_nbytes
from ...errors import DeviceError
from ...owners import not_copied
from .api import DeviceAPI, DeviceAttribute, Memory
from .description import described

if TYPE_CHECKING:
    from ...data_type import DataType
    from ..tensor import Tensor

__all__ = ["API", "CPUDevice", "HostMemory", "allocate", "borrowed"]

WORKSPACE_ALIGNMENT = 128
"""Bytes: what code made by TVM up to 0.9 relies on; later code is content with 64."""

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


_READ_ONLY = "the tensor's memory is read-only, as whoever shared it said; copy to another tensor"


@not_copied("pickle tensor.numpy()")
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


@not_copied("pickle its content")
class _Workspace:
    """Memory from the C library, freed when this is dropped.

    Raises:
        DeviceError: there is not so much.
    """

    __slots__ = ("_free", "data", "nbytes")

    def __init__(self, nbytes: int) -> None:
        library = _c_library()
        place = ctypes.c_void_p()
        self._free: Any = None
        if library.posix_memalign(ctypes.addressof(place), WORKSPACE_ALIGNMENT, nbytes or 1):
            raise DeviceError(
                f"no memory for a workspace of {nbytes} bytes; free tensors, or use smaller ones"
            )
        self._free = library.free
        self.data = place.value or 0
        self.nbytes = nbytes

    def __del__(self) -> None:
        if self._free is not None:
            self._free(self.data)


@functools.lru_cache(maxsize=None)
def _c_library() -> Any:
    library: Any = ctypes.CDLL(None)
    library.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    library.free.argtypes, library.free.restype = [ctypes.c_void_p], None
    return library


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


def borrowed(address: int, nbytes: int, owner: Any, *, is_read_only: bool = False) -> HostMemory:
    """Memory of this process that somebody else made.

    Args:
        address: of the first byte.
        nbytes: how much.
        owner: what is kept as long as anybody sees the memory.
        is_read_only: whether copies into it are refused.
    """
    block: Any = (ctypes.c_ubyte * nbytes).from_address(address)
    block.owner = owner  # which the view keeps, since it keeps the block
    view = memoryview(block).cast("B")
    return HostMemory(address, view.toreadonly() if is_read_only else view)


class CPUDevice(DeviceAPI):
    """Memory of this process. Copies are done on return; streams mean nothing here."""

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

    def alloc_workspace(self, device: Device, nbytes: int) -> Memory:
        """Memory that is not zeroed, aligned as workspaces have to be."""
        return _Workspace(nbytes)

    def host_view(self, memory: Memory, start: int, nbytes: int) -> memoryview:
        if isinstance(memory, HostMemory):
            return memory.view[start : start + nbytes]
        kind = ctypes.c_ubyte * nbytes  # of a library, which knows no views
        return memoryview(kind.from_address(memory.data + start)).cast("B")

    def describe(self, tensor: Tensor) -> Tuple[bytearray, int]:
        return described(tensor, tensor.memory.data + tensor.byte_offset, 0)

    def copy_from_host(self, source: memoryview, target: Tensor) -> None:
        view = self.host_view(target.memory, target.byte_offset, target.nbytes)
        if view.readonly:
            raise DeviceError(_READ_ONLY)
        view[:] = source

    def copy_to_host(self, source: Tensor, target: memoryview) -> None:
        target[:] = self.host_view(source.memory, source.byte_offset, source.nbytes)

    def copy(self, source: Tensor, target: Tensor) -> None:
        self.copy_from_host(
            self.host_view(source.memory, source.byte_offset, source.nbytes), target
        )


API = CPUDevice()
