from __future__ import annotations

import ctypes
import gc
import threading
from array import array
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from pytest_tvmrpc import dlpack, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.errors import CompilerError, DeviceError, LibraryError
from pytest_tvmrpc.runtime import abi, backend, legacy, legacy_calling, parallel, registry
from pytest_tvmrpc.runtime.device.cpu import borrowed
from pytest_tvmrpc.runtime.legacy_calling import LegacyFunction
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.module import Module
from pytest_tvmrpc.runtime.tensor import Tensor
from pytest_tvmrpc.runtime.toolchain import compile_library

HERE = Path(__file__).parent
CPU = runtime.cpu(0)


def compiled(source: Path, output: Path, *options: str) -> LibraryModule:
    """A library made of a C source of the tests."""
    try:
        return LibraryModule(compile_library(source, output, options=options))
    except CompilerError as error:
        pytest.skip(str(error))


@pytest.fixture(name="library", scope="module", params=["variables", "symbols"])
def _library(request: pytest.FixtureRequest, tmp_path_factory: Any) -> LibraryModule:
    """The same code twice: with pointer variables, and with undefined symbols as TVM's C target."""
    options = ["-DLINKED"] if request.param == "symbols" else []
    return compiled(HERE / "legacy.c", tmp_path_factory.mktemp("c") / "legacy.so", *options)


@pytest.fixture(name="modern", scope="module")
def _modern(tmp_path_factory: Any) -> LibraryModule:
    """A library of the later convention, whose functions look up and call others."""
    return compiled(HERE / "context.c", tmp_path_factory.mktemp("c") / "modern.so")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No thread waits for the next loop, no error for the next call."""
    yield
    parallel.close()
    abi.take_error()
    assert not abi.raised
    assert not legacy._owned
    assert not backend._workspaces


@pytest.fixture(name="register")
def _register() -> Iterator[Any]:
    names: List[str] = []

    def register(name: str, function: Any) -> None:
        registry.register_func(name, function)
        names.append(name)

    yield register
    for name in names:
        registry.remove_global_func(name)


def floats(*values: float) -> Tensor:
    """A CPU tensor, made without NumPy."""
    tensor = runtime.empty((len(values),), "float32", CPU)
    CPU.api.copy_from_host(memoryview(array("f", values)).cast("B"), tensor)
    return tensor


def content(tensor: Tensor) -> bytes:
    """The bytes of a tensor's elements."""
    memory = bytearray(tensor.nbytes)
    tensor.device.api.copy_to_host(tensor, memoryview(memory))
    return bytes(memory)


# ------------------------------------------------------------------------- arguments and results


def test_numbers_and_tensors(library: LibraryModule) -> None:
    """Plain arguments arrive with their codes; the result comes in as None."""
    assert isinstance(library["sum"], LegacyFunction)
    assert library["sum"](1, 2, -4) == -1
    assert [library["code"](value) for value in (None, 5, 2.5, True, CPU)] == [4, 0, 2, 0, 6]
    assert library["code"](DataType("float32")) == 5
    assert library["code_of_none"]() == 40
    result = floats(0, 0)
    assert library["add"](floats(1, 2), floats(10, 20), result) is None
    assert list(array("f", content(result))) == [11, 22]
    tensor = runtime.empty((5, 2), "int16", CPU)
    fields = [library["tensor_field"](tensor, index) for index in range(9)]
    assert fields == [1, 0, 2, 0, 16, 1, 1, 0, 5]
    flags = runtime.empty((5,), "bool", CPU)
    assert [library["tensor_field"](flags, index) for index in (3, 4)] == [1, 1]


def test_memory_that_is_read_only(library: LibraryModule) -> None:
    """Is not given to a function, which might write to it, as to the bytes of Python."""
    content = ctypes.create_string_buffer(8)
    memory = borrowed(ctypes.addressof(content), 8, content, is_read_only=True)
    tensor = Tensor(memory, (2,), DataType("float32"), CPU)
    assert tensor.data_ptr() == ctypes.addressof(content)
    with pytest.raises(DeviceError, match=r"read-only.*copyto"):
        library["tensor_field"](tensor, 0)
    assert library["tensor_field"](tensor.copyto(CPU), 0) is not None


def test_many_arguments(library: LibraryModule) -> None:
    """There may be none, and more than usual."""
    for count in (0, 1, 16, 17, 300):
        assert library["count"](*range(count)) == count
        assert library["sum"](*range(count)) == sum(range(count))


def test_text_and_bytes(library: LibraryModule) -> None:
    """str is a C string, bytes are an array that may hold NULs."""
    assert library["text_length"]("größer") == 8
    assert library["byte_sum"](b"a\0b") == (97 + 98) * 1000 + 3
    assert library["byte_sum"](b"") == 0


@pytest.mark.parametrize(
    "value",
    [
        *(None, 0, -(2**63), 2**63 - 1, -2.5, dlpack.OpaquePointer(2**64 - 2)),
        *(DataType("float16x2"), DataType("float8_e5m2"), dlpack.Device(2, 3)),
    ],
)
def test_values_come_back_as_they_went(library: LibraryModule, value: Any) -> None:
    """Every kind that is a value is the same after a round trip, again and again."""
    for _ in range(2):
        result = library["echo"](value)
        assert result == value
        assert type(result) is type(value) or isinstance(result, type(value))
        assert library["nothing"]() is None


def test_containers_are_objects_of_the_runtime(library: LibraryModule) -> None:
    """Code of that age hands them to functions of its runtime, which are here, and returns them."""
    before = len(abi._cells)
    for value in ([5, "x"], {"a": [1]}, runtime.ShapeTuple((2, 3)), runtime.Array([1])):
        assert library["code"](value) == 8
        assert library["echo"](value) == value
    element = runtime.get_global_func("runtime.ArrayGetItem")
    size = runtime.get_global_func("runtime.GetShapeTupleSize")
    assert library["call"](element, [5, 6], 1) == 6
    assert library["call"](size, runtime.ShapeTuple((2, 3))) == 2
    made = library["call"](lambda: [7, [8]])
    assert made == [7, [8]]
    library["echo"].prepare([1, 2])()
    del made, value
    gc.collect()
    assert len(abi._cells) == before
    with pytest.raises(TypeError, match=r"builtins\.object, which cannot be converted"):
        library["echo"]([object()])


def test_objects_come_back_as_themselves(library: LibraryModule) -> None:
    """Functions and modules that were passed may be returned; nothing of them is left."""
    before = len(abi._cells)
    function = runtime.PackedFunc(len)
    assert library["echo"](function) is function
    assert library["echo"](len)("four") == 4
    assert library["echo"](library["sum"])(1, 2) == 3
    assert library["echo"](library) is library
    assert len(abi._cells) == before


@pytest.mark.parametrize("value", ["text", b"bytes"])
def test_text_is_not_returned(library: LibraryModule, value: Any) -> None:
    """As with TVM; nobody could tell whose memory it is in."""
    with pytest.raises(LibraryError, match=r"returned a value of type code 1[12] "):
        library["echo"](value)
    with pytest.raises(LibraryError, match=r"type code 7 \(DL_TENSOR\)"):
        library["echo"](floats(1))


@pytest.mark.parametrize("code", [7, 8, 9, 10, 11, 12, 13, 14, 16, 99, -1])
def test_wrong_codes(library: LibraryModule, code: int) -> None:
    """Whatever code a function sets, and whatever is with it, is an error and no crash."""
    for word in (0, 5, -1):
        with pytest.raises(LibraryError, match="compiled code"):
            library["of_code"](code, word)
    assert library["sum"](1) == 1


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("Assert fail: want", RuntimeError, "Assert fail: want"),
        ("ValueError: boom", ValueError, "boom"),
        ("TypeError: line\nline", TypeError, "line\nline"),
        ("TVMError: boom", RuntimeError, "TVMError: boom"),
        ("InternalError: boom", RuntimeError, "InternalError: boom"),
        ("UnicodeDecodeError: boom", RuntimeError, "UnicodeDecodeError: boom"),
        ("", RuntimeError, ""),
    ],
)
def test_errors(library: LibraryModule, text: str, kind: type, message: str) -> None:
    """The text is kept; a builtin exception that it begins with is raised."""
    with pytest.raises(kind) as caught:
        library["fail_with"](text)
    assert type(caught.value) is kind
    assert str(caught.value) == message


def test_error_without_a_text(library: LibraryModule) -> None:
    """An earlier text is not told again, be it one that was raised or one that was overcome."""
    with pytest.raises(RuntimeError, match=r"^boom$"):
        library["fail_with"]("boom")
    for _ in range(2):
        with pytest.raises(LibraryError, match="fail_silently returned -1 without saying why"):
            library["fail_silently"]()
    library["record_and_succeed"]()
    with pytest.raises(LibraryError, match="without saying why"):
        library["fail_silently"]()


def test_last_error(library: LibraryModule) -> None:
    """Compiled code may ask for the text that is recorded."""
    assert library["last_error_length"]() == 4


# ----------------------------------------------------------------------------------- callbacks


@pytest.mark.parametrize("value", [None, 5, -0.5, DataType("float16"), dlpack.Device(1, 0)])
def test_callbacks_take_and_return_values(library: LibraryModule, value: Any) -> None:
    """A Python function called from C gets each kind of value, and returns it."""
    seen: List[Any] = []
    before = len(abi._cells)

    def function(*args: Any) -> Any:
        seen.append(args)
        return value

    assert library["call"](function, value, "text", b"by\0tes") == value
    assert seen == [(value, "text", b"by\0tes")]
    assert len(abi._cells) == before


def test_callbacks_take_tensors(library: LibraryModule) -> None:
    """Under both codes that they have; float8 and bool as they are numbered today."""
    seen: List[Any] = []

    def function(tensor: Tensor) -> None:
        seen.append((tensor.shape, tensor.dtype, content(tensor)))

    tensor = runtime.empty((3,), "float8_e4m3fn", CPU)
    library["call"](function, tensor)
    assert seen == [((3,), "float8_e4m3fn", content(tensor))]
    for code in (7, 13):
        library["call_with_tensor"](function, code)
        assert seen.pop()[:2] == ((2, 2), "int32")
    with pytest.raises(LibraryError, match=r"type code 14 \(OBJECT_RVALUE_REF\)"):
        library["call_with_tensor"](function, 14)


def test_callbacks_return_text(library: LibraryModule) -> None:
    """It is good until the next call."""
    assert library["call_text"](lambda: "größer") == 8
    assert library["call_text"](lambda: b"a\0b") == 1003
    with pytest.raises(RuntimeError, match="no text"):
        library["call_text"](lambda: 1)
    for value in (floats(1), {1, 2}):
        with pytest.raises(TypeError, match=r"cannot be returned to compiled code"):
            library["call"](lambda value=value: value)


def test_callbacks_get_wrong_codes(library: LibraryModule) -> None:
    """A value whose code is not true to it raises where the call began."""
    for code in (7, 8, 9, 10, 11, 12, 13, 14, 99, -5):
        with pytest.raises(LibraryError, match="compiled code"):
            library["call_with_codes"](len, code, 0)


def test_what_is_no_function_is_not_called(library: LibraryModule) -> None:
    """NULL, a number and a module are refused, and so is a call without a place for its result."""
    for handle in (None, 0x1234, library):
        with pytest.raises(ValueError, match="no function of this runtime"):
            library["call"](handle, 1)
    with pytest.raises(ValueError, match="without a place for the result"):
        library["call_for_nothing"](len, "x")


def test_errors_of_callbacks_keep_their_type(library: LibraryModule) -> None:
    """What a Python function raises below C is raised above it, the very same."""
    error = KeyError("mine")

    def function(depth: int) -> Any:
        if depth:
            return library["call"](function, depth - 1)
        raise error

    with pytest.raises(KeyError) as caught:
        library["call"](function, 3)
    assert caught.value is error

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library["call"](stop)


def test_errors_that_are_overcome(library: LibraryModule) -> None:
    """C may go on after an error, and may clean up before it reports one."""

    def boom() -> None:
        raise ValueError("boom")

    assert library["call_and_recover"](boom) == -1
    with pytest.raises(LibraryError, match="without saying why"):
        library["fail_silently"]()
    with pytest.raises(ValueError, match="the first"):
        library["fail_and_clean_up"](lambda: None)
    with pytest.raises(ValueError, match="boom"):
        library["fail_and_clean_up"](boom)


def test_calls_nest(library: LibraryModule) -> None:
    """A call inside of a call disturbs neither arguments nor results of the outer one."""

    def fibonacci(number: int) -> int:
        if number < 2:
            return number
        one = library["call"](fibonacci, number - 1)
        return one + library["call"](fibonacci, number - 2)

    assert library["call"](fibonacci, 12) == 144
    assert library["call"](library["call"], library["sum"], 1, 2) == 3


def test_calls_on_several_threads(library: LibraryModule) -> None:
    """Functions are called at the same time; errors stay on their threads."""
    wrong: List[Any] = []

    def work(number: int) -> None:
        for index in range(200):
            if library["sum"](number, index) != number + index:
                wrong.append((number, index))
            with pytest.raises(ValueError, match=f"^{number} {index}$"):
                library["fail_with"](f"ValueError: {number} {index}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# -------------------------------------------------------------------------------- look-up, objects


def test_look_up(library: LibraryModule, register: Any) -> None:
    """Names are looked up in the imports and theirs, then among the global functions."""
    module = LibraryModule(library.path)
    assert module["has_context"]() == 1
    with pytest.raises(ValueError, match=r"looks up function 'test.legacy.one', which is in no"):
        module["call_by_name"]("test.legacy.one")
    register("test.legacy.one", lambda value: value + 1)
    assert module["call_by_name"]("test.legacy.one", 41) == 42
    near, far = Module(), LibraryModule(library.path)
    near.import_module(far)
    module = LibraryModule(library.path)
    module.import_module(near)
    assert module["call_by_name"]("sum", 1, 2, 3) == 6


def test_a_module_as_its_own_code_knows_it(library: LibraryModule) -> None:
    """The context that a library gives away is its module."""
    module = LibraryModule(library.path)
    assert module["give_context"]() is module


def test_both_ages_call_each_other(
    library: LibraryModule, modern: LibraryModule, register: Any
) -> None:
    """By import, by name and by object; an error finds its way through all of them."""
    old, new = LibraryModule(library.path), LibraryModule(modern.path)
    new.import_module(old)
    assert new["call_by_name"]("sum", 1, 2) == 3
    with pytest.raises(TypeError, match=r"^want ints$"):
        new["call_by_name"]("sum", 1.5)
    assert new["call"](old["call"], old["sum"], 4, 5) == 9
    old = LibraryModule(library.path)
    old.import_module(LibraryModule(modern.path))
    assert old["call_by_name"]("call", old["sum"], 2, 2) == 4
    with pytest.raises(IndexError, match=r"^whole$"):
        old["call_by_name"]("fail")
    register("test.legacy.old", old["sum"])
    register("test.legacy.new", new["call"])
    assert old["call_by_name"]("test.legacy.new", lambda *args: len(args), 1, 2) == 2
    assert new["call_by_name"]("test.legacy.old", 20, 22) == 42


def test_functions_that_c_owns(library: LibraryModule, register: Any) -> None:
    """Global functions and results may be called and freed; what is lent may not be freed."""
    register("test.legacy.global", lambda *args: sum(args))
    before = len(abi._cells)
    assert library["call_global"]("test.legacy.global", 1, 2) == 3
    with pytest.raises(RuntimeError, match="no such function"):
        library["call_global"]("test.legacy.none")
    assert library["give_global"]("test.legacy.global")(3, 4) == 7
    with pytest.raises(LibraryError, match="at 0x0, which is not one of this runtime"):
        library["give_global"]("test.legacy.none")
    assert library["call_and_free"](lambda: lambda value: -value, 5) == -5
    with pytest.raises(ValueError, match="which it does not own"):
        library["free_what_is_lent"](len)
    assert len(abi._cells) == before


def test_freeing_nothing(library: LibraryModule) -> None:
    """NULL may be freed."""
    assert library["free_what_is_lent"](None) is None
    legacy_calling.free(None)


# ------------------------------------------------------------------------------ what else it calls


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 10_000_000])
def test_workspace(library: LibraryModule, nbytes: int) -> None:
    """Workspaces are aligned as the oldest code relies on."""
    assert library["workspace"](nbytes, 1) == 0
    with pytest.raises(DeviceError, match="Device API cuda is not enabled"):
        library["workspace"](nbytes, 2)


def test_parallel(library: LibraryModule) -> None:
    """Loops run their tasks; the error of one is raised."""
    assert library["parallel"](4, 0) == 4 * 4
    for failing in (1, 3):
        with pytest.raises(ValueError, match="of a task"):
            library["parallel"](3, failing)
    assert library["parallel"](1, 0) == 1


def test_run_once(library: LibraryModule) -> None:
    """What is to run once does."""
    assert library["run_once"]() == 1


# ------------------------------------------------------------------------------ prepared calls


def test_prepared_calls(library: LibraryModule, register: Any) -> None:
    """A prepared call can be made many times, keeps its arguments alive, and frees results."""
    result = floats(0, 0)
    run = library["add"].prepare(floats(1, 2), floats(3, 4), result)
    gc.collect()
    run()
    run()
    assert list(array("f", content(result))) == [4, 6]
    before = len(abi._cells)
    register("test.legacy.prepared", len)
    seen: List[int] = []
    runs = [
        library["give_global"].prepare("test.legacy.prepared"),
        library["call"].prepare(seen.append, 1),
        library["sum"].prepare(),
    ]
    for run in runs * 3:
        run()
    assert seen == [1, 1, 1]
    del run, runs
    gc.collect()
    assert len(abi._cells) == before


def test_prepared_calls_that_fail(library: LibraryModule) -> None:
    """They raise what the call would raise."""
    with pytest.raises(ValueError, match="boom"):
        library["fail_with"].prepare("ValueError: boom")()
    with pytest.raises(TypeError, match="argument 0 of sum"):
        library["sum"].prepare({1})
    with pytest.raises(LibraryError, match="without saying why"):
        library["fail_silently"].prepare()()


def test_a_function_keeps_its_library(library: LibraryModule) -> None:
    """A function may outlive the module object it came from."""
    function = LibraryModule(library.path)["sum"]
    gc.collect()
    assert function(1, 2) == 3
    assert "sum" in repr(function)
