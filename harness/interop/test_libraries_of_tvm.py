"""TVM's own libraries on our server, and libraries that bring a model."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_tvmrpc import errors, rpc, runtime

from .clients import HOST
from .test_cpp import build

if TYPE_CHECKING:
    from .clients import Client


def _libraries(*names: str) -> list[str]:
    """The paths of libraries in TVM's wheels."""
    import tvm
    import tvm_ffi

    folders = [Path(module.__file__).parent / "lib" for module in (tvm_ffi, tvm)]
    found = [folder / f"lib{name}.so" for name in names for folder in folders]
    return [str(path) for path in found if path.exists()]


@pytest.fixture(scope="module")
def errors_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of C++ that throws errors."""
    return build("errors", tmp_path_factory.mktemp("errors"))


@pytest.mark.parametrize(
    "names",
    [("tvm_runtime",), ("tvm_ffi",), ("tvm_ffi", "tvm_runtime"), ("tvm_runtime_extra",)],
    ids="+".join,
)
def test_loaded_from_the_start(names: tuple[str, ...], errors_library: Path) -> None:
    """A server with TVM's libraries starts, and C++ in its sessions is bound to them."""
    libraries = _libraries(*names)
    assert len(libraries) == len(names)
    server = rpc.Server(HOST, port=0, load_library=":".join(libraries))
    with server, rpc.connect(HOST, server.port) as session:
        assert session.get_function("rpc.test.addone")(41) == 42
        session.upload(errors_library)
        module: Any = session.load_module(errors_library.name)
        with pytest.raises(errors.RemoteError, match="the number is 3") as caught:
            module["raise_value"](3)
        assert caught.value.remote_type == "ValueError"
        assert module["caught"](module["raise_own"]) == "KernelFault: a kind of its own"
        failing = session.get_function("testing.test_raise_error")
        text = module["caught"](failing)
        assert "Error" in text


@pytest.mark.parametrize("name", ["tvm_runtime_cuda", "tvm_compiler"])
def test_any_library_of_tvm(name: str) -> None:
    """A server starts with each; one that lacks something, such as a driver, it goes without."""
    (path,) = _libraries(name)
    server = rpc.Server(HOST, port=0, load_library=path)
    with server, rpc.connect(HOST, server.port) as session:
        assert session.get_function("rpc.test.addone")(41) == 42
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            is_complete = name != "tvm_runtime_cuda"
        else:
            is_complete = True
        with pytest.raises(errors.DeviceError, match="cuda is not enabled") as caught:
            runtime.empty((4,), "float32", session.cuda(0))
        assert (f"{path} cannot be loaded: lib" in str(caught.value)) is not is_complete


@pytest.fixture(scope="module", params=["bytecode", "compiled"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two operators, with a virtual machine's code or compiled through."""
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    y = relax.Var("y", relax.TensorType((4,), "float32"))
    with builder.function("main", [x, y]):
        with builder.dataflow():
            total = builder.emit(relax.op.add(x, y))
            result = builder.emit_output(relax.op.multiply(total, y))
        builder.emit_func_output(result)
    path = tmp_path_factory.mktemp("model") / "model.so"
    executable = relax.build(builder.get(), target="llvm", exec_mode=request.param)
    executable.export_library(str(path))
    return path


def test_a_model(client: Client, pair: Any, remote: Any, model: Path) -> None:
    """Its compiled code runs on our server; what would run the model says that nothing does."""
    if pair.server == "tvm":
        pytest.skip("TVM's server runs the model")
    remote.upload(str(model))
    module = remote.load_module(model.name)
    a, b = (np.arange(4, dtype="float32") + start for start in (0, 10))
    device = remote.cpu(0)
    output = client.runtime.empty((4,), "float32", device)
    module["add"](client.runtime.tensor(a, device), client.runtime.tensor(b, device), output)
    np.testing.assert_array_equal(output.numpy(), a + b)
    with pytest.raises(client.remote_error, match=r"relax\.VMExecutable.*not supported yet"):
        module["vm_load_executable"]()


def test_a_model_here(model: Path) -> None:
    """The same in this process, where TVM is loaded."""
    module = runtime.load_module(model)
    a, b = (runtime.tensor(np.arange(4, dtype="float32") + start) for start in (0, 10))
    output = runtime.empty((4,), "float32")
    module["multiply"](a, b, output)
    np.testing.assert_array_equal(output.numpy(), a.numpy() * b.numpy())
    with pytest.raises(errors.LibraryError, match="not supported yet"):
        module.get_function("vm_load_executable")
