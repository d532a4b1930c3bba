"""Module: functions that belong together, and the modules they call. Opens no library itself."""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Union, cast

from ..errors import LibraryError
from ..owners import not_copied
from . import registry
from .object import Object

if TYPE_CHECKING:
    from .device.api import Device
    from .function import PackedFunc
    from .profiling import BenchmarkResult, Timing

__all__ = ["LINKED", "Module", "load_module"]

_NAMES_SHOWN = 5


@not_copied("export it and load the file there")
class Module(Object):
    """A set of functions by name. This one has none of its own: kinds of modules have.

    Attributes:
        kind: what the module is made of (``library``, ``rpc``).
    """

    kind = "module"
    entry_name = "main"

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
    def imported_modules(self) -> List[Module]:
        """The modules in which this module's code looks up functions."""
        return list(self._imports)

    def import_module(self, module: Module) -> None:
        """Let this module's code find the functions of another one.

        Raises:
            ValueError: `module` imports this one already, by whatever way.
        """
        if self in _reachable(module):
            raise ValueError(f"{self!r} cannot import {module!r}, which imports it already")
        self._imports.append(module)

    def implements_function(self, name: str, query_imports: bool = False) -> bool:
        """Whether `get_function` would find the name."""
        return self._find(name, query_imports) is not None

    def get_function(self, name: str, query_imports: bool = False) -> PackedFunc:
        """The function of this name.

        Args:
            query_imports: look in the imported modules, too.

        Raises:
            AttributeError: there is none; the message names functions that exist.
        """
        __tracebackhide__ = True
        function = self._find(name, query_imports)
        if function is None:
            raise AttributeError(f"Module has no function '{name}'{self._hint(name)}")
        return function

    @property
    def entry_func(self) -> PackedFunc:
        """The function called ``main``."""
        return self.get_function(self.entry_name)

    def __getitem__(self, name: str) -> PackedFunc:
        __tracebackhide__ = True
        if not isinstance(name, str):
            raise ValueError("Can only take string as function name")
        return self.get_function(name)

    def __call__(self, *args: Any) -> Any:
        return self.entry_func(*args)

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
        cache_flush_bytes: int = 0,
        f_preproc: Union[str, Callable[..., Any]] = "",
    ) -> Callable[..., BenchmarkResult]:
        """A function that takes the arguments of `func_name` and measures its calls.

        Args:
            dev: the device to wait for before the clock is read.
            number: calls in one measurement.
            repeat: measurements; each is one element of ``results``.
            min_repeat_ms: `number` grows until a measurement takes as long.
            limit_zero_time_iterations: measurements of exactly 0 s that are tried again.
            cooldown_interval_ms: pause after every `repeats_to_cooldown` measurements.
            cache_flush_bytes: memory that is written before each measurement.
            f_preproc: a function, or the name of a global one, called with the arguments before
                each measurement.

        Returns:
            A function whose result is a `BenchmarkResult`, in seconds for one call.

        Raises:
            AttributeError: the module has no function of this name.
            ValueError: there is no global function `f_preproc`.
        """
        from .profiling import Timing

        timing = Timing(
            number,
            repeat,
            min_repeat_ms,
            limit_zero_time_iterations,
            cooldown_interval_ms,
            repeats_to_cooldown,
            cache_flush_bytes,
        )
        return self.make_evaluator(func_name, dev, timing, f_preproc)

    def make_evaluator(
        self, name: str, device: Device, timing: Timing, preproc: Union[str, Callable[..., Any]]
    ) -> Callable[..., BenchmarkResult]:
        """`time_evaluator` with its settings together; what kinds of modules replace."""
        function = self.get_function(name, query_imports=True)
        before = preproc if callable(preproc) else None
        if isinstance(preproc, str) and preproc:
            before = registry.get_global_func(preproc)

        def evaluate(*args: Any) -> BenchmarkResult:
            from .profiling import BenchmarkResult, measure

            results = measure(
                function.prepare(*args),
                device.sync,
                preproc=functools.partial(before, *args) if before else None,
                **timing._asdict(),
            )
            return BenchmarkResult(results)

        return evaluate

    def _find(self, name: str, query_imports: bool) -> Optional[PackedFunc]:
        function = self.find_function(name)
        if function is not None or not query_imports:
            return function
        for module in _reachable(self)[1:]:
            function = module.find_function(name)
            if function is not None:
                return function
        return None

    def _hint(self, name: str) -> str:
        names = self.function_names()
        if not names:
            return ""
        shown = ", ".join(repr(known) for known in names[:_NAMES_SHOWN])
        rest = len(names) - _NAMES_SHOWN
        return f"; it has {shown}" + (f" and {rest} more" if rest > 0 else "")

    def __repr__(self) -> str:
        return f"Module({self.kind}, {id(self):x})"


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


def _reachable(root: Module) -> List[Module]:
    """A module and everything it imports, each once, nearest first."""
    found: List[Module] = [root]
    for module in found:  # grows while it is walked
        found += [imported for imported in module.imported_modules if imported not in found]
    return found
