from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from array import array
from pathlib import Path
from typing import Any, List

import pytest

from pytest_tvmrpc import dlpack, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.errors import CompilerError, DeviceError, LibraryError
from pytest_tvmrpc.runtime import abi
from pytest_tvmrpc.runtime.calling import NativeFunction
from pytest_tvmrpc.runtime.device.cpu import borrowed
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.runtime.library import LibraryModule
from pytest_tvmrpc.runtime.module import Module
from pytest_tvmrpc.runtime.tensor import Tensor
from pytest_tvmrpc.runtime.toolchain import compile_library, find_compiler

SOURCE = Path(__file__).parent / "functions.c"
CPU = runtime.cpu(0)


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> LibraryModule:
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    return LibraryModule(compile_library(SOURCE, tmp_path_factory.mktemp("c") / "functions.so"))


def floats(*values: float) -> Tensor:
    """A CPU tensor, made without NumPy."""
    tensor = runtime.empty((len(values),), "float32", CPU)
    CPU.api.copy_from_host(memoryview(array("f", values)).cast("B"), tensor)
    return tensor


def values(tensor: Tensor) -> List[float]:
    """What `floats` put in."""
    content = bytearray(tensor.nbytes)
    tensor.device.api.copy_to_host(tensor, memoryview(content))
    return list(array("f", bytes(content)))


class Indexed:
    """An integer of another library."""

    def __index__(self) -> int:
        return 3


# ---------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("value", "kind", "word"),
    [
        (None, 0, 0),
        (0, 1, 0),
        (-1, 1, -1),
        (2**63 - 1, 1, 2**63 - 1),
        (-(2**63), 1, -(2**63)),
        (Indexed(), 1, 3),
        (True, 2, 1),
        (False, 2, 0),
        (1.0, 3, 0x3FF0000000000000),
        (dlpack.OpaquePointer(2**64 - 2), 4, -2),
        (ctypes.c_void_p(0x1234), 4, 0x1234),
        (ctypes.c_void_p(None), 4, 0),
        (DataType("int8x4"), 5, 0x0004_08_00),
        (dlpack.Device(2, 3), 6, 0x0000_0003_0000_0002),
        (CPU, 6, 1),
        (dlpack.Device(1, -1), 6, -(2**32) + 1),
    ],
)
def test_values_that_fit_into_a_word(
    library: LibraryModule, value: Any, kind: int, word: int
) -> None:
    """Plain values arrive with their type index and their bits."""
    assert library["kind"](value) == kind
    assert library["word"](value) == word


def test_numbers_of_numpy(library: LibraryModule) -> None:
    """NumPy's scalars are numbers; its arrays are not, and the message says what to do."""
    numpy = pytest.importorskip("numpy")
    assert library["echo"](numpy.int32(-5)) == -5
    assert library["echo"](numpy.float32(0.5)) == 0.5
    for array_like in (numpy.zeros(1, "int64"), numpy.zeros(3)):
        with pytest.raises(
            TypeError, match=r"argument 0 of echo is a numpy.ndarray.*runtime.tenso"
        ):
            library["echo"](array_like)


def test_tensor_arguments(library: LibraryModule) -> None:
    """A tensor arrives as a DLTensor: kind 7, aligned, with strides, without an offset."""
    tensor = runtime.empty((2, 3), "float32", CPU)
    assert library["kind"](tensor) == 7
    fields = [library["tensor_field"](tensor, index) for index in range(11)]
    assert fields == [1, 0, 2, 2, 32, 1, 1, 0, 2, 3, 0]
    result = floats(0, 0, 0)
    library["add"](floats(1, 2, 3), floats(10, 20, 30), result)
    assert values(result) == [11, 22, 33]


def test_memory_that_is_read_only(library: LibraryModule) -> None:
    """Is not given to a function, which might write to it, as to the bytes of Python."""
    content = ctypes.create_string_buffer(8)
    memory = borrowed(ctypes.addressof(content), 8, content, is_read_only=True)
    tensor = Tensor(memory, (2,), DataType("float32"), CPU)
    assert tensor.data_ptr() == ctypes.addressof(content)
    with pytest.raises(DeviceError, match=r"read-only.*copyto"):
        library["tensor_field"](tensor, 0)
    assert library["tensor_field"](tensor.copyto(CPU), 0) is not None


def test_text_and_bytes_arguments(library: LibraryModule) -> None:
    """str is a C string, bytes are an array that may hold NULs."""
    assert library["kind"]("text") == 8
    assert library["text_length"]("") == 0
    assert library["text_length"]("größer") == 8
    for value in (b"a\0b", bytearray(b"a\0b"), memoryview(b"a\0b")):
        assert library["kind"](value) == 9
        assert library["byte_sum"](value) == (97 + 98) * 1000 + 3
    assert library["byte_sum"](b"") == 0


def test_object_arguments(library: LibraryModule) -> None:
    """Functions and modules arrive as objects, which are gone after the call."""
    before = len(abi._cells)
    for function in (len, PackedFunc(len), library["kind"], lambda: None):
        assert library["kind"](function) == 68
    assert library["kind"](library) == 73
    assert library["kind"](Module()) == 73
    assert len(abi._cells) == before


def test_many_arguments(library: LibraryModule) -> None:
    """There may be none, and more than usual."""
    for count in (0, 1, 16, 17, 300):
        assert library["count"](*range(count)) == count
        assert library["sum"](*range(count)) == sum(range(count))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (2**63, ValueError, "argument 1 of sum is 9223372036854775808, which is no 64-bit integer"),
        (-(2**63) - 1, ValueError, "no 64-bit integer"),
        ("a\0b", ValueError, "argument 1 of sum holds a NUL character"),
        ({1}, TypeError, "argument 1 of sum is a builtins.set, which compiled code cannot take"),
        (int, TypeError, "argument 1 of sum is a builtins.type"),
        (1j, TypeError, "builtins.complex"),
    ],
)
def test_arguments_that_cannot_be_passed(
    library: LibraryModule, value: Any, error: type, message: str
) -> None:
    """They are refused by position and name, whatever comes before them, and nothing is left."""
    before = len(abi._cells)
    for first in (0, len):
        with pytest.raises(error) as caught:
            library["sum"](first, value)
        assert message in str(caught.value)
    assert len(abi._cells) == before


# ------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        -(2**63),
        2**63 - 1,
        True,
        False,
        -2.5,
        dlpack.OpaquePointer(2**64 - 2),
        DataType("bfloat16x2"),
        dlpack.Device(2, 3),
        "größer",
        "",
        b"a\0b",
        b"",
    ],
)
def test_values_come_back_as_they_went(library: LibraryModule, value: Any) -> None:
    """Every kind that is a value, and borrowed text, is the same after a round trip."""
    result = library["echo"](value)
    assert result == value
    assert type(result) is type(value) or isinstance(result, type(value))


def test_a_result_that_is_the_text_of_an_argument(library: LibraryModule) -> None:
    """It is copied while the argument is there; of this size, it would be unmapped afterwards."""
    text = "a" * (1 << 20)
    assert library["echo"](text) == text
    assert library["echo"](text.encode()) == text.encode()


def test_result_is_none_when_untouched(library: LibraryModule) -> None:
    """The result comes in as None, also after a call that left something else."""
    assert library["nothing"]() is None
    assert library["echo"]("text") == "text"
    assert library["echo"](5) == 5
    assert library["nothing"]() is None
    assert library["self_is_null"]() == 1


def test_text_results(library: LibraryModule) -> None:
    """Small, borrowed and heap text all become str or bytes."""
    assert library["small_str"]() == "seven c"
    assert library["small_bytes"]() == b"a\0\xff"
    assert library["byte_array"]() == b"he\0lo"
    assert library["heap_str"]() == "a text that does not fit"
    assert library["heap_bytes"]() == b"bytes\0that do not fit"


def test_heap_results_are_freed(library: LibraryModule) -> None:
    """An object given to us is released: deleted with the last reference, and not before."""
    before = library["freed"]()
    for name in ("heap_str", "heap_bytes"):
        library[name]()
    assert library["freed"]() == before + 2
    assert [library["shared_str"]() for _ in range(3)] == ["shared"] * 3
    assert library["shared_count"]() == (1 << 32) | 1
    assert library["freed"]() == before + 2
    assert library["weak_str"]() == "weak"  # the value is deleted, the memory is not
    assert library["freed"]() == before + 3


def test_text_that_is_not_utf8(library: LibraryModule) -> None:
    """It is an error that says so; an object is freed all the same."""
    before = library["freed"]()
    for name in ("not_utf8", "heap_not_utf8"):
        with pytest.raises(LibraryError, match="not UTF-8"):
            library[name]()
    assert library["freed"]() == before + 1


@pytest.mark.parametrize("kind", [7, 10, 13, 63, 65, 68, 70, -1])
def test_results_of_other_kinds(library: LibraryModule, kind: int) -> None:
    """A kind that has no form in Python is an error that names it."""
    with pytest.raises(LibraryError, match=f"type index {kind}"):
        library["of_kind"](kind)


@pytest.mark.parametrize("kind", [8, 9])
def test_text_results_that_point_nowhere(library: LibraryModule, kind: int) -> None:
    """NULL as a C string or an array of bytes is an error, not a crash."""
    with pytest.raises(LibraryError, match="at NULL"):
        library["of_kind"](kind)


def test_objects_of_other_kinds(library: LibraryModule) -> None:
    """An object is a value; it is freed when nobody refers to it."""
    before = library["freed"]()
    assert library["heap_shape"]() == ()
    assert library["freed"]() == before + 1


def test_function_results(library: LibraryModule) -> None:
    """A function object of the library is callable, can be passed on, and is freed when dropped."""
    before = library["freed"]()
    function = library["make_function"]()
    assert isinstance(function, PackedFunc)
    assert function(35) == 42
    assert library["call"](function, 1) == 8
    again = library["echo"](library["kind"])
    assert again(None) == 0
    assert library["freed"]() == before
    del function
    gc.collect()
    assert library["freed"]() == before + 1


def test_tensor_results(library: LibraryModule) -> None:
    """A tensor object keeps its memory as long as the tensor, or a view of it, lives."""
    before = library["freed"]()
    tensor = library["make_tensor"]()
    assert (tensor.shape, tensor.dtype, tensor.device) == ((2, 2), "float32", CPU)
    view = tensor._create_view((4,))
    del tensor
    assert values(view) == [0.5, 1.5, 2.5, 3.5]
    assert library["freed"]() == before
    del view
    gc.collect()
    assert library["freed"]() == before + 1
    with pytest.raises(LibraryError, match="strides"):
        library["make_tensor"](1)
    gc.collect()
    assert library["freed"]() == before + 2


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "expected", "text"),
    [
        ("ValueError", ValueError, "boom"),
        ("TypeError", TypeError, "boom"),
        ("RuntimeError", RuntimeError, "boom"),
        ("IndexError", IndexError, "boom"),
        ("OSError", OSError, "boom"),
        ("InternalError", RuntimeError, "InternalError: boom"),
        ("StopIteration", RuntimeError, "StopIteration: boom"),
        ("UnicodeDecodeError", RuntimeError, "UnicodeDecodeError: boom"),
        ("SystemExit", RuntimeError, "SystemExit: boom"),
        ("print", RuntimeError, "print: boom"),
        ("", RuntimeError, "boom"),
    ],
)
def test_recorded_errors(library: LibraryModule, kind: str, expected: type, text: str) -> None:
    """A recorded error is raised as the builtin exception it names, else as a RuntimeError."""
    with pytest.raises(expected) as caught:
        library["fail"](kind, "boom")
    assert type(caught.value) is expected
    assert str(caught.value) == text


def test_error_without_a_record(library: LibraryModule) -> None:
    """A code alone is told as such; an earlier error that was overcome is not blamed."""
    for _ in range(2):
        with pytest.raises(LibraryError, match="fail_silently returned -1 without saying why"):
            library["fail_silently"]()
    library["record_and_succeed"]()
    with pytest.raises(LibraryError, match="without saying why"):
        library["fail_silently"]()


# ----------------------------------------------------------------------------------- callbacks


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        5,
        -0.5,
        "",
        "seven c",
        "a text that does not fit",
        "a\0b",
        b"",
        b"seven\0c",
        b"bytes that do not fit",
        DataType("float16"),
        dlpack.Device(1, 0),
        dlpack.OpaquePointer(77),
    ],
)
def test_callbacks_take_and_return_values(library: LibraryModule, value: Any) -> None:
    """A Python function called from C gets each kind of value, and returns each kind."""
    seen: List[Any] = []
    before = len(abi._cells)

    def function(*args: Any) -> Any:
        seen.append(args)
        return value

    passed = 0 if isinstance(value, str) and "\0" in value else value
    assert library["call"](function, passed, 1) == value
    assert seen == [(passed, 1)]
    assert len(abi._cells) == before


def test_callbacks_and_objects(library: LibraryModule) -> None:
    """Tensors and functions travel through C in both directions, as themselves where ours."""
    tensor = floats(1, 2)
    assert library["call"](lambda: tensor) is tensor
    seen: List[Any] = []
    library["call"](lambda argument: seen.append(values(argument)), tensor)
    assert seen == [[1, 2]]
    function = library["call"](lambda: library["make_function"]())
    assert function(1) == 8
    assert library["call"](lambda: len)("four") == 4
    assert library["call"](lambda given: given("four"), len) == 4
    assert library["call"](lambda: library) is library
    before = len(abi._cells)
    del function
    gc.collect()
    assert len(abi._cells) == before


def test_errors_of_callbacks_keep_their_type(library: LibraryModule) -> None:
    """What a Python function raises below C is raised above it, the very same."""

    class OwnError(Exception):
        pass

    error = OwnError("mine")

    def function(depth: int) -> Any:
        if depth:
            return library["call"](function, depth - 1)
        raise error

    with pytest.raises(OwnError) as caught:
        library["call"](function, 3)
    assert caught.value is error
    for control in (KeyboardInterrupt, SystemExit):

        def stop(kind: type = control) -> None:
            raise kind

        with pytest.raises(control):
            library["call"](stop)


def test_errors_that_are_overcome(library: LibraryModule) -> None:
    """C may go on after an error, and may clean up before it reports one."""

    def boom() -> None:
        raise ValueError("boom")

    assert library["call_and_recover"](boom) == -1
    with pytest.raises(LibraryError, match="without saying why"):
        library["fail_silently"]()
    with pytest.raises(ValueError, match="the first"):
        library["fail_and_clean_up"](lambda: library["nothing"]())
    with pytest.raises(ValueError, match="boom"):
        library["fail_and_clean_up"](boom)


def test_callback_results_that_cannot_be_passed(library: LibraryModule) -> None:
    """They raise where the call began."""
    with pytest.raises(TypeError, match=r"builtins.set cannot be given to compiled code"):
        library["call"](lambda: {1, 2})
    with pytest.raises(ValueError, match=r"a value for compiled code is .* no 64-bit integer"):
        library["call"](lambda: 1 << 64)


def test_functions_that_c_keeps(library: LibraryModule) -> None:
    """A function of which C holds a reference lives until C gives it back."""
    before = len(abi._cells)

    class Payload:
        pass

    payload = Payload()
    ended = threading.Event()
    weakref.finalize(payload, ended.set)
    library["retain_function"](lambda value, payload=payload: value + 1)
    del payload
    gc.collect()
    assert library["call_retained"](1) == 2
    assert not ended.is_set()
    library["release_function"]()
    gc.collect()
    assert ended.is_set()
    assert len(abi._cells) == before


def test_calls_nest(library: LibraryModule) -> None:
    """A call inside of a call disturbs neither arguments nor results of the outer one."""

    def fibonacci(number: int) -> int:
        if number < 2:
            return number
        one = library["call"](fibonacci, number - 1)
        return one + library["call"](fibonacci, number - 2)

    assert library["call"](fibonacci, 12) == 144


def test_calls_on_several_threads(library: LibraryModule) -> None:
    """Functions are called at the same time; errors stay on their threads."""
    wrong: List[Any] = []

    def work(number: int) -> None:
        for index in range(300):
            if library["sum"](number, index) != number + index:
                wrong.append((number, index))
            with pytest.raises(ValueError, match=f"^{number} {index}$"):
                library["fail"]("ValueError", f"{number} {index}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ------------------------------------------------------------------------------ prepared calls


def test_prepared_calls(library: LibraryModule) -> None:
    """A prepared call can be made many times, keeps its arguments alive, and frees results."""
    result = floats(0, 0)
    run = library["add"].prepare(floats(1, 2), floats(3, 4), result)
    gc.collect()
    run()
    run()
    assert values(result) == [4, 6]
    before = library["freed"]()
    run = library["heap_str"].prepare()
    for _ in range(5):
        run()
    assert library["freed"]() == before + 5


def test_prepared_calls_with_objects(library: LibraryModule) -> None:
    """Objects made for the arguments live as long as the prepared call."""
    before = len(abi._cells)
    seen: List[int] = []
    run = library["call"].prepare(seen.append, 1)
    run()
    run()
    assert seen == [1, 1]
    del run
    gc.collect()
    assert len(abi._cells) == before


def test_prepared_calls_that_fail(library: LibraryModule) -> None:
    """They raise what the call would raise."""
    with pytest.raises(ValueError, match="boom"):
        library["fail"].prepare("ValueError", "boom")()
    with pytest.raises(TypeError, match="argument 0 of fail"):
        library["fail"].prepare({1})
    with pytest.raises(LibraryError, match="without saying why"):
        library["fail_silently"].prepare()()


def test_a_function_keeps_its_library(library: LibraryModule) -> None:
    """A function may outlive the module object it came from."""
    function = LibraryModule(library.path)["sum"]
    gc.collect()
    assert function(1, 2) == 3
    assert isinstance(function, NativeFunction)
    assert "sum" in repr(function)
