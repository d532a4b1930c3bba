"""Values as arguments and as results: each kind that the protocol has, in both directions."""

from __future__ import annotations

import gc
import math
from typing import TYPE_CHECKING, Any, List, Set

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import OpaquePointer
from pytest_tvmrpc.errors import RemoteError

if TYPE_CHECKING:
    from .kinds import Kind

PLAIN: List[Any] = [
    *(None, True, False),
    *(0, 1, -1, 255, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)),
    *(0.0, -1.5, 1e-300, 5e-324, 1.7976931348623157e308, math.inf, -math.inf),
    *("", "a", "seven77", "eight888", "grün, 緑, 🟢", "a 緑" * 200_000),
    *(b"", b"\0", b"seven77", b"eight888", bytes(range(256)), b"\0\xff" * 50_000),
    bytes(range(256)) * 4096,
]


def shown(value: Any) -> str:
    """The id of a case."""
    text = f"{value!a:.12}" if not isinstance(value, (str, bytes)) else f"{len(value)}"
    return f"{type(value).__name__}-{text}"


@pytest.fixture(name="echo")
def _echo(remote: rpc.RPCSession) -> Any:
    """The function that returns its argument."""
    return remote.get_function("testing.echo")


@pytest.mark.parametrize("value", PLAIN, ids=shown)
def test_echo(echo: Any, value: Any) -> None:
    """A value comes back as it was sent, and as one of its type."""
    answer = echo(value)
    assert answer == value
    assert type(answer) is type(value)


def test_what_equals_nothing_and_the_other_zero(echo: Any) -> None:
    """Not a number stays none, and a zero keeps its sign."""
    assert math.isnan(echo(math.nan))
    assert math.copysign(1, echo(-0.0)) == -1


def test_each_length_up_to_16(echo: Any) -> None:
    """Texts and bytes are whole on both sides of every limit at which their encoding changes."""
    for length in range(17):
        assert echo(bytes(range(length))) == bytes(range(length))
        assert echo(bytearray(range(length))) == bytes(range(length))
        assert echo("0123456789abcdefg"[:length]) == "0123456789abcdefg"[:length]


def test_a_text_with_a_nul(echo: Any) -> None:
    """Our client refuses it, since a C string ends there; as bytes it is whole."""
    with pytest.raises(ValueError, match="send it as bytes"):
        echo("before\0behind")
    assert echo(b"before\0behind") == b"before\0behind"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_an_int_of_more_than_64_bits(echo: Any, number: int) -> None:
    """Our client refuses it; the session goes on."""
    with pytest.raises(ValueError):
        echo(number)


DTYPES = [
    *("float32", "int8x4", "bool", "uint16", "bfloat16", "float16x4", "handle", "int4", "uint4x8"),
    *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn"),
    *("float6_e3m2fn", "int64x16", "boolx4", "int1", "uint2x16"),
]


def test_data_types(echo: Any) -> None:
    """Each comes back as itself."""
    for text in DTYPES:
        assert str(echo(DataType(text))) == text


def test_a_device(remote: rpc.RPCSession, echo: Any) -> None:
    """One of the session."""
    assert echo(remote.cpu(0)) == remote.cpu(0)
    assert echo(remote.cuda(3)).index == 3


@pytest.mark.parametrize("address", [0, 0x1234, 2**63, 2**64 - 1], ids=hex)
def test_a_pointer(echo: Any, address: int) -> None:
    """All of its 64 bits; a machine of 32 says that it has not so many."""
    try:
        seen = str(int(echo(OpaquePointer(address)) or 0))
    except RemoteError as error:
        seen = str(error)
    too_large = f"the pointer {address:#x} has more than the 32 bits of a pointer on this machine"
    assert seen == str(address) or (address >= 2**32 and too_large in seen)


def test_several_arguments(remote: rpc.RPCSession) -> None:
    """They arrive in their order."""
    strcat = remote.get_function("rpc.test.strcat")
    assert strcat("abc", 11) == "abc:11"
    assert strcat("ä" * 100_000, -11) == "ä" * 100_000 + ":-11"
    assert remote.get_function("rpc.test.runtime_str_concat")("con", "cat") == "concat"


def test_no_and_many_arguments(module: Any) -> None:
    """From none to thousands, of different kinds."""
    count_of = module["count_of"]
    assert count_of() == 0
    assert count_of(None, 1, 1.5, "text", b"bytes", True) == 6
    assert count_of(*range(4000)) == 4000


def test_a_function_as_a_result(remote: rpc.RPCSession) -> None:
    """It remembers what it was made with, as long as it is held."""
    make = remote.get_function("rpc.test.add_to_lhs")
    functions = [make(number) for number in range(100)]
    assert [function(1) for function in functions] == list(range(1, 101))
    del functions[1:]
    gc.collect()
    assert functions[0](5) == 5
    assert make(2**40)(1) == 2**40 + 1


def test_a_function_as_an_argument(remote: rpc.RPCSession, echo: Any) -> None:
    """It comes back, and lives as long as what came back is held."""
    add = remote.get_function("rpc.test.add_to_lhs")(40)
    returned = echo(add)
    del add
    gc.collect()
    assert returned(2) == 42


def test_the_same_function_twice(remote: rpc.RPCSession) -> None:
    """Each has a handle of its own, or is counted."""
    first, second = (remote.get_function("rpc.test.addone") for _ in range(2))
    del first
    gc.collect()
    assert second(1) == 2


def test_a_module_as_argument_and_result(module: Any, echo: Any) -> None:
    """What comes back is the same library, also when the first is gone."""
    module["count"]()
    returned = echo(module)
    del module
    gc.collect()
    assert returned["calls"]() == 1


def test_a_tensor_as_argument_and_result(remote: rpc.RPCSession, echo: Any) -> None:
    """What comes back has the same memory, also when the first is gone."""
    tensor = runtime.tensor([[1.5, 2.5], [3.5, 4.5]], remote.cpu(0))
    returned = echo(tensor)
    tensor.copyfrom([[0.0, 1.0], [2.0, 3.0]])
    assert returned.shape == (2, 2)
    assert returned.dtype == tensor.dtype
    assert returned.numpy().tolist() == [[0.0, 1.0], [2.0, 3.0]]
    del tensor
    gc.collect()
    assert returned.numpy().tolist() == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("value", "kinds"),
    [(None, {0}), (7, {1}), (True, {2}), (0.5, {3}), ("text", {8}), ("longer than 7", {8})],
    ids=shown,
)
def test_what_a_kernel_sees(module: Any, value: Any, kinds: Set[int]) -> None:
    """The type of an argument, as in TVM's own calls."""
    assert module["kind_of"](value) in kinds


def test_what_a_kernel_sees_of_the_rest(remote: rpc.RPCSession, module: Any) -> None:
    """Pointers, data types, devices, tensors, modules, functions."""
    kind_of = module["kind_of"]
    assert kind_of(OpaquePointer(0x10)) == 4
    assert kind_of(DataType("float16")) == 5
    assert kind_of(remote.cpu(0)) == 6
    assert kind_of(runtime.empty((2,), "float32", remote.cpu(0))) in (7, 70)
    assert kind_of(module) == 73
    assert kind_of(remote.get_function("rpc.test.addone")) == 68


def test_contents_reach_a_kernel(module: Any) -> None:
    """Bytes and texts, short and long."""
    for value in (b"", b"\1", b"1234567", b"12345678", bytes(range(200)), b"\2" * 100_000):
        assert module["bytes_sum"](value) == sum(value)
    for text in ("", "short", "not so short any more", "ä", "x" * 100_000):
        assert module["text_length"](text) == len(text.encode())


def test_what_a_kernel_gives(module: Any) -> None:
    """Each kind of result that plain C can make."""
    give = module["give"]
    assert [give(number) for number in range(4)] == [None, -5, True, 0.25]
    assert int(give(4)) == 0x1234
    assert str(give(5)) == "float16x4"
    assert give(6).index == 0
    assert (give(8), give(11), bytes(give(12))) == ("a raw string", "small", b"\0\1\2")
    assert module["nothing"]() is None


def test_containers(remote: rpc.RPCSession) -> None:
    """Arrays, maps and shapes are held there, looked into, and passed back."""
    array = remote.get_function("ffi.Array")(1, "two", 3.5)
    pairs = remote.get_function("ffi.Map")("one", array, "two", 2)
    assert list(array) == [1, "two", 3.5]
    assert (list(pairs["one"]), pairs["two"], sorted(pairs)) == ([1, "two", 3.5], 2, ["one", "two"])
    assert "three" not in pairs
    with pytest.raises(KeyError):
        pairs["three"]
    with pytest.raises(IndexError):
        array[3]
    assert list(remote.get_function("ffi.Shape")(4, 5)) == [4, 5]
    assert remote.get_function("ffi.ArraySize")(remote.get_function("testing.echo")(array)) == 3


def test_what_a_session_is(kind: Kind, remote: rpc.RPCSession) -> None:
    """The client knows the dialect, and whether the server is ours."""
    assert (remote.dialect, remote.is_ours) == ("ffi", kind.is_ours)
