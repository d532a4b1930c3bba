from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional

import pytest

from pytest_tvmrpc import runtime
from pytest_tvmrpc.errors import DeviceError, LibraryError
from pytest_tvmrpc.runtime import registry
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.runtime.module import Module, load_module

if TYPE_CHECKING:
    from pathlib import Path

CPU = runtime.cpu(0)


class Functions(Module):
    """A module of Python functions."""

    kind = "functions"

    def __init__(self, **functions: Any) -> None:
        super().__init__()
        self.functions: Dict[str, PackedFunc] = {
            name: PackedFunc(function) for name, function in functions.items()
        }

    def find_function(self, name: str) -> Optional[PackedFunc]:
        return self.functions.get(name)

    def function_names(self) -> List[str]:
        return sorted(self.functions)


@pytest.fixture(name="register")
def _register() -> Iterator[Any]:
    names: List[str] = []

    def register(name: str, function: Any) -> None:
        registry.register_func(name, function)
        names.append(name)

    yield register
    for name in names:
        registry.remove_global_func(name)


def test_functions_by_name() -> None:
    """A function is found by name in three ways of writing it."""
    module = Functions(one=lambda: 1, main=lambda value: value + 1)
    assert module["one"]() == module.get_function("one")() == 1
    assert module(41) == module.entry_func(41) == module[module.entry_name](41) == 42
    assert module.function_names() == ["main", "one"]
    assert module.implements_function("one")
    assert not module.implements_function("two")
    assert module.kind == module.type_key == "functions"
    assert repr(module).startswith("Module(functions, ")


def test_functions_as_attributes() -> None:
    """As in TVM 0.27; what the module has itself, and what Python looks for, are none."""
    module = Functions(one=lambda: 1, kind=lambda: 2)
    assert module.one() == 1
    assert module.kind == "functions"
    with pytest.raises(
        AttributeError, match=r"^Module has no function 'two'; it has 'kind', 'one'$"
    ):
        module.two  # noqa: B018
    with pytest.raises(AttributeError, match="'Functions' object has no attribute '_one'"):
        module._one  # noqa: B018
    assert not hasattr(module, "__array__")
    assert {"one", "get_function"} <= set(dir(module))
    assert copy.copy(module)["one"]() == 1


def test_contains() -> None:
    """``in`` asks for a function of the module itself."""
    module, other = Functions(one=len), Functions(two=len)
    module.import_module(other)
    assert "one" in module
    assert "two" not in module
    assert 1 not in module


def test_equality() -> None:
    """Each module is equal to itself only, and can be a key."""
    one, two = Functions(), Functions()
    assert one == one
    assert one != two
    assert one.same_as(one)
    assert one.is_(one)
    assert not one.same_as(two)
    assert not one.is_(two)
    assert one.id_ != two.id_
    assert {one: 1}[one] == 1


@pytest.mark.parametrize(
    ("mask", "runnable", "serializable", "exportable"),
    [(2, True, False, False), (5, False, True, True), (0, False, False, False)],
)
def test_what_can_be_done(mask: int, runnable: bool, serializable: bool, exportable: bool) -> None:
    """One answer in the words of each age: as an attribute, as a call, as a number."""
    module = Module()
    module.properties = runtime.ModulePropertyMask(mask)
    assert module.get_property_mask() == mask
    for answer, expected in (
        (module.is_runnable, runnable),
        (module.is_binary_serializable, serializable),
        (module.is_compilation_exportable, exportable),
        (module.is_dso_exportable, exportable),
    ):
        assert bool(answer) is answer() is expected
        assert answer == expected
        assert repr(answer) == repr(expected)


def test_what_has_no_code(tmp_path: Path) -> None:
    """A module of Python functions has no source, and is no file or library."""
    module = Functions(one=len)
    assert (module.get_source(), module.inspect_source("c"), module.format) == ("", "", "")
    assert module.get_write_formats() == []
    assert module.get_function_metadata("one") is module.get_function_doc("one") is None
    for write in (module.save, module.write_to_file):
        with pytest.raises(LibraryError, match="is no code of a file"):
            write(tmp_path / "x.so")
    with pytest.raises(LibraryError, match=r"of kind 'functions', which has no code to link"):
        module.export_library(tmp_path / "x.so")
    assert list(tmp_path.iterdir()) == []


def test_missing_functions() -> None:
    """TVM's words for a function that is not there, and a few that are."""
    with pytest.raises(AttributeError, match=r"^Module has no function 'none'$"):
        Module()["none"]
    with pytest.raises(AttributeError, match=r"'none'; it has 'a', 'b'$"):
        Functions(a=len, b=len)["none"]
    with pytest.raises(AttributeError, match=r"it has 'a', 'b', 'c', 'd', 'e' and 2 more$"):
        Functions(**dict.fromkeys("abcdefg", len))["none"]
    with pytest.raises(AttributeError, match="'main'"):
        Module()()
    with pytest.raises(ValueError, match="Can only take string as function name"):
        Module()[0]  # type: ignore[index]


def test_imports() -> None:
    """Functions of imported modules are found when asked for, nearest first."""
    far = Functions(deep=lambda: "far", both=lambda: "far")
    near = Functions(both=lambda: "near")
    module = Functions(own=lambda: "own")
    module.import_module(near)
    near.import_module(far)
    assert module.imported_modules == module.imports == module.imports_ == [near]
    assert not module.implements_function("both")
    assert module.implements_function("both", query_imports=True)
    assert module.get_function("both", query_imports=True)() == "near"
    assert module.get_function("deep", True)() == "far"
    with pytest.raises(AttributeError):
        module["both"]
    module.imports.clear()  # a list of one's own
    assert module.imports == [near]
    module.clear_imports()
    assert module.imports == []
    assert not module.implements_function("deep", query_imports=True)
    with pytest.raises(TypeError, match="cannot import a str; expected a module"):
        module.import_module("near")  # type: ignore[arg-type]


def test_imports_in_a_circle() -> None:
    """They are refused."""
    one, two, three = Functions(), Functions(), Functions()
    one.import_module(two)
    two.import_module(three)
    for module, imported in ((three, one), (two, one), (one, one)):
        with pytest.raises(ValueError, match="imports it already"):
            module.import_module(imported)


def test_time_evaluator(register: Any) -> None:
    """A function is called once to warm up, then number times repeat; the preproc before each."""
    calls: List[Any] = []
    register("test.module.before", lambda *args: calls.append("before"))
    module = Functions(work=lambda *args: calls.append(args))
    evaluate = module.time_evaluator(
        "work", CPU, number=3, repeat=2, f_preproc="test.module.before"
    )
    result = evaluate(1, 2)
    assert len(result.results) == 2
    assert min(result.results) > 0
    assert calls == [(1, 2), "before", *[(1, 2)] * 3, "before", *[(1, 2)] * 3]


def test_time_evaluator_in_the_order_of_older_versions(register: Any) -> None:
    """Up to 0.13 the ninth argument is f_preproc; now it is cache_flush_bytes, a number."""
    prepared: List[Any] = []
    register("test.prepare", lambda *args: prepared.append(args))
    module = Functions(f=lambda *args: None)
    new = module.time_evaluator("f", CPU, 1, 2, 0, 100, 0, 1, 64, "test.prepare")
    old = module.time_evaluator("f", CPU, 1, 2, 0, 100, 0, 1, "test.prepare")
    given = module.time_evaluator("f", CPU, 1, 2, 0, 100, 0, 1, lambda *args: prepared.append(args))
    for number, evaluate in enumerate((new, old, given), 1):
        assert len(evaluate(5).results) == 2
        assert prepared == [(5,)] * 2 * number
    assert (new.timing.cache_flush_bytes, old.timing.cache_flush_bytes) == (64, 0)
    assert repr(new) == "<TimeEvaluator of f, number=1, repeat=2, cache_flush_bytes=64>"
    assert module.time_evaluator("f", CPU, 1, 1, 0, 100, 0, 1, "").timing.cache_flush_bytes == 0
    with pytest.raises(TypeError, match="expected an integer, since f_preproc is given, too"):
        module.time_evaluator("f", CPU, 1, 1, 0, 100, 0, 1, "test.prepare", "test.prepare")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5, CPU), TypeError, "5 is no name of a function"),
        (("f", "cpu"), TypeError, "'cpu' is no device"),
        (("f", None), TypeError, "None is no device"),
        (("f", CPU, 0), ValueError, "number is 0; expected an integer from 1"),
        (("f", CPU, -1), ValueError, "number is -1"),
        (("f", CPU, 1.5), TypeError, "number is 1.5; expected an integer"),
        (("f", CPU, "3"), TypeError, "number is '3'"),
        (("f", CPU, True), TypeError, "number is True"),
        (("f", CPU, 1, 0), ValueError, "repeat is 0"),
        (("f", CPU, 1, 1, -1), ValueError, "min_repeat_ms is -1"),
        (("f", CPU, 1, 1, 0.5), TypeError, "min_repeat_ms is 0.5"),
        (("f", CPU, 1, 1, 0, -1), ValueError, "limit_zero_time_iterations is -1"),
        (("f", CPU, 1, 1, 0, 1, -1), ValueError, "cooldown_interval_ms is -1"),
        (("f", CPU, 1, 1, 0, 1, 0, 0), ValueError, "repeats_to_cooldown is 0"),
        (("f", CPU, 1, 1, 0, 1, 0, 1, -1), ValueError, "cache_flush_bytes is -1"),
        (("f", CPU, 1, 1, 0, 1, 0, 1, 2**40), ValueError, "cache_flush_bytes is"),
        (("f", CPU, 1, 1, 0, 1, 0, 1, None), TypeError, "cache_flush_bytes is None"),
        (("f", CPU, 1, 1, 0, 1, 0, 1, 0, 5), TypeError, "f_preproc is 5"),
        (("f", CPU, 1, 1, 0, 1, 0, 1, "no.such"), ValueError, r"no\.such"),
        (("f", runtime.Device(99, 0)), DeviceError, "not enabled"),
    ],
)
def test_time_evaluators_that_make_no_sense(arguments: Any, error: Any, message: str) -> None:
    """They are refused where they are made, before anything is called."""
    called: List[Any] = []
    with pytest.raises(error, match=message):
        Functions(f=called.append).time_evaluator(*arguments)
    assert called == []


def test_time_evaluator_of_what_is_not_there() -> None:
    """A missing function or preproc is told at once, a wrong option when it is called."""
    with pytest.raises(AttributeError, match="has no function 'none'"):
        Module().time_evaluator("none", CPU)
    module = Functions(work=lambda: None)
    with pytest.raises(ValueError, match="Cannot find global function none"):
        module.time_evaluator("work", CPU, f_preproc="none")
    with pytest.raises(ValueError, match="number"):
        module.time_evaluator("work", CPU, number=0)()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "kernel.py",
            r"no loader for \.py files; expected \.so.*, \.o, \.tar, \.c, \.cc, \.cpp, \.cxx;",
        ),
        ("kernel", "no loader for files without a suffix"),
        ("kernel.tar.gz", r"no loader for \.gz files"),
    ],
)
def test_files_that_nothing_loads(tmp_path: Path, name: str, message: str) -> None:
    """A file of another format is refused with the formats that are loaded."""
    with pytest.raises(LibraryError, match=message):
        load_module(tmp_path / name)


def test_formats(tmp_path: Path) -> None:
    """A suffix with versions behind it counts, and so does fmt."""
    for name, fmt in (("lib.so.1.2", ""), ("lib.dll", ""), ("lib", "so"), ("lib.txt", "dylib")):
        with pytest.raises(LibraryError, match="cannot be read"):
            load_module(tmp_path / name, fmt)


def test_loaders_of_others(tmp_path: Path, register: Any) -> None:
    """A global function named for a format loads it."""
    module = Module()
    paths: List[str] = []

    def load(path: str) -> Module:
        paths.append(path)
        return module

    register("ffi.Module.load_from_file.test_format", load)
    assert load_module(tmp_path / "x.test_format") is module
    assert paths == [str(tmp_path / "x.test_format")]


@pytest.mark.parametrize("name", [5, None, b"f", ["f"]])
def test_what_is_no_name_of_a_function(name: Any) -> None:
    """It is refused by every kind of module, wherever one asks by name."""
    for module in (Functions(f=len), runtime.system_lib()):
        for method in (
            module.get_function,
            module.implements_function,
            module.get_function_doc,
            module.get_function_metadata,
        ):
            with pytest.raises(TypeError, match="is no name of a function; expected a str"):
                method(name)
        assert name not in module


def test_where_tvm_has_the_result_of_a_measurement() -> None:
    """`BenchmarkResult` is a name of the file `module`, too."""
    from pytest_tvmrpc.runtime.module import BenchmarkResult

    assert BenchmarkResult is runtime.module.BenchmarkResult is runtime.profiling.BenchmarkResult
    with pytest.raises(AttributeError, match=r"runtime\.module' has no attribute 'x'"):
        runtime.module.x  # noqa: B018
