"""What compiled code calls in its runtime: functions in C's form, by their names in TVM.

Those of all ages of TVM, since their names differ where they do. A library finds them in two ways:
through pointer variables that it exports and its loader fills, or as undefined symbols (see
`shim`). Nothing here opens a library.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any, Dict, Optional

from . import backend, c_ffi, exchange, legacy_api, registry, system_library
from .abi import TypeIndex, new_cell, set_value_of_cell
from .c_ffi import function_object
from .c_form import INT, POINTER, TEXT, Functions, guarded, offer
from .conventions import PREFIX, Convention

if TYPE_CHECKING:
    from .module import Module

__all__ = ["CONTEXTS", "FUNCTIONS", "VARIABLES", "address_of", "bind_context"]

CONTEXTS = ("__tvm_ffi__library_ctx", "__tvm_ffi_library_ctx", "__tvm_module_ctx")
"""The variables for a module's context, of TVM from 0.22 on, of 0.21, and of those before."""


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
        self._functions[name] = function_object(function)
        return self._functions[name]


def bind_context(module: Module, variable: ctypes.c_void_p) -> None:
    """Fill one of a library's `CONTEXTS`; a library that is opened again keeps its own."""
    context = _contexts.get(variable.value or 0)
    if context is None:
        context = ModuleContext()
        _contexts[context.address] = context
        variable.value = context.address
    context.bind(module)


_contexts: Dict[int, ModuleContext] = {}
_global_context: Dict[str, int] = {}  # for code without a context


def _look_up(context: Optional[int], name: Optional[bytes], out: int) -> int:
    text = (name or b"").decode("utf-8", "replace")
    owner = _contexts.get(context or 0)
    if owner is not None:
        found = owner.look_up(text)
    else:
        function = registry.get_global_func(text, allow_missing=True)
        found = None
        if function is not None:
            found = _global_context.get(text) or function_object(function)
            _global_context[text] = found
    if found is None:
        module = owner.module() if owner is not None else None
        kinds = ", ".join(getattr(module, "missing_kinds", ()))  # of a library
        raise ValueError(
            f"compiled code looks up function {text!r}, which is in no imported module and is no "
            f"global function{f' (no module of kind {kinds} is run here)' if kinds else ''}; "
            "import the module that has it, or register it with register_func"
            f"{registry.unavailable()}"
        )
    ctypes.c_void_p.from_address(out).value = found
    return 0


def _register(name: Optional[bytes], address: Optional[int], convention: Any = None) -> int:
    text = (name or b"").decode("utf-8", "replace")
    if text.startswith("__") and not text.startswith(PREFIX) and address:
        _fill(text, ctypes.c_void_p.from_address(address))
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


_function_look_up = offer(INT, guarded(_look_up), POINTER, TEXT, POINTER)

FUNCTIONS: Functions = {
    **c_ffi.FUNCTIONS,
    **exchange.FUNCTIONS,
    **backend.FUNCTIONS,
    **legacy_api.FUNCTIONS,
    "TVMFFIEnvModLookupFromImports": _function_look_up,
    "TVMBackendGetFuncFromEnv": _function_look_up,
    "TVMBackendRegisterSystemLibSymbol": offer(INT, guarded(_register), TEXT, POINTER),
    "TVMFFIEnvModRegisterSystemLibSymbol": offer(INT, guarded(_register_ffi), TEXT, POINTER),
}
"""The C functions by their names in TVM (tvm/ffi/c_api.h, tvm/runtime/base.h; of TVM up to 0.20:
c_runtime_api.h and c_backend_api.h of tvm/runtime)."""

VARIABLES: Dict[str, str] = {f"__{name}": name for name in FUNCTIONS}
"""The pointer variables that a library may export, and the functions they are for."""


def address_of(name: str) -> int:
    """The address of one of `FUNCTIONS`, which is made when it is first asked for."""
    made = _made.get(name)
    if made is None:
        made = _made.setdefault(name, FUNCTIONS[name].made())
    return ctypes.cast(made, ctypes.c_void_p).value or 0


_made: Dict[str, Any] = {}  # by name; compiled code has their addresses
