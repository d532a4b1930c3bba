"""Undefined symbols of compiled libraries, made resolvable in a process without TVM.

Loads stubs that lead to the functions of `context`. Where a TVM is loaded, its symbols are there
already and nothing is done.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from typing import Any, Iterable, List, Optional, Sequence, Set

from ..errors import LibraryError
from . import elf
from .context import FUNCTIONS, address_of

__all__ = ["load_private", "provide"]

_OF_OBJECTS = (
    "TVMBackendGetFuncFromEnv",
    "TVMFFIEnvModLookupFromImports",
    "TVMFuncCall",
    "TVMFuncFree",
    "TVMModFree",
)
"""Functions that take objects of ours, which TVM would take for its own of C++."""

_numbers = itertools.count(1)
_given: Set[str] = set()  # a property of the process, as loaded libraries are


def provide(wanted: Iterable[str], architecture: elf.Architecture, folder: str) -> None:
    """Make those of the wanted symbols resolvable that are ours to give.

    Only what is missing is given, and only when a library wants it: a TVM that is loaded into
    this process later finds the stubs before its own functions.

    Args:
        architecture: of the library that wants them.
        folder: of that library, for a file when the temporary folder takes none.

    Raises:
        LibraryError: there are no stubs for this architecture, or the library would give an
            object of ours to a TVM in this process.
    """
    process: Any = ctypes.CDLL(None)
    names = sorted({name for name in wanted if name in FUNCTIONS})
    missing = [name for name in names if not _has(process, name)]
    if not missing:
        _refuse_foreign_objects(names)
        return
    name = f"tvmrpc-stubs-{os.getpid()}-{next(_numbers)}.so"
    image = elf.stub_library(missing, architecture, name)
    library = load_private(image, name, ctypes.RTLD_GLOBAL, (temporary_folder(), folder))
    table = (ctypes.c_void_p * len(missing)).in_dll(library, elf.TABLE)
    for index, symbol in enumerate(missing):
        table[index] = address_of(symbol)
    _given.update(missing)
    _refuse_foreign_objects(names)


def _refuse_foreign_objects(names: Iterable[str]) -> None:
    """TVM itself would look into our objects, and crash."""
    foreign = [name for name in names if name in _OF_OBJECTS and name not in _given]
    if foreign:
        raise LibraryError(
            f"the library calls {foreign[0]} of the TVM that is loaded in this process, which "
            "knows no functions of ours; expected a process without TVM; "
            "load it with tvm.runtime.load_module, or on a server"
        )


def temporary_folder() -> str:
    """Where short-lived files go; without the 5 ms that importing tempfile takes."""
    return os.environ.get("TMPDIR") or "/tmp"


def load_private(image: bytes, name: str, mode: int, folders: Sequence[str]) -> ctypes.CDLL:
    """Load a library from memory, by way of a file of this process alone, removed at once.

    Raises:
        OSError: in none of the folders could the file be written and loaded.
    """
    errors: List[OSError] = []
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        except OSError as error:
            errors.append(error)
            continue
        try:
            with open(descriptor, "wb") as file:
                file.write(image)
            return ctypes.CDLL(path, mode=mode | os.RTLD_NOW)
        except OSError as error:  # no space, or mounted so that nothing can be executed
            errors.append(error)
        finally:
            os.unlink(path)
    raise _first(errors) or OSError(f"no folder to write {name} to")


def _first(errors: Sequence[OSError]) -> Optional[OSError]:
    return errors[0] if errors else None


def _has(library: Any, name: str) -> bool:
    try:
        ctypes.c_char.in_dll(library, name)
    except ValueError:
        return False
    return True
