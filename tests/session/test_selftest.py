"""The functions with which any client can try any server; their names and ways are TVM's."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import RemoteError
from pytest_tvmrpc.runtime.device.names import cpu
from pytest_tvmrpc.runtime.tensor import empty
from pytest_tvmrpc.session.selftest import FUNCTIONS
from pytest_tvmrpc.session.serving import describe

if TYPE_CHECKING:
    from typing import Iterator


@pytest.fixture(name="remote")
def _remote() -> Iterator[Any]:
    """A session in this process."""
    with rpc.LocalSession() as remote:
        yield remote


def test_values() -> None:
    """Numbers, texts, and a function that returns a function."""
    assert FUNCTIONS["rpc.test.addone"](10) == 11
    assert FUNCTIONS["rpc.test.strcat"]("abc", 11) == "abc:11"
    assert FUNCTIONS["rpc.test.runtime_str_concat"]("a", "b") == "ab"
    assert FUNCTIONS["rpc.test.add_to_lhs"](5)(6) == 11
    assert FUNCTIONS["testing.echo"](1, 2) == 1
    with pytest.raises(ValueError, match=r"^abc$"):
        FUNCTIONS["rpc.test.except"]("abc")


@pytest.mark.parametrize("kind", ["ValueError", "RuntimeError", "OpNotImplemented"])
def test_errors_of_any_name(kind: str) -> None:
    """An error of a name, by both names of the function; the client is told just this."""
    for act in (
        lambda: FUNCTIONS["testing.test_raise_error"](kind, "my text"),
        FUNCTIONS["testing.test_raise_error_callback"](f"{kind}: my text"),
    ):
        with pytest.raises(RuntimeError) as caught:
            act()
        assert describe(caught.value) == f"{kind}: my text"


def test_errors_without_a_name() -> None:
    """A text that names no type is the message of an error that says so."""
    for text in ("my text", "my text: with colons", "ValueError"):
        with pytest.raises(RuntimeError) as caught:
            FUNCTIONS["testing.test_raise_error_callback"](text)()
        assert describe(caught.value) == f"RuntimeError: {text}"


def test_errors_reach_the_client(remote: Any) -> None:
    """They are of the type that they name, if there is such a type; the session goes on."""
    raise_error = remote.get_function("testing.test_raise_error")
    with pytest.raises(KeyError, match="my text") as caught:
        raise_error("KeyError", "my text")
    assert isinstance(caught.value, RemoteError)
    with pytest.raises(RemoteError, match="my text"):
        remote.get_function("testing.test_raise_error_callback")("OddError: my text")()
    compare = remote.get_function("testing.test_check_eq_callback")("they differ")
    compare(1, 1)
    with pytest.raises(RemoteError, match="1 is not 2: they differ"):
        compare(1, 2)
    with pytest.raises(TypeError):
        raise_error("KeyError")
    assert remote.get_function("testing.nop")() is None
    assert remote.get_function("testing.nop")(3) == 3
    remote.get_function("testing.sleep_in_ffi")(0.0)


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
