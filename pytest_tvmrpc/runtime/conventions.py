"""How the functions of a compiled library want to be called, told from its symbols.

Reads nothing and calls nothing: it decides. Since TVM 0.22 a function has its convention in its
name: ``__tvm_ffi_NAME``. Before, it was exported as plain NAME, in one of two forms that cannot be
told apart by looking at the function, and calling a function in a form that is not its own ends
the process. So this is the rule for plain names:

1. A library with ``__tvm_ffi_library_ctx`` or ``__tvm_ffi_library_bin`` (one underscore before
   ``library``) is of TVM 0.21.
2. One is of TVM up to 0.20 that exports ``__tvm_module_ctx``, ``__tvm_dev_mblob``,
   ``__TVMFuncCall`` or ``__TVMAPISetLastError``, or wants the last two as undefined symbols. With
   ``__tvm_ffi_NAME`` besides, it is for both ages, and what has no prefix is of the older.
   ``__tvm_main__`` then is such a mark, too.
3. Any other library that has a symbol ``__tvm_ffi_...``, or wants what came after 0.21
   (``TVMFFIEnvMod...``, ``TVMFFIHandleInitOnce``), is of TVM 0.22 or later: plain names are its own
   affair and are not called.
4. What is left and uses other functions ``TVMFFI...`` is of 0.21.
5. What is left and exports or wants any other name of TVM's runtime (``TVMBackend...``, or as
   variables ``__TVMBackend...``), or has ``__tvm_main__``, is of TVM up to 0.20.
6. What is left has no word to a runtime of TVM: plain C, such as ``int add(int, int)``. None of its
   functions is called.

A library with marks of two kinds that contradict each other is not called by plain names either.
Only functions that the library itself defines count, never those of libraries that it needs; and
no names that belong to C or to TVM's runtime. Without a readable table of symbols there are none.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, FrozenSet, Iterable, NamedTuple, Optional

if TYPE_CHECKING:
    from .elf import Symbol

__all__ = [
    "ENTRY",
    "PREFIX",
    "Convention",
    "PlainFunctions",
    "is_reserved",
    "plain_functions",
    "why_not",
]

PREFIX = "__tvm_ffi_"
"""Before the name of each function, as a symbol (TVM 0.22 and later)."""

ENTRY = "__tvm_main__"
"""An array of characters that names the function to call by default (TVM up to 0.21); the C
code that TVM makes has a function of this name instead. Also the name it is asked for by."""

_OF_021 = frozenset(("__tvm_ffi_library_ctx", "__tvm_ffi_library_bin"))
_LEGACY_EXPORTS = frozenset(
    ("__tvm_module_ctx", "__tvm_dev_mblob", "__TVMFuncCall", "__TVMAPISetLastError")
)
_LEGACY_WANTS = frozenset(("TVMFuncCall", "TVMAPISetLastError"))
_AFTER_021 = re.compile(r"(?:__)?TVMFFI(?:EnvMod|HandleInitOnce)")
_FFI = re.compile(r"(?:__)?TVMFFI")
_RUNTIME = re.compile(r"(?:__)?TVM[A-Z]")
_RESERVED = re.compile(r"_[A-Z_]|_init$|_fini$|TVM[A-Z]")


class Convention(enum.Enum):
    """The form of a function that is exported under its plain name."""

    LEGACY = "up to 0.20"
    """Values, codes, number, result, its code, resource."""
    FFI = "0.21"
    """As that of functions with the prefix."""


class PlainFunctions(NamedTuple):
    """The functions of a library that may be called by their plain names.

    Attributes:
        convention: their form; None when there are none, or it cannot be told.
    """

    convention: Optional[Convention]
    names: FrozenSet[str]


def is_reserved(name: str) -> bool:
    """Whether a plain name belongs to C or to TVM's runtime, so that no function is meant."""
    return not name or _RESERVED.match(name) is not None


def plain_functions(symbols: Iterable[Symbol]) -> PlainFunctions:
    """Decide about a library by its dynamic symbols; the rule is that of this module."""
    symbols = list(symbols)
    exported = frozenset(symbol.name for symbol in symbols if symbol.is_defined)
    wanted = frozenset(symbol.name for symbol in symbols if not symbol.is_defined)
    convention = _convention(exported, wanted)
    names = frozenset(
        symbol.name
        for symbol in symbols
        if symbol.is_defined and symbol.is_function and not is_reserved(symbol.name)
    )
    return PlainFunctions(convention, names if convention else frozenset())


def _convention(exported: FrozenSet[str], wanted: FrozenSet[str]) -> Optional[Convention]:
    everything = exported | wanted
    is_of_021 = bool(_OF_021 & exported)
    is_legacy = bool(_LEGACY_EXPORTS & exported or _LEGACY_WANTS & wanted)
    has_prefix = any(name.startswith(PREFIX) for name in everything - _OF_021)
    uses_ffi = any(_FFI.match(name) for name in everything)
    if has_prefix:
        is_legacy = is_legacy or ENTRY in exported
        return Convention.LEGACY if is_legacy and not is_of_021 else None
    if is_legacy:
        return Convention.LEGACY if not (is_of_021 or uses_ffi) else None
    if is_of_021:
        return Convention.FFI
    if any(_AFTER_021.match(name) for name in everything):
        return None
    if uses_ffi:
        return Convention.FFI
    is_legacy = ENTRY in exported or any(_RUNTIME.match(name) for name in everything)
    return Convention.LEGACY if is_legacy else None


def why_not(symbols: Iterable[Symbol], name: str) -> str:
    """Why a function that somebody sees in the source cannot be called, and what to do.

    Args:
        symbols: the dynamic symbols of the library, which has no function `name` to be called.

    Returns:
        A clause for an error message; empty when the library has nothing of this name.
    """
    symbols = list(symbols)
    everything = [symbol.name for symbol in symbols]
    functions = [symbol.name for symbol in symbols if symbol.is_defined and symbol.is_function]
    is_reserved_name = is_reserved(name)
    if name in functions and not is_reserved_name:
        if any(_RUNTIME.match(known) or known.startswith(PREFIX) for known in everything):
            return (
                f"exports {name!r} itself, expected {PREFIX + name!r}, since its other symbols are "
                "of TVM 0.22 or later, or of no one age: rename the C function, or compile all of "
                "it with one TVM"
            )
        return (
            f"exports {name!r} as a plain function of C, and nothing tells which arguments that "
            f"takes; expected {PREFIX + name!r}: write a function KERNEL({name}) that calls it, "
            "with kernel.h of pytest_tvmrpc.runtime.toolchain.include_dir(). If it has the form "
            "of TVM up to 0.20, add the line: void *__tvm_module_ctx;"
        )
    for wanted, advice in (
        (PREFIX + name, 'declare it extern "C"'),
        (name, f"write a function KERNEL({name}) that calls it, with kernel.h"),
    ):
        found = next((known for known in functions if _is_mangled(known, wanted)), None)
        if found is not None and not is_reserved_name:
            return (
                f"exports a function {wanted!r} of C++ only, under the name {found!r}; expected "
                f"{PREFIX + name!r}: {advice}"
            )
    return ""


def _is_mangled(symbol: str, name: str) -> bool:
    """Whether a symbol is a C++ function of this name, in whatever namespace."""
    return re.match(rf"_Z(?:.*\D)?{len(name)}{re.escape(name)}", symbol) is not None
