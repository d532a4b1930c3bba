"""Numbers and elements as the board's own instructions see them, whatever its byte order."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator

import numpy as np
import pytest

from pytest_tvmrpc.runtime import empty, load_param_dict, save_param_dict, tensor
from pytest_tvmrpc.runtime.toolchain import compile_library

if TYPE_CHECKING:
    from pytest_tvmrpc import rpc

    from .machines import Board

INTS = {
    **{f"int{bits}": [0, 1, -2, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))] for bits in (8, 16, 32)},
    "int64": [0, 1, -2, 0x0102030405060708, 2**63 - 1, -(2**63)],
    **{f"uint{bits}": [0, 1, 0x01020304 % 2**bits, 2**bits - 1] for bits in (8, 16, 32)},
    "uint64": [0, 1, 0x0102030405060708],
    "bool": [0, 1, 1, 0],
}
FLOATS = {
    "float32": [0.0, -1.5, 3.4028234663852886e38, 2.0**-149, math.inf],
    "float64": [0.0, -1.5, math.pi, 1.7976931348623157e308, 5e-324, -math.inf],
}
BIG = 1 << 20


@pytest.fixture(scope="module")
def library(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``values.c`` for the board."""
    source = Path(__file__).with_name("values.c")
    output = tmp_path_factory.mktemp("values") / "values.so"
    return Path(compile_library(source, output, options=["-std=c99"], target=board.triple))


@pytest.fixture
def module(remote: rpc.RPCSession, library: Path) -> Any:
    """It, loaded on the board."""
    remote.upload(library)
    return remote.load_module(library.name)


def test_the_board_is_what_it_says(board: Board, module: Any) -> None:
    """Its byte order and its pointers are those for which this board is in the list."""
    assert bool(module["is_big_endian"]()) is (board.byte_order == "big")
    assert module["pointer_bits"]() == board.bits


def test_numbers(module: Any) -> None:
    """Every bit of an int and of a float comes to a kernel and back."""
    for value in (0, 1, -1, 0x0102030405060708, 2**63 - 1, -(2**63)):
        assert module["not_of"](value) == ~value
    for value in (0.0, -3.0, math.pi, 1e300, 2.0**-1021, math.inf):
        assert module["half_of"](value) == value / 2
    assert math.isnan(module["half_of"](math.nan))
    assert math.copysign(1, module["half_of"](-0.0)) == -1


@pytest.mark.parametrize(("dtype", "values"), {**INTS, **FLOATS}.items())
def test_elements(remote: rpc.RPCSession, module: Any, dtype: str, values: list[Any]) -> None:
    """What is copied there has its values, and what is written there has them here."""
    device = remote.cpu(0)
    there = tensor(np.array(values, dtype), device)
    read, write = module[f"read_{dtype}"], module[f"write_{dtype}"]
    assert [read(there, index) for index in range(len(values))] == values
    other = empty((len(values),), dtype, device)
    for index, value in enumerate(reversed(values)):
        write(other, index, value)
    np.testing.assert_array_equal(other.numpy(), np.array(values[::-1], dtype))


def test_elements_of_half_a_word(remote: rpc.RPCSession, module: Any) -> None:
    """Of 16 bits, too: float16, and bfloat16, which only `ml_dtypes` knows here."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = [1.0, -2.5, 0.15625]
    for name, dtype in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        array = np.array(values, dtype)
        there = tensor(array, remote.cpu(0))
        bits = [module[f"read_{name}"](there, index) for index in range(len(values))]
        assert bits == array.view("uint16").tolist()
        module[f"write_{name}"](there, 0, bits[1])
        assert float(there.numpy()[0]) == values[1]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_large_tensors(remote: rpc.RPCSession, module: Any, dtype: str) -> None:
    """Of more than one part on the way, and views that begin within one."""
    array = (np.arange(BIG, dtype="uint64") * 2654435761 >> 7).astype("uint8").astype(dtype)
    there = tensor(array, remote.cpu(0))
    np.testing.assert_array_equal(there.numpy(), array)
    read = module[f"read_{dtype}"]
    for index in (0, 1, 65535, 65537, BIG - 1):
        assert read(there, index) == array[index]
    copy = empty((BIG,), dtype, remote.cpu(0))
    there.copyto(copy)
    np.testing.assert_array_equal(copy.numpy(), array)


def test_params(remote: rpc.RPCSession, module: Any) -> None:
    """A file of parameters that was written here is, on the board, what it was."""
    params = {"w": np.arange(6, dtype="float32").reshape(2, 3), "n": np.array([2**40, -1])}
    remote.upload(save_param_dict({name: tensor(value) for name, value in params.items()}), "p.bin")
    back = load_param_dict(bytes(remote.download("p.bin")))
    for name, value in params.items():
        there = tensor(back[name].numpy(), remote.cpu(0))
        np.testing.assert_array_equal(there.numpy(), value)
    assert module["read_int64"](tensor(params["n"], remote.cpu(0)), 0) == 2**40


def test_durations(remote: rpc.RPCSession, module: Any) -> None:
    """Measured times are seconds, in the order in which a client reads them."""
    timing = module.time_evaluator("not_of", remote.cpu(0), number=20, repeat=5)(7)
    assert len(timing.results) == 5
    assert all(1e-9 < seconds < 1 for seconds in timing.results)
    assert timing.min <= timing.median <= timing.max


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int32", "uint64"])
def test_random_contents(remote: rpc.RPCSession, module: Any, dtype: str) -> None:
    """They are numbers from 1 to below 10 for the board's instructions, and here."""
    there = empty((1000,), dtype, remote.cpu(0))
    remote.get_function("tvm.contrib.random.random_fill")(there)
    array = there.numpy()
    assert ((array >= 1) & (array < 10)).all()
    assert len(np.unique(array)) > 8
    seen = module[f"read_{dtype}"](there, 3)
    assert seen == (array[3] if dtype != "float16" else array.view("uint16")[3])


@pytest.fixture
def raw(remote: rpc.RPCSession) -> Iterator[Callable[[bytes, str], bytes]]:
    """``raw(content, dtype)``: an array of bytes, sent and received as elements of a type."""

    def through(content: bytes, dtype: str) -> bytes:
        there = tensor(np.frombuffer(content, dtype), remote.cpu(0))
        return bytes(there.numpy().tobytes())

    return through


def test_bytes_stay_bytes(raw: Callable[[bytes, str], bytes], remote: rpc.RPCSession) -> None:
    """A structure in a tensor of uint8 and in a file is never turned around."""
    content = struct.pack("<iqd8s", 1, -2, math.e, b"abcdefgh")
    assert raw(content, "uint8") == content
    remote.upload(content, "structure.bin")
    assert bytes(remote.download("structure.bin")) == content
    echo = remote.get_function("testing.echo")
    assert bytes(echo(bytearray(content))) == content
