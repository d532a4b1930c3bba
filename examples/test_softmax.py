"""Softmax: a kernel that is easy to get wrong for large numbers."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import build_library

from pytest_tvmrpc.runtime import empty, tensor


@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["small", "large"])
def test_softmax(remote, tmp_path, scale):
    """Every row is a distribution, the one that NumPy finds, and nothing overflows."""
    remote.upload(build_library("softmax.c", tmp_path / "softmax.so"))
    softmax = remote.load_module("softmax.so")["softmax"]
    device = remote.cpu(0)

    x = np.random.randn(16, 1000).astype("float32") * np.float32(scale)
    out = empty(x.shape, "float32", device)
    softmax(tensor(x, device), out)

    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(out.numpy().sum(axis=1), 1, rtol=1e-4)
