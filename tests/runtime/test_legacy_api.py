from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Iterator

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

SOURCE = Path(__file__).parent / "legacy_api.c"
NAME = "test.legacy_api.function"


def loaded(folder: Path, name: str, *options: str) -> LibraryModule:
    """``legacy_api.c``, compiled with these options."""
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    return LibraryModule(compile_library(SOURCE, folder / f"{name}.so", options=options))


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> LibraryModule:
    return loaded(tmp_path_factory.mktemp("c"), "legacy_api")


@pytest.fixture(autouse=True)
def _no_function_left() -> Iterator[None]:
    yield
    if runtime.get_global_func(NAME, allow_missing=True) is not None:
        runtime.remove_global_func(NAME)


def function() -> Any:
    """The global function of the test."""
    return runtime.get_global_func(NAME)


@pytest.mark.parametrize("value", [2.5, None, "text that is longer", b"bytes", "short"])
def test_functions_of_c(library: LibraryModule, value: Any) -> None:
    """A C function with a resource gives its result by a call of its own; any value is one."""
    library["register_adder"](NAME, 10, 0)
    assert function()(5) == 15
    assert function()(value) == value
    with pytest.raises(ValueError, match=r"^one argument$"):
        function()()


def test_global_functions(library: LibraryModule) -> None:
    """They are found, listed, called and removed; the resource is given back at the end."""
    before = library["count_ended"]()
    library["register_adder"](NAME, 7, 0)
    assert library["use_global"](NAME) == 8
    gc.collect()
    assert library["count_ended"]() - before == 7
    assert runtime.get_global_func(NAME, allow_missing=True) is None


def test_modules_that_c_does_not_own(library: LibraryModule) -> None:
    """NULL is given back as often as one likes, a module that was lent is not."""
    library["free_module"](None)
    with pytest.raises(ValueError, match="which it does not own"):
        library["free_module"](library)


def test_names_that_are_taken(library: LibraryModule) -> None:
    """A function of somebody else is replaced only if that is wanted."""
    runtime.register_func(NAME, lambda n: n * 2)
    with pytest.raises(ValueError, match="already registered"):
        library["register_adder"](NAME, 1, 0)
    assert function()(4) == 8
    library["register_adder"](NAME, 1, 1)
    assert function()(4) == 5


def test_registered_as_it_is_loaded(tmp_path: Path) -> None:
    """A library may register functions in its constructors, and be loaded again from elsewhere."""
    for number in (1, 2):
        loaded(tmp_path, f"r{number}", f'-DREGISTERS="{NAME}"', f"-DADDS={number}")
        assert function()(40) == 40 + number


def test_a_name_that_is_taken_at_loading(tmp_path: Path) -> None:
    """The loading fails, and the function stays."""
    runtime.register_func(NAME, lambda: "mine")
    with pytest.raises(LibraryError, match=f"{NAME} is already registered"):
        loaded(tmp_path, "taken", f'-DREGISTERS="{NAME}"', "-DADDS=1")
    assert function()() == "mine"


def test_arrays(library: LibraryModule) -> None:
    """They are made, filled, copied, read and freed; what is not there is not freed."""
    with pytest.raises(ValueError, match=r"frees an array at 0x\w+ that it does not have"):
        library["arrays"]()


@pytest.mark.parametrize(("ndim", "length"), [(-1, 1), (65, 1), (1, -1), (1, 1 << 62)])
def test_arrays_that_cannot_be(library: LibraryModule, ndim: int, length: int) -> None:
    """A wrong number of axes, a negative or a huge length is an error."""
    with pytest.raises((LibraryError, ValueError, RuntimeError)):
        library["allocate"](ndim, length)
