"""Our server, which learns its client's dialect from what comes first, and hops between both."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Callable

import pytest

from pytest_tvmrpc import rpc

from .clients import FfiClient, LegacyClient, RemoteRaisedError
from .sequences import (
    BYTES,
    DEVICE,
    FLOAT32,
    FUNCTION,
    NDARRAY,
    NONE,
    TENSOR,
    Device,
    Record,
    Value,
    integer,
    packet,
    sequence,
    text,
)

CPU = Device(1, 0)
CUDA = Device(2, 0)
if TYPE_CHECKING:
    from .server import LegacyServer

Connect = Callable[..., LegacyClient]


def undecided(client: LegacyClient, code: int) -> int:
    """Asks what is the same in both dialects; the code of the answer, however it is coded."""
    client.send(packet(code, sequence([Value(DEVICE, CPU)])))
    return client.answer()[0]


@pytest.mark.parametrize("code", [11, 18, 21], ids=["SetDevice", "CreateStream", "CurrentStream"])
def test_a_first_request_that_does_not_tell(legacy: Connect, code: int) -> None:
    """What comes after it does."""
    client = legacy(minor=16)
    assert undecided(client, code) == 4
    assert undecided(client, code) == 4
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    if code == 11:
        client.set_device(CPU)
    client.shutdown()


BOGUS = Record(0x40, CPU, FLOAT32, (4,))

FIRST = {
    "GetGlobalFunc": lambda client: client.get_function("rpc.test.addone"),
    "an unknown GetGlobalFunc": lambda client: client.get_function("no.such"),
    "an empty GetGlobalFunc": lambda client: client.get_function(""),
    "GetGlobalFunc of 65 letters": lambda client: client.get_function("x" * 65),
    "GetGlobalFunc of 66 letters": lambda client: client.get_function("x" * 66),
    "AllocDataWithScope": lambda client: client.alloc((4,), FLOAT32),
    "AllocDataWithScope global": lambda client: client.alloc((4,), FLOAT32, scope="global"),
    "AllocDataWithScope scalar": lambda client: client.alloc((), FLOAT32),
    "AllocData": lambda client: client.alloc_bytes(CPU, 256, 64, FLOAT32),
    "GetAttr": lambda client: client.get_attr(CPU, 0),
    "GetAttr of another device": lambda client: client.get_attr(CUDA, 0),
    "StreamSync of device 3": lambda client: client.sync(Device(3, 0)),
    "StreamSync": lambda client: client.sync(),
    "SetStream": lambda client: client.set_stream(CPU, 0),
    "FreeStream": lambda client: client.free_stream(CPU, 0),
    "FreeData": lambda client: client.free_data(CPU, 0x40),
    "CopyAmongRemote": lambda client: client.copy_among(BOGUS, BOGUS),
    "FreeHandle": lambda client: client.free_handle(0x40, FUNCTION),
    "CallFunc": lambda client: client.call(0x40, text("x"), integer(1)),
    "CallFunc with one argument": lambda client: client.call(0x40, text("x")),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_whatever_comes_first(legacy: Connect, first: Callable[[LegacyClient], object]) -> None:
    """Is understood, and answered as those days do; an exception is one of those days, too."""
    client = legacy()
    with contextlib.suppress(RemoteRaisedError):
        first(client)
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.shutdown()


def test_constructors(legacy: Connect) -> None:
    """The dialect shows in their arguments; an unknown one is an exception that names it."""
    client = legacy(constructor=[text("rpc.LocalSession")])
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    client.shutdown()
    with pytest.raises(RemoteRaisedError, match=r"rpc\.Nope"):
        legacy(constructor=[text("rpc.Nope"), text("x"), integer(5), integer(1)])
    for length in (65, 66):
        with pytest.raises(RemoteRaisedError, match="x" * length):
            legacy(constructor=[text("x" * length)])
    assert legacy().call_name("rpc.test.addone", integer(1)) == integer(2)


def test_a_hop(second_server: rpc.Server, legacy: Connect) -> None:
    """By way of one of our servers to another; each hop has its own dialect."""
    port = integer(second_server.port)
    hop = [text("rpc.Connect"), text("127.0.0.1"), port, text(""), integer(0)]
    client = legacy(constructor=hop)
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    assert client.call_name("rpc.test.strcat", text("a"), integer(1)) == text("a:1")
    assert client.call_name("testing.echo", Value(BYTES, b"\0\1")) == Value(BYTES, b"\0\1")
    tensor = client.alloc((3, 4), FLOAT32)
    client.copy_to(tensor, struct.pack("<12f", *[1.0] * 12))
    assert client.call_name("rpc.test.remote_array_func", Value(TENSOR, tensor)) == NONE
    add_five = client.call_name("rpc.test.add_to_lhs", integer(5))
    assert client.call(add_five.content, integer(6)) == integer(11)
    client.free_handle(add_five.content, FUNCTION)
    client.free_data(CPU, tensor.data)
    with pytest.raises(RemoteRaisedError, match=r"^ValueError: boom"):
        client.call_name("rpc.test.except", text("boom"))
    client.shutdown()


def test_a_hop_to_an_old_board(
    legacy: Connect, legacy_server: Callable[..., LegacyServer], deadline_s: float
) -> None:
    """By way of our server to one of those days, and back."""
    server = legacy_server()
    hop = [text("rpc.Connect"), text("127.0.0.1"), integer(server.port), text(""), integer(0)]
    client = legacy(constructor=hop)
    assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
    assert client.call_name("peer.codes", text("a"), NONE, Value(BYTES, b"b")) == text("11,4,12")
    array = client.call_name("peer.tensor")
    assert array.code == NDARRAY
    tensor, handle = array.content
    assert struct.unpack("<6f", client.copy_from(tensor)) == (0, 1, 2, 3, 4, 5)
    client.free_handle(handle, NDARRAY)
    with pytest.raises(RemoteRaisedError, match=r"^ValueError: boom"):
        client.call_name("rpc.test.except", text("boom"))
    assert client.get_function("no.such") == 0  # with which the last free goes on
    client.shutdown()
    assert server.session.done.wait(deadline_s)
    assert server.session.ended == "Shutdown"
    assert not server.session.objects


def test_an_ffi_client_hops_to_an_old_board(
    server: rpc.Server, legacy_server: Callable[..., LegacyServer], deadline_s: float
) -> None:
    """Our server translates."""
    old = legacy_server()
    hop = ["rpc.Connect", "127.0.0.1", old.port, "", False]
    with rpc.connect("127.0.0.1", server.port, session_constructor_args=hop) as remote:
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert remote.get_function("peer.codes")("a", None, b"b", 1.5) == "11,4,12,2"
        tensor = remote.get_function("peer.tensor")()
        assert tensor.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert old.session.done.wait(deadline_s)
    assert old.session.ended == "Shutdown"


def test_both_dialects_on_one_port(legacy: Connect, ffi: Callable[[], FfiClient]) -> None:
    """One after the other, each is spoken to in its own."""
    for number in range(20):
        old = legacy(minor=number % 13 + 8)
        assert old.call_name("rpc.test.strcat", text("old"), integer(number)) == text(
            f"old:{number}"
        )
        assert old.call_name("testing.echo", NONE) == NONE
        with pytest.raises(RemoteRaisedError, match=r"^ValueError: boom"):
            old.call_name("rpc.test.except", text("boom"))
        old.shutdown()
        new = ffi()
        strcat = new.get_function("rpc.test.strcat")
        assert new.call(strcat, "new", number) == f"new:{number}"
        new.free_handle(strcat)
        assert new.call(new.get_function("testing.echo"), None) is None
        with pytest.raises(RemoteRaisedError, match="boom"):
            new.call(new.get_function("rpc.test.except"), "boom")
        new.shutdown()
