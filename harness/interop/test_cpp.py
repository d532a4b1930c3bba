"""Libraries of C++ made by ``tvm_ffi.cpp.build_inline``, one of each kind, run by a server.

What is in `cpp` is compiled here, where tvm-ffi is installed; our server has none of it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
import pytest

import pytest_tvmrpc

if TYPE_CHECKING:
    from .clients import Client

SOURCES = {path.stem: path for path in sorted(Path(__file__).with_name("cpp").glob("*.cc"))}

Check = Callable[["Client", Any, Any], None]
"""What is checked of a library: by a client, in a session, of the module that was loaded."""


@pytest.fixture(scope="session", params=list(SOURCES))
def cpp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of C++."""
    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def errors_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that throws errors."""
    return build("errors", tmp_path_factory.mktemp("errors"))


@pytest.fixture(scope="session")
def tensors_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that takes tensors."""
    return build("tensors", tmp_path_factory.mktemp("tensors"))


def build(name: str, folder: Path) -> Path:
    """A library of the source of this name, made by tvm-ffi."""
    from tvm_ffi.cpp import build_inline

    path = build_inline(
        name,
        cpp_sources=SOURCES[name].read_text(),
        extra_cflags=["-O0"],
        build_directory=str(folder),
    )
    needed = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True)
    assert "libtvm_ffi.so" in needed.stdout
    return Path(path)


def _raises(client: Client, call: Callable[[], Any], *texts: str) -> None:
    with pytest.raises(client.remote_error) as caught:
        call()
    kind = getattr(caught.value, "remote_type", None)  # our client takes it from the text
    said = f"{kind}: {caught.value}" if kind else str(caught.value)
    for text in texts:
        assert text in said


def tensors(client: Client, remote: Any, module: Any) -> None:
    device = remote.cpu(0)
    x = client.runtime.tensor(np.arange(5, dtype="float32"), device)
    y, short = (client.runtime.empty((n,), "float32", device) for n in (5, 4))
    module["add_one"](x, y)
    np.testing.assert_array_equal(y.numpy(), np.arange(1, 6))
    assert module["elements"](client.runtime.empty((3, 4), "int8", device)) == 12
    _raises(
        client, lambda: module["add_one"](x, short), "x and y must be equally long", "(5 vs. 4)"
    )
    _raises(client, lambda: module["elements"](5), "Expected `DLTensor*` but got `int`")


def errors(client: Client, remote: Any, module: Any) -> None:
    _raises(client, lambda: module["raise_value"](3), "the number is 3")
    _raises(client, lambda: module["raise_own"](), "a kind of its own")
    _raises(client, lambda: module["raise_std"](), "of the standard library")
    _raises(client, lambda: module["take_int"]("x"), "Expected `int` but got")
    _raises(client, lambda: module["take_int"](), "Expected 1 but got 0 arguments")
    assert module["take_int"](7) == 7
    if _passes_functions(client):
        assert module["caught"](module["raise_own"]) == "KernelFault: a kind of its own"
        _raises(client, lambda: module["thrown_on"](module["raise_std"]), "of the standard library")


def _passes_functions(client: Client) -> bool:
    """TVM's client passes no function of a session to another one."""
    return client.name == "ours"


def strings(client: Client, remote: Any, module: Any) -> None:
    assert module["joined"]("ab", "cd") == "abcd"
    assert module["joined"]("longer than seven ", "ümlaut") == "longer than seven ümlaut"
    assert module["repeated"]("xyz", 5) == "xyz" * 5
    assert module["length"]("x" * 1000) == 1000
    assert bool(module["same"]("x" * 100, "x" * 100))


def bytes_(client: Client, remote: Any, module: Any) -> None:
    for content in (b"a\0b", bytes(range(256)), b""):
        assert bytes(module["reversed"](bytearray(content))) == content[::-1]
    assert module["sum"](bytearray(b"\xff" * 100)) == 25500


def arrays(client: Client, remote: Any, module: Any) -> None:
    assert module["sum_of_range"](10) == 45
    assert module["mixed"]() == "three, which is longer than seven/3/4/1"
    assert module["sum"](module["range"](5)) == 10


def maps(client: Client, remote: Any, module: Any) -> None:
    assert module["square_of"](100, 7) == 49
    assert [module["sum_of_squares"](n) for n in (3, 4, 100)] == [5, 14, 328350]
    assert module["counted"]("hello") == 4
    assert module["sum"](module["squares"](4)) == 14


def shapes(client: Client, remote: Any, module: Any) -> None:
    x = client.runtime.empty((2, 3), "float32", remote.cpu(0))
    assert module["product_of"](x) == 6
    assert module["product"](module["transposed"](x)) == 6


def classes(client: Client, remote: Any, module: Any) -> None:
    assert module["checks"]() == "11100"
    counter, step = module["make_counter"](3), module["make_step"](2, 5)
    assert [module["value"](one) for one in (counter, step)] == [3, 2]
    assert [module["key"](one) for one in (counter, step)] == ["interop.Counter", "interop.Step"]
    _raises(client, lambda: module["value"](7), "interop.Counter")


def closures(client: Client, remote: Any, module: Any) -> None:
    add = module["adder"](3)
    assert add(4) == 7
    _raises(client, lambda: add("x"), "Expected `int` but got")
    if _passes_functions(client):
        assert module["twice"](add, 1) == 7
        assert module["composed"](add, module["adder"](10))(1) == 14


def globals_(client: Client, remote: Any, module: Any) -> None:
    assert remote.get_function("interop.multiply")(6, 7) == 42
    assert remote.get_function("interop.count")(1, "two", None) == 3
    assert bool(module["is_there"]("interop.multiply"))
    assert not module["is_there"]("interop.nobody")
    assert bool(module["is_listed"]("interop.count"))
    assert [module["replaced"](n) for n in (5, 6)] == [10, 12]
    _raises(client, lambda: module["by_name"]("interop.nobody", 1), "interop.nobody not found")


def allocation(client: Client, remote: Any, module: Any) -> None:
    own = module["of_its_own"](3, 2.0)
    np.testing.assert_array_equal(own.numpy(), [2, 3, 4])
    if _has_allocator(client, module):
        made = module["of_environment"](2, 3, 1.5)
        np.testing.assert_array_equal(made.numpy(), np.arange(6).reshape(2, 3) + 1.5)
        _raises(client, lambda: module["on_device"](2), "cuda")


def dlpack(client: Client, remote: Any, module: Any) -> None:
    if _has_allocator(client, module):
        expected = np.arange(4) * 10
        for name in ("there_and_back", "there_and_back_versioned"):
            np.testing.assert_array_equal(module[name]().numpy(), expected)
        np.testing.assert_array_equal(module["viewed"]().numpy(), expected.reshape(2, 2))


def _has_allocator(client: Client, module: Any) -> bool:
    """TVM's own server has none, unless Python sets one."""
    with contextlib.suppress(client.remote_error):
        module["made"]()
        return True
    _raises(client, lambda: module["made"](), "allocator is nullptr")
    return False


def streams(client: Client, remote: Any, module: Any) -> None:
    device = remote.device("cuda", 1)
    assert module["stream_of"](remote.cpu(0)) == 0
    assert module["set_stream"](device, 17) == 0
    assert module["stream_of"](device) == 17
    assert module["set_stream"](device, 0) == 17


def dtypes(client: Client, remote: Any, module: Any) -> None:
    names = ["float32", "int8x4", "bool", "bfloat16", "float8_e4m3fn", "float4_e2m1fn"]
    assert [module["printed"](client.dtype(name)) for name in names] == names
    assert [str(module["parsed"](name)) for name in names] == names
    assert str(module["wider"](client.dtype("float16"), 8)) == "float16x8"
    _raises(client, lambda: module["parsed"]("nonsense"), "nonsense")


def choices(client: Client, remote: Any, module: Any) -> None:
    assert [module["or_zero"](value) for value in (None, 4)] == [0, 4]
    assert module["some"](True) == "something, longer than seven"
    assert module["some"](False) is None
    assert [module["which"](value) for value in (3, "x")] == ["number", "text"]
    assert module["first"]() == 7
    for value in (None, 1, 2.5, "text of some length"):
        assert module["same"](value) == value
    assert module["type_of"](2.5) == "float"
    _raises(client, lambda: module["which"](2.5), "Expected `Variant<int, str>` but got `float`")


def packed(client: Client, remote: Any, module: Any) -> None:
    assert module["sum"](1, 2.5, 3) == 6.5
    assert module["text"]() == "text that plain C returns"
    assert module["function"]()(12) == 144
    _raises(client, lambda: module["fail"](), "said in plain C")


def threads(client: Client, remote: Any, module: Any) -> None:
    if _passes_functions(client):
        add_one = remote.get_function("rpc.test.addone")
        assert module["sum_over"](add_one, 10) == 55
        assert module["failures"](add_one, 3) == 0


def standard(client: Client, remote: Any, module: Any) -> None:
    assert module["total"](5) == 30


def documented(client: Client, remote: Any, module: Any) -> None:
    assert module["scaled"](2.5, 4) == 10.0


CHECKS: dict[str, Check] = {
    "allocation": allocation,
    "arrays": arrays,
    "bytes": bytes_,
    "choices": choices,
    "classes": classes,
    "closures": closures,
    "dlpack": dlpack,
    "documented": documented,
    "dtypes": dtypes,
    "errors": errors,
    "globals": globals_,
    "maps": maps,
    "packed": packed,
    "shapes": shapes,
    "standard": standard,
    "streams": streams,
    "strings": strings,
    "tensors": tensors,
    "threads": threads,
}


def test_each_library_is_checked() -> None:
    """There is a check for each source, and there are enough kinds."""
    assert set(CHECKS) == set(SOURCES)
    assert len(CHECKS) >= 15


def test_in_a_session(client: Client, remote: Any, probe: Path, cpp: Path, pair: Any) -> None:
    """A library is sent, loaded and used; no libtvm_ffi.so is mapped by our session."""
    remote.upload(str(cpp))
    CHECKS[cpp.stem](client, remote, remote.load_module(cpp.name))
    remote.upload(str(probe))
    maps = remote.load_module(probe.name)["maps"]
    assert maps("/libtvm_ffi.so") is (pair.server == "tvm")


def test_what_an_error_says(client: Client, remote: Any, pair: Any, errors_library: Path) -> None:
    """Our server tells kind, message and where an error was thrown; TVM's tells the message."""
    if pair.server == "tvm":
        pytest.skip("TVM's server tells neither kind nor place")
    remote.upload(str(errors_library))
    module = remote.load_module(errors_library.name)
    place = 'File "', "main.cpp", "RaiseValue"
    _raises(client, lambda: module["raise_value"](3), "ValueError: the number is 3\n", *place)
    _raises(client, lambda: module["raise_own"](), "KernelFault: a kind of its own\n")


def test_tensors_that_are_kept(
    client: Client, remote: Any, pair: Any, tensors_library: Path
) -> None:
    """A parameter of type ``ffi::Tensor`` takes a tensor, and code may keep it for later calls."""
    if pair.server == "tvm":
        pytest.skip("TVM's server sends borrowed tensors, which such a parameter refuses")
    remote.upload(str(tensors_library))
    kept = remote.load_module(tensors_library.name)["kept"]
    numbers = [np.full(4, number, "float32") for number in range(3)]
    for number, before in zip(numbers, [numbers[0], *numbers]):
        result = kept(client.runtime.tensor(number, remote.cpu(0)))
        np.testing.assert_array_equal(result.numpy(), before)


_ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
from pytest_tvmrpc.runtime import load_module
for path in sys.argv[2:]:
    assert load_module(path).function_names(), path
with open("/proc/self/maps") as maps:
    assert "/libtvm" not in maps.read()
"""


def test_in_a_bare_python(cpp: Path) -> None:
    """It loads in a Python that has nothing but its own standard library, and that ends well."""
    root = str(Path(pytest_tvmrpc.__file__).parent.parent)
    command = [sys.executable, "-S", "-E", "-W", "error", "-c", _ALONE, root, str(cpp)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_beside_tvm(cpp: Path, tmp_path: Path) -> None:
    """What is loaded before TVM takes nothing from it: TVM finds its own functions."""
    program = _ALONE.replace('assert "/libtvm" not in maps.read()', "pass") + (
        "import tvm, tvm_ffi\n"
        "assert tvm_ffi.get_global_func('ffi.Array')(1, 2)[1] == 2\n"
        "assert str(tvm_ffi.dtype('float32')) == 'float32'\n"
        "try:\n"
        "    tvm_ffi.get_global_func('ffi.ArrayGetItem')(tvm_ffi.convert([1]), 5)\n"
        "except IndexError:\n"
        "    print('raised')\n"
    )
    root = str(Path(pytest_tvmrpc.__file__).parent.parent)
    command = [sys.executable, "-c", program, root, str(cpp)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, "raised\n"), done.stderr
