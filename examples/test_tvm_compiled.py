"""A kernel made by TVM's compiler, run by a server that has no TVM.

For a board of another kind, the environment variable ``TVM_TARGET`` says what TVM compiles for,
such as ``{"kind": "llvm", "mtriple": "aarch64-linux-gnu"}``, and ``CC`` names what links.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from pytest_tvmrpc.runtime import empty, tensor

tvm = pytest.importorskip("tvm", reason="this example compiles with TVM: pip install apache-tvm")

TARGET = json.loads(os.environ.get("TVM_TARGET", '{"kind": "llvm"}'))


def matmul_with_bias(n: int):
    """relu(a b + bias) as a tensor expression, compiled for the device."""
    te = tvm.te
    a = te.placeholder((n, n), "float32", name="a")
    b = te.placeholder((n, n), "float32", name="b")
    bias = te.placeholder((n,), "float32", name="bias")
    k = te.reduce_axis((0, n), name="k")
    product = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="product")
    zero = tvm.tirx.const(0, "float32")
    out = te.compute((n, n), lambda i, j: tvm.tirx.max(product[i, j] + bias[j], zero), name="out")
    function = te.create_prim_func([a, b, bias, out]).with_attr("global_symbol", "layer")
    return tvm.compile(tvm.IRModule({"layer": function}), target=TARGET)


def test_tvm_compiled(remote, tmp_path):
    """The library that TVM exports gives, over there, what NumPy gives here."""
    library = tmp_path / "layer.so"
    matmul_with_bias(128).export_library(str(library))
    remote.upload(library)
    module = remote.load_module("layer.so")
    device = remote.cpu(0)

    a, b = np.random.randn(2, 128, 128).astype("float32")
    bias = np.random.randn(128).astype("float32")
    out = empty((128, 128), "float32", device)
    arguments = (tensor(a, device), tensor(b, device), tensor(bias, device), out)
    module["layer"](*arguments)
    np.testing.assert_allclose(out.numpy(), np.maximum(a @ b + bias, 0), rtol=1e-3, atol=1e-4)

    timing = module.time_evaluator("layer", device, number=10, repeat=3)(*arguments)
    print(f"relu(a b + bias) of 128 x 128: {timing.mean * 1e3:.3f} ms on the device")
