"""How fast the kernels are on the device, and whether they were faster before.

``--rpc-bench-save=main`` keeps what was measured; ``--rpc-bench-fail=5%`` fails what has become
more than 5 % slower since.
"""

from __future__ import annotations

import numpy as np
import pytest
from kernels import build_library

from pytest_tvmrpc.runtime import empty, tensor


@pytest.mark.parametrize("n", [64, 256])
def test_matmul(remote, remote_benchmark, tmp_path, n):
    """Right, and how many operations a second."""
    remote.upload(build_library("matmul.c", tmp_path / "matmul.so"))
    matmul = remote.load_module("matmul.so")["matmul"]
    device = remote.cpu(0)

    a = tensor(np.random.rand(n, n).astype("float32"), device)
    b = tensor(np.random.rand(n, n).astype("float32"), device)
    c = empty((n, n), "float32", device)
    remote_benchmark(matmul, a, b, c, flop=2 * n**3)
    np.testing.assert_allclose(c.numpy(), a.numpy() @ b.numpy(), rtol=1e-5)


def test_vector_add(remote, remote_benchmark, tmp_path):
    """Limited by the memory, so what counts are bytes: two are read for each that is written."""
    remote.upload(build_library("vector_add.c", tmp_path / "vector_add.so"))
    add = remote.load_module("vector_add.so")["vector_add"]
    device = remote.cpu(0)

    for name, n in (("in the cache", 1 << 12), ("in memory", 1 << 22)):
        a = tensor(np.random.rand(n).astype("float32"), device)
        c = empty((n,), "float32", device)
        result = remote_benchmark(add, a, a, c, bytes=3 * 4 * n, name=name)
        assert result.gbps > 0
