"""What TVM's tuners ask of a server: random contents of every type, and caches that are flushed."""

from __future__ import annotations

import collections
import os
import struct
from typing import TYPE_CHECKING, Any, Dict, List

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.runtime.device.names import cpu
from pytest_tvmrpc.runtime.tensor import empty
from pytest_tvmrpc.session import tuning
from pytest_tvmrpc.session.tuning import BLOCK, flush_all_but_first, random_fill

if TYPE_CHECKING:
    from typing import Iterator

COUNT = 20_000
SMALL_FLOATS: Dict[str, List[float]] = {
    "float8_e8m0fnu": [1, 2, 4, 8],
    "float8_e5m2": [1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8],
    "float8_e5m2fnuz": [1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8],
    "float4_e2m1fn": [1, 1.5, 2, 3, 4, 6],
}
TINY_MANTISSAS = ["float8_e4m3", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz"]


@pytest.fixture(name="remote")
def _remote() -> Iterator[Any]:
    """A session in this process."""
    with rpc.LocalSession() as remote:
        yield remote


def filled(dtype: str, *shape: int) -> Any:
    """A tensor of this process with random elements."""
    tensor = empty(shape, dtype, cpu(0))
    random_fill(tensor)
    return tensor


def content(tensor: Any) -> bytes:
    return bytes(tensor._create_view((tensor.nbytes,), "uint8").numpy())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "float32x4"])
def test_random_elements(dtype: str) -> None:
    """Floating-point numbers are uniform from 1 to below 10: every tenth of them has its share."""
    pytest.importorskip("ml_dtypes")
    elements = filled(dtype, COUNT // 4, 4).numpy().astype("float64").ravel()
    assert elements.min() >= 1
    assert elements.max() < 10
    shares = collections.Counter(int((element - 1) / 0.9) for element in elements)
    expected = len(elements) / 10
    assert set(shares) == set(range(10))
    assert all(0.8 * expected < share < 1.2 * expected for share in shares.values())


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_random_complex_elements(dtype: str) -> None:
    """Both parts are drawn."""
    flat = content(filled(dtype, COUNT))
    parts = struct.unpack(f"={2 * COUNT}{'f' if dtype == 'complex64' else 'd'}", flat)
    for half in (parts[::2], parts[1::2]):
        assert 1 <= min(half) < 1.1
        assert 9.9 < max(half) < 10


@pytest.mark.parametrize(
    ("dtype", "most"),
    [(f"{kind}{bits}", 9) for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
    + [("int4", 7), ("uint4", 9), ("int8x4", 9)],
)
def test_random_integers(dtype: str, most: int) -> None:
    """Whole numbers, each as often as the others, as far as the type goes."""
    counted = collections.Counter(filled(dtype, COUNT).numpy().ravel().tolist())
    assert set(counted) == set(range(1, most + 1))
    expected = sum(counted.values()) / most
    assert all(0.8 * expected < share < 1.2 * expected for share in counted.values())


@pytest.mark.parametrize("dtype", ["bool", "uint1"])
def test_random_booleans(dtype: str) -> None:
    """True and false, about as often."""
    flat = content(filled(dtype, COUNT))
    assert set(flat) == {0, 1}
    assert 0.4 * COUNT < sum(flat) < 0.6 * COUNT


@pytest.mark.parametrize("dtype", [*SMALL_FLOATS, *TINY_MANTISSAS])
def test_random_small_floats(dtype: str) -> None:
    """Every number of the type in the range comes, and nothing else."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    if not hasattr(ml_dtypes, dtype):
        pytest.skip(f"this version of ml_dtypes has no {dtype}")
    found = {float(element) for element in filled(dtype, COUNT).numpy().ravel()}
    eighths = [power * (1 + part / 8) for power in (1, 2, 4, 8) for part in range(8)]
    assert found == set(SMALL_FLOATS.get(dtype) or [number for number in eighths if number < 10])


@pytest.mark.parametrize(
    ("dtype", "patterns"),
    [("float6_e2m3fn", set(range(8, 32))), ("float6_e3m2fn", set(range(12, 25)))],
)
def test_random_packed_elements(dtype: str, patterns: Any) -> None:
    """Four elements of six bits lie in three bytes."""
    flat = content(filled(dtype, COUNT))
    assert len(flat) == COUNT * 6 // 8
    word = int.from_bytes(flat, "little")
    assert {word >> 6 * place & 63 for place in range(COUNT)} == patterns


@pytest.mark.parametrize("shape", [(0,), (), (1,), (3,), (7, 3), (2, 0, 3)])
@pytest.mark.parametrize("dtype", ["float32", "int4", "float6_e2m3fn", "bool", "uint1"])
def test_random_elements_of_any_shape(dtype: str, shape: Any) -> None:
    """Tensors without elements and such that end within a byte are filled to their last byte."""
    tensor = filled(dtype, *shape)
    assert all(content(tensor)[:1]) or dtype in ("bool", "uint1")


def test_random_elements_of_a_large_tensor() -> None:
    """It repeats the elements that were drawn, and ends with a part of them."""
    flat = content(filled("int16", 2 * BLOCK + 5))
    assert flat[: 2 * BLOCK] == flat[2 * BLOCK : 4 * BLOCK]
    assert flat[4 * BLOCK :] == flat[:10]
    assert len(set(flat[::2])) == 9


def test_random_elements_of_a_part() -> None:
    """A view is filled, and nothing around it."""
    tensor = empty((30,), "uint8", cpu(0))
    tensor.copyfrom(np.zeros(30, "uint8"))
    random_fill(tensor._create_view((10,), "uint8", 10))
    flat = content(tensor)
    assert flat[:10] + flat[20:] == bytes(20)
    assert all(flat[10:20])


def test_two_tensors_differ() -> None:
    """Each is drawn anew."""
    assert content(filled("float32", 100)) != content(filled("float32", 100))


def test_what_cannot_be_random() -> None:
    """Pointers and what is no tensor are refused."""
    with pytest.raises(ValueError, match="no random elements of type handle"):
        filled("handle", 3)
    with pytest.raises(TypeError, match="takes a tensor, not int"):
        random_fill(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("sweeping", [False, True])
def test_flushing_changes_nothing(monkeypatch: Any, sweeping: bool) -> None:
    """Tensors of any size and place keep their contents; other arguments are left alone."""
    if sweeping:  # as on a processor of which we know no instruction
        monkeypatch.setattr(tuning, "_FLUSHES", {})
    tuning._flusher.cache_clear()
    try:
        first, second = filled("int8", 1000), filled("float64", 3000)
        part = second._create_view((11,), "int8", 77)
        before = [content(first), content(second)]
        flush_all_but_first(first, second, part, 5, "text", None, empty((0,), "int8", cpu(0)))
        flush_all_but_first()
        flush_all_but_first(first)
        assert [content(first), content(second)] == before
        assert (tuning._flusher() is tuning._sweep) == (
            sweeping or os.uname().machine not in tuning._FLUSHES
        )
    finally:
        tuning._flusher.cache_clear()


@pytest.mark.parametrize("name", ["random_fill", "random_fill_for_measure"])
def test_what_a_tuner_does(remote: Any, name: str) -> None:
    """It looks the functions up, fills tensors of the session, and measures with empty caches."""
    tensor = runtime.empty((100,), "float32", remote.cpu(0))
    remote.get_function(f"tvm.contrib.random.{name}")(tensor)
    assert 1 <= tensor.numpy().min() <= tensor.numpy().max() < 10
    remote.get_function("cache_flush_cpu_non_first_arg")(tensor, tensor)
