from __future__ import annotations

import re
from typing import List, Optional

import pytest

from pytest_tvmrpc.runtime.conventions import (
    Convention,
    is_reserved,
    plain_functions,
    why_not,
)
from pytest_tvmrpc.runtime.elf import Symbol

LEGACY, FFI = Convention.LEGACY, Convention.FFI


def symbols(text: str) -> List[Symbol]:
    """``f()`` is a function, ``v`` a variable, ``?u`` is wanted."""
    return [
        Symbol(
            word.strip("?()"),
            is_defined=not word.startswith("?"),
            is_function=word.endswith("()"),
            is_weak=False,
            size=8,
        )
        for word in text.split()
    ]


@pytest.mark.parametrize(
    ("exported", "convention"),
    [
        # Plain C, without a word to any runtime.
        ("", None),
        ("?printf ?malloc variable", None),
        ("TVM_of_mine tvm_init", None),
        # What TVM up to 0.20 writes: LLVM with variables, C with undefined symbols.
        ("__TVMAPISetLastError __TVMFuncCall __TVMBackendAllocWorkspace __tvm_module_ctx", LEGACY),
        ("?TVMAPISetLastError ?TVMBackendAllocWorkspace ?TVMFuncCall __tvm_main__()", LEGACY),
        ("__tvm_dev_mblob __tvm_main__", LEGACY),
        ("?TVMBackendGetFuncFromEnv ?TVMBackendParallelLaunch", LEGACY),
        ("__TVMBackendParallelLaunch", LEGACY),
        ("?TVMFuncRegisterGlobal", LEGACY),
        ("__tvm_main__", LEGACY),
        # What 0.21 writes.
        ("__tvm_ffi_library_ctx __TVMFFIFunctionCall __TVMBackendGetFuncFromEnv", FFI),
        ("__tvm_ffi_library_bin", FFI),
        ("__tvm_main__ __TVMFFIErrorSetRaisedFromCStr", FFI),
        ("?TVMFFIErrorSetRaisedFromCStr", FFI),
        # What 0.22 and later write.
        ("__tvm_ffi_f()", None),
        ("__tvm_ffi_f() ?TVMFFIErrorSetRaisedFromCStrParts", None),
        ("__tvm_ffi_f() __TVMFFIFunctionCall __TVMBackendGetFuncFromEnv", None),
        ("__tvm_ffi__library_ctx __TVMFFIFunctionCall", None),
        ("?TVMFFIEnvModLookupFromImports", None),
        ("?TVMFFIEnvModRegisterSystemLibSymbol ?TVMBackendRegisterSystemLibSymbol", None),
        ("__TVMFFIHandleInitOnce", None),
        ("?__tvm_ffi_of_another_library", None),
        # For both ages at once.
        ("__tvm_ffi_f() __tvm_main__", LEGACY),
        ("__tvm_ffi_f() __TVMFuncCall __TVMFFIFunctionCall __tvm_module_ctx", LEGACY),
        # Of no one age.
        ("__TVMFuncCall __TVMFFIFunctionCall", None),
        ("__tvm_module_ctx __tvm_ffi_library_ctx", None),
        ("__tvm_ffi_f() __tvm_ffi_library_ctx", None),
        ("__tvm_ffi_f() __tvm_ffi_library_ctx __TVMFuncCall", None),
    ],
)
def test_the_rule(exported: str, convention: Optional[Convention]) -> None:
    """Which form plain functions have follows from the symbols around them."""
    found = plain_functions(symbols(exported + " f()"))
    assert found.convention is convention
    assert found.names == ({"f"} if convention else set())


def test_names_that_count() -> None:
    """Functions that the library defines; neither variables nor what it wants, nor reserved."""
    text = "f() _g() tvmgen_default_run() v ?wanted() _init() _fini() __truncsfhf2() _Zmangled()"
    found = plain_functions(symbols(text + " TVMFuncCall() __tvm_main__() __tvm_module_ctx"))
    assert found.names == {"f", "_g", "tvmgen_default_run"}
    assert plain_functions([]).names == set()


@pytest.mark.parametrize("name", ["", "_init", "_fini", "__x", "_X", "TVMFuncCall"])
def test_reserved_names(name: str) -> None:
    """Names of C and of the runtime mean no function."""
    assert is_reserved(name)
    assert not is_reserved(name.lower().lstrip("_") + "x")


@pytest.mark.parametrize(
    ("exported", "words"),
    [
        ("add()", "exports 'add' as a plain function of C.*expected '__tvm_ffi_add'.*KERNEL"),
        ("add() __tvm_ffi_sub()", "exports 'add' itself.*of TVM 0.22 or later.*rename"),
        ("_Z3addii()", r"'add' of C\+\+ only, under the name '_Z3addii'.*KERNEL\(add\)"),
        ("_ZN2my3addEii()", r"'add' of C\+\+ only, under the name '_ZN2my3addEii'"),
        ("_Z13__tvm_ffi_addPv()", "'__tvm_ffi_add' of C.. only.*declare it extern \"C\""),
        ("sub() _Z4addsii() _Z13addxxxxxxxxxxi()", "^$"),
        ("add", "^$"),
        ("?add() ?_Z3addii()", "^$"),
        ("", "^$"),
    ],
)
def test_why_a_function_is_none(exported: str, words: str) -> None:
    """What is in the source, and cannot be called, is named with what to do."""
    assert re.search(words, why_not(symbols(exported), "add"))
    assert why_not(symbols("_init() __x() _Z1xi()"), "_init") == ""
