"""What a machine can do: functions, modules, tensors, devices. No wire in here.

The names are those of ``tvm.runtime``; all but tensors and devices are imported when they are
asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, List

from ..data_type import DataType, DataTypeCode

# These two at once: `tensor` and `device` name a function and the module that it is in, and only
# a module that is loaded before the function is bound stays out of its way.
from .device import names as _devices
from .device.names import *  # noqa: F403  (what it lists, and it says so below)
from .tensor import NDArray, Tensor, array, empty, from_dlpack, numpyasarray, tensor

if TYPE_CHECKING:
    from . import module as module
    from . import nd, profiling
    from . import params as params
    from . import toolchain as toolchain
    from .constant import FloatImm, IntImm, Scriptable, const
    from .containers import Array, Map
    from .conversion import convert, convert_to_object
    from .device.kinds import register_device_api, unregister_device_api
    from .executable import Executable
    from .function import PackedFunc
    from .module import Module, ModulePropertyMask, load_module
    from .object import Object, ObjectConvertible, ObjectGeneric, ShapeTuple, String
    from .object_path import ObjectPath, ObjectPathPair
    from .parallel import num_threads
    from .params import (
        load_param_dict,
        load_param_dict_from_file,
        save_param_dict,
        save_param_dict_to_file,
    )
    from .profiler import Profile, profile
    from .profiling import BenchmarkResult
    from .registry import (
        get_global_func,
        list_global_func_names,
        register_func,
        register_global_func,
        remove_global_func,
    )
    from .report import Report
    from .sources import load_static_library, module_from_source
    from .structural import (
        assert_structural_equal,
        first_mismatch,
        get_first_structural_mismatch,
        structural_equal,
    )
    from .system_library import system_lib

__all__ = [
    "Array",
    "BenchmarkResult",
    "DataType",
    "DataTypeCode",
    "Executable",
    "FloatImm",
    "IntImm",
    "Map",
    "Module",
    "ModulePropertyMask",
    "NDArray",
    "Object",
    "ObjectConvertible",
    "ObjectGeneric",
    "ObjectPath",
    "ObjectPathPair",
    "PackedFunc",
    "Profile",
    "Report",
    "Scriptable",
    "ShapeTuple",
    "String",
    "Tensor",
    "array",
    "assert_structural_equal",
    "const",
    "convert",
    "convert_to_object",
    "empty",
    "first_mismatch",
    "from_dlpack",
    "get_first_structural_mismatch",
    "get_global_func",
    "list_global_func_names",
    "load_module",
    "load_param_dict",
    "load_param_dict_from_file",
    "load_static_library",
    "module_from_source",
    "nd",
    "num_threads",
    "numpyasarray",
    "profile",
    "profiling",
    "register_device_api",
    "register_func",
    "register_global_func",
    "remove_global_func",
    "save_param_dict",
    "save_param_dict_to_file",
    "structural_equal",
    "system_lib",
    "tensor",
    "unregister_device_api",
]
__all__ += _devices.__all__

_HOMES = {
    "Array": "containers",
    "BenchmarkResult": "profiling",
    "Executable": "executable",
    "FloatImm": "constant",
    "IntImm": "constant",
    "Map": "containers",
    "Module": "module",
    "ModulePropertyMask": "module",
    "Object": "object",
    "ObjectConvertible": "object",
    "ObjectGeneric": "object",
    "ObjectPath": "object_path",
    "ObjectPathPair": "object_path",
    "PackedFunc": "function",
    "Profile": "profiler",
    "Report": "report",
    "Scriptable": "constant",
    "ShapeTuple": "object",
    "String": "object",
    "assert_structural_equal": "structural",
    "const": "constant",
    "convert": "conversion",
    "convert_to_object": "conversion",
    "first_mismatch": "structural",
    "get_first_structural_mismatch": "structural",
    "get_global_func": "registry",
    "list_global_func_names": "registry",
    "load_module": "module",
    "load_param_dict": "params",
    "load_param_dict_from_file": "params",
    "load_static_library": "sources",
    "module_from_source": "sources",
    "num_threads": "parallel",
    "profile": "profiler",
    "register_device_api": "device.kinds",
    "register_func": "registry",
    "register_global_func": "registry",
    "remove_global_func": "registry",
    "save_param_dict": "params",
    "save_param_dict_to_file": "params",
    "structural_equal": "structural",
    "system_lib": "system_library",
    "unregister_device_api": "device.kinds",
}

if not TYPE_CHECKING:  # to which every name would be there

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            return _submodule(name)
        found = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = found
        return found


def _submodule(name: str) -> Any:
    """A file of this folder, such as ``runtime.module``: as in TVM, it needs no import."""
    found = None
    if name.isidentifier() and not name.startswith("_"):
        found = importlib.util.find_spec(f"{__name__}.{name}")
    if found is None or not found.has_location:  # a folder without code has none
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(found.name)


def __dir__() -> List[str]:
    return sorted(__all__)
