"""Kernels compiled by TVM, run by a server, against the results of TVM itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from .libraries import LENGTH

if TYPE_CHECKING:
    from pathlib import Path

    from .clients import Client


@pytest.fixture
def compiled(remote: Any, kernels: Path) -> Any:
    """TVM's library, uploaded and loaded."""
    remote.upload(str(kernels))
    return remote.load_module(kernels.name)


def _inputs(*shapes: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    numbers = np.random.default_rng(0)
    return [numbers.standard_normal(shape).astype("float32") for shape in shapes]


def _by_tvm(
    kernels: Path, name: str, inputs: list[np.ndarray[Any, Any]], shape: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    """What TVM computes with this kernel, here."""
    from tvm import runtime

    output = runtime.empty(shape, "float32")
    runtime.load_module(str(kernels))[name](*map(runtime.tensor, inputs), output)
    result: np.ndarray[Any, Any] = output.numpy()
    return result


def _by_server(
    client: Client,
    remote: Any,
    kernel: Any,
    inputs: list[np.ndarray[Any, Any]],
    shape: tuple[int, ...],
) -> np.ndarray[Any, Any]:
    """What the server computes with this kernel."""
    device = remote.cpu(0)
    output = client.runtime.empty(shape, "float32", device)
    kernel(*(client.runtime.tensor(values, device) for values in inputs), output)
    result: np.ndarray[Any, Any] = output.numpy()
    return result


def test_our_server_has_no_tvm(pair: Any, module: Any) -> None:
    """The process that runs the kernels has TVM only where it is TVM's own server."""
    is_tvm = pair.server == "tvm"
    assert module["maps"]("libtvm") is is_tvm
    if not is_tvm:
        assert module["can_import"]("tvm") in (False, None)
        assert module["can_import"]("tvm_ffi") in (False, None)
        assert module["can_import"]("numpy") in (False, None)
        assert module["maps"]("libtvm") is False


@pytest.mark.parametrize("name", ["elementwise", "parallel", "workspace"])
def test_a_vector_kernel(
    client: Client, remote: Any, compiled: Any, kernels: Path, name: str
) -> None:
    """A plain loop, a parallel loop and a kernel with a workspace give TVM's own result."""
    inputs = _inputs((LENGTH,), (LENGTH,))
    expected = _by_tvm(kernels, name, inputs, (LENGTH,))
    actual = _by_server(client, remote, compiled[name], inputs, (LENGTH,))
    np.testing.assert_array_equal(actual, expected)
    a, b = inputs
    wanted = a[::-1] * 2 + b if name == "workspace" else np.exp(a) * b + 1
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


def test_a_matrix_kernel(client: Client, remote: Any, compiled: Any, kernels: Path) -> None:
    """A matrix product gives TVM's own result."""
    inputs = _inputs((64, 48), (48, 32))
    expected = _by_tvm(kernels, "matmul", inputs, (64, 32))
    actual = _by_server(client, remote, compiled["matmul"], inputs, (64, 32))
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_allclose(actual, inputs[0] @ inputs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["parallel", "workspace"])
def test_a_kernel_often(
    client: Client, remote: Any, compiled: Any, kernels: Path, name: str
) -> None:
    """A kernel with threads or workspace gives the same result each time."""
    inputs = _inputs((LENGTH,), (LENGTH,))
    expected = _by_tvm(kernels, name, inputs, (LENGTH,))
    for _ in range(20):
        actual = _by_server(client, remote, compiled[name], inputs, (LENGTH,))
        np.testing.assert_array_equal(actual, expected)


def test_a_kernel_is_timed(client: Client, remote: Any, compiled: Any) -> None:
    """``time_evaluator`` measures a compiled kernel."""
    device = remote.cpu(0)
    tensors = [client.runtime.tensor(values, device) for values in _inputs(*[(LENGTH,)] * 3)]
    timing = compiled.time_evaluator("elementwise", device, number=10, repeat=3)(*tensors)
    assert len(timing.results) == 3
    assert 0 < timing.mean < 1


def test_wrong_arguments(client: Client, remote: Any, compiled: Any) -> None:
    """The checks in a compiled kernel reach the client in full, and the session stays usable."""
    device = remote.cpu(0)
    kernel = compiled["elementwise"]
    right = client.runtime.tensor(np.zeros(LENGTH, "float32"), device)
    short = client.runtime.tensor(np.zeros(5, "float32"), device)
    typed = client.runtime.tensor(np.zeros(LENGTH, "int32"), device)
    with pytest.raises(client.remote_error, match="Expected 3 arguments when calling"):
        kernel(right)
    with pytest.raises(client.remote_error, match=r"Invalid b\.shape\[0\] on argument #1"):
        kernel(right, short, right)
    with pytest.raises(client.remote_error, match=r"Mismatched product\.dtype on argument #2"):
        kernel(right, right, typed)
    with pytest.raises(client.remote_error, match="Mismatched type on argument #0"):
        kernel(1, right, right)
    kernel(right, right, right)
    np.testing.assert_array_equal(right.numpy(), np.ones(LENGTH))
