"""Functions of every age, called many times in machine code; as many of them in Python."""

from __future__ import annotations

import gc
import hashlib
import time
from pathlib import Path
from typing import Any, List

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import abi, compile_cache, timing_code, timing_loop
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library

HERE = Path(__file__).parent


@pytest.fixture(name="loop", params=["machine code", "compiled", "none"], autouse=True)
def _loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Each test is one of three: with the package's machine code, a compiler's, or without any."""
    timing_loop.loops.cache_clear()
    if request.param != "machine code":
        monkeypatch.setattr(timing_code, "CODE", {})
    if request.param == "compiled":
        monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path / "cache"))
    if request.param == "none":
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.delenv("CXX", raising=False)
    found = timing_loop.loops()
    if (found is None) != (request.param == "none"):
        pytest.skip(f"there is no {request.param} for this machine")
    yield request.param
    timing_loop.loops.cache_clear()


@pytest.fixture(name="library", scope="module", params=["functions", "legacy"])
def _library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The functions of this age's convention."""
    output = tmp_path_factory.mktemp("library") / f"{request.param}.so"
    try:
        return LibraryModule(compile_library(HERE / f"{request.param}.c", output))
    except CompilerError as error:
        pytest.skip(str(error))


def evaluate(library: LibraryModule, name: str, *args: Any, **settings: int) -> Any:
    """Measures a function of the library."""
    return library.time_evaluator(name, runtime.cpu(0), **settings)(*args)


def test_which_loop(library: LibraryModule, loop: str) -> None:
    """The result says which; a function of Python is never called by a compiled one."""
    seen: List[int] = []
    result = evaluate(library, "call", seen.append, 1, number=3, repeat=2)
    assert seen == [1] * 7
    assert len(result.results) == 2
    assert result.loop == ("python" if loop == "none" else "compiled")
    module = runtime.Module()
    module.find_function = lambda name: runtime.PackedFunc(seen.append)  # type: ignore[method-assign]
    assert module.time_evaluator("f", runtime.cpu(0))(1).loop == "python"


def test_objects(library: LibraryModule) -> None:
    """Those of the arguments live as long as the calls; those that are returned are given back."""
    before = len(abi._cells)
    result = evaluate(library, "call", lambda number: [number, "text"], 1, number=5)
    assert len(result.results) == 1
    gc.collect()
    assert len(abi._cells) == before


def test_failures(library: LibraryModule) -> None:
    """The first one ends it, and is raised; so is that of a function of Python's, midway."""
    calls: List[int] = []

    def work(number: int) -> None:
        calls.append(number)
        if len(calls) == 4:
            raise KeyError("boom")

    with pytest.raises(KeyError, match="boom"):
        evaluate(library, "call", work, 1, number=10)
    assert len(calls) == 4
    with pytest.raises(LibraryError, match="without saying why"):
        evaluate(library, "fail_silently")
    with pytest.raises(TypeError, match="argument 0 of fail_silently"):
        evaluate(library, "fail_silently", {1})


def test_the_clock(library: LibraryModule) -> None:
    """It is the one of `time.perf_counter_ns`, and runs while the function works."""
    seen: List[int] = []
    start = time.perf_counter_ns()
    prepared = library["call"].prepare_loop(lambda number: seen.append(time.perf_counter_ns()), 1)
    if prepared is None:
        return
    first, last = prepared(3)
    assert start <= first <= seen[0] <= seen[2] <= last <= time.perf_counter_ns()


def test_the_machine_code_is_that_of_the_source() -> None:
    """Whoever changes timing_loop.c compiles it: python -m harness.machine_code."""
    native = Path(timing_loop.__file__).parents[1] / "native"
    source = (native / "timing_loop.c").read_bytes()
    assert hashlib.sha256(source).hexdigest() == timing_code.SOURCE_SHA256
