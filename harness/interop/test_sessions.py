"""What sessions have: methods, devices, and a server of ours with functions of its own."""

from __future__ import annotations

import builtins
import gc
from typing import TYPE_CHECKING, Any, Iterator

import numpy as np
import pytest

from .clients import CLIENTS, HOST, Client

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Pair

KINDS = {
    "cpu": 1,
    "cuda": 2,
    "cl": 4,
    "vulkan": 7,
    "metal": 8,
    "rocm": 10,
    "ext_dev": 12,
    "hexagon": 16,
    "webgpu": 15,
}
"""The methods of a session that make a device, and the number of its kind."""

ATTRIBUTES = [
    *("max_threads_per_block", "warp_size", "max_shared_memory_per_block", "compute_version"),
    *("device_name", "max_clock_rate", "multi_processor_count", "api_version", "driver_version"),
    "l2_cache_size_bytes",
]
"""What can be asked of a device, and has no meaning for a CPU."""


@pytest.mark.parametrize("name", KINDS)
def test_devices(client: Client, remote: Any, name: str) -> None:
    """Each kind has a method, and is the same as by name and number; only the CPU is there."""
    device = getattr(remote, name)()
    own = device.dlpack_device_type() % 128  # TVM's client adds 128 for each session
    assert own == KINDS[name]
    assert device.index == 0
    assert getattr(remote, name)(3).index == 3
    assert remote.device(KINDS[name], 0) == device
    assert remote.device("opencl" if name == "cl" else name) == device
    assert device.exist is (name == "cpu")


def test_attributes(remote: Any) -> None:
    """Those of a CPU: it has memory, and nothing else to say."""
    device = remote.cpu(0)
    assert {name: getattr(device, name) for name in ATTRIBUTES} == dict.fromkeys(ATTRIBUTES)
    assert device.total_global_memory > 1 << 20
    assert device.available_global_memory is None or device.available_global_memory > 0


def test_attributes_of_what_is_not_there(client: Client, remote: Any) -> None:
    """Whether it exists may always be asked, all else is an error; the session goes on."""
    device = remote.cuda(0)
    assert not device.exist
    with pytest.raises(client.remote_error):
        device.warp_size  # noqa: B018  (asks the server)
    assert remote.get_function("rpc.test.addone")(1) == 2


def test_memory_scopes(client: Client, remote: Any) -> None:
    """A CPU has the scope ``global`` only; another one is refused in TVM's words."""
    device = remote.cpu(0)
    tensor = client.runtime.empty((3,), "int32", device, "global")
    tensor.copyfrom(np.arange(3))
    np.testing.assert_array_equal(tensor.numpy(), np.arange(3))
    with pytest.raises(client.remote_error, match=r"specified memory scope: local\.fast"):
        client.runtime.empty((3,), "int32", device, "local.fast")


def test_the_current_stream(client: Client, remote: Any) -> None:
    """Our client can ask for it; TVM's has no method for that."""
    device = remote.cpu(0)
    stream = device.create_raw_stream()
    device.set_raw_stream(stream)
    device.sync(stream)
    if client.name == "ours":
        assert device.get_raw_stream() == 0
    device.free_raw_stream(stream)
    device.sync()


def test_a_local_session(client: Client, pair: Pair, probe: Path) -> None:
    """The same calls without a server: functions, files, modules and tensors of this process."""
    if pair.server != "tvm":
        pytest.skip("TVM's client is tried by the control")
    session = client.rpc.LocalSession()
    try:
        session.upload(bytearray(b"content"), "file.bin")
        assert bytes(session.download("file.bin")) == b"content"
        session.upload(str(probe))
        assert session.load_module(probe.name)["addone"](41) == 42
        tensor = client.runtime.tensor(np.arange(4), session.cpu(0))
        np.testing.assert_array_equal(tensor.numpy(), np.arange(4))
        assert session.get_function("testing.echo")("text") == "text"
        del tensor
    finally:
        if client.name == "ours":
            session.close()


# A server of ours with functions that TVM's has not


def _more_functions() -> None:
    """Run by the server before it listens; a closure travels by value."""
    from pytest_tvmrpc import runtime

    class Thing:
        value = 7

    kept = []

    def raises(name: str) -> None:
        raise {
            "KeyError": KeyError,
            "FileNotFoundError": FileNotFoundError,
            "ZeroDivisionError": ZeroDivisionError,
            "Own": type("Own", (Exception,), {}),
        }[name]("boom")

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept)

    runtime.register_func("own.thing", Thing)
    runtime.register_func("own.value", lambda thing: thing.value)
    runtime.register_func("own.raises", raises)
    runtime.register_func("own.keep", keep)
    runtime.register_func("own.call", lambda function, *values: function(*values))
    runtime.register_func("tvm.rpc.server.GetCRTMaxPacketSize", lambda: 1000)


@pytest.fixture(params=["tvm", "ours"], scope="module")
def guest(request: pytest.FixtureRequest) -> Client:
    """Either client."""
    return CLIENTS[request.param]()


@pytest.fixture(scope="module")
def own_server() -> Iterator[Any]:
    """A server of ours with `_more_functions`."""
    from pytest_tvmrpc import rpc

    with rpc.Server(
        port=0, key="own", server_init_callback=lambda: _more_functions(), silent=True
    ) as server:
        server.key = "own"
        yield server


@pytest.fixture
def session(guest: Client, own_server: Any) -> Iterator[Any]:
    """A session of either client with it."""
    with guest.connect(own_server) as session:
        yield session


def test_objects_of_our_server(session: Any) -> None:
    """What has no value of its own stays there, and is passed back as often as one likes."""
    thing, value_of = session.get_function("own.thing")(), session.get_function("own.value")
    assert value_of(thing) == value_of(thing) == 7
    echoed = session.get_function("testing.echo")(thing)
    del thing
    gc.collect()
    assert value_of(echoed) == 7


@pytest.mark.parametrize("name", ["KeyError", "FileNotFoundError", "ZeroDivisionError", "Own"])
def test_types_of_exceptions(guest: Client, session: Any, name: str) -> None:
    """The type stands in front of the text; our client raises an error of that type, if it can."""
    with pytest.raises(guest.remote_error) as raised:
        session.get_function("own.raises")(name)
    text = "'boom'" if name == "KeyError" else "boom"  # which is how Python shows it
    if guest.name == "tvm":
        assert str(raised.value).endswith(f"{name}: {text}")
    elif name == "Own":
        assert str(raised.value) == "Own: boom"
    else:
        assert raised.value.remote_type == name
        assert str(raised.value) == text
        assert isinstance(raised.value, getattr(builtins, name))
    assert session.get_function("rpc.test.addone")(1) == 2


@pytest.mark.parametrize("count", [1, 200, 239, 240, 1000, 10_000])
def test_a_packet_limit(guest: Client, session: Any, count: int) -> None:
    """A limit that the server tells is kept, whoever is the client: copies come in blocks."""
    values = np.arange(count, dtype="float32")
    tensor = guest.runtime.tensor(values, session.cpu(0))
    np.testing.assert_array_equal(tensor.numpy(), values)
    matrix = guest.runtime.tensor(values.reshape(count, 1, 1), session.cpu(0))
    np.testing.assert_array_equal(matrix.numpy(), values.reshape(count, 1, 1))


def test_what_a_server_keeps(guest: Client, session: Any) -> None:
    """A tensor that a function of the server holds on to can be freed by the client."""
    keep = session.get_function("own.keep")
    tensor = guest.runtime.tensor(np.ones(10, "float32"), session.cpu(0))
    assert keep(tensor) == 1
    del tensor
    gc.collect()
    assert keep(guest.runtime.tensor(np.ones(10, "float32"), session.cpu(0))) == 2


def test_functions_are_called_there(guest: Client, session: Any) -> None:
    """Functions of the session as arguments of another one; TVM's client does not send them."""
    addone, call = session.get_function("rpc.test.addone"), session.get_function("own.call")
    if guest.name == "tvm":
        with pytest.raises(ValueError, match="Cannot pass type"):
            call(addone, 41)
        return
    assert call(addone, 41) == 42
    with pytest.raises(guest.remote_error, match="boom"):
        call(session.get_function("own.raises"), "KeyError")


def test_many_sessions_in_turn(guest: Client, own_server: Any) -> None:
    """More sessions one after the other than TVM's table has places; each begins anew."""
    for _ in range(40):
        with guest.connect(own_server) as session:
            assert session.get_function("own.keep")(1) == 1


def test_another_session_s_things(guest: Client, session: Any) -> None:
    """A tensor of one session is refused by another, by either client."""
    from pytest_tvmrpc import rpc

    tensor = guest.runtime.tensor(np.ones(3, "float32"), session.cpu(0))
    with rpc.Server(port=0, silent=True) as server:
        other = guest.rpc.connect(HOST, server.port)
        try:
            with pytest.raises((ValueError, RuntimeError)):
                other.get_function("testing.echo")(tensor)
            assert other.get_function("rpc.test.addone")(1) == 2
        finally:
            guest.end(other)


def test_what_was_printed(pair: Pair, module: Any, remote: Any) -> None:
    """Our server tells every client, TVM's nobody; our client says so with None."""
    module["print_line"]()
    if pair == ("ours", "tvm"):
        assert remote.output() is None
        assert not remote.is_ours
        assert remote.get_function("rpc.test.addone")(1) == 2
    elif pair.server != "tvm":
        told = bytes(remote.get_function("tvmrpc.server.output")(0, 100))
        assert told == (12).to_bytes(8, "little") + b"a line of C\n"
    else:
        with pytest.raises(AttributeError):
            remote.get_function("tvmrpc.server.output")
