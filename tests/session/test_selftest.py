"""The functions with which any client can try any server; their names and ways are TVM's."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from pytest_tvmrpc.runtime.device.names import cpu
from pytest_tvmrpc.runtime.tensor import empty
from pytest_tvmrpc.session.selftest import FUNCTIONS


def test_values() -> None:
    """Numbers, texts, and a function that returns a function."""
    assert FUNCTIONS["rpc.test.addone"](10) == 11
    assert FUNCTIONS["rpc.test.strcat"]("abc", 11) == "abc:11"
    assert FUNCTIONS["rpc.test.runtime_str_concat"]("a", "b") == "ab"
    assert FUNCTIONS["rpc.test.add_to_lhs"](5)(6) == 11
    assert FUNCTIONS["testing.echo"](1, 2) == 1
    with pytest.raises(ValueError, match=r"^abc$"):
        FUNCTIONS["rpc.test.except"]("abc")


def test_a_returned_tensor() -> None:
    """One tensor of ten zeros behind several functions."""
    made: Any = FUNCTIONS["rpc.test.remote_return_nd"]
    assert made("get_arr")().shape == (10,)
    assert made("get_elem")(3) == 0.0
    assert isinstance(made("ref_count")(), int)
    with pytest.raises(RuntimeError, match="expected one of get_arr"):
        made("nothing")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_tensor_of_ones(dtype: str) -> None:
    """It is taken in the shape (3, 4) with ones in it, and refused with anything else."""
    tensor = empty((3, 4), dtype, cpu(0))
    memory: Any = tensor.memory
    memory.view.cast("f" if dtype == "float32" else "d")[:] = memoryview(
        array("f" if dtype == "float32" else "d", [1] * 12)
    )
    FUNCTIONS["rpc.test.remote_tensor_func"](tensor)
    memory.view[:] = bytes(tensor.nbytes)
    with pytest.raises(AssertionError, match="expected ones"):
        FUNCTIONS["rpc.test.remote_tensor_func"](tensor)
