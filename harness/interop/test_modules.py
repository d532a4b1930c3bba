"""Modules here, and in TVM: the same file in both, the same calls, the same answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import LibraryError
from pytest_tvmrpc.runtime import compile_cache
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler, include_dir

if TYPE_CHECKING:
    from pathlib import Path

    from .clients import Client

from .conftest import LIMIT_S

tvm = pytest.importorskip("tvm")

PROGRAM = """
#include "kernel.h"
KERNEL(one) { (void)self, (void)args, (void)num_args; return return_int(result, 1); }
KERNEL(half) { (void)self, (void)num_args; return return_float(result, args[0].as.v_float64 / 2); }
KERNEL(wrong) { (void)self, (void)args, (void)num_args, (void)result;
                return fail("ValueError", "nothing is right"); }
KERNEL(add) {
  const DLTensor *a = float_tensor("add", args, 0, 1), *b = float_tensor("add", args, 1, 1);
  (void)self, (void)num_args, (void)result;
  if (!a || !b) return -1;
  for (int64_t i = 0; i < a->shape[0]; ++i) floats(b)[i] += floats(a)[i];
  return 0;
}
KERNEL(main) { (void)self, (void)args; return return_int(result, num_args); }
"""

QUESTIONS = (
    "kind",
    "get_property_mask()",
    "is_runnable()",
    "is_binary_serializable()",
    "is_compilation_exportable()",
    "inspect_source()",
    "inspect_source('c')",
    "implements_function('one')",
    "implements_function('none')",
    "implements_function('one', query_imports=True)",
    "get_function_doc('one')",
    "get_function_metadata('one')",
)


def answers(module: Any, questions: Any = QUESTIONS) -> list[Any]:
    """What a module says of itself."""
    return [eval(f"module.{question}", {"module": module}) for question in questions]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled here is kept nowhere else."""
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Path:
    (tmp_path / "kernels.c").write_text(PROGRAM)
    compile_library(tmp_path / "kernels.c", tmp_path / "kernels.so")
    return tmp_path / "kernels.so"


@pytest.fixture(name="compiled")
def _compiled(tmp_path: Path) -> Path:
    (tmp_path / "kernels.c").write_text(PROGRAM)
    command = [*find_compiler(), "-c", "-fPIC", "-I", include_dir()]
    output = tmp_path / "kernels.o"
    subprocess.run([*command, str(tmp_path / "kernels.c"), "-o", str(output)], check=True)
    return output


def load_both(path: Path) -> list[Any]:
    """By TVM, and by us from a copy: the loader knows one file as one library."""
    own = path.with_name(f"own-{path.name}")
    if not own.exists():  # and is mapped: what is written into it would be run
        shutil.copy(path, own)
    return [tvm.runtime.load_module(str(path)), runtime.load_module(own)]


def test_a_library(library: Path) -> None:
    """Both say the same of it, call it alike, and fail alike."""
    theirs, ours = load_both(library)
    assert answers(theirs) == answers(ours)
    for module in (theirs, ours):
        assert (module["one"](), module.one(), module.get_function("half")(3.0)) == (1, 1, 1.5)
        assert module(1, 2) == 2
        with pytest.raises(ValueError, match="nothing is right"):
            module["wrong"]()
        with pytest.raises(AttributeError, match="Module has no function 'none'"):
            module["none"]
        with pytest.raises(AttributeError, match="Module has no function 'none'"):
            module.none  # noqa: B018
        with pytest.raises(ValueError, match="Can only take string as function name"):
            module[0]
    for package, module in ((tvm.runtime, theirs), (runtime, ours)):
        a, b = (package.tensor(np.full(4, value, "float32")) for value in (1, 2))
        module["add"](a, b)
        assert b.numpy().tolist() == [3.0] * 4
    others = load_both(library)
    for module, other in zip((theirs, ours), others):
        assert module == module
        assert module.same_as(module)
        assert module != other


@pytest.mark.parametrize("form", ["o", "tar"])
def test_what_is_linked_when_it_is_loaded(compiled: Path, form: str) -> None:
    """An object file, or an archive of some, is a library to both."""
    path = compiled
    if form == "tar":
        static = runtime.load_static_library(compiled, ["one"])
        path = compiled.with_name("kernels.tar")
        static.export_library(path)
    theirs, ours = load_both(path)
    assert answers(theirs) == answers(ours)
    assert theirs["one"]() == ours["one"]() == 1


def test_a_static_library(compiled: Path, tmp_path: Path) -> None:
    """It has the functions that were named, can call none of them, and is written as it was."""
    for names in (["one", "add"], []):
        theirs = tvm.runtime.load_static_library(str(compiled), names)
        ours = runtime.load_static_library(str(compiled), names)
        assert answers(theirs) == answers(ours)
        for module in (theirs, ours):
            with pytest.raises(AttributeError, match="Module has no function 'one'"):
                module["one"]
            module.write_to_file(str(tmp_path / "copy.o"))
            assert (tmp_path / "copy.o").read_bytes() == compiled.read_bytes()


def test_a_source(tmp_path: Path) -> None:
    """Of the same kind in both; ours is compiled at once and can be called, so its mask is 7."""
    create = tvm.get_global_func("runtime.CSourceModuleCreate")
    theirs, ours = create(PROGRAM, "c", ["one"], []), runtime.module_from_source(PROGRAM)
    questions = ("kind", "inspect_source()", "inspect_source('c')", "implements_function('one')")
    assert answers(theirs, questions) == answers(ours, questions)
    assert (theirs.get_property_mask(), ours.get_property_mask()) == (5, 7)
    assert list(theirs.get_write_formats()) == ours.get_write_formats()[:1] == ["c"]
    texts = []
    for name, module in (("theirs.c", theirs), ("ours.c", ours)):
        module.write_to_file(str(tmp_path / name))
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1] == PROGRAM.encode()


def test_an_export_is_loaded_by_the_other(compiled: Path, tmp_path: Path) -> None:
    """A source that imports an object file: one library of both, whoever exports or loads it."""
    text = '#include "kernel.h"\nKERNEL(own) { (void)self; return return_int(result, num_args); }\n'
    create = tvm.get_global_func("runtime.CSourceModuleCreate")
    theirs, ours = create(text, "c", ["own"], []), runtime.module_from_source(text)
    theirs.import_module(tvm.runtime.load_static_library(str(compiled), ["one"]))
    ours.import_module(runtime.load_static_library(compiled, ["one"]))
    for kind in ("so", "tar"):
        options = {} if kind == "tar" else {"options": ["-I" + include_dir()]}
        theirs.export_library(str(tmp_path / f"theirs.{kind}"), **options)
        ours.export_library(str(tmp_path / f"ours.{kind}"))
    for path in ("theirs.so", "ours.so"):
        for module in load_both(tmp_path / path):
            assert (module["own"](1, 2), module["one"]()) == (2, 1)
    assert runtime.load_module(tmp_path / "theirs.tar")["own"]() == 0
    assert sorted(runtime.load_module(tmp_path / "ours.tar").function_names()) == [
        *("add", "half", "main", "one", "own", "wrong")
    ]


def test_imports(library: Path) -> None:
    """They are listed, searched when asked, cleared, and never make a circle."""
    for one, two in zip(load_both(library), load_both(library)):
        assert list(one.imports) == []
        one.import_module(two)
        assert list(one.imports) == list(one.imports_) == [two]
        with pytest.raises((ValueError, RuntimeError)):
            two.import_module(one)
        with pytest.raises(TypeError):
            one.import_module("two")
        one.clear_imports()
        assert list(one.imports) == []


REGISTERS = """
extern int TVMFFIEnvModRegisterSystemLibSymbol(const char*, void*);
static int f(void* s, const void* a, int n, long long* o) { o[0] = 1; o[1] = 1; return 0; }
static int g(void* s, const void* a, int n, long long* o) { o[0] = 1; o[1] = 2; return 0; }
__attribute__((constructor)) static void start(void) {
  TVMFFIEnvModRegisterSystemLibSymbol("__tvm_ffi_interop_plain", (void*)f);
  TVMFFIEnvModRegisterSystemLibSymbol("__tvm_ffi_interop_a_x", (void*)g);
}
"""


ASKS = """
def attempt(module, name):
    try:
        return module[name]()
    except AttributeError as error:
        return str(error).partition(";")[0]

a = system_lib("interop_a_")
print(system_lib() == system_lib(), a == system_lib("interop_a_"), system_lib().kind)
print(attempt(system_lib(), "interop_plain"))
print([attempt(a, name) for name in ("x", "interop_plain", "interop_a_x", "plain")])
"""


def test_the_system_library(tmp_path: Path) -> None:
    """What code registers is found by the same names; each prefix has one module.

    In a process for each: with TVM loaded, all that registers does so with TVM.
    """
    import tvm_ffi

    (tmp_path / "r.c").write_text(REGISTERS)
    library = tvm_ffi.libinfo.find_libtvm_ffi()
    theirs = compile_library(tmp_path / "r.c", tmp_path / "theirs.so", options=[library])
    ours = compile_library(tmp_path / "r.c", tmp_path / "ours.so")
    said = [
        subprocess.run(
            [sys.executable, "-c", f"{start}\n{ASKS}"],
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=True,
        ).stdout
        for start in (
            "from tvm_ffi import system_lib; import ctypes; "
            f"library = ctypes.CDLL({theirs!r}, mode=ctypes.RTLD_GLOBAL)",
            f"from pytest_tvmrpc.runtime import load_module, system_lib; load_module({ours!r})",
        )
    ]
    assert said[0] == said[1]
    assert said[1].splitlines()[1:] == ["1", "[2, 1, 2, \"Module has no function 'plain'\"]"]


def test_what_both_refuse(tmp_path: Path) -> None:
    """A file that is not there, or is none; ours says what, in an error of one kind."""
    (tmp_path / "bad.so").write_bytes(b"text")
    for name in ("none.so", "bad.so", "none.xyz"):
        with pytest.raises((ValueError, RuntimeError)):
            tvm.runtime.load_module(str(tmp_path / name))
        with pytest.raises(LibraryError):
            runtime.load_module(tmp_path / name)


def test_a_module_on_a_server(client: Client, remote: Any, probe: Path, tmp_path: Path) -> None:
    """What a module on a server says of itself is the same of any server, by any client."""
    remote.upload(str(probe))
    module = remote.load_module(probe.name)
    assert (module.kind, module.get_property_mask(), module.inspect_source()) == ("rpc", 2, "")
    assert module.is_runnable()
    assert not module.is_compilation_exportable()
    assert module.implements_function("addone")
    assert not module.implements_function("none")
    with pytest.raises(AttributeError, match="Module has no function 'none'"):
        module["none"]
    if client.name != "ours":
        return
    assert "addone" in module
    assert "none" not in module
    assert "addone" in module.function_names()
    assert repr(module).startswith(f"Module(rpc, {probe.name} on ")
    module.save(tmp_path / "copy.so")
    assert (tmp_path / "copy.so").read_bytes() == probe.read_bytes()
    module.import_module(remote.load_module(probe.name))
    module.clear_imports()
    assert module.imports == []
    assert module["addone"](1) == 2
