"""What compiled code calls in its runtime: functions in C's form, by their names in TVM.

Those of all ages of TVM, since their names differ where they do. A library finds them in two ways:
through pointer variables that it exports and its loader fills, or as undefined symbols (see
`shim`). Nothing here opens a library.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from ..dlpack import DeviceType
from ..errors import DeviceError
from . import legacy, legacy_calling, parallel, registry, system_library
from .abi import (
    TypeIndex,
    error_of_kind,
    new_cell,
    record_error,
    release,
    retain,
    set_value_of_cell,
)
from .calling import call_function, pack_arguments
from .conventions import PREFIX, Convention

if TYPE_CHECKING:
    from .module import Module

__all__ = ["CONTEXTS", "FUNCTIONS", "VARIABLES", "address_of", "bind_context"]

_pointer, _int, _u64, _text = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_char_p

_INIT = ctypes.CFUNCTYPE(_int, _pointer)
_RUN = ctypes.CFUNCTYPE(_int, _pointer)

CONTEXTS = ("__tvm_ffi__library_ctx", "__tvm_ffi_library_ctx", "__tvm_module_ctx")
"""The variables for a module's context, of TVM from 0.22 on, of 0.21, and of those before."""

WORKSPACE_ALIGNMENT = 128
"""Bytes: what code made by TVM up to 0.9 relies on; later code is content with 64."""


class ModuleContext:
    """A module as its own code knows it: an object, and the functions that were looked up.

    Compiled code keeps a function it has looked up in a variable of its own and counts no
    reference. A library stays in the process, and so do its context and those functions.
    """

    def __init__(self) -> None:
        self.address = new_cell(TypeIndex.MODULE, None)
        self._functions: Dict[str, int] = {}
        self._module: Optional[weakref.ref[Module]] = None

    def bind(self, module: Module) -> None:
        """Say for which module the library's code looks up functions from now on."""
        self._module = weakref.ref(module)
        set_value_of_cell(self.address, self._module)
        self._functions = {}

    def module(self) -> Optional[Module]:
        """The module whose code this is, while there is one."""
        return self._module() if self._module is not None else None

    def look_up(self, name: str) -> Optional[int]:
        """The object of a function in the imported modules and theirs, or of a global function."""
        known = self._functions.get(name)
        if known is not None:
            return known
        function: Any = None
        module = self.module()
        for imported in module.imported_modules if module is not None else ():
            if function is None and imported.implements_function(name, query_imports=True):
                function = imported.get_function(name, query_imports=True)
        function = function or registry.get_global_func(name, allow_missing=True)
        if function is None:
            return None
        self._functions[name] = _function_object(function)
        return self._functions[name]


def bind_context(module: Module, variable: ctypes.c_void_p) -> None:
    """Fill one of a library's `CONTEXTS`; a library that is opened again keeps its own."""
    context = _contexts.get(variable.value or 0)
    if context is None:
        context = ModuleContext()
        _contexts[context.address] = context
        variable.value = context.address
    context.bind(module)


def _function_object(function: Any) -> int:
    packed = pack_arguments("the look-up of a function", (function,))
    address = int.from_bytes(packed.block[8:16], "little")
    if not packed.cells:  # an object of someone else, lent to us
        retain(address)
    return address


_contexts: Dict[int, ModuleContext] = {}
_global_context: Dict[str, int] = {}  # for code without a context


def _guarded(function: Callable[..., int]) -> Callable[..., int]:
    """`function`, with what it raises recorded and -1 returned: C cannot carry an exception."""

    def guarded(*args: Any) -> int:
        try:
            return function(*args)
        except BaseException as error:  # raised by the call from Python that is above
            record_error(error)
            return -1

    return guarded


def _set_raised(kind: Optional[bytes], message: Optional[bytes]) -> None:
    record_error(
        error_of_kind(
            (kind or b"RuntimeError").decode("utf-8", "replace"),
            (message or b"").decode("utf-8", "replace"),
        )
    )


def _set_raised_parts(kind: Optional[bytes], parts: Optional[int], count: int) -> None:
    texts = (_text * max(count, 0)).from_address(parts) if parts and count > 0 else ()
    _set_raised(kind, b"".join(part or b"" for part in texts))


def _call(handle: Optional[int], args: Optional[int], count: int, result: int) -> int:
    if not handle:
        raise ValueError("compiled code called a function that is NULL")
    return call_function(handle, args, count, result)


def _look_up(context: Optional[int], name: Optional[bytes], out: int) -> int:
    text = (name or b"").decode("utf-8", "replace")
    owner = _contexts.get(context or 0)
    if owner is not None:
        found = owner.look_up(text)
    else:
        function = registry.get_global_func(text, allow_missing=True)
        found = None
        if function is not None:
            found = _global_context.get(text) or _function_object(function)
            _global_context[text] = found
    if found is None:
        raise ValueError(
            f"compiled code looks up function {text!r}, which is in no imported module and is no "
            "global function; import the module that has it, or register it with register_func"
        )
    _pointer.from_address(out).value = found
    return 0


_init_lock = threading.RLock()


def _init_once(handle: int, init: int) -> int:
    with _init_lock:
        place = _pointer.from_address(handle)
        if place.value:
            return 0
        made = _pointer()
        code = int(_INIT(init)(ctypes.addressof(made)))
        if code == 0:
            place.value = made.value
        return code


def _run_once(handle: int, function: int, closure: Optional[int], nbytes: int) -> int:
    with _init_lock:
        place = _pointer.from_address(handle)
        if place.value:
            return 0
        place.value = 1
        return int(_RUN(function)(closure))


_workspaces: Dict[int, int] = {}  # bytes, by address
_libc: Dict[str, Any] = {}


def _allocator() -> Dict[str, Any]:
    if not _libc:
        library: Any = ctypes.CDLL(None)
        library.posix_memalign.argtypes = [_pointer, ctypes.c_size_t, ctypes.c_size_t]
        library.free.argtypes, library.free.restype = [_pointer], None
        _libc.update(posix_memalign=library.posix_memalign, free=library.free)
    return _libc


def _alloc_workspace(device_type: int, device_id: int, nbytes: int, code: int, bits: int) -> int:
    try:
        if device_type != DeviceType.CPU:
            raise DeviceError(
                f"compiled code wants a workspace on device type {device_type}; expected the CPU"
            )
        memory = _pointer()
        if _allocator()["posix_memalign"](
            ctypes.addressof(memory), WORKSPACE_ALIGNMENT, nbytes or 1
        ):
            raise MemoryError(f"no memory for a workspace of {nbytes} bytes")
        address = memory.value or 0
        _workspaces[address] = nbytes
        return address
    except BaseException as error:  # compiled code sees NULL and returns -1
        record_error(error)
        return 0


def _free_workspace(device_type: int, device_id: int, address: Optional[int]) -> int:
    if address is None:
        return 0
    if _workspaces.pop(address, None) is None:
        raise ValueError(f"compiled code frees a workspace at {address:#x} that it does not have")
    _allocator()["free"](address)
    return 0


def _launch(function: int, closure: Optional[int], num_task: int) -> int:
    return parallel.launch(function, closure, num_task)


def _barrier(task: int, env: Optional[int]) -> int:
    return parallel.barrier(env)


def _change_count(change: Callable[[int], None], handle: Optional[int]) -> int:
    if handle:
        change(handle)
    return 0


def _get_global(name: Optional[bytes], out: int) -> int:
    function = registry.get_global_func((name or b"").decode("utf-8", "replace"), True)
    place = _pointer.from_address(out)  # NULL, if there is none, is no error
    place.value = legacy.give_function(function) if function is not None else None
    return 0


def _free(handle: Optional[int]) -> int:
    legacy_calling.free(handle)
    return 0


def _register(name: Optional[bytes], address: Optional[int], convention: Any = None) -> int:
    text = (name or b"").decode("utf-8", "replace")
    if text.startswith("__") and not text.startswith(PREFIX) and address:
        _fill(text, _pointer.from_address(address))
    system_library.register(text, address or 0, convention)
    return 0


def _register_ffi(name: Optional[bytes], address: Optional[int]) -> int:
    return _register(name, address, Convention.FFI)


def _fill(variable: str, place: ctypes.c_void_p) -> None:
    """Fill a variable of code that is in no library of ours, but registers it."""
    if variable in VARIABLES:
        place.value = address_of(VARIABLES[variable])
    elif variable in CONTEXTS:
        bind_context(system_library.system_lib(), place)


def _c_function(result: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)(function)


_function_look_up = _c_function(_int, _guarded(_look_up), _pointer, _text, _pointer)

FUNCTIONS: Dict[str, Any] = {
    "TVMFFIFunctionCall": _c_function(_int, _guarded(_call), _pointer, _pointer, _int, _pointer),
    "TVMFFIErrorSetRaisedFromCStr": _c_function(None, _set_raised, _text, _text),
    "TVMFFIErrorSetRaisedFromCStrParts": _c_function(
        None, _set_raised_parts, _text, _pointer, ctypes.c_int32
    ),
    "TVMFFIEnvModLookupFromImports": _function_look_up,
    "TVMFFIHandleInitOnce": _c_function(_int, _guarded(_init_once), _pointer, _pointer),
    "TVMFFIObjectIncRef": _c_function(
        _int, _guarded(lambda handle: _change_count(retain, handle)), _pointer
    ),
    "TVMFFIObjectDecRef": _c_function(
        _int, _guarded(lambda handle: _change_count(release, handle)), _pointer
    ),
    "TVMBackendGetFuncFromEnv": _function_look_up,
    "TVMBackendAllocWorkspace": _c_function(
        _pointer, _alloc_workspace, _int, _int, _u64, _int, _int
    ),
    "TVMBackendFreeWorkspace": _c_function(_int, _guarded(_free_workspace), _int, _int, _pointer),
    "TVMBackendParallelLaunch": _c_function(_int, _guarded(_launch), _pointer, _pointer, _int),
    "TVMBackendParallelBarrier": _c_function(_int, _guarded(_barrier), _int, _pointer),
    "TVMBackendRunOnce": _c_function(_int, _guarded(_run_once), _pointer, _pointer, _pointer, _int),
    "TVMBackendRegisterSystemLibSymbol": _c_function(_int, _guarded(_register), _text, _pointer),
    "TVMFFIEnvModRegisterSystemLibSymbol": _c_function(
        _int, _guarded(_register_ffi), _text, _pointer
    ),
    "TVMFuncCall": _c_function(
        *(_int, _guarded(legacy_calling.call_handle)),
        *(_pointer, _pointer, _pointer, _int, _pointer, _pointer),
    ),
    "TVMFuncGetGlobal": _c_function(_int, _guarded(_get_global), _text, _pointer),
    "TVMFuncFree": _c_function(_int, _guarded(_free), _pointer),
    "TVMModFree": _c_function(_int, _guarded(_free), _pointer),
    "TVMAPISetLastError": _c_function(None, legacy_calling.set_last_error, _text),
    "TVMGetLastError": _c_function(_pointer, legacy_calling.last_error),
}
"""The C functions by their names in TVM (tvm/ffi/c_api.h, tvm/runtime/base.h; of TVM up to 0.20:
c_runtime_api.h and c_backend_api.h of tvm/runtime)."""

VARIABLES: Dict[str, str] = {f"__{name}": name for name in FUNCTIONS}
"""The pointer variables that a library may export, and the functions they are for."""


def address_of(name: str) -> int:
    """The address of one of `FUNCTIONS`."""
    return ctypes.cast(FUNCTIONS[name], ctypes.c_void_p).value or 0
