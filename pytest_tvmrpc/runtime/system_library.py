"""The system library: functions that code registers by name while it is loaded or linked in.

Opens no library; `library` does, and `context` has the C functions by which code registers.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from typing import TYPE_CHECKING, Dict, Iterator, List, NamedTuple, Optional

from ..errors import LibraryError
from .calling import NativeFunction
from .conventions import ENTRY, PREFIX, Convention, is_reserved
from .legacy_calling import LegacyFunction
from .module import Module, described

if TYPE_CHECKING:
    from .function import PackedFunc

__all__ = ["SystemLibrary", "system_lib"]


class _Symbol(NamedTuple):
    address: int
    convention: Convention


class SystemLibrary(Module):
    """The functions whose registered names begin with a prefix; there may be none.

    What is registered later is found, too, and stays: code that registers is never unloaded.
    """

    kind = "library"  # as in TVM

    def __init__(self, symbol_prefix: str = "") -> None:
        super().__init__()
        self.symbol_prefix = symbol_prefix

    def find_function(self, name: str) -> Optional[PackedFunc]:
        """The function registered as ``__tvm_ffi_PREFIXNAME``, ``__tvm_ffi_NAME``, or without."""
        if name == ENTRY:
            return self._function(self.entry_name) or self._entry()
        found = self._function(name)
        if found is None and name == self.entry_name:
            return self._entry()
        return found

    def function_names(self) -> List[str]:
        """The names of all functions, without the prefix, sorted."""
        names = set()
        for symbol in list(_symbols):
            name = symbol[len(PREFIX) :] if symbol.startswith(PREFIX) else symbol
            if name.startswith(self.symbol_prefix) and not is_reserved(symbol.replace(PREFIX, "")):
                names.add(name[len(self.symbol_prefix) :])
        return sorted(filter(None, names))

    def _function(self, name: str) -> Optional[PackedFunc]:
        if is_reserved(name):
            return None
        full = self.symbol_prefix + name
        prefixed = _symbols.get(PREFIX + full) or _symbols.get(PREFIX + name)
        if prefixed is not None:
            return NativeFunction(prefixed.address, name)
        found = _symbols.get(full) or _symbols.get(name)
        if found is None:
            return None
        if found.convention is Convention.LEGACY:
            return LegacyFunction(found.address, name)
        return NativeFunction(found.address, name)

    def _entry(self) -> Optional[PackedFunc]:
        """The function that a registered ``__tvm_main__`` names."""
        found = _symbols.get(self.symbol_prefix + ENTRY)
        if found is None:
            return None
        return self._function(ctypes.string_at(found.address).decode("utf-8", "replace"))

    def __repr__(self) -> str:
        return described("system_lib", repr(self.symbol_prefix), self.function_names())


def system_lib(symbol_prefix: str = "") -> Module:
    """The module of all functions registered under names with this prefix: always the same one."""
    return _modules.setdefault(symbol_prefix, SystemLibrary(symbol_prefix))


def register(name: str, address: int, convention: Optional[Convention] = None) -> None:
    """Make a symbol known; one of the same name is replaced, as in TVM.

    Args:
        convention: of a function without the prefix in its name; by default that of the library
            which is being loaded.

    Raises:
        ValueError: it has no name or no address.
    """
    if not name or not address:
        raise ValueError(f"compiled code registers {name!r} at {address:#x}; expected both")
    _symbols[name] = _Symbol(address, convention or _loading.stack[-1])


@contextlib.contextmanager
def loading(convention: Optional[Convention]) -> Iterator[None]:
    """Within, plain functions that are registered are of the library of this convention.

    Raises:
        LibraryError: at the end: something that the library did while it was loaded failed.
    """
    _loading.stack.append(convention or Convention.LEGACY)
    before = len(_loading.problems)
    try:
        yield
    finally:
        _loading.stack.pop()
        problems = _loading.problems[before:]
        del _loading.problems[before:]
    if problems:
        raise LibraryError(f"the library registers what it may not: {problems[0]}")


def postpone(problem: str) -> bool:
    """Leave a failure to the end of the loading that is going on; False when there is none.

    The constructors of a library run while it is loaded, and an error in one ends the process.
    """
    if len(_loading.stack) == 1:
        return False
    _loading.problems.append(problem)
    return True


_symbols: Dict[str, _Symbol] = {}  # of the process, as loaded libraries are
_modules: Dict[str, Module] = {}


class _Loading(threading.local):
    """What a thread is loading: constructors of a library run on the thread that loads it."""

    def __init__(self) -> None:
        self.stack: List[Convention] = [Convention.LEGACY]
        self.problems: List[str] = []


_loading = _Loading()
