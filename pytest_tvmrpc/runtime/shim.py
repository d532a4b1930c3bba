"""What a library needs of TVM, made resolvable for it in a process without TVM.

Stubs that lead to the functions of `context` are loaded with the library, for its use alone: no
other library of the process is bound to them, so that a TVM that comes later finds its own. One
library of stubs is called ``libtvm_ffi.so``, for those that need one of this name. Where a TVM is
loaded, its symbols are there already and nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
from typing import Any, Dict, Optional, Sequence

from ..errors import LibraryError
from . import elf, stubs
from .abi import count_with
from .context import FUNCTIONS, VARIABLES, address_of

__all__ = ["is_of_tvm", "open_bound"]

FFI_LIBRARY = "libtvm_ffi.so"

_OF_OBJECTS = frozenset(
    (
        "TVMBackendGetFuncFromEnv",
        "TVMFFIEnvModLookupFromImports",
        "TVMFuncCall",
        "TVMFuncFree",
        "TVMModFree",
    )
)
"""Functions to which a kernel passes objects of ours, which TVM would take for its own of C++."""

_C_API = re.compile(r"TVM(?:FFI|Backend|Func|CFunc|Mod|API|Array|Device|Object|Cb|Stream)[A-Z]\w*")
_CPP_API = "3tvm3ffi"  # in the names of functions that C++ takes from libtvm_ffi.so
_NAMES_SHOWN = 3

_IS_UNDEFINED = re.compile("undefined symbol|symbol not found")  # in words of glibc, of musl

_numbers = itertools.count(1)
_ffi: Dict[str, ctypes.CDLL] = {}  # the stubs called libtvm_ffi.so; the function that counts


def open_bound(path: str, file: Optional[elf.ElfFile], folder: str) -> ctypes.CDLL:
    """Open a library, and bind what it wants of TVM: to a TVM in this process, else to ours.

    Args:
        path: of the library, absolute.
        file: what it says of itself; without it, it has to find everything on its own.
        folder: for a file when the temporary folder takes none.

    Raises:
        LibraryError: it wants something of TVM that is not offered here, or there are no stubs
            for this architecture.
        OSError: the system's loader refuses it.
    """
    if file is None:
        return _open(path)
    if _may_count(file):
        _provide_counting(file.architecture, folder)
    if _is_loaded(path):
        return _open(path)
    process: Any = ctypes.CDLL(None)
    wanted = [symbol.name for symbol in file.symbols if not symbol.is_defined]
    names = sorted({name for name in wanted if name in FUNCTIONS})
    there = {name for name in names if _has(process, name)}
    try:
        if FFI_LIBRARY in file.needed and not _has_tvm(process):
            cpp = [name for name in wanted if _CPP_API in name]
            if cpp:
                return _open_of_tvm(path, cpp)
            _provide_ffi(file.architecture, folder)
        elif there & _OF_OBJECTS and not is_of_tvm(file):
            mode = _apart(path, sorted(there & _OF_OBJECTS))
            _load_with_stubs(path, names, file.architecture, folder, mode)
        elif len(there) < len(names):
            missing = [name for name in names if name not in there]
            _load_with_stubs(path, missing, file.architecture, folder, 0)
        return _open(path)
    except OSError as error:
        _explain_unknown(path, file, process, str(error))
        raise


def _open(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)


def _has_tvm(process: Any) -> bool:
    """Whether there is a libtvm_ffi.so in this process that is not ours."""
    if _has(process, "TVMFFIFunctionCall"):
        return True
    return FFI_LIBRARY not in _ffi and _is_loaded(FFI_LIBRARY)


def _is_loaded(library: str) -> bool:
    """Whether this process has a library of this path or name, for whomever."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return False
    try:
        ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return False
    return True


def _provide_ffi(architecture: elf.Architecture, folder: str) -> None:
    """Load the stubs that each library gets which needs a libtvm_ffi.so."""
    if FFI_LIBRARY not in _ffi:
        _ffi[FFI_LIBRARY] = _load_stubs(sorted(FUNCTIONS), architecture, folder, FFI_LIBRARY)


def _may_count(file: elf.ElfFile) -> bool:
    """Whether a library's code may hold objects, whose references C++ counts by itself."""
    return FFI_LIBRARY in file.needed or any(
        symbol.name in (VARIABLES if symbol.is_defined else FUNCTIONS) for symbol in file.symbols
    )


def _provide_counting(architecture: elf.Architecture, folder: str) -> None:
    """Count references as C++ does, before there are objects that C++ counts, too.

    It takes a file, for a moment. Where none can be written, counts are changed as before, which
    is good for all code but such as counts on threads of its own.
    """
    if stubs.ATOMIC_ADD in _ffi:
        return
    name = f"tvmrpc-count-{os.getpid()}.so"
    image = stubs.atomic_library(architecture, name)
    if image is None:
        return
    folders = (stubs.temporary_folder(), folder)
    # PyDLL: the lock of the interpreter is kept, since the call is over at once
    with contextlib.suppress(OSError):
        library = stubs.load_private(
            image, name, folders, lambda path: ctypes.PyDLL(path, os.RTLD_NOW)
        )
        form = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int64)
        count_with(form((stubs.ATOMIC_ADD, library)))
        _ffi[stubs.ATOMIC_ADD] = library


def _load_with_stubs(
    path: str, names: Sequence[str], architecture: elf.Architecture, folder: str, mode: int
) -> None:
    """Load a library as one that a library of stubs needs: it is bound to them, nobody else is."""
    _load_stubs(names, architecture, folder, "", (path,), mode)


def _load_stubs(
    names: Sequence[str],
    architecture: elf.Architecture,
    folder: str,
    soname: str,
    needed: Sequence[str] = (),
    mode: int = 0,
) -> ctypes.CDLL:
    name = f"tvmrpc-stubs-{os.getpid()}-{next(_numbers)}.so"
    addresses = [address_of(function) for function in names]
    image = stubs.stub_library(names, architecture, soname or name, needed, addresses)
    flags = mode | os.RTLD_NOW | os.RTLD_LOCAL
    folders = (stubs.temporary_folder(), folder)
    return stubs.load_private(image, name, folders, lambda path: ctypes.CDLL(path, mode=flags))


def is_of_tvm(file: elf.ElfFile) -> bool:
    """Whether it is a part of TVM itself, which has objects of its own only."""
    return any(name.startswith("libtvm") and name != FFI_LIBRARY for name in file.needed) or any(
        symbol.is_defined and _C_API.fullmatch(symbol.name) for symbol in file.symbols
    )


def _apart(path: str, names: Sequence[str]) -> int:
    """How to load a library so that it finds our functions before those of a TVM.

    Raises:
        LibraryError: this system's loader cannot do it; TVM would look into our objects, and crash.
    """
    mode = getattr(os, "RTLD_DEEPBIND", 0)
    if not mode:
        raise LibraryError(
            f"{path} calls {names[0]} of the TVM that is loaded in this process, which knows "
            "nothing of our modules; expected a process without TVM; do not import TVM there, "
            "and start the server without --load-library of TVM's libraries"
        )
    return int(mode)


def _open_of_tvm(path: str, wanted: Sequence[str]) -> ctypes.CDLL:
    """Open a library that is bound to the C++ functions of TVM's own libtvm_ffi.so.

    Raises:
        LibraryError: that is not to be found, or our stubs have its name already.
        OSError: the loader refuses it for something else.
    """
    shown = ", ".join(wanted[:_NAMES_SHOWN])
    reason = f"the stubs of {FFI_LIBRARY} are loaded in this process already"
    if FFI_LIBRARY not in _ffi:
        try:
            beside = os.path.join(os.path.dirname(path), _BESIDE)
            if os.path.exists(beside):
                ctypes.CDLL(os.path.abspath(beside), mode=os.RTLD_NOW | os.RTLD_GLOBAL)
            return _open(path)
        except OSError as error:
            reason = str(error)
            if FFI_LIBRARY not in reason and not _IS_UNDEFINED.search(reason):
                raise
    raise LibraryError(
        f"{path} needs C++ functions of TVM's own {FFI_LIBRARY} ({shown}): {reason}; "
        "expected the libraries of one TVM together; load its "
        f"{FFI_LIBRARY} first, on a server with --load-library /PATH/{FFI_LIBRARY}:{path}"
    )


_BESIDE = os.path.join("..", "..", "tvm_ffi", "lib", FFI_LIBRARY)
"""Where TVM's wheels have it, from the folder of their other libraries."""


def _explain_unknown(path: str, file: elf.ElfFile, process: Any, reason: str) -> None:
    """Name all functions of TVM that a library wants and that are nowhere.

    Raises:
        LibraryError: there are some.
    """
    if not _IS_UNDEFINED.search(reason):
        return
    unknown = [
        symbol.name
        for symbol in file.symbols
        if not (symbol.is_defined or symbol.is_weak or symbol.name in FUNCTIONS)
        and (_C_API.fullmatch(symbol.name) or _CPP_API in symbol.name)
        and not _has(process, symbol.name)
    ]
    if unknown:
        raise LibraryError(
            f"{path} wants functions of TVM that are not offered here: {', '.join(unknown)} "
            f"({reason}); expected those of docs/c-api.md; load TVM's own runtime with "
            "--load-library, or compile the library for another version"
        )


def _has(library: Any, name: str) -> bool:
    try:
        ctypes.c_char.in_dll(library, name)
    except ValueError:
        return False
    return True
