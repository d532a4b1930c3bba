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
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Tuple, Union

from ..errors import LibraryError
from . import elf, shim
from .calling import NativeFunction
from .context import VARIABLES, address_of, bind_context
from .module import Module

if TYPE_CHECKING:
    from .function import PackedFunc

__all__ = ["LibraryModule"]

PREFIX = "__tvm_ffi_"
"""Before the name of each function, as a symbol (TVM 0.22 and later)."""

_CONTEXT = "__tvm_ffi__library_ctx"
_IMPORTS = "__tvm_ffi__library_bin"
_MAX_IMPORTS = 1 << 30  # bytes


class LibraryModule(Module):
    """The functions of a shared library that were compiled to TVM's convention.

    The library stays in the process when the module is dropped. A file that was replaced since it
    was opened is opened anew, as a library of its own.

    Args:
        path: of the file; a relative one is taken from the working directory.

    Raises:
        LibraryError: there is no such library, it is for another machine, damaged, or something
            that it needs is not here.
    """

    kind = "library"

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        super().__init__()
        self.path = os.path.abspath(os.fspath(path))
        self._file = _examine(self.path)
        self._library = _open(self.path, self._file)
        _check_imports(self.path, self._library, self._file)
        _fill_variables(self._library)
        context = _variable(self._library, _CONTEXT)
        if context is not None:
            bind_context(self, context)

    def find_function(self, name: str) -> Optional[PackedFunc]:
        """The function exported as ``__tvm_ffi_NAME``; names that begin with ``_`` are reserved."""
        if not name or name.startswith("_"):
            return None
        address = _symbol(self._library, PREFIX + name)
        return NativeFunction(address, name, owner=self) if address else None

    def function_names(self) -> List[str]:
        """The names of all functions, sorted; none where the file's format is not understood."""
        symbols = self._file.symbols if self._file is not None else ()
        return sorted(
            symbol.name[len(PREFIX) :]
            for symbol in symbols
            if symbol.is_defined
            and symbol.is_function
            and symbol.name.startswith(PREFIX)
            and not symbol.name.startswith(PREFIX + "_")
        )

    def _hint(self, name: str) -> str:
        if name and not name.startswith("_") and _symbol(self._library, name):
            return (
                f"; {self.path} exports {name!r} itself, expected {PREFIX + name!r}: "
                "rename the C function, or compile with TVM 0.22 or later"
            )
        return super()._hint(name)

    def __repr__(self) -> str:
        return f"Module({self.kind}, {self.path})"


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


def _open(path: str, file: Optional[elf.ElfFile]) -> ctypes.CDLL:
    folder = os.path.dirname(path)
    with _opening:
        if file is not None:
            wanted = (symbol.name for symbol in file.symbols if not symbol.is_defined)
            try:
                shim.provide(wanted, file.architecture, folder)
            except OSError as error:
                raise _explained(path, file, f"the symbols it needs from TVM: {error}") from error
        try:
            status = os.stat(path)
            version = _Version(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if _is_stale(path, version):
                return _open_copy(path, folder)
            library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            raise _explained(path, file, str(error)) from error
        _opened[path] = _opened[version[:2]] = version
        return library


def _is_stale(path: str, version: _Version) -> bool:
    """Whether the loader would take the file for one that it has, and that had other content."""
    known = (_opened.get(path, version), _opened.get(version[:2], version))
    return any(opened != version for opened in known)


def _open_copy(path: str, folder: str) -> ctypes.CDLL:
    with open(path, "rb") as file:
        image = file.read()
    name = f"tvmrpc-{os.getpid()}-{next(_numbers)}-{os.path.basename(path)}"
    return shim.load_private(image, name, os.RTLD_LOCAL, (folder, shim.temporary_folder()))


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


def _fill_variables(library: ctypes.CDLL) -> None:
    """Give the library the functions for which it exports pointer variables."""
    for variable, function in VARIABLES.items():
        place = _variable(library, variable)
        if place is not None:
            place.value = address_of(function)


# ------------------------------------------------------------------------------------- imports


def _check_imports(path: str, library: ctypes.CDLL, file: Optional[elf.ElfFile]) -> None:
    """See that the library brings no modules that are made of something else than machine code.

    Raises:
        LibraryError: it does; the message names their kinds.
    """
    address = _symbol(library, _IMPORTS)
    if not address:
        return
    size = int.from_bytes(ctypes.string_at(address, 8), "little")
    exported = [symbol.size for symbol in (file.symbols if file else ()) if symbol.name == _IMPORTS]
    limit = next((length - 8 for length in exported if length), _MAX_IMPORTS)
    try:
        if size > limit:
            raise struct.error(f"{size} bytes in {limit}")
        kinds = import_kinds(ctypes.string_at(address + 8, size))
    except struct.error as error:
        raise LibraryError(
            f"{path}: its table of imported modules is damaged ({error}); "
            "expected the one that TVM's export_library writes; build it again"
        ) from None
    foreign = [kind for kind in kinds if kind != "_lib"]
    if foreign:
        raise LibraryError(
            f"{path} brings modules of kind {', '.join(foreign)}, which cannot be run here; "
            "expected machine code only; compile it for a target of plain functions"
        )


def import_kinds(blob: bytes) -> List[str]:
    """The kinds of the modules in a library's table of imports, up to the first foreign one.

    Raises:
        struct.error: the table is damaged.
    """
    starts, place = _vector(blob, 0)
    _, place = _vector(blob, place)
    kinds: List[str] = []
    for _ in range(len(starts) - 1):
        (length,) = struct.unpack_from("<Q", blob, place)
        place += 8
        if length > len(blob) - place:
            raise struct.error("a name is longer than the table")
        kinds.append(blob[place : place + length].decode("utf-8", "replace"))
        place += length
        if kinds[-1] != "_lib":
            break  # what follows is that module's content, which only its loader can skip
    return kinds


def _vector(blob: bytes, place: int) -> Tuple[Tuple[int, ...], int]:
    (count,) = struct.unpack_from("<Q", blob, place)
    if count > (len(blob) - place - 8) // 8:
        raise struct.error("a list is longer than the table")
    return struct.unpack_from(f"<{count}Q", blob, place + 8), place + 8 + 8 * count
