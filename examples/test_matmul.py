"""A matrix product in tiles: right for every size, and how fast it is."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import build_library

from pytest_tvmrpc.runtime import empty, tensor


@pytest.mark.parametrize(
    ("n", "k", "m"),
    [(1, 1, 1), (64, 64, 64), (100, 70, 131), (256, 256, 256)],
    ids=["one", "one-tile", "odd", "many-tiles"],
)
def test_matmul(remote, tmp_path, n, k, m):
    """The product equals NumPy's, also where the matrices do not end with a tile."""
    remote.upload(build_library("matmul.c", tmp_path / "matmul.so"))
    module = remote.load_module("matmul.so")
    device = remote.cpu(0)

    a = tensor(np.random.rand(n, k).astype("float32"), device)
    b = tensor(np.random.rand(k, m).astype("float32"), device)
    c = empty((n, m), "float32", device)
    module["matmul"](a, b, c)
    np.testing.assert_allclose(c.numpy(), a.numpy() @ b.numpy(), rtol=1e-5)


def test_matmul_speed(remote, tmp_path):
    """Measured on the device, so that neither the network nor Python is in the figure."""
    remote.upload(build_library("matmul.c", tmp_path / "matmul.so"))
    module = remote.load_module("matmul.so")
    device = remote.cpu(0)

    n = 256
    a = tensor(np.random.rand(n, n).astype("float32"), device)
    b = tensor(np.random.rand(n, n).astype("float32"), device)
    c = empty((n, n), "float32", device)
    timing = module.time_evaluator("matmul", device, number=3, repeat=5)(a, b, c)
    print(f"matmul of {n} x {n}: {2 * n**3 / timing.median / 1e9:.2f} GFLOP/s on the device")
    np.testing.assert_allclose(c.numpy(), a.numpy() @ b.numpy(), rtol=1e-5)
