"""What generated kernels ask for while they run: workspaces, parallel loops, one-time starts.

Functions in C's form; `context` offers them.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Dict, Optional, Tuple

from ..errors import LibraryError
from . import parallel
from .abi import ANY_SIZE, record_error
from .c_form import INT, POINTER, U64, Functions, guarded, offer
from .device.api import Device, Memory
from .owned import drop_any, read_any, write_any

__all__ = ["FUNCTIONS"]

_INIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_DEINIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)

_once: Dict[int, Any] = {}  # by the address of a handle, a static variable of code


def _lock_of(handle: int) -> Any:
    """Code of the library runs under it, which may wait for threads that use other handles."""
    return _once.setdefault(handle, threading.RLock())


def _init_once(handle: int, init: int) -> int:
    place = ctypes.c_void_p.from_address(handle)
    if place.value:
        return 0
    with _lock_of(handle):
        if place.value:
            return 0
        made = ctypes.c_void_p()
        code = int(_INIT(init)(ctypes.addressof(made)))
        if code == 0 and not made.value:
            raise LibraryError(
                "compiled code makes a handle once, and its function succeeds with NULL; "
                "expected the handle, or an error"
            )
        if code == 0:
            place.value = made.value
        return code


def _deinit_once(handle: int, deinit: int) -> int:
    with _lock_of(handle):
        place = ctypes.c_void_p.from_address(handle)
        if not place.value:
            return 0
        made, place.value = place.value, None
        return int(_DEINIT(deinit)(made))


def _run_once(handle: int, function: int, closure: Optional[int], nbytes: int) -> int:
    with _lock_of(handle):
        place = ctypes.c_void_p.from_address(handle)
        if place.value:
            return 0
        place.value = 1
        return int(_INIT(function)(closure))


_workspaces: Dict[Tuple[int, int, int], Memory] = {}  # by device and address


def _alloc_workspace(device_type: int, device_id: int, nbytes: int, code: int, bits: int) -> int:
    try:
        device = Device(device_type, device_id)
        memory = device.api.alloc_workspace(device, nbytes)
        _workspaces[device_type, device_id, memory.data] = memory
        return memory.data
    except BaseException as error:  # compiled code sees NULL and returns -1
        record_error(error)
        return 0


def _free_workspace(device_type: int, device_id: int, address: Optional[int]) -> int:
    if address is None:
        return 0
    if _workspaces.pop((device_type, device_id, address), None) is None:
        raise ValueError(f"compiled code frees a workspace at {address:#x} that it does not have")
    return 0


def _launch(function: int, closure: Optional[int], num_task: int) -> int:
    return parallel.launch(function, closure, num_task)


def _barrier(task: int, env: Optional[int]) -> int:
    return parallel.barrier(env)


# ------------------------------------------------------------- registers of compiled Relax code


def _set_packed_arg(values: int, index: int, args: int, offset: int) -> int:
    """Lend a register's value to an argument."""
    ctypes.memmove(args + ANY_SIZE * offset, values + ANY_SIZE * index, ANY_SIZE)
    return 0


def _reset_item(values: int, index: int) -> int:
    _give_back(values + ANY_SIZE * index)
    return 0


def _move_from_packed_return(values: int, index: int, args: int, offset: int) -> int:
    """Move a result into a register, which had another value before."""
    target, source = values + ANY_SIZE * index, args + ANY_SIZE * offset
    word = read_any(source)
    write_any(source, (0, 0, 0))
    _give_back(target)
    write_any(target, word)
    return 0


def _give_back(place: int) -> None:
    word = read_any(place)
    write_any(place, (0, 0, 0))
    drop_any(word)


FUNCTIONS: Functions = {
    "TVMFFIHandleInitOnce": offer(INT, guarded(_init_once), POINTER, POINTER),
    "TVMFFIHandleDeinitOnce": offer(INT, guarded(_deinit_once), POINTER, POINTER),
    "TVMBackendAllocWorkspace": offer(POINTER, _alloc_workspace, INT, INT, U64, INT, INT),
    "TVMBackendFreeWorkspace": offer(INT, guarded(_free_workspace), INT, INT, POINTER),
    "TVMBackendParallelLaunch": offer(INT, guarded(_launch), POINTER, POINTER, INT),
    "TVMBackendParallelBarrier": offer(INT, guarded(_barrier), INT, POINTER),
    "TVMBackendRunOnce": offer(INT, guarded(_run_once), POINTER, POINTER, POINTER, INT),
    "TVMBackendAnyListSetPackedArg": offer(
        INT, guarded(_set_packed_arg), POINTER, INT, POINTER, INT
    ),
    "TVMBackendAnyListResetItem": offer(INT, guarded(_reset_item), POINTER, INT),
    "TVMBackendAnyListMoveFromPackedReturn": offer(
        INT, guarded(_move_from_packed_return), POINTER, INT, POINTER, INT
    ),
}
"""By their names in TVM (tvm/runtime/c_backend_api.h, base.h; tvm/ffi/c_api.h)."""
