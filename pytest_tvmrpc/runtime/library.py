"""Shared libraries of compiled functions: opening one, and finding its functions.

What a call is, `calling` knows; what the library may call in turn, `context` does.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import struct
import threading
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from ..errors import LibraryError
from . import elf, registry, shim, stubs, system_library
from .abi import take_error
from .calling import CxxFunction, NativeFunction
from .context import CONTEXTS, VARIABLES, address_of, bind_context
from .conventions import ENTRY, PREFIX, Convention, plain_functions, why_not
from .exchange import context_symbols
from .imports import LIBRARY, entry_kinds, imported_modules
from .legacy_calling import LegacyFunction
from .module import Module, ModulePropertyMask, described
from .replacing import replacing

if TYPE_CHECKING:
    from .function import PackedFunc

__all__ = ["LibraryModule", "is_part_of_tvm"]

_IMPORTS: Dict[str, Callable[[bytes], List[str]]] = {
    "__tvm_ffi__library_bin": lambda table: [one.kind for one in imported_modules(table)],
    "__tvm_ffi_library_bin": entry_kinds,
    "__tvm_dev_mblob": entry_kinds,
}
"""Where the table of imported modules is, and what reads it: since TVM 0.22, in 0.21, before."""
_OF_MODELS = frozenset(
    ("vm_load_executable", "vm_profiler_load_executable", "get_graph_json", "get_graph_params")
)
"""By which a virtual machine or graph executor is made of what a library brings."""
_MAX_ENTRY = 256  # bytes of the name of a function
_MAX_IMPORTS = 1 << 30  # bytes


class LibraryModule(Module):
    """The functions of a shared library that were compiled to TVM's convention.

    The library stays in the process when the module is dropped. A file that was replaced since it
    was opened is opened anew, as a library of its own.

    Args:
        path: of the file; a relative one is taken from the working directory.

    Attributes:
        missing_kinds: the kinds of modules that it brings and nothing here can run.

    Raises:
        LibraryError: there is no such library, it is for another machine, damaged, or something
            that it needs is not here.
    """

    kind = "library"
    properties = ModulePropertyMask.RUNNABLE | ModulePropertyMask.BINARY_SERIALIZABLE  # as in TVM

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        super().__init__()
        self.path = os.path.abspath(os.fspath(path))
        self._file = _examine(self.path)
        is_cxx = self._file is not None and any(map(_is_ffi, self._file.needed))
        self._native = CxxFunction if is_cxx else NativeFunction
        self._plain = plain_functions(self._file.symbols if self._file is not None else ())
        with system_library.loading(self._plain.convention):
            self._library, self._version = _open(self.path, self._file)
        take_error()  # of a constructor, which has nobody to tell
        self.missing_kinds = _missing_kinds(self.path, self._library, self._file)
        _fill_variables(self._library, self._file)
        for name in CONTEXTS:
            context = _variable(self._library, name)
            if context is not None:
                bind_context(self, context)

    def find_function(self, name: str) -> Optional[PackedFunc]:
        """The function exported as ``__tvm_ffi_NAME``, or else, in older libraries, as NAME.

        Which libraries are older, the module `conventions` tells; names that begin with ``_`` are
        reserved, but for ``__tvm_main__``: that, and ``main`` where there is none, is the function
        to call by default.

        Raises:
            LibraryError: it belongs to a model that the library brings, which nothing here runs.
        """
        if name == ENTRY:
            return self._function(self.entry_name) or self._entry()
        found = self._function(name)
        if found is None and name == self.entry_name:
            found = self._entry()
        if found is None and name in _OF_MODELS and self.missing_kinds:
            raise LibraryError(
                f"{self.path} is a model ({', '.join(self.missing_kinds)}), and {name!r} runs it, "
                "which is not supported yet; expected a function of its compiled code: "
                f"{', '.join(self.function_names()) or 'it has none'}"
            )
        return found

    def has_own(self, name: str) -> bool:
        """Whether the library has a function of this name that can be called here."""
        if name in _OF_MODELS and self.missing_kinds:
            return self._function(name) is not None
        return super().has_own(name)

    def function_names(self) -> List[str]:
        """The names of all functions, sorted; none where the file's format is not understood."""
        symbols = self._file.symbols if self._file is not None else ()
        prefixed = {
            symbol.name[len(PREFIX) :]
            for symbol in symbols
            if symbol.is_defined
            and symbol.is_function
            and symbol.name.startswith(PREFIX)
            and not symbol.name.startswith(PREFIX + "_")
        }
        return sorted(prefixed | self._plain.names)

    def _function(self, name: str) -> Optional[PackedFunc]:
        if name and not name.startswith("_"):
            address = _symbol(self._library, PREFIX + name)
            if address:
                return self._native(address, name, owner=self)
        return self._plain_function(name) if name in self._plain.names else None

    def _plain_function(self, name: str) -> Optional[PackedFunc]:
        address = _symbol(self._library, name)
        if not address:  # hidden, or of another version
            return None
        if self._plain.convention is Convention.LEGACY:
            return LegacyFunction(address, name, owner=self)
        return self._native(address, name, owner=self)

    def _entry(self) -> Optional[PackedFunc]:
        """What ``__tvm_main__`` is, or names."""
        for symbol in self._file.symbols if self._file is not None else ():
            if symbol.name == ENTRY and symbol.is_defined and self._plain.convention is not None:
                if symbol.is_function:
                    return self._plain_function(ENTRY)
                place = _symbol(self._library, ENTRY)
                content = ctypes.string_at(place, min(symbol.size, _MAX_ENTRY)) if place else b""
                return self._function(content.partition(b"\0")[0].decode("utf-8", "replace"))
        return None

    def _hint(self, name: str) -> str:
        found = why_not(self._file.symbols, name) if self._file is not None else ""
        return f"; {self.path} {found}" if found else super()._hint(name)

    def get_write_formats(self) -> Sequence[str]:
        """That of the file: it can be copied."""
        return [os.path.splitext(self.path)[1][1:] or "so"]

    def write_to_file(self, file_name: Union[str, os.PathLike[str]], fmt: str = "") -> None:
        """Copy the file that was loaded, byte for byte; its suffix does not matter.

        Raises:
            LibraryError: the file is gone or was replaced since it was loaded; or `fmt` is not its
                format.
            OSError: the new file cannot be written.
        """
        if fmt and fmt not in self.get_write_formats():
            raise LibraryError(
                f"{self.path} cannot be written in the format {fmt!r}; expected "
                f"{self.get_write_formats()[0]!r}, as it is linked already"
            )
        copy_file(self.path, file_name, self._version)

    def describe(self, what: str, name: str) -> Optional[str]:
        """What the library's own function for this text returns, if it has one."""
        address = _symbol(self._library, f"{PREFIX}_{what}_{name}") if name else 0
        if not address:
            return None
        text = NativeFunction(address, f"{what} of {name}", owner=self)()
        return text if isinstance(text, str) else None

    def __repr__(self) -> str:
        return described(self.kind, self.path, self.function_names())


# ------------------------------------------------------------------------------------- opening


class _Version(NamedTuple):
    """Which content a file has, as far as the file system tells."""

    device: int
    inode: int
    size: int
    changed_ns: int


_opening = threading.RLock()  # of two threads that open one library, one is first
_opened: Dict[Union[str, Tuple[int, int]], _Version] = {}  # by path and by inode, as the loader
_numbers = itertools.count(1)


def _examine(path: str) -> Optional[elf.ElfFile]:
    """Read the file's own account of itself before the system's loader, which crashes on some."""
    here = elf.machine()
    if here is None and os.path.isfile(path):
        return None  # another system's format: its loader has the word
    file = elf.read(path)
    if here is not None and not file.architecture.fits(here):
        raise LibraryError(
            f"{path} is for {file.architecture}, expected {here}, which this machine is; "
            "compile it for this machine's target"
        )
    return file


def is_part_of_tvm(path: str) -> bool:
    """Whether a file is a library of TVM itself, and whole, and for this machine."""
    if not os.path.basename(path).startswith("libtvm"):
        return False
    try:
        file = _examine(path)
    except LibraryError:
        return False
    return file is not None and shim.is_of_tvm(file)


def _is_ffi(needed: str) -> bool:
    """Whether a library that another one needs is that of tvm-ffi, as C++ code does."""
    return os.path.basename(needed).startswith("libtvm_ffi.")


def _version_of(path: str) -> _Version:
    status = os.stat(path)
    return _Version(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def copy_file(source: str, target: Union[str, os.PathLike[str]], version: _Version) -> None:
    """Copy a file that is still the one that was loaded; the copy appears whole or not at all."""
    import shutil

    if os.path.exists(target) and os.path.samefile(source, target):
        return
    with replacing(target) as partial:
        if os.path.exists(source):
            shutil.copy(source, partial)
        if not os.path.exists(source) or _version_of(source) != version:
            raise LibraryError(
                f"{source} was replaced or removed since it was loaded; expected the file that is "
                "in use, to copy it; load it again"
            )


def _open(path: str, file: Optional[elf.ElfFile]) -> Tuple[ctypes.CDLL, _Version]:
    folder = os.path.dirname(path)
    with _opening:
        try:
            version = _version_of(path)
            if _is_stale(path, version):
                return _open_copy(path, file, folder), version
            library = shim.open_bound(path, file, folder)
        except OSError as error:
            raise _explained(path, file, str(error)) from error
        _opened[path] = _opened[version[:2]] = version
        return library, version


def _is_stale(path: str, version: _Version) -> bool:
    """Whether the loader would take the file for one that it has, and that had other content."""
    known = (_opened.get(path, version), _opened.get(version[:2], version))
    return any(opened != version for opened in known)


def _open_copy(path: str, file: Optional[elf.ElfFile], folder: str) -> ctypes.CDLL:
    with open(path, "rb") as source:
        image = source.read()
    name = f"tvmrpc-{os.getpid()}-{next(_numbers)}-{os.path.basename(path)}"
    folders = (folder, stubs.temporary_folder())
    return stubs.load_private(
        image, name, folders, lambda copy: shim.open_bound(copy, file, folder)
    )


_HINTS = (
    (
        r"undefined symbol|symbol not found",
        "link the library that defines it, or compile its source in",
    ),
    (
        r"cannot open shared object|Error loading shared library",
        "install that library on this machine, or link it statically",
    ),
    (
        r"version [`'].*not found",
        "link it with a system library as old as this machine's",
    ),
    (
        r"failed to map segment|Operation not permitted",
        "see whether its folder is mounted noexec",
    ),
)


def _explained(path: str, file: Optional[elf.ElfFile], reason: str) -> LibraryError:
    """The loader's own words, which name the culprit, with what was expected and what to do."""
    hints = [hint for pattern, hint in _HINTS if re.search(pattern, reason)]
    needed = f" (it needs {', '.join(file.needed)})" if file is not None and file.needed else ""
    advice = hints[0] if hints else "build it for this machine and send it again"
    return LibraryError(
        f"{path} cannot be loaded: {reason}; "
        f"expected a library with everything it needs on this machine{needed}; {advice}"
        f"{registry.unavailable()}"
    )


# ------------------------------------------------------------------------------------- symbols


def _symbol(library: ctypes.CDLL, name: str) -> int:
    """The address of a symbol, or 0."""
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(library, name))
    except ValueError:
        return 0


def _variable(library: ctypes.CDLL, name: str) -> Optional[ctypes.c_void_p]:
    address = _symbol(library, name)
    return ctypes.c_void_p.from_address(address) if address else None


def _fill_variables(library: ctypes.CDLL, file: Optional[elf.ElfFile]) -> None:
    """Give the library the functions for which it exports pointer variables."""
    exported = {symbol.name for symbol in file.symbols if symbol.is_defined} if file else None
    for variable in (*VARIABLES, *context_symbols):
        if exported is not None and variable not in exported:
            continue
        place = _variable(library, variable)
        if place is not None:
            place.value = (
                context_symbols[variable]
                if variable in context_symbols
                else address_of(VARIABLES[variable])
            )


# ------------------------------------------------------------------------------------- imports


def _missing_kinds(path: str, library: ctypes.CDLL, file: Optional[elf.ElfFile]) -> Tuple[str, ...]:
    """The kinds of the modules that a library brings and that are no machine code.

    Raises:
        LibraryError: its table of them is damaged.
    """
    for name, kinds_of in _IMPORTS.items():
        address = _symbol(library, name)
        if not address:
            continue
        symbols = file.symbols if file is not None else ()
        sizes = [symbol.size for symbol in symbols if symbol.name == name and symbol.size]
        limit = sizes[0] - 8 if sizes else _MAX_IMPORTS
        size = int.from_bytes(ctypes.string_at(address, 8), "little")
        try:
            if size > limit:
                raise struct.error(f"{size} bytes in {limit}")
            kinds = kinds_of(ctypes.string_at(address + 8, size))
        except struct.error as error:
            raise LibraryError(
                f"{path}: its table of imported modules is damaged ({error}); "
                "expected the one that TVM's export_library writes; build it again"
            ) from None
        return tuple(dict.fromkeys(kind for kind in kinds if kind != LIBRARY))
    return ()
