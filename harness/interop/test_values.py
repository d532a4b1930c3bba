"""Values as arguments and results of functions, each kind that the protocol has."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_tvmrpc.errors import LocalProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from .clients import Client
    from .conftest import Pair

PLAIN: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    255,
    2**31,
    -(2**31) - 1,
    2**63 - 1,
    -(2**63),
    0.0,
    -1.5,
    1e-300,
    5e-324,
    1.7976931348623157e308,
    float("inf"),
    float("-inf"),
    "",
    "a",
    "seven77",
    "eight888",
    "grün, 緑, 🟢",
    "long " * 5000,
    "a 緑" * 200_000,
    b"",
    b"\0",
    b"seven77",
    b"eight888",
    bytes(range(256)),
    b"\0\xff" * 32_768,
    b"\0\xff" * 50_000,
    bytes(range(256)) * 4096,
]


def _shown(value: Any) -> str:
    return f"{type(value).__name__}-{str(value)[:12]}"


@pytest.fixture
def echo(remote: Any) -> Any:
    """The server's function that returns its argument."""
    return remote.get_function("testing.echo")


@pytest.mark.parametrize("value", PLAIN, ids=_shown)
def test_echo(echo: Any, value: Any) -> None:
    """A value comes back as it was sent, as an instance of the same built-in type."""
    answer = echo(value)
    assert answer == value
    assert value is None or isinstance(answer, type(value))
    assert isinstance(answer, bool) == isinstance(value, bool)


def test_echo_not_a_number(echo: Any) -> None:
    """Not a number stays not a number."""
    assert math.isnan(echo(math.nan))


def test_echo_the_other_zero(echo: Any) -> None:
    """The zero that is less keeps its sign."""
    assert math.copysign(1, echo(-0.0)) == -1


def test_text_with_a_nul(pair: Pair, echo: Any) -> None:
    """TVM's client ends a text at its first NUL; ours refuses it. As bytes it is whole."""
    whole = "before\0behind"
    assert bytes(echo(whole.encode())) == whole.encode()
    if pair.client == "ours":
        with pytest.raises(ValueError, match="send it as bytes"):
            echo(whole)
    else:
        assert echo(whole) == "before"


@pytest.mark.parametrize("length", range(17))
def test_echo_bytes_of_each_length(echo: Any, length: int) -> None:
    """Bytes come back whole on both sides of the limit (7) at which their encoding changes."""
    value = bytes(range(length))
    assert bytes(echo(value)) == value
    assert bytes(echo(bytearray(value))) == value


@pytest.mark.parametrize("length", range(17))
def test_echo_text_of_each_length(echo: Any, length: int) -> None:
    """Text comes back whole on both sides of the limit (7) at which its encoding changes."""
    value = "0123456789abcdefg"[:length]
    assert echo(value) == value


DTYPES = [
    *("float32", "int8x4", "bool", "uint16", "bfloat16", "float16x4", "handle", "int4", "uint4x8"),
    *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn"),
    *("float6_e3m2fn", "int64x16", "boolx4"),
]


@pytest.mark.parametrize("text", DTYPES)
def test_echo_dtype(client: Client, echo: Any, text: str) -> None:
    """A data type comes back as a data type of the same name."""
    dtype = client.dtype(text)
    assert str(dtype) == text
    assert str(echo(dtype)) == text


def test_echo_device(client: Client, remote: Any, echo: Any) -> None:
    """A device of the session goes in; it comes back as the server sees it: its own."""
    device = echo(remote.cpu(0))
    assert device.dlpack_device_type() == 1
    assert device.index == 0


@pytest.mark.parametrize("address", [0, 0x1234, 2**64 - 1])
def test_echo_pointer(client: Client, echo: Any, address: int) -> None:
    """An opaque pointer comes back with all its 64 bits."""
    assert client.address(echo(client.pointer(address))) == address


def test_an_int_that_does_not_fit(echo: Any) -> None:
    """An int of more than 64 bits is refused by the client; the session goes on."""
    with pytest.raises((ValueError, LocalProtocolError)):
        echo(2**63)
    assert echo(1) == 1


def test_several_arguments(remote: Any) -> None:
    """Arguments of different kinds arrive in their order."""
    strcat = remote.get_function("rpc.test.strcat")
    assert strcat("abc", 11) == "abc:11"
    assert strcat("ä", 11) == "ä:11"
    assert remote.get_function("rpc.test.runtime_str_concat")("con", "cat") == "concat"


def test_no_and_many_arguments(module: Any) -> None:
    """A function may be called without arguments, and with many."""
    count_of = module["count_of"]
    assert count_of() == 0
    assert count_of(*range(100)) == 100


@pytest.mark.parametrize(
    ("value", "kinds"),
    [(None, {0}), (7, {1}), (True, {2}), (0.5, {3}), ("text", {8}), ("longer than 7", {8})],
    ids=_shown,
)
def test_what_a_kernel_sees(module: Any, value: Any, kinds: set[int]) -> None:
    """A compiled function gets each value in the form that TVM's server gives it."""
    assert module["kind_of"](value) in kinds


def test_what_a_kernel_sees_of_the_rest(client: Client, remote: Any, module: Any) -> None:
    """Pointers, data types, devices, tensors, modules arrive in the form TVM gives them."""
    kind_of = module["kind_of"]
    assert kind_of(client.pointer(0x10)) == 4
    assert kind_of(client.dtype("float16")) == 5
    assert kind_of(remote.cpu(0)) == 6
    assert kind_of(client.runtime.empty((2,), "float32", remote.cpu(0))) in (7, 70)
    assert kind_of(module) == 73


@pytest.mark.parametrize("value", [b"", b"\1", b"1234567", b"12345678", bytes(range(200))], ids=len)
def test_bytes_reach_a_kernel(module: Any, value: bytes) -> None:
    """A compiled function can read the bytes it is given, short or long."""
    assert module["bytes_sum"](value) == sum(value)


@pytest.mark.parametrize("text", ["", "short", "not so short any more", "ä"])
def test_text_reaches_a_kernel(module: Any, text: str) -> None:
    """A compiled function gets text as a C string in UTF-8."""
    assert module["text_length"](text) == len(text.encode())


def test_what_a_kernel_gives(client: Client, module: Any) -> None:
    """Each kind of result that a compiled function can make arrives as the Python value it is."""
    give = module["give"]
    assert give(0) is None
    assert give(1) == -5
    assert give(2) is True
    assert give(3) == 0.25
    assert client.address(give(4)) == 0x1234
    assert str(give(5)) == "float16x4"
    assert give(6).dlpack_device_type() == 1
    assert give(8) == "a raw string"
    assert give(11) == "small"
    assert bytes(give(12)) == b"\0\1\2"
    assert module["nothing"]() is None


def test_a_module_as_an_argument(remote: Any, module: Any) -> None:
    """A remote module may be given back to a function of its session."""
    lookup = remote.get_function("tvm.rpc.server.ModuleGetFunction")
    assert lookup(module, "addone", True)(41) == 42


def test_a_function_as_an_argument(client: Client, pair: Pair, remote: Any, echo: Any) -> None:
    """Our client passes functions of the session back to it; TVM's refuses to, as it always did."""
    add = remote.get_function("rpc.test.add_to_lhs")(40)
    if client.name == "tvm":
        with pytest.raises(ValueError, match=r"Cannot pass type ffi\.Function"):
            echo(add)
        return
    returned = echo(add)
    del add
    gc.collect()
    assert returned(2) == 42


def test_a_module_comes_back(remote: Any, module: Any, echo: Any) -> None:
    """A module that is returned is the same library, also when the first one is gone."""
    module["count"]()
    returned = echo(module)
    del module
    gc.collect()
    assert returned["calls"]() == 1


def test_a_tensor_comes_back(client: Client, pair: Pair, remote: Any, echo: Any) -> None:
    """A function may return the tensor that it was given; TVM's client cannot read its server's.

    TVM's server returns it without a handle of its own: it is there as long as the first one is.
    """
    tensor = client.runtime.tensor(np.arange(6, dtype="float32").reshape(2, 3), remote.cpu(0))
    if pair.server == pair.client == "tvm":
        with pytest.raises(RuntimeError, match=r"args\.size\(\) == 3"):
            echo(tensor)
        return
    returned = echo(tensor)
    if pair.server != "tvm":
        del tensor
        gc.collect()
    np.testing.assert_array_equal(returned.numpy(), np.arange(6).reshape(2, 3))


def test_a_returned_tensor_as_an_argument(client: Client, remote: Any) -> None:
    """What a function returned goes into another one, and into copies of either direction."""
    make = remote.get_function("rpc.test.remote_return_nd")
    tensor, element = make("get_arr")(), make("get_arr_elem")
    tensor.copyfrom(np.arange(10, dtype="float32"))
    assert element(tensor, 7) == 7.0
    copy = tensor.copyto(client.runtime.empty((10,), "float32", remote.cpu(0)))
    assert element(copy, 8) == 8.0
    copy.copyfrom(np.ones(10, "float32"))
    copy.copyto(tensor)
    assert element(tensor, 9) == 1.0


def test_lists_and_local_things(client: Client, remote: Any, echo: Any) -> None:
    """What is no value of the protocol, or lives here, is refused by the client itself."""
    local = client.runtime.tensor(np.zeros(2, "float32"))
    for value in ([1], {"a": 1}, local, client.runtime.cpu(0), print):
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            echo(value)
    assert echo(1) == 1


def test_a_module_as_a_result(remote: Any, probe: Path) -> None:
    """A function whose result is a module gives a module that can be used."""
    remote.upload(str(probe))
    module = remote.get_function("tvm.rpc.server.load_module")(probe.name)
    assert module["addone"](1) == 2


def test_an_object_as_a_result(pair: Pair, remote: Any) -> None:
    """An object that has no Python value stays on the server and may be given back to it."""
    if pair.server != "tvm":
        pytest.skip("our server has no such function; test_sessions.py gives it one")
    array = remote.get_function("ffi.Array")(1, 2, 3)
    assert remote.get_function("ffi.ArraySize")(array) == 3


def test_containers(pair: Pair, remote: Any) -> None:
    """An array and a map are held by the client and passed back; ours looks into them, too."""
    array = remote.get_function("ffi.Array")(1, "two", 3.5)
    pairs = remote.get_function("ffi.Map")("one", array, "two", 2)
    assert remote.get_function("ffi.ArraySize")(array) == 3
    assert remote.get_function("ffi.ArrayGetItem")(array, 1) == "two"
    inner = remote.get_function("ffi.MapGetItem")(pairs, "one")
    assert remote.get_function("ffi.ArraySize")(inner) == 3
    if pair.client == "ours":
        assert list(array) == [1, "two", 3.5]
        assert len(pairs) == 2
        assert (list(pairs["one"]), pairs["two"]) == ([1, "two", 3.5], 2)
        assert sorted(pairs) == ["one", "two"]
        assert "three" not in pairs
        with pytest.raises(KeyError):
            pairs["three"]
        assert list(remote.get_function("ffi.Shape")(4, 5)) == [4, 5]
    del array, pairs, inner
    gc.collect()
    assert remote.get_function("testing.echo")(1) == 1
