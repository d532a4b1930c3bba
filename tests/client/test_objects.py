"""Objects of a server: held, looked into, passed back, and freed once."""

from __future__ import annotations

import gc
import socket
import struct
from typing import Any, Iterator

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.client.objects import RemoteObject
from pytest_tvmrpc.errors import LocalProtocolError, RPCSessionTimeoutError
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint


@pytest.fixture(name="session", params=["ffi", "legacy", "here"])
def _session(request: pytest.FixtureRequest, server: rpc.Server) -> Iterator[Any]:
    """A session with a server in both dialects, and one with no server."""
    if request.param == "here":
        with rpc.LocalSession() as inside:
            yield inside
        return
    with rpc.connect(server.host, server.port) as remote:
        remote._endpoint.speak(FFI if request.param == "ffi" else LEGACY)
        yield remote


def test_arrays(session: Any) -> None:
    """Length, elements from both ends, slices, iteration, membership; nested ones, too."""
    make = session.get_function("ffi.Array")
    inner = make(1.5, "x", None)
    array = make(1, inner, "text", 4)
    assert isinstance(array, RemoteObject)
    assert len(array) == 4
    assert (array[0], array[-1], array[np.int64(2)]) == (1, 4, "text")
    assert array[1:3][1] == "text"
    first, second, *rest = array
    assert (first, list(second), rest) == (1, [1.5, "x", None], ["text", 4])
    assert "text" in array
    assert "other" not in array
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"index {index} of a container of 4 elements"):
            array[index]
    with pytest.raises(TypeError):
        array["text"]
    with pytest.raises(TypeError, match="is no map"):
        array.keys()
    assert not make()
    assert "ffi.Array" in repr(array)


def test_a_session_that_ends_says_so(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit is no missing key, for an object that was looked into and for one that was not."""
    made = session.get_function("ffi.Map")("one", 1)
    known, unknown = made, session.get_function("ffi.Map")("one", 1)
    assert known["one"] == 1

    def ended(*args: Any) -> Any:
        raise RPCSessionTimeoutError("Your 1.0s session has expired")

    monkeypatch.setattr(RemoteObject, "_ask", ended)  # in the very moment of a look-up
    for each in (known, unknown):
        with pytest.raises(RPCSessionTimeoutError):
            each["one"]


def test_maps(session: Any) -> None:
    """Values by key, membership, and all pairs; a key that is not there is a KeyError."""
    made = session.get_function("ffi.Map")("one", 1, "two", 2.5)
    assert len(made) == 2
    assert (made["one"], made["two"]) == (1, 2.5)
    assert "one" in made
    assert "three" not in made
    assert sorted(made) == sorted(made.keys()) == ["one", "two"]
    assert dict(made.items()) == {"one": 1, "two": 2.5}
    assert sorted(made.values()) == [1, 2.5]
    with pytest.raises(KeyError, match="three"):
        made["three"]
    assert not session.get_function("ffi.Map")()


def test_shapes(session: Any) -> None:
    """A shape is a sequence of integers."""
    assert list(session.get_function("ffi.Shape")(3, 0, 5)) == [3, 0, 5]


def test_other_objects(inside: Any) -> None:
    """Are passed back as what they are; looking into one is a TypeError that names its type."""
    remote, session = inside
    made: list[Any] = [object()]
    session.environment.functions["make"] = PackedFunc(lambda: made[0])
    session.environment.functions["take"] = PackedFunc(lambda value: value is made[0])
    thing = remote.get_function("make")()
    assert remote.get_function("take")(thing)
    assert thing
    for look in (len, list, lambda value: value[0], lambda value: 1 in value):
        with pytest.raises(TypeError, match=r"of type builtins\.object, no container"):
            look(thing)


def test_objects_are_freed_once(session: Any) -> None:
    """With the last name for them here; parts of one live on by themselves."""
    make = session.get_function("ffi.Array")
    outer = make(make(1, 2), make(3))
    part = outer[0]
    again = outer[0]
    del outer
    gc.collect()
    session.get_function("rpc.test.addone")(1)
    assert list(part) == [1, 2]
    del part
    gc.collect()
    session.get_function("rpc.test.addone")(1)
    assert list(again) == [1, 2]


def test_tensors_in_arrays(session: Any) -> None:
    """Go in as arguments and come out as tensors."""
    tensor = runtime.tensor(np.arange(3.0), session.cpu(0))
    array = session.get_function("ffi.Array")(tensor, 1)
    del tensor
    gc.collect()
    assert array[0].numpy().tolist() == [0.0, 1.0, 2.0]


def test_objects_of_another_session(session: Any) -> None:
    """Are refused at the call."""
    with rpc.LocalSession() as other:
        array = other.get_function("ffi.Array")(1)
        with pytest.raises(ValueError, match="into a different remote session"):
            session.get_function("testing.echo")(array)


@pytest.mark.parametrize("system_lib", [0, 7], ids=["of 0.21", "newer"])
def test_servers_that_an_object_would_end(system_lib: int, deadline_s: float) -> None:
    """TVM 0.21 knows objects by another index: it is not sent any. It has no ``ffi.SystemLib``."""
    asking, answering = socket.socketpair()
    with answering:
        answering.settimeout(deadline_s)
        endpoint = Endpoint(SocketChannel(asking, "a server of TVM", deadline_s, "call_timeout"))
        answering.sendall(struct.pack("<Qiii", 12, 4, 1, 0))
        endpoint.init_server()
        with rpc.RPCSession(endpoint, ("a server of TVM", 1)) as remote:
            thing = RemoteObject(remote, 5)
            answering.sendall(struct.pack("<QiiiQ", 20, 4, 1, 4, system_lib))
            if system_lib:
                answering.sendall(struct.pack("<Qiiiqi", 24, 4, 2, 1, 0, 0))
                assert remote.call(3, (thing,), "a call") is None
            else:
                with pytest.raises(LocalProtocolError, match=r"a server of TVM 0\.21"):
                    remote.call(3, (thing,), "a call")
                assert struct.pack("<Qi", 28, 3) not in answering.recv(4096)
