"""Tests with PyTorch, where it is installed: `tox run -e torch`."""

from __future__ import annotations

import pytest

from pytest_tvmrpc import runtime

torch = pytest.importorskip("torch", reason="tox run -e torch has it")

TYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "bool", "float16", "float32", "float64"),
    *("bfloat16", "complex64", "float8_e4m3fn", "float8_e5m2"),
]


@pytest.mark.parametrize("name", TYPES)
def test_both_ways_without_a_copy(name):
    """A tensor of PyTorch's is one of ours over the same memory, and the other way round."""
    source = torch.zeros((2, 3), dtype=getattr(torch, name))
    shared = runtime.from_dlpack(source)
    assert (shared.dtype, shared.shape) == (name, (2, 3))
    assert shared.data_ptr() == source.data_ptr()
    back = torch.from_dlpack(shared)
    assert (back.dtype, tuple(back.shape)) == (source.dtype, (2, 3))
    assert back.data_ptr() == source.data_ptr()
    if not name.startswith("float8"):
        back[0, 0] = 1
        assert source[0, 0] == 1


def test_memory_outlives_its_maker():
    """Whoever is dropped first."""
    shown = torch.from_dlpack(runtime.tensor([1.0, 2.0]))
    assert shown.tolist() == [1, 2]
    shared = runtime.from_dlpack(torch.arange(1000))
    assert shared.numpy().sum() == 499500


def test_elements_with_gaps():
    """Are copied by tensor, and refused by from_dlpack."""
    columns = torch.arange(6).reshape(2, 3).T
    with pytest.raises(ValueError, match="not contiguous"):
        runtime.from_dlpack(columns)
    assert runtime.tensor(columns).numpy().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_tensors_of_pytorch_are_arrays():
    """copyfrom and tensor take them; what is not in this process's memory is refused."""
    filled = runtime.empty((3,), "float32").copyfrom(torch.tensor([1.0, 2.0, 3.0]))
    assert filled.numpy().tolist() == [1, 2, 3]
    with pytest.raises((TypeError, BufferError, RuntimeError, ValueError)):
        runtime.from_dlpack(torch.empty(3, device="meta"))
