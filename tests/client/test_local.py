"""LocalSession: what a session with a server does, in this process."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import Iterator, Optional

import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import ConnectionLostError, LocalProtocolError, RemoteError

np = pytest.importorskip("numpy")


@pytest.fixture(name="local")
def _local() -> Iterator[rpc.LocalSession]:
    """A session in this process."""
    with rpc.LocalSession() as session:
        yield session


def folders() -> int:
    """How many directories of such sessions there are."""
    return len(list(Path(tempfile.gettempdir()).glob("tvmrpc-local-*")))


def test_functions(local: rpc.LocalSession) -> None:
    """Called, returned, and raising as on a server."""
    assert local.get_function("rpc.test.addone")(1) == 2
    assert local.get_function("rpc.test.add_to_lhs")(10)(5) == 15
    with pytest.raises(ValueError, match=r"^boom$") as caught:
        local.get_function("rpc.test.except")("boom")
    assert isinstance(caught.value, RemoteError)
    with pytest.raises(AttributeError, match=r"no\.such"):
        local.get_function("no.such")


def test_what_a_server_could_not_be_sent(local: rpc.LocalSession) -> None:
    """It is refused here, too: what works here works on a device."""
    with pytest.raises(LocalProtocolError, match="list"):
        local.get_function("testing.echo")([1])


def test_files_and_modules(local: rpc.LocalSession, library: str) -> None:
    """Uploaded to a directory of the session, loaded and called."""
    content = os.urandom(200_000)
    local.upload(content, "content.bin")
    assert local.download("content.bin") == content
    local.upload(library)
    module = local.load_module(os.path.basename(library))
    a, b, c = (runtime.tensor(np.ones(8, "float32"), local.cpu(0)) for _ in range(3))
    module["vector_add"](a, b, c)
    assert c.numpy().tolist() == [2.0] * 8
    assert module.time_evaluator("vector_add", local.cpu(0), number=2)(a, b, c).mean > 0


def test_tensors(local: rpc.LocalSession) -> None:
    """Copied in, out and among each other; a view writes where it should."""
    array = np.arange(6, dtype="int32").reshape(2, 3)
    tensor = runtime.tensor(array, local.cpu(0))
    other = tensor.copyto(local.cpu(0))
    np.testing.assert_array_equal(other.numpy(), array)
    assert repr(tensor.device).startswith("remote[")


def test_a_pipeline(local: rpc.LocalSession) -> None:
    """It works as on a server; there is just nothing to wait for."""
    addone, fails = (local.get_function(f"rpc.test.{name}") for name in ("addone", "except"))
    with local.pipeline() as p:
        good, bad = p.call(addone, 1), p.call(fails, "boom")
    assert good.result() == 2
    with pytest.raises(ValueError, match="boom"):
        bad.result()


def test_its_directory_goes_with_it() -> None:
    """At close(), or when the session is dropped; using it afterwards raises."""
    session = rpc.LocalSession()
    function = session.get_function("rpc.test.addone")
    assert folders() == 1
    session.close()
    session.close()
    assert folders() == 0
    with pytest.raises(ConnectionLostError, match="over: it was closed"):
        function(1)
    dropped = rpc.LocalSession()
    assert folders() == 1
    del dropped
    gc.collect()
    assert folders() == 0


def test_the_meter_counts(local: rpc.LocalSession) -> None:
    """Calls and their seconds; no bytes, as none were sent."""
    local.get_function("rpc.test.addone")(1)
    assert local.meter.calls >= 2
    assert local.meter.bytes_sent == 0


class _ModuleOf021(runtime.Module):
    """A module as TVM 0.21 has it: what is called has its old name, in the new dialect."""

    def find_function(self, name: str) -> Optional[runtime.PackedFunc]:
        return runtime.convert(lambda x: x + 1) if name == "__tvm_main__" else None


def test_calling_a_module_of_tvm_0_21() -> None:
    """Calling and measuring a module finds its function by either name; others are not there."""
    runtime.register_func("tests.module_of_0_21", _ModuleOf021, override=True)
    try:
        with rpc.LocalSession() as remote:
            module = remote.get_function("tests.module_of_0_21")()
            assert module(1) == 2
            assert module["__tvm_main__"](1) == 2
            measured = module.time_evaluator(module.entry_name, remote.cpu(0), number=2)(1)
            assert len(measured.results) == 1
            with pytest.raises(AttributeError, match="other"):
                module["other"]
    finally:
        runtime.remove_global_func("tests.module_of_0_21")
