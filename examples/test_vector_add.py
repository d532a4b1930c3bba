"""The whole of a test: build, send, run there, compare, measure."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import build_library

from pytest_tvmrpc.runtime import empty, tensor


def test_vector_add(remote, tmp_path):
    """The device adds two vectors as NumPy does."""
    library = build_library("vector_add.c", tmp_path / "vector_add.so")
    remote.upload(library)
    module = remote.load_module("vector_add.so")
    add = module["vector_add"]
    device = remote.cpu(0)

    a = tensor(np.random.rand(1024).astype("float32"), device)
    b = tensor(np.random.rand(1024).astype("float32"), device)
    c = empty((1024,), "float32", device)
    add(a, b, c)
    np.testing.assert_allclose(c.numpy(), a.numpy() + b.numpy())

    timing = module.time_evaluator("vector_add", device, number=100, repeat=5)(a, b, c)
    print(f"vector_add of 1024 floats: {timing.mean * 1e6:.2f} us on the device")
    assert 0 < timing.min <= timing.mean


def test_lengths_that_differ(remote, tmp_path):
    """What the kernel finds wrong is raised here, with its words, and the session goes on."""
    remote.upload(build_library("vector_add.c", tmp_path / "vector_add.so"))
    add = remote.load_module("vector_add.so")["vector_add"]
    device = remote.cpu(0)
    long = tensor(np.ones(8, "float32"), device)
    short = tensor(np.ones(4, "float32"), device)

    with pytest.raises(RuntimeError, match="axis 0 of b must be 8 long, not 4"):
        add(long, short, long)

    add(long, long, long)
    assert long.numpy().tolist() == [2.0] * 8
