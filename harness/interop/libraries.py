"""The libraries that are sent to the servers: one in plain C, one compiled by TVM."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

LENGTH = 4096
"""Elements of the kernels' tensors; enough that TVM takes a workspace from the server."""


def build_library(folder: Path) -> Path:
    """``probe.c`` as a shared library."""
    return compile_probe(folder / "probe.so", "-shared")


def compile_probe(output: Path, option: str) -> Path:
    """``probe.c`` as a shared library, or, with ``-c``, as an object."""
    source = Path(__file__).with_name("probe.c")
    compiler = os.environ.get("CC", "gcc")
    command = [compiler, option, "-fPIC", "-O1", "-Wall", "-o", str(output), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return output


def build_tvm_library(
    folder: Path, suffix: str = "so", target: Any = "llvm", fcompile: Any = None
) -> Path:
    """The kernels ``elementwise``, ``parallel``, ``workspace`` and ``matmul``, by TVM for LLVM.

    As a library, or not linked yet: ``o``, the object alone, or ``tar``. For another machine with
    its target, and a function that links for it.
    """
    import tvm

    library = folder / f"kernels.{suffix}"
    compiled = tvm.compile(_kernels(), target=target)
    if suffix == "o":
        compiled.mod.write_to_file(str(library))
    else:
        compiled.export_library(str(library), fcompile=fcompile)
    return library


def _kernels() -> Any:
    import tvm
    from tvm import te
    from tvm.s_tir import Schedule

    def kernel(name: str, *tensors: Any) -> Any:
        return te.create_prim_func(tensors).with_attr("global_symbol", name)

    a = te.placeholder((LENGTH,), name="a")
    b = te.placeholder((LENGTH,), name="b")
    product = te.compute((LENGTH,), lambda i: te.exp(a[i]) * b[i] + 1.0, name="product")
    doubled = te.compute((LENGTH,), lambda i: a[i] * 2.0, name="doubled")
    folded = te.compute((LENGTH,), lambda i: doubled[LENGTH - 1 - i] + b[i], name="folded")
    x = te.placeholder((64, 48), name="x")
    y = te.placeholder((48, 32), name="y")
    k = te.reduce_axis((0, 48), name="k")
    z = te.compute((64, 32), lambda i, j: te.sum(x[i, k] * y[k, j], axis=k), name="z")
    schedule = Schedule(tvm.IRModule({"parallel": kernel("parallel", a, b, product)}))
    (loop,) = schedule.get_loops(schedule.get_sblock("product", func_name="parallel"))
    outer, inner = schedule.split(loop, [8, None])
    schedule.parallel(outer)
    schedule.vectorize(schedule.split(inner, [None, 8])[1])
    kernels = schedule.mod
    kernels["elementwise"] = kernel("elementwise", a, b, product)
    kernels["workspace"] = kernel("workspace", a, b, folded)
    kernels["matmul"] = kernel("matmul", x, y, z)
    return kernels
