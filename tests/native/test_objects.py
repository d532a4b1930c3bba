"""The runtime of the server in C: libraries of C that call all of it, run in a session over pipes.

The libraries are those of tests/runtime, where the same is asked of the runtime in Python. With a
triple in the environment variable TVMRPC_NATIVE_TARGET, as ``s390x-linux-gnu``, all of it runs on
that machine as qemu emulates it.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import numpy as np
import pytest

from pytest_tvmrpc import errors, runtime
from pytest_tvmrpc.client.popen import PopenSession
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.errors import CompilerError, LibraryError
from pytest_tvmrpc.runtime import context, elf
from pytest_tvmrpc.runtime.native_programs import build_server
from pytest_tvmrpc.runtime.toolchain import compile_library

TARGET = os.environ.get("TVMRPC_NATIVE_TARGET")
SOURCES = Path(__file__).parent.parent / "runtime"

Load = Callable[..., Any]


@pytest.fixture(name="program", scope="module")
def _program() -> str:
    try:
        return build_server(TARGET, kind="popen")
    except CompilerError as error:
        pytest.skip(str(error))


def opened(program: str) -> PopenSession:
    """A session with a program of the target."""
    if TARGET is None:
        return PopenSession(program)
    emulator = shutil.which(f"qemu-{TARGET.partition('-')[0]}")
    assert emulator is not None
    return PopenSession(emulator, arguments=["-L", f"/usr/{TARGET}", program])


@pytest.fixture(name="session")
def _session(program: str) -> Iterator[PopenSession]:
    with opened(program) as session:
        yield session


@pytest.fixture(name="compiled", scope="module")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles a source with options, once."""
    folder = tmp_path_factory.mktemp("c")

    @functools.lru_cache(maxsize=None)
    def compiled(source: str, *options: str, name: str = "") -> Path:
        path = folder / f"{name or source}{len(list(folder.iterdir()))}.so"
        compile_library(SOURCES / f"{source}.c", path, options=list(options), target=TARGET)
        return path

    return compiled


@pytest.fixture(name="load")
def _load(session: PopenSession, compiled: Callable[..., Path]) -> Load:
    """Compiles a source with options, sends it under a name, and loads it there."""

    def load(source: str, *options: str, name: str = "") -> Any:
        path = compiled(source, *options, name=name)
        session.upload(path)
        return session.load_module(path.name)

    return load


@pytest.fixture(name="ffi")
def _ffi(load: Load) -> Any:
    return load("ffi")


def fails(kind: type, match: str, call: Callable[..., Any], *args: Any) -> Any:
    """The error of a call that fails with this kind of error."""
    with pytest.raises(kind, match=match) as caught:
        call(*args)
    return caught.value


def ended(module: Any, name: str = "ended") -> int:
    """How much of what a library gave away has come back."""
    gc.collect()  # an error that was caught refers to its call
    return int(module[name]())


def test_all_functions_are_offered(program: str) -> None:
    """What the runtime in Python offers to compiled code, the program exports, too."""
    exported = {symbol.name for symbol in elf.read(program).symbols if symbol.is_defined}
    missing = sorted({*context.FUNCTIONS} - exported)
    assert not missing


# -------------------------------------------------------------------------------------- ffi.c


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("version", 114),
        ("opaque", 100),
        ("exchanged", 7),
        ("exchanged_plain", 9),
        ("streams", 0),
        ("deinit", 0),
        ("registers", 10000),
    ],
)
def test_what_c_finds_out_itself(ffi: Any, name: str, expected: int) -> None:
    """Objects, DLPack, streams, handles, registers: the library checks them, and counts ends."""
    assert ffi[name]() == expected


def test_functions_of_c(ffi: Any) -> None:
    """A C function with a resource is called with it, and gives it back at its end."""
    add = ffi["adder"](3)
    assert add(4) == 7
    fails(AssertionError, "one argument", add)
    assert ended(ffi) == 0
    del add
    assert ended(ffi) == 3


def test_global_functions(ffi: Any, session: PopenSession, load: Load) -> None:
    """They are registered, found and replaced; the names of the server itself are not free."""
    assert ffi["register_adder"]("test.add", 10, 0) == 11
    assert session.get_function("test.add")(5) == 15
    assert ffi["register_adder"]("test.add", 20, 1) == 21
    assert session.get_function("test.add")(5) == 25
    fails(ValueError, "already registered", ffi["register_adder"], "ffi.Array", 1, 0)
    option = '-DREGISTERS="test.loaded"'
    for number in (1, 2):  # a library may be loaded again from another file
        load("ffi", option, f"-DADDS={number}", name=f"r{number}")
        assert session.get_function("test.loaded")(40) == 40 + number
    with pytest.raises(LibraryError, match=r"ffi\.Map is already registered"):
        load("ffi", '-DREGISTERS="ffi.Map"', "-DADDS=1", name="taken")
    assert session.get_function("ffi.MapSize")(session.get_function("ffi.Map")()) == 0


def test_errors(ffi: Any) -> None:
    """They are made, passed on and caught; they say where they were thrown, oldest call first."""
    said = str(fails(ValueError, r"^made in C\n", ffi["raise"]))
    assert said.index("caller.cc") < said.index('File "kernel.cc", line 7, in int f()')
    assert ffi["caught"](ffi["raise"]) == "ValueError|made in C"
    said = str(fails(ValueError, "made in C", ffi["passed_on"], ffi["raise"]))
    assert "kernel.cc" in said


@pytest.mark.parametrize(
    "value", [None, 7, 2.5, True, "short", "text of more than seven", b"\0", b"bytes, nine"]
)
def test_values_that_are_owned(ffi: Any, value: Any) -> None:
    """A borrowed value becomes one of its own."""
    result = ffi["owned"](value)
    assert result == value
    assert type(result) is type(value)


def test_objects_that_are_owned(ffi: Any) -> None:
    """An object gets one more reference, no more and no less."""
    add = ffi["adder"](2)
    for _ in range(3):
        assert ffi["owned"](add)(1) == 3
    assert ended(ffi) == 0
    del add
    assert ended(ffi) == 2


@pytest.mark.parametrize(
    "text",
    [
        *["int8", "uint16", "float32", "handle", "bfloat16", "complex64", "bool", "int8x4"],
        *["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"],
        *["float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn"],
        *["float4_e2m1fn", "float4_e2m1fnx2", "float32xvscalex4", "custom[130]16", "boolx3"],
    ],
)
def test_data_types(ffi: Any, text: str) -> None:
    """Each data type is read from text and written as text."""
    dtype = ffi["dtype"](text)
    assert dtype == DataType(text)
    assert ffi["dtype_name"](dtype) == text


@pytest.mark.parametrize(
    ("text", "meant"),
    [("int", "int32"), ("e4m3_float8", "float8_e4m3fn"), ("e5m2_float8x2", "float8_e5m2x2")],
)
def test_older_names_of_data_types(ffi: Any, text: str, meant: str) -> None:
    """What other versions of TVM wrote is understood."""
    assert ffi["dtype"](text) == DataType(meant) == DataType(text)


@pytest.mark.parametrize(
    "text",
    [
        *["nonsense", "float32x", "float32x0", "float32x32768", "int256", "int0", "float8_e4m3f"],
        *["custom[1]8", "custom[130", "xint8", "int8x4x4", "float32xvscalex0", "int 8", "int-8"],
    ],
)
def test_wrong_data_types(ffi: Any, text: str) -> None:
    """Text that names none is an error."""
    with pytest.raises(ValueError, match="is no data type"):
        DataType(text)
    fails(ValueError, "is no data type", ffi["dtype"], text)


def test_types(ffi: Any, load: Load) -> None:
    """Indices, keys and ancestors are as C++ reads them; one too many makes a library fail."""
    fails(ValueError, r"test\.Nobody", ffi["types"])
    fails(LibraryError, r"test\.Second.*test\.Closed has no index left", ffi["closed_type"])
    fails(LibraryError, "type index 88888", ffi["attributes"])
    index = ffi["register_counter"]()
    assert ffi["register_counter"]() == index
    with pytest.raises(LibraryError, match=r"test\.Extra.*test\.Full has no index left"):
        load("ffi", "-DTYPES", name="types")


def test_objects_of_a_library(ffi: Any) -> None:
    """What a library made is ended by it, when the client drops it."""
    counter = ffi["counter"](5)
    assert ended(ffi) == 0
    del counter
    assert ended(ffi) == 1000


def test_tensors(ffi: Any, session: PopenSession) -> None:
    """They are made for C, by the server or an allocator of C's own, and kept by C."""
    assert ffi["allocated"]().numpy().reshape(-1).tolist() == [0, 1, 2, 3, 4, 5]
    tensor = ffi["by_allocator"](2)
    assert tensor.numpy()[1, 2] == 55
    fails(MemoryError, "only two rows", ffi["by_allocator"], 3)
    assert ended(ffi) == 0
    del tensor
    assert ended(ffi) == 7


def test_symbols_for_later_libraries(ffi: Any, load: Load) -> None:
    """Libraries that are loaded later find the symbols that were registered."""
    assert ffi["surroundings"]() is None
    assert ffi["test_symbol"]() == 0
    assert load("ffi", name="later")["test_symbol"]() == 77


# ----------------------------------------------------------------------------------- context.c


@pytest.fixture(name="kernels", params=[(), ("-DLINKED",)], ids=["pointers", "linked"])
def _kernels(load: Load, request: pytest.FixtureRequest) -> Any:
    return load("context", *request.param)


def test_errors_of_kernels(kernels: Any) -> None:
    """They are recorded by kind and text, whole or in parts."""
    fails(TypeError, r"^one two three$", kernels["fail_in_parts"])
    fails(IndexError, r"^whole$", kernels["fail"])


def test_calls_of_kernels(kernels: Any, session: PopenSession) -> None:
    """A kernel calls functions that it is given, or that it looks up."""
    add_one = session.get_function("rpc.test.addone")
    assert kernels["call"](add_one, 41) == 42
    fails(ValueError, "a function that is NULL", kernels["call_null"])
    for way in ("call_by_name", "call_from_env"):
        assert kernels[way]("rpc.test.addone", 1) == 2
        fails(ValueError, "looks up function 'nobody', which is in no", kernels[way], "nobody")
    assert kernels["has_context"]() == 1
    assert kernels["count_references"](add_one) == kernels["count_references"](add_one)


def test_handles_made_once(kernels: Any) -> None:
    """The function that makes one is called once; it may fail."""
    assert kernels["init_once"]() == 1
    assert kernels["init_once"]() == 1
    fails(ValueError, "no handle", kernels["init_badly"])


@pytest.mark.parametrize("nbytes", [0, 1, 100, 1 << 22])
def test_workspaces(kernels: Any, nbytes: int) -> None:
    """They are aligned; of devices that are not here there are none."""
    for _ in range(3):
        assert kernels["workspace"](nbytes, 1) == 0
    fails(errors.DeviceError, "Device API cuda is not enabled", kernels["workspace"], nbytes, 2)
    fails(ValueError, "that it does not have", kernels["free_wrongly"])


@pytest.mark.parametrize("tasks", [1, 2, 5, 64])
@pytest.mark.parametrize("barriers", [0, 1, 20])
def test_parallel_loops(kernels: Any, tasks: int, barriers: int) -> None:
    """All tasks run at the same time, and meet at barriers."""
    assert kernels["parallel"](tasks, barriers, 0) == tasks


def test_parallel_loops_that_fail(kernels: Any) -> None:
    """The error of a task is that of the loop, also where others wait for it at a barrier."""
    for failing in (1, 4):
        fails(ValueError, "^of a task$", kernels["parallel"], 4, 0, failing)
        fails(Exception, "of a task|a task ended", kernels["parallel"], 4, 3, failing)
    assert kernels["parallel"](4, 2, 0) == 4
    for count in (-1, 1025):
        fails(ValueError, "expected 1 to 1024", kernels["parallel"], count, 0, 0)
    assert kernels["nested"]() == 111
    fails(ValueError, "outside of a parallel loop", kernels["barrier_outside"])


def test_the_threads_that_are_wanted(
    program: str, compiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that does not say how many tasks it has has as many as the variable says."""
    path = compiled("context")
    monkeypatch.setenv("TVM_NUM_THREADS", "3")
    with opened(program) as session:
        session.upload(path)
        assert session.load_module(path.name)["parallel"](0, 1, 0) == 3


# -------------------------------------------------------------------------- legacy.c, both ages


@pytest.fixture(name="old", params=[(), ("-DLINKED",)], ids=["pointers", "linked"])
def _old(load: Load, request: pytest.FixtureRequest) -> Any:
    return load("legacy", *request.param)


def test_values_of_the_older_convention(old: Any, session: PopenSession) -> None:
    """Values get the codes of that age, and come back as what they were."""
    assert old["sum"](1, 2, -4) == -1
    cpu = session.cpu(0)
    assert [old["code"](value) for value in (None, 5, 2.5, True)] == [4, 0, 2, 0]
    assert old["code"](DataType("float32")) == 5
    assert old["code_of_none"]() == 40
    assert old["text_length"]("größer") == 8
    assert old["byte_sum"](b"a\0b") == (97 + 98) * 1000 + 3
    for value in (None, 5, -0.5, DataType("float16")):
        assert old["echo"](value) == value
    assert old["echo"](DataType("bool")) == DataType.of(1, 1)  # as it was called then
    for count in (0, 12, 13, 100):
        assert old["count"](*range(count)) == count
        assert old["sum"](*range(count)) == sum(range(count))
    tensor = runtime.tensor(np.zeros(5, "bool"), cpu)
    assert [old["tensor_field"](tensor, index) for index in (2, 3, 4, 8)] == [1, 1, 1, 5]


def test_results_of_the_older_convention(old: Any) -> None:
    """Objects that were passed may be returned; text, lent tensors and unknown codes may not."""
    assert old["echo"](old["sum"])(1, 2) == 3
    fails(LibraryError, r"returned a value of type code 11 \(STR\)", old["echo"], "text")
    for code in (-1, 16, 99):
        fails(LibraryError, "compiled code returned a value of type code", old["of_code"], code, 0)
    assert old["nothing"]() is None


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("boom", RuntimeError, "^boom$"),
        ("ValueError: bad", ValueError, "^bad$"),
        ("Check failed: x == 1: no", RuntimeError, "^Check failed: x == 1: no$"),
        ("TypeError: two\nlines", TypeError, "^two\nlines$"),
    ],
)
def test_errors_of_the_older_convention(old: Any, text: str, kind: type, message: str) -> None:
    """The text says the kind, where it begins with one."""
    fails(Exception if kind is RuntimeError else kind, message, old["fail_with"], text)
    old["record_and_succeed"]()
    fails(LibraryError, "without saying why", old["fail_silently"])
    assert old["last_error_length"]() == 4


def test_calls_of_the_older_convention(old: Any, session: PopenSession, load: Load) -> None:
    """Code of both ages calls functions of both, of the server, and those it looks up."""
    new = load("context")
    add_one = session.get_function("rpc.test.addone")
    assert old["call"](add_one, 1) == 2
    assert old["call"](old["sum"], 1, 2) == 3
    assert new["call"](old["call"], old["sum"], 4, 5) == 9
    assert old["call"](new["call"], old["sum"], 4, 5) == 9
    fails(TypeError, "want ints", new["call"], old["sum"], "x")
    fails(IndexError, "^whole$", old["call"], new["fail"])
    fails(ValueError, "without a place for the result", old["call_for_nothing"], old["sum"])
    assert old["call_by_name"]("rpc.test.addone", 41) == 42
    assert old["has_context"]() == 1
    assert old["call_and_recover"](new["fail"]) == -1
    fails(ValueError, "the first", old["fail_and_clean_up"], old["nothing"])


def test_what_the_older_convention_owns(old: Any, session: PopenSession) -> None:
    """Functions that were looked up are freed by whoever did; what is lent is not."""
    assert old["call_global"]("rpc.test.addone", 2) == 3
    fails(Exception, "no such function", old["call_global"], "nobody")
    assert old["give_global"]("rpc.test.addone")(3) == 4
    fails(ValueError, "which it does not own", old["free_what_is_lent"], old["sum"])
    assert old["free_what_is_lent"](None) is None
    assert old["workspace"](1000, 1) == 0
    assert old["parallel"](4, 0) == 16
    fails(ValueError, "of a task", old["parallel"], 4, 3)
    assert old["run_once"]() == 1


def test_the_older_api(session: PopenSession, load: Load) -> None:
    """Functions, global names and arrays by the C API of that age."""
    api = load("legacy_api")
    api["register_adder"]("test.old", 7, 0)
    assert session.get_function("test.old")(5) == 12
    for value in (None, 2.5, "text of some length", b"a\0b"):
        assert session.get_function("test.old")(value) == value
    fails(ValueError, "^one argument$", session.get_function("test.old"))
    assert ended(api, "count_ended") == 0
    assert api["use_global"]("test.old") == 8
    assert ended(api, "count_ended") == 7
    fails(ValueError, r"frees an array at 0x\w+ that it does not have", api["arrays"])
    for ndim, length in [(-1, 1), (65, 1), (1, -1), (1, 1 << 62)]:
        fails(LibraryError, "compiled code describes a tensor", api["allocate"], ndim, length)


# --------------------------------------------------------------------------------- containers


@pytest.fixture(name="containers")
def _containers(load: Load) -> Any:
    return load("containers")


def keys(count: int) -> List[Any]:
    """Keys of all kinds, all of them different."""
    kinds: Tuple[Callable[[int], Any], ...] = (
        lambda n: n,
        lambda n: n + 0.5,
        lambda n: f"k{n}",
        lambda n: f"a key of more than seven, {n}",
        lambda n: b"b%d" % n,
    )
    return [kinds[number % len(kinds)](number) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17, 200, 2000])
def test_maps(containers: Any, session: PopenSession, count: int) -> None:
    """C finds each key of a map as C++ looks it up, and the map's functions find it, too."""
    own = keys(count)
    new, array = (session.get_function(f"ffi.{name}") for name in ("Map", "Array"))
    made = new(*(part for pair in zip(own, range(count)) for part in pair))
    assert containers["is_small"](made) == (count < 4)
    assert session.get_function("ffi.MapSize")(made) == count
    value, counted = (session.get_function(f"ffi.Map{name}") for name in ("GetItem", "Count"))
    for number in {*range(min(count, 20)), *range(max(count - 20, 0), count)}:
        assert containers["value_of"](made, array(own[number])) == number
        assert value(made, own[number]) == number
        assert counted(made, own[number]) == 1
    for stranger in (-1, "nobody", b"k0", True):
        fails(KeyError, "key is not in Map", containers["value_of"], made, array(stranger))
        fails(KeyError, "key is not in Map", value, made, stranger)
        assert counted(made, stranger) == 0
    items = session.get_function("runtime.MapItems")(made)
    assert session.get_function("ffi.ArraySize")(items) == 2 * count


def test_maps_keep_the_last_value_of_a_key(session: PopenSession) -> None:
    """A key that comes again keeps its place; pairs are walked through in their order."""
    made = session.get_function("ffi.Map")("a", 1, "b", 2, "a", 3)
    step = session.get_function("ffi.MapForwardIterFunctor")(made)
    assert [step(0), step(1), step(2), step(0), step(1), step(2)] == ["a", 3, 1, "b", 2, 0]
    fails(IndexError, "no more pairs", step, 0)
    fails(ValueError, "keys and values, not of 3", session.get_function("ffi.Map"), 1, 2, 3)


def test_arrays_and_shapes(containers: Any, session: PopenSession) -> None:
    """They are made and looked into; what is none, or not there, is an error."""
    array, size, element = (
        session.get_function(f"ffi.Array{name}") for name in ("", "Size", "GetItem")
    )
    made = array(1, "two, which is longer", array(3))
    assert size(made) == 3
    assert [element(made, 0), element(made, 1)] == [1, "two, which is longer"]
    assert element(element(made, 2), 0) == 3
    assert containers["element"](made, 1) == "two, which is longer"
    contains = session.get_function("ffi.ArrayContains")
    assert [bool(contains(made, value)) for value in (1, True, "two, which is longer")] == [
        *(True, False, True)
    ]
    for index in (-1, 3):
        fails(IndexError, f"Index {index} out of bounds 3", element, made, index)
    fails(TypeError, "takes an int as the index", element, made, "0")
    fails(TypeError, "takes an object, not a int", size, 5)
    fails(TypeError, "takes an object, not a ffi.Array", session.get_function("ffi.MapSize"), made)
    shape = session.get_function("ffi.Shape")(2, 3, 4)
    assert containers["product"](shape) == 24
    assert session.get_function("rpc.testing.GetShapeElem")(shape, 2) == 4
    fails(TypeError, "sequence of integers", session.get_function("ffi.Shape"), 2.5)


def test_containers_nested_to_any_depth(session: PopenSession) -> None:
    """One within another within another ends as a whole."""
    array = session.get_function("ffi.Array")
    outer = array()
    for _ in range(2000):
        outer = array(outer)
    del outer
    assert session.get_function("ffi.ArraySize")(array(1)) == 1
