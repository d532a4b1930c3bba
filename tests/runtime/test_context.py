from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError, DeviceError, LibraryError
from pytest_tvmrpc.runtime import abi, backend, context, exchange, parallel, registry
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.module import Module
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

SOURCE = Path(__file__).parent / "context.c"


@pytest.fixture(name="library", scope="module", params=["variables", "symbols"])
def _library(request: pytest.FixtureRequest, tmp_path_factory: Any) -> LibraryModule:
    """The same code twice: with pointer variables, and with undefined symbols as TVM's C target."""
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    options = ["-DLINKED"] if request.param == "symbols" else []
    output = tmp_path_factory.mktemp("c") / "context.so"
    return LibraryModule(compile_library(SOURCE, output, options=options))


@pytest.fixture(autouse=True)
def _no_idle_threads() -> Iterator[None]:
    yield
    parallel.close()


@pytest.fixture(name="names")
def _names() -> Iterator[List[str]]:
    """Names of global functions, which are removed after the test."""
    names: List[str] = []
    yield names
    for name in names:
        registry.remove_global_func(name)


class Functions(Module):
    """A module of Python functions."""

    def __init__(self, **functions: Any) -> None:
        super().__init__()
        self._functions = {
            name: runtime.PackedFunc(function) for name, function in functions.items()
        }

    def find_function(self, name: str) -> Any:
        return self._functions.get(name)


def test_variables_of_all_ages() -> None:
    """The names that present libraries export are there, and those of all before."""
    assert set(context.VARIABLES) >= {
        "__TVMFFIFunctionCall",
        "__TVMFFIErrorSetRaisedFromCStr",
        "__TVMFFIEnvModLookupFromImports",
        "__TVMFFIHandleInitOnce",
        "__TVMBackendAllocWorkspace",
        "__TVMBackendFreeWorkspace",
        "__TVMBackendParallelLaunch",
        "__TVMBackendParallelBarrier",
        "__TVMBackendGetFuncFromEnv",
        "__TVMFuncCall",
        "__TVMAPISetLastError",
    }


def test_errors(library: LibraryModule) -> None:
    """An error may be recorded as a whole or in parts."""
    with pytest.raises(TypeError, match=r"^one two three$"):
        library["fail_in_parts"]()
    with pytest.raises(IndexError, match=r"^whole$"):
        library["fail"]()


def test_function_call(library: LibraryModule) -> None:
    """TVMFFIFunctionCall calls functions of ours and of libraries, and passes errors on."""
    assert library["call"](lambda *args: sum(args), 1, 2) == 3
    assert library["call"](library["call"], len, "four") == 4
    with pytest.raises(ZeroDivisionError):
        library["call"](lambda: 1 // 0)
    with pytest.raises(ValueError, match="function that is NULL"):
        library["call_null"]()
    with pytest.raises(ValueError, match="an object that is no function"):
        library["call"](library)


def test_look_up(library: LibraryModule, names: List[str]) -> None:
    """Names are looked up in the imports, then among the global functions."""
    module = LibraryModule(library.path)
    assert module["has_context"]() == 1
    with pytest.raises(ValueError, match=r"looks up function 'test.context.one', which is in no"):
        module["call_by_name"]("test.context.one")
    registry.register_func("test.context.one", lambda: 1)
    names.append("test.context.one")
    for _ in range(2):
        assert module["call_by_name"]("test.context.one") == 1
        assert module["call_from_env"]("test.context.one") == 1
    module.import_module(Functions(**{"test.context.two": lambda value: value + 2}))
    assert module["call_by_name"]("test.context.two", 40) == 42
    with pytest.raises(ValueError, match="looks up"):
        module["call_from_env"]("test.context.two", 40)  # no context: only global functions


def test_imports_come_first(library: LibraryModule, names: List[str]) -> None:
    """An imported function hides a global one; a module opened later has its own imports."""
    registry.register_func("test.context.which", lambda: "global")
    names.append("test.context.which")
    module = LibraryModule(library.path)
    module.import_module(Functions(**{"test.context.which": lambda: "imported"}))
    assert module["call_by_name"]("test.context.which") == "imported"
    assert LibraryModule(library.path)["call_by_name"]("test.context.which") == "global"


def test_functions_that_were_looked_up_stay(library: LibraryModule, names: List[str]) -> None:
    """Compiled code keeps them without a reference, so they outlive their module."""
    registry.register_func("test.context.kept", lambda: 5)
    names.append("test.context.kept")
    module = LibraryModule(library.path)
    before = len(abi._cells)
    module["call_by_name"]("test.context.kept")
    del module
    gc.collect()
    assert len(abi._cells) == before + 1


def test_init_once(library: LibraryModule) -> None:
    """A handle is made once; an error of the function that makes it is passed on."""
    assert library["init_once"]() == 1
    assert library["init_once"]() == 1
    with pytest.raises(ValueError, match="no handle"):
        library["init_badly"]()


def test_references(library: LibraryModule) -> None:
    """Compiled code may count references of objects of ours."""
    before = len(abi._cells)
    assert library["count_references"](len) == 2
    assert len(abi._cells) == before


@pytest.mark.parametrize("nbytes", [0, 1, 63, 4096, 10_000_000])
def test_workspace(library: LibraryModule, nbytes: int) -> None:
    """Workspaces are aligned for vector loads, and freed."""
    assert library["workspace"](nbytes, 1) == 0
    assert not backend._workspaces


def test_workspace_that_cannot_be(library: LibraryModule) -> None:
    """No such device, no such amount, no such workspace: errors that say so."""
    with pytest.raises(DeviceError, match="Device API cuda is not enabled"):
        library["workspace"](64, 2)
    with pytest.raises(DeviceError, match=f"{2**62} bytes"):
        library["workspace"](2**62, 1)
    with pytest.raises(ValueError, match="does not have"):
        library["free_wrongly"]()


@pytest.mark.parametrize("tasks", [1, 2, 3, 8])
@pytest.mark.parametrize("barriers", [0, 1, 20])
def test_parallel(library: LibraryModule, tasks: int, barriers: int) -> None:
    """Each task runs once, and none leaves a barrier before all are there."""
    assert library["parallel"](tasks, barriers, 0) == tasks


def test_parallel_on_all_cores(library: LibraryModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number, a loop takes as many tasks as num_threads() says."""
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    assert library["parallel"](0, 1, 0) == runtime.num_threads()
    monkeypatch.setenv("TVM_NUM_THREADS", "5")
    assert library["parallel"](0, 1, 0) == 5 == runtime.num_threads()


def test_parallel_that_fails(library: LibraryModule) -> None:
    """The first error is raised, and tasks at a barrier do not wait for the one that failed."""
    for failing in (1, 2, 4):
        with pytest.raises(ValueError, match="of a task"):
            library["parallel"](4, 3, failing)
    assert library["parallel"](4, 3, 0) == 4
    for tasks in (-1, 100_000):
        with pytest.raises(ValueError, match=f"a parallel loop of {tasks} tasks"):
            library["parallel"](tasks, 0, 0)


def test_parallel_inside_of_parallel(library: LibraryModule) -> None:
    """A loop inside of a loop does not take more cores."""
    assert library["nested"]() == 111


def test_parallel_on_several_threads(library: LibraryModule) -> None:
    """Loops of several threads run at the same time, each with its own barrier."""
    results: List[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(library["parallel"](3, 5, 0)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3, 3, 3]


def test_barrier_outside(library: LibraryModule) -> None:
    """A barrier without a loop is an error, not a crash."""
    with pytest.raises(ValueError, match="outside of a parallel loop"):
        library["barrier_outside"]()


_INITIALIZER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


def test_handles_that_threads_use_while_another_is_made(deadline_s: float) -> None:
    """The code that makes one may wait for threads that use others."""
    handle, ready, fresh = ctypes.c_void_p(), ctypes.c_void_p(7), ctypes.c_void_p()
    init_once = context.FUNCTIONS["TVMFFIHandleInitOnce"].function
    run_once = context.FUNCTIONS["TVMBackendRunOnce"].function
    ended: List[int] = []

    def put(out: int) -> int:
        ctypes.c_void_p.from_address(out).value = 1
        return 0

    put_address = ctypes.cast(initialize := _INITIALIZER(put), ctypes.c_void_p).value

    def use_others() -> None:
        for each in (ready, fresh):
            ended.append(init_once(ctypes.addressof(each), put_address))

    def wait_for_thread(closure: int) -> int:
        thread = threading.Thread(target=use_others, daemon=True)
        thread.start()
        thread.join(deadline_s)
        return len(ended) - 2

    waiting = _INITIALIZER(wait_for_thread)
    address = ctypes.cast(waiting, ctypes.c_void_p).value
    assert run_once(ctypes.addressof(handle), address, None, 0) == 0
    assert ended == [0, 0]
    assert (ready.value, fresh.value) == (7, 1)
    del initialize


def test_handles_that_are_not_made() -> None:
    """A function that succeeds without a handle is an error, as in TVM; it is tried again."""
    handle = ctypes.c_void_p()
    nothing = _INITIALIZER(lambda out: 0)
    address = ctypes.cast(nothing, ctypes.c_void_p).value
    init_once = context.FUNCTIONS["TVMFFIHandleInitOnce"].function
    for _ in range(2):
        assert init_once(ctypes.addressof(handle), address) == -1
        with pytest.raises(LibraryError, match="succeeds with NULL; expected the handle"):
            raise abi.take_error() or AssertionError("no error was recorded")


def test_symbols_that_are_registered_as_null(tmp_path: Path) -> None:
    """Libraries that are loaded later find NULL in the variable."""
    name = "__tvm_ffi__test_symbol"
    source = tmp_path / "symbol.c"
    source.write_text(f"void *{name} = (void *)7;")
    try:
        path = compile_library(source, tmp_path / "symbol.so")
    except CompilerError as error:
        pytest.skip(str(error))
    register = context.FUNCTIONS["TVMFFIEnvModRegisterContextSymbol"].function
    assert register(name.encode(), None) == 0
    try:
        library = LibraryModule(path)
    finally:
        del exchange.context_symbols[name]
    assert ctypes.c_void_p.in_dll(library._library, name).value is None
