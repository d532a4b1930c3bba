from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime import abi, load_module, system_library
from pytest_tvmrpc.runtime.conventions import Convention
from pytest_tvmrpc.runtime.module import Module
from pytest_tvmrpc.runtime.system_library import system_lib
from pytest_tvmrpc.runtime.toolchain import compile_library

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[..., Module]

REGISTERS = """
#define OLD(name, value) static int name(long long *a, int *c, int n, long long *out, int *code, \\
  void *r) {{ *out = value; *code = 0; return 0; }}
#define NEW(name, value) static int name(void *s, const void *a, int n, long long *out) \\
  {{ out[0] = 1; out[1] = value; return 0; }}
extern int TVMBackendRegisterSystemLibSymbol(const char *, void *);
extern int TVMFFIEnvModRegisterSystemLibSymbol(const char *, void *);
static int failures = 0;
{0}
static void __attribute__((constructor)) start(void) {{ {1} }}
int __attribute__((visibility("default"))) {2}
"""
OLD, NEW = "TVMBackendRegisterSystemLibSymbol", "TVMFFIEnvModRegisterSystemLibSymbol"


@pytest.fixture(name="load")
def _load(tmp_path: Path) -> Load:
    """``load(definitions, registrations)`` loads a library whose constructor registers."""
    numbers: List[int] = []

    def load(
        definitions: str, registrations: str, plain: str = "nothing(void) { return 0; }"
    ) -> Module:
        numbers.append(1)
        source = tmp_path / f"library{len(numbers)}.c"
        source.write_text(REGISTERS.format(definitions, registrations, plain))
        try:
            path = compile_library(source, source.with_suffix(".so"))
        except CompilerError as error:
            pytest.skip(str(error))
        return load_module(path)

    return load


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the tests register is forgotten."""
    monkeypatch.setattr(system_library, "_symbols", {})
    monkeypatch.setattr(system_library, "_modules", {})
    yield
    assert system_library._loading.stack == [Convention.LEGACY]


def test_libraries_that_load_at_one_time() -> None:
    """What a constructor registers has the form of its library, whatever other threads load."""
    others = [each for each in Convention if each is not Convention.LEGACY]
    is_loading, may_end = threading.Event(), threading.Event()

    def load_another() -> None:
        with system_library.loading(others[0]):
            is_loading.set()
            may_end.wait()

    thread = threading.Thread(target=load_another)
    with system_library.loading(Convention.LEGACY):
        thread.start()
        is_loading.wait()
        system_library.register("f", 1)
        may_end.set()
        thread.join()
    assert system_library._symbols["f"].convention is Convention.LEGACY
    with system_library.loading(others[0]):
        thread = threading.Thread(target=system_library.register, args=("g", 1))
        thread.start()
        thread.join()
    assert system_library._symbols["g"].convention is Convention.LEGACY


def test_empty() -> None:
    """Without registrations it is there, and has no functions; it is one for each prefix."""
    module = system_lib()
    assert isinstance(module, Module)
    assert module.kind == module.type_key == "library"
    assert module.function_names() == []
    assert module is system_lib()
    assert system_lib("a_") is system_lib("a_") is not module
    assert repr(system_lib("a_")) == "Module(system_lib, 'a_')"
    for name in ("f", "main", "__tvm_main__", ""):
        with pytest.raises(AttributeError):
            module[name]


def test_functions_of_both_ages(load: Load) -> None:
    """What constructors register is found by name, whichever age's form it has."""
    module = system_lib()
    load(
        "OLD(old, 1) NEW(new, 2) NEW(both, 3) OLD(both_old, 4)",
        f'{OLD}("old", old); {NEW}("__tvm_ffi_new", new);'
        f'{OLD}("both", both_old); {NEW}("__tvm_ffi_both", both);',
    )
    assert module.function_names() == ["both", "new", "old"]
    assert [module[name]() for name in ("old", "new", "both")] == [1, 2, 3]


def test_prefixes(load: Load) -> None:
    """A module with a prefix has the functions whose names begin with it, without it."""
    load(
        "OLD(old, 1) NEW(new, 2) NEW(plain, 3)",
        f'{OLD}("a_old", old); {NEW}("__tvm_ffi_a_new", new); {NEW}("__tvm_ffi_plain", plain);',
    )
    module = system_lib("a_")
    assert module.function_names() == ["new", "old"]
    assert [module["old"](), module["new"]()] == [1, 2]
    assert module["plain"]() == 3  # as in TVM, which looks for it without the prefix, too
    assert system_lib()["a_old"]() == 1


def test_the_entry(load: Load) -> None:
    """`main` of the new age, or what an array of characters names in the old."""
    load(
        'OLD(f, 1) static const char name[] = "f"; static const char none[] = "none";',
        f'{OLD}("f", f); {OLD}("__tvm_main__", (void *)name); {OLD}("x_f", f);'
        f'{OLD}("x___tvm_main__", (void *)none);',
    )
    assert system_lib()() == system_lib()["__tvm_main__"]() == 1
    with pytest.raises(AttributeError):
        system_lib("x_")["__tvm_main__"]
    load("NEW(f, 2)", f'{NEW}("__tvm_ffi_main", f);')
    assert system_lib()() == system_lib()["__tvm_main__"]() == 2


def test_plain_names_of_021(load: Load) -> None:
    """In a library of 0.21 they have its form, as they have when registered by a new function."""
    context = "nothing(void) { return 0; } void *__tvm_ffi_library_ctx;"
    load("NEW(f, 5)", f'{OLD}("f", f);', context)
    load("NEW(g, 6)", f'{NEW}("g", g);')
    assert [system_lib()["f"](), system_lib()["g"]()] == [5, 6]


def test_variables_that_are_registered(load: Load) -> None:
    """Pointer variables are filled and are no functions; the context is the system library."""
    load(
        "static int (*look_up)(void *, const char *, void **) = 0; static void *context = 0;"
        "static int get(long long *a, int *c, int n, void **out, int *code, void *r)"
        '{ *code = 10; return look_up(context, "test.system.none", out); }'
        "static int own(long long *a, int *c, int n, void **out, int *code, void *r)"
        "{ *code = 9; *out = context; return 0; }",
        f'{OLD}("__TVMBackendGetFuncFromEnv", &look_up); {OLD}("__tvm_module_ctx", &context);'
        f'{OLD}("get", get); {OLD}("own", own); {OLD}("__tvm_dev_mblob", 0);',
    )
    module = system_lib()
    assert module["own"]() is module
    with pytest.raises(ValueError, match=r"looks up function 'test\.system\.none'"):
        module["get"]()
    assert module.function_names() == ["get", "own"]
    with pytest.raises(AttributeError):
        module["__tvm_module_ctx"]


def test_registrations_that_fail(load: Load) -> None:
    """No name or no address: the registration fails, and no later call is blamed for it."""
    load(
        "OLD(f, failures)",
        f'{OLD}("f", f); failures += {OLD}("", f) == -1; failures += {OLD}(0, f) == -1;'
        f'failures += {NEW}("g", 0) == -1;',
    )
    assert not abi.raised
    assert system_lib()["f"]() == 3
    assert system_lib().function_names() == ["f"]


def test_what_is_registered_again(load: Load) -> None:
    """The last one counts, also for a module that is there already."""
    module = system_lib()
    for value in (1, 2):
        load(f"OLD(f, {value})", f'{OLD}("f", f);')
        assert module["f"]() == value


def test_imports_in_system_libraries(load: Load) -> None:
    """It is a module as any other: others may import it."""
    load("OLD(f, 1)", f'{OLD}("f", f);')
    module: Any = Module()
    module.import_module(system_lib())
    assert module.get_function("f", query_imports=True)() == 1
