"""Module: functions that belong together, and the modules they call. Opens no library itself."""

from __future__ import annotations

import importlib
import json
import os
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
)

from ..errors import LibraryError
from ..owners import not_copied
from . import registry
from .device.api import Device
from .device.names import cpu
from .object import Object
from .property_mask import Answer, ModulePropertyMask

if TYPE_CHECKING:
    from .function import PackedFunc
    from .profiling import BenchmarkResult, TimedCall, TimeEvaluator, Timing

__all__ = ["LINKED", "BenchmarkResult", "Module", "ModulePropertyMask", "load_module"]

Path = Union[str, "os.PathLike[str]"]

_NAMES_SHOWN = 5


@not_copied("export it and load the file there")
class Module(Object):
    """A set of functions by name. This one has none of its own: kinds of modules have.

    A function is ``module["name"]``, ``module.get_function("name")`` or ``module.name``, as long as
    the module has no attribute of its own of this name. Modules are equal if they are the same one.

    Attributes:
        kind: what the module is made of, as TVM calls it (``library``, ``c``, ``static_library``,
            ``rpc``).
        format: the suffix of the file in which its code is kept, as far as it has one.
        properties: what can be done with it.
    """

    kind = "module"
    entry_name = "main"
    format = ""
    properties = ModulePropertyMask.RUNNABLE

    def __init__(self) -> None:
        self._imports: List[Module] = []

    def find_function(self, name: str) -> Optional[PackedFunc]:
        """The module's own function of this name, or None. What kinds of modules replace."""
        return None

    def function_names(self) -> List[str]:
        """The names of the module's own functions, as far as they can be told."""
        return []

    @property
    def type_key(self) -> str:
        """The older name of `kind`."""
        return self.kind

    @property
    def imports(self) -> List[Module]:
        """The modules in which this module's code looks up functions."""
        return list(self._imports)

    @property
    def imports_(self) -> List[Module]:
        """Another name of `imports`, which TVM 0.27 has as well."""
        return self.imports

    @property
    def imported_modules(self) -> List[Module]:
        """The older name of `imports`."""
        return self.imports

    def import_module(self, module: Module) -> None:
        """Let this module's code find the functions of another one.

        Raises:
            TypeError: `module` is no module.
            ValueError: `module` imports this one already, by whatever way.
        """
        if not isinstance(module, Module):
            raise TypeError(
                f"{self!r} cannot import a {type(module).__qualname__}; expected a module; "
                "load it with load_module"
            )
        if self in reachable(module):
            raise ValueError(f"{self!r} cannot import {module!r}, which imports it already")
        self._imports.append(module)

    def clear_imports(self) -> None:
        """Let this module's code find no functions of other modules any more.

        What it has looked up already, it keeps.
        """
        self._imports.clear()

    def implements_function(self, name: str, query_imports: bool = False) -> bool:
        """Whether there is a function of this name; a module that is not linked cannot call it.

        Args:
            query_imports: look in the imported modules, too.

        Raises:
            TypeError: the name is no str.
        """
        registry.check_name(name)
        modules = reachable(self) if query_imports else [self]
        return any(module.has_own(name) for module in modules)

    def has_own(self, name: str) -> bool:
        """Whether the module itself has a function of this name."""
        return self.find_function(name) is not None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.implements_function(name)

    def get_function(self, name: str, query_imports: bool = False) -> PackedFunc:
        """The function of this name.

        Args:
            query_imports: look in the imported modules, too.

        Raises:
            AttributeError: there is none; the message names functions that exist.
            TypeError: the name is no str.
        """
        __tracebackhide__ = True
        registry.check_name(name)
        function = self._find(name, query_imports)
        if function is None:
            raise AttributeError(f"Module has no function '{name}'{self._hint(name)}")
        return function

    @property
    def entry_func(self) -> PackedFunc:
        """The function called ``main``."""
        return self.get_function(self.entry_name)

    def __getattr__(self, name: str) -> PackedFunc:
        __tracebackhide__ = True
        if name.startswith("_"):  # what Python and others look for, and no function's name
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name == "entry_func":  # which is there, and has raised
            name = self.entry_name
        return self.get_function(name)

    def __dir__(self) -> List[str]:
        return [*super().__dir__(), *self._names_now()]

    def _names_now(self) -> List[str]:
        """The names for people, who are shown what there is without an error."""
        return self.function_names()

    def __getitem__(self, name: str) -> PackedFunc:
        __tracebackhide__ = True
        if not isinstance(name, str):
            raise ValueError("Can only take string as function name")
        return self.get_function(name)

    def __call__(self, *args: Any) -> Any:
        return self.entry_func(*args)

    # What it is made of

    def get_property_mask(self) -> int:
        """What can be done with the module, as the sum of `ModulePropertyMask`."""
        return int(self.properties)

    @property
    def is_runnable(self) -> Answer:
        """Whether it has functions to call."""
        return self._answer(ModulePropertyMask.RUNNABLE)

    @property
    def is_binary_serializable(self) -> Answer:
        """Whether TVM can make it a part of another library."""
        return self._answer(ModulePropertyMask.BINARY_SERIALIZABLE)

    @property
    def is_compilation_exportable(self) -> Answer:
        """Whether it is source or object code, which `export_library` links."""
        return self._answer(ModulePropertyMask.COMPILATION_EXPORTABLE)

    @property
    def is_dso_exportable(self) -> Answer:
        """The older name of `is_compilation_exportable`."""
        return self.is_compilation_exportable

    def _answer(self, wanted: ModulePropertyMask) -> Answer:
        return Answer(bool(self.properties & wanted))

    def get_write_formats(self) -> Sequence[str]:
        """The formats in which `write_to_file` can write it."""
        return [self.format] if self.format else []

    def inspect_source(self, fmt: str = "") -> str:
        """The source code of the module; empty where it has none.

        Args:
            fmt: the language, for modules that have several.
        """
        return ""

    def get_source(self, fmt: str = "") -> str:
        """The older name of `inspect_source`."""
        return self.inspect_source(fmt)

    def write_to_file(self, file_name: Path, fmt: str = "") -> None:
        """Write the module's own code to a file, without the modules that it imports.

        Args:
            file_name: the file to make or replace.
            fmt: one of `get_write_formats`; by default the one of the suffix.

        Raises:
            LibraryError: it cannot be written, or not in this format.
        """
        raise LibraryError(
            f"{self!r} cannot be written to {os.fspath(file_name)}: it is no code of a file; "
            "expected a library that was loaded, a source or an object file"
        )

    def save(self, file_name: Path, fmt: str = "") -> None:
        """The older name of `write_to_file`."""
        self.write_to_file(file_name, fmt)

    def export_library(
        self,
        file_name: Path,
        fcompile: Optional[Callable[..., Any]] = None,
        addons: Optional[Sequence[str]] = None,
        workspace_dir: Optional[Path] = None,
        *,
        fpack_imports: Optional[Callable[..., str]] = None,
        **kwargs: Any,  # for fcompile, as in TVM
    ) -> Any:
        """Link the module and all that it imports into one library, or pack them as an archive.

        All of them have to be source code (`module_from_source`) or object files
        (`load_static_library`); a library that is linked already is copied by `save`.

        Args:
            file_name: the library to write; as ``.tar``, an archive to be linked where it is
                loaded.
            fcompile: what makes it, called as ``fcompile(file_name, files, **kwargs)``; by default
                `toolchain.create_shared`, which takes ``options`` and ``cc``, so that a compiler
                for another machine can be named.
            addons: further files to be linked in.
            workspace_dir: where the files for `fcompile` are made, and stay; by default a
                temporary folder.
            fpack_imports: called as TVM calls it when the module imports others, for one more
                file: ``fpack_imports(module, is_system_lib, symbol_prefix, workspace_dir)``.

        Returns:
            What `fcompile` returns; None from the default.

        Raises:
            LibraryError: one of the modules cannot be linked; the message names it.
            CompilerError: no compiler, or it refused.
        """
        from .exporting import export_library

        return export_library(
            self, file_name, fcompile, addons, workspace_dir, fpack_imports, kwargs
        )

    def get_function_metadata(
        self, name: str, query_imports: bool = False
    ) -> Optional[Dict[str, Any]]:
        """What the compiler wrote down of a function, such as the types of its arguments.

        Returns:
            Its JSON object; None if there is no function of this name, or nothing of it.

        Raises:
            TypeError: the name is no str.
        """
        text = self._described("metadata", name, query_imports)
        return None if text is None else cast("Dict[str, Any]", json.loads(text))

    def get_function_doc(self, name: str, query_imports: bool = False) -> Optional[str]:
        """The documentation of a function that its library brings with it, or None."""
        return self._described("doc", name, query_imports) or None

    def _described(self, what: str, name: str, query_imports: bool) -> Optional[str]:
        registry.check_name(name)
        for module in reachable(self) if query_imports else [self]:
            text = module.describe(what, name)
            if text is not None:
                return text
        return None

    def describe(self, what: str, name: str) -> Optional[str]:
        """A text (``metadata`` or ``doc``) on one of the module's own functions, or None."""
        return None

    # Measuring

    def time_evaluator(
        self,
        func_name: str,
        dev: Device,
        number: int = 10,
        repeat: int = 1,
        min_repeat_ms: int = 0,
        limit_zero_time_iterations: int = 100,
        cooldown_interval_ms: int = 0,
        repeats_to_cooldown: int = 1,
        cache_flush_bytes: Union[int, str, Callable[..., Any]] = 0,
        f_preproc: Union[str, Callable[..., Any]] = "",
    ) -> TimeEvaluator:
        """A function that takes the arguments of `func_name` and measures its calls.

        Args:
            func_name: of the function that is called ``1 + number * repeat`` times.
            dev: the device to wait for before the clock is read.
            number, repeat, min_repeat_ms, limit_zero_time_iterations, cooldown_interval_ms,
                repeats_to_cooldown: how to measure, as `profiling.Timing` says.
            cache_flush_bytes: as there, since TVM 0.14; as a text or a function it is the ninth
                argument of older ones, `f_preproc`.
            f_preproc: a function, or the name of a global one, called with the arguments before
                each measurement.

        Returns:
            A function whose result is a `BenchmarkResult`, in seconds for one call.

        Raises:
            AttributeError: the module has no function of this name.
            TypeError: an argument is of a wrong type.
            ValueError: a setting is out of its range, or there is no global function `f_preproc`.
            DeviceError: nobody drives such devices here.
        """
        __tracebackhide__ = True
        from .profiling import Timing, flush_and_preproc

        registry.check_name(func_name)
        if not isinstance(dev, Device):
            raise TypeError(f"{dev!r} is no device; expected e.g. runtime.cpu(0)")
        flush_bytes, preproc = flush_and_preproc(cache_flush_bytes, f_preproc)
        timing = Timing(
            number,
            repeat,
            min_repeat_ms,
            limit_zero_time_iterations,
            cooldown_interval_ms,
            repeats_to_cooldown,
            flush_bytes,
        )
        return self.make_evaluator(func_name, dev, timing.checked(), preproc)

    def make_evaluator(
        self, name: str, device: Device, timing: Timing, preproc: Union[str, Callable[..., Any]]
    ) -> TimeEvaluator:
        """`time_evaluator` with its settings together; what kinds of modules replace."""
        from .profiling import local_evaluator

        function = self.get_function(name, query_imports=True)
        before = preproc if callable(preproc) else None
        if isinstance(preproc, str) and preproc:
            before = registry.get_global_func(preproc)
        return local_evaluator(name, function, device, timing, before)

    def host_device(self) -> Device:
        """The CPU of the machine that the module is on."""
        return cpu(0)

    def make_timed(self, name: str, device: Device) -> Tuple[TimedCall, str]:
        """What makes one call and takes its time, and whose clock that is.

        Returns:
            A function that takes the arguments of `name` and returns what it returned and its
            duration in seconds; and, for a report, where the clock is, empty for this machine.
        """
        from .profiling import timed_call

        return timed_call(self.get_function(name, query_imports=True), device), ""

    def _find(self, name: str, query_imports: bool) -> Optional[PackedFunc]:
        function = self.find_function(name)
        if function is not None or not query_imports:
            return function
        for module in reachable(self)[1:]:
            function = module.find_function(name)
            if function is not None:
                return function
        return None

    def _hint(self, name: str) -> str:
        names = self.function_names()
        return f"; it has {_enumerated(map(repr, names))}" if names else ""

    def __repr__(self) -> str:
        return f"Module({self.kind}, {id(self):x})"


def _enumerated(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    known = list(names)
    rest = len(known) - _NAMES_SHOWN
    return ", ".join(known[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def described(kind: str, what: str, names: Iterable[str]) -> str:
    """A module for people: its kind, where it is from, and its first functions."""
    functions = _enumerated(names)
    return f"Module({kind}, {what}: {functions})" if functions else f"Module({kind}, {what})"


LOADERS: Dict[str, str] = dict.fromkeys(
    ("so", "dll", "dylib", "dso"), "pytest_tvmrpc.runtime.library:LibraryModule"
)
"""What loads a file, by its format: ``module:callable``, imported when it is needed."""

LINKED = ("o", "tar", "c", "cc", "cpp", "cxx")
"""Formats of what is a library but for the linking."""


def load_module(path: Union[str, os.PathLike[str]], fmt: str = "") -> Module:
    """Load a file of functions.

    Args:
        path: the file. An object file (``.o``), a source of C or C++ (``.c``, ``.cc``, ``.cpp``,
            ``.cxx``) or an archive of such (``.tar``) is linked first, into a library of the same
            name with ``.so`` behind it.
        fmt: its format when the file's suffix does not say it: ``so``, ``dll``, ``dylib``.
            Further formats: a global function ``ffi.Module.load_from_file.FORMAT`` that takes
            the path.

    Raises:
        LibraryError: nothing loads this format, or the file cannot be loaded on this machine.
        CompilerError: it has to be linked, and there is no compiler, or it refused.
    """
    text = os.fspath(path)
    known = fmt or _format(text)
    if known in LINKED:
        from . import toolchain

        text, known = toolchain.link_library(text, kind=known), "so"
    place = LOADERS.get(known)
    if place is not None:
        module_name, _, loader = place.partition(":")
        return cast("Module", getattr(importlib.import_module(module_name), loader)(text))
    found = registry.get_global_func(f"ffi.Module.load_from_file.{known}", allow_missing=True)
    if found is not None:
        return cast("Module", found(text))
    what = f".{known} files" if known else "files without a suffix"
    raise LibraryError(
        f"{text} cannot be loaded: no loader for {what}; "
        f"expected {', '.join('.' + suffix for suffix in (*LOADERS, *LINKED))}"
        "; link it as a shared library, or name its format with fmt"
    )


def _format(path: str) -> str:
    """The suffix without the dot; versions behind it do not count (libm.so.6)."""
    parts = os.path.basename(path).split(".")[1:]
    while len(parts) > 1 and parts[-1].isdigit():
        parts.pop()
    return parts[-1] if parts else ""


def reachable(root: Module) -> List[Module]:
    """A module and everything it imports, each once, nearest first."""
    found: List[Module] = [root]
    for module in found:  # grows while it is walked
        found += [imported for imported in module.imported_modules if imported not in found]
    return found


if not TYPE_CHECKING:  # to which every name would be there

    def __getattr__(name: str) -> Any:
        if name != "BenchmarkResult":  # where TVM has it; imported when it is asked for
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .profiling import BenchmarkResult

        return BenchmarkResult
