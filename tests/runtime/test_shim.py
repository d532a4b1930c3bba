from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_tvmrpc
from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.toolchain import compile_library

HERE = Path(__file__).parent
PACKAGES = str(Path(pytest_tvmrpc.__file__).parent.parent)

LINKED = """
void TVMFFIErrorSetRaisedFromCStrParts(const char *, const char **, int);
int __tvm_ffi_fail(void *self, const void *args, int n, void *out) {
  const char *parts[] = {"a ", "b"};
  TVMFFIErrorSetRaisedFromCStrParts("TypeError", parts, 2);
  return -1;
}
"""
LOOKS_UP = """
int TVMFFIEnvModLookupFromImports(void *, const char *, void **);
int __tvm_ffi_f(void *self, const void *args, int n, void *out) {
  return TVMFFIEnvModLookupFromImports(0, "f", &out);
}
"""
CATCHES = """
#include <stdint.h>
#include <stdlib.h>
typedef struct { int32_t index; uint32_t zero; void *pointer; } Any;
typedef int (*Call)(void *, const Any *, int, Any *);
void TVMFFIErrorMoveFromRaised(void **);
void TVMFFIErrorSetRaised(void *);
/* As C++ does it: what the called function failed with is moved here, and passed on. */
int __tvm_ffi_call(void *self, const Any *args, int n, Any *out) {
  void *error = 0;
  Call call = *(Call *)((char *)args[0].pointer + 24);
  if (call(args[0].pointer, 0, 0, out) == 0) return 0;
  TVMFFIErrorMoveFromRaised(&error);
  if (!error) abort();
  if (n > 1) return 0;
  TVMFFIErrorSetRaised(error);
  return -1;
}
"""
OLD = """
void TVMAPISetLastError(const char *);
int fail(void *args, int *codes, int n, void *out, int *code, void *resource) {
  if (n) TVMAPISetLastError("ValueError: boom");
  return -1;
}
"""
OLD_CALLS = """
int TVMFuncCall(void *, void *, int *, int, void *, int *);
int f(void **args, int *codes, int n, void *out, int *code, void *resource) {
  return TVMFuncCall(args[0], args + 1, codes + 1, n - 1, out, code);
}
"""


def library(folder: Path, name: str, text: str) -> str:
    """A library made of a C text."""
    source = folder / f"{name}.c"
    source.write_text(text)
    try:
        return compile_library(source, folder / f"{name}.so")
    except CompilerError as error:
        pytest.skip(str(error))


def run(program: str, *arguments: str) -> str:
    """What a program prints in a bare Python of its own; it must end well and complain of nothing.

    Symbols are a property of the process: what one test loads, all later ones find.
    """
    text = f"import sys; sys.path.insert(0, {PACKAGES!r})\n" + program
    command = [sys.executable, "-S", "-E", "-W", "error", "-c", text, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_symbols_of_tvm_without_tvm(tmp_path: Path) -> None:
    """A library that wants TVM's symbols loads and runs in a bare process; no file is left.

    No other library finds the symbols: a TVM that is loaded later would be bound to them.
    """
    path = library(tmp_path, "linked", LINKED)
    before = set(tmp_path.iterdir())
    program = """
import ctypes, os
from pytest_tvmrpc.runtime import load_module
symbol = "TVMFFIErrorSetRaisedFromCStrParts"
print(hasattr(ctypes.CDLL(None), symbol))
for _ in range(2):
    try:
        load_module(sys.argv[1])["fail"]()
    except TypeError as error:
        print(error)
print(hasattr(ctypes.CDLL(None), symbol))
with open("/proc/self/maps") as maps:
    print(len({line.split()[5] for line in maps if "tvmrpc-stubs" in line}))
"""
    assert run(program, path).splitlines() == ["False", "a b", "a b", "False", "1"]
    assert set(tmp_path.iterdir()) == before


COUNTS = """
#include <stdint.h>
typedef struct { int32_t index; uint32_t zero; void *pointer; } Any;
#ifdef BY_VARIABLE
int (*__TVMFFIObjectIncRef)(void *);
#define TVMFFIObjectIncRef __TVMFFIObjectIncRef
#else
int TVMFFIObjectIncRef(void *);
#endif
/* As the headers of C++ do it: taken by a function, given back by an atomic instruction. */
int __tvm_ffi_churn(void *self, const Any *args, int n, Any *out) {
  uint64_t *counts = args[0].pointer;
  for (long i = 0; i < 20000000; ++i) {
    __atomic_fetch_add(counts, 1, __ATOMIC_RELAXED);
    __atomic_fetch_sub(counts, 1, __ATOMIC_RELEASE);
  }
  TVMFFIObjectIncRef(args[0].pointer);
  __atomic_fetch_sub(counts, 1, __ATOMIC_RELEASE);
  return 0;
}
"""


@pytest.mark.parametrize("options", ["", "#define BY_VARIABLE\n"], ids=["symbol", "variable"])
def test_references_that_any_library_counts(tmp_path: Path, options: str) -> None:
    """None is lost, in whatever way the library has its functions, while Python counts, too."""
    path = library(tmp_path, "counts", options + COUNTS)
    program = """
import threading
from pytest_tvmrpc.runtime import Array, abi, load_module
churn, made = load_module(sys.argv[1])["churn"], Array([1])
thread = threading.Thread(target=lambda: churn(made))
thread.start()
while thread.is_alive():
    abi.retain(made.address)
    abi.release(made.address)
print(abi.TVMFFIObject.from_address(made.address).combined_ref_count & 0xffffffff)
"""
    assert run(program, path) == "1\n"


def test_counting_without_a_folder(tmp_path: Path) -> None:
    """Where no file can be written, a library that needs none is loaded all the same."""
    path = library(tmp_path, "counts", "#define BY_VARIABLE\n" + COUNTS)
    program = """
import os
from pytest_tvmrpc.runtime import Array, abi, load_module, stubs
os.environ["TMPDIR"] = "/nowhere"
def refuse(*arguments):
    raise PermissionError(13, "Permission denied")
stubs.os.open = refuse  # this user may be the one who may write anywhere
made = Array([1])
load_module(sys.argv[1])["churn"](made)
print(abi.TVMFFIObject.from_address(made.address).combined_ref_count & 0xffffffff)
"""
    assert run(program, path) == "1\n"


def test_nothing_is_loaded_for_plain_libraries(tmp_path: Path) -> None:
    """A library that wants no symbol of TVM gets no stubs."""
    text = "int __tvm_ffi_f(void *s, const void *a, int n, void *o) { return 0; }"
    path = library(tmp_path, "plain", text)
    program = """
from pytest_tvmrpc.runtime import load_module
load_module(sys.argv[1])["f"]()
with open("/proc/self/maps") as maps:
    print("tvmrpc-stubs" in maps.read())
"""
    assert run(program, path) == "False\n"


def test_tvm_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """With TVM's own symbols in the process, errors are fetched from TVM."""
    tvm = library(tmp_path, "tvm", (HERE / "fake_tvm.c").read_text())
    path = library(tmp_path, "linked", LINKED)
    program = """
import ctypes
tvm = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
from pytest_tvmrpc.runtime import load_module
module = load_module(sys.argv[2])
for _ in range(2):
    try:
        module["fail"]()
    except TypeError as error:
        print(error)
with open("/proc/self/maps") as maps:
    print("tvmrpc-stubs" in maps.read())
"""
    assert run(program, tvm, path).splitlines() == ["a ", "a ", "False"]


@pytest.mark.parametrize("is_loaded", [True, False], ids=["with TVM", "without"])
def test_errors_of_python_reach_code_that_is_bound_to_tvm(tmp_path: Path, is_loaded: bool) -> None:
    """Code that calls back finds the error where it looks for it, and passes it on as it was."""
    tvm = library(tmp_path, "tvm", (HERE / "fake_tvm.c").read_text())
    path = library(tmp_path, "catches", CATCHES)
    program = """
import ctypes
if sys.argv[1]:
    tvm = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
from pytest_tvmrpc.runtime import load_module
call = load_module(sys.argv[2])["call"]
errors = [KeyError("one"), OSError(2, "two")]
def fail():
    raise errors[0]
for arguments in ((fail,), (fail, 1), (fail,)):
    try:
        print(call(*arguments))
    except Exception as error:
        print(type(error).__name__, error, error is errors.pop(0))
"""
    expected = ["KeyError 'one' True", "None", "FileNotFoundError [Errno 2] two True"]
    assert run(program, tvm if is_loaded else "", path).splitlines() == expected


@pytest.mark.skipif(not hasattr(os, "RTLD_DEEPBIND"), reason="the loader has no such mode")
def test_objects_of_ours_are_not_given_to_tvm(tmp_path: Path) -> None:
    """A library that would have TVM itself look into our module calls us: TVM would crash."""
    tvm = library(tmp_path, "tvm", (HERE / "fake_tvm.c").read_text())
    path = library(tmp_path, "looks_up", LOOKS_UP)
    program = """
import ctypes
if sys.argv[1]:
    tvm = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
from pytest_tvmrpc.runtime import load_module
try:
    load_module(sys.argv[2])["f"]()
except Exception as error:
    print(type(error).__name__, error)
"""
    for place in (tvm, ""):
        found = run(program, place, path)
        assert found.startswith("ValueError compiled code looks up function 'f'")


@pytest.mark.parametrize("is_loaded", [True, False], ids=["with TVM", "without"])
def test_errors_of_the_old_convention(tmp_path: Path, is_loaded: bool) -> None:
    """They are fetched from a TVM up to 0.20 that is in the process, once, or from ours."""
    tvm = library(tmp_path, "tvm", (HERE / "fake_tvm.c").read_text())
    path = library(tmp_path, "old", OLD)
    program = """
import ctypes
if sys.argv[1]:
    tvm = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
from pytest_tvmrpc.runtime import load_module
fail = load_module(sys.argv[2])["fail"]
for arguments in ((), (1,), (), (1,)):
    try:
        fail(*arguments)
    except Exception as error:
        print(type(error).__name__, str(error)[:15])
"""
    expected = ["LibraryError function fail r", "ValueError boom"] * 2
    assert run(program, tvm if is_loaded else "", path).splitlines() == expected


@pytest.mark.skipif(not hasattr(os, "RTLD_DEEPBIND"), reason="the loader has no such mode")
def test_functions_of_ours_are_not_given_to_tvm(tmp_path: Path) -> None:
    """A library whose calls of functions would end up in a TVM of that age calls us."""
    tvm = library(tmp_path, "tvm", (HERE / "fake_tvm.c").read_text())
    path = library(tmp_path, "calls", OLD_CALLS)
    program = """
import ctypes
if sys.argv[1]:
    tvm = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
from pytest_tvmrpc.runtime import load_module
try:
    print(load_module(sys.argv[2])["f"](len, "four"))
except Exception as error:
    print(type(error).__name__, error)
"""
    assert [run(program, place, path) for place in (tvm, "")] == ["4\n", "4\n"]


@pytest.mark.parametrize("tmpdir", ["none", "read-only"])
def test_temporary_folder_that_takes_no_file(tmp_path: Path, tmpdir: str) -> None:
    """The stubs are then loaded from the library's own folder."""
    path = library(tmp_path, "linked", LINKED)
    program = f"""
import os
os.environ["TMPDIR"] = "/proc" if {tmpdir!r} == "read-only" else "/nowhere"
from pytest_tvmrpc.runtime import load_module
try:
    load_module(sys.argv[1])["fail"]()
except TypeError as error:
    print(error, sorted(os.listdir(os.path.dirname(sys.argv[1]))))
"""
    assert run(program, path) == "a b ['linked.c', 'linked.so']\n"
