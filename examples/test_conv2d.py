"""A convolution, with strides and padding, against a reference in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import build_library

from pytest_tvmrpc.runtime import empty, tensor


def conv2d(image: np.ndarray, weights: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """What a neural network calls a convolution; NCHW."""
    padded = np.pad(image, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], axis=(2, 3))
    return np.einsum("nchwrs,kcrs->nkhw", windows[:, :, ::stride, ::stride], weights)


@pytest.mark.parametrize(
    ("stride", "padding"), [(1, 0), (1, 1), (2, 1)], ids=["valid", "same", "half"]
)
def test_conv2d(remote, tmp_path, stride, padding):
    """Sixteen filters over two images of three channels."""
    remote.upload(build_library("conv2d.c", tmp_path / "conv2d.so"))
    module = remote.load_module("conv2d.so")
    device = remote.cpu(0)

    image = np.random.rand(2, 3, 29, 33).astype("float32")
    weights = np.random.rand(16, 3, 3, 3).astype("float32")
    expected = conv2d(image, weights, stride, padding)
    out = empty(expected.shape, "float32", device)
    arguments = (tensor(image, device), tensor(weights, device), out, stride, padding)
    module["conv2d"](*arguments)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5)

    timing = module.time_evaluator("conv2d", device, number=3, repeat=3)(*arguments)
    print(f"conv2d, stride {stride}, padding {padding}: {timing.mean * 1e3:.3f} ms on the device")
