"""The scripted client with the scripted server, and both with what was seen on a real wire."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable, List

import pytest

from .clients import LegacyClient, PeerClosedError, RefusedError, RemoteRaisedError
from .sequences import (
    BOOL,
    BYTES,
    FLOAT32,
    FUNCTION,
    INT,
    MODULE,
    NDARRAY,
    NONE,
    NULL,
    OBJECT,
    POINTER,
    TENSOR,
    Device,
    DType,
    Reader,
    Record,
    RuleBrokenError,
    Value,
    integer,
    sequence,
    text,
)
from .server import LegacyServer

CPU = Device(1, 0)
Start = Callable[..., LegacyServer]

CAPTURES = {
    "hello": "> 71f20f00 | > 07000000 636c69656e743a | < 71f20f00 | < 07000000 | < 7365727665723a",
    "init": """
        > 1500000000000000 02000000 0500000000000000 302e382e30 00000000
        < 0c00000000000000 04000000 01000000 04000000""",
    "lookup": """
        > 2300000000000000 09000000 01000000 0b000000 0f00000000000000
          7270632e746573742e6164646f6e65
        < 1400000000000000 04000000 01000000 03000000 107b728bab550000""",
    "addone": """
        > 1c00000000000000 03000000 107b728bab550000 01000000 00000000 0a00000000000000
        < 2000000000000000 04000000 02000000 00000000 00000000 0000000000000000 0b00000000000000""",
    "lookup strcat": """
        > 2300000000000000 09000000 01000000 0b000000 0f00000000000000
          7270632e746573742e737472636174
        < 1400000000000000 04000000 01000000 03000000 80cb778bab550000""",
    "strcat": """
        > 2b00000000000000 03000000 80cb778bab550000 02000000 0b000000 00000000
          0300000000000000 616263 0b00000000000000
        < 2600000000000000 04000000 02000000 00000000 0b000000 0b00000000000000
          0600000000000000 6162633a3131""",
    "free": """
        > 2000000000000000 0a000000 02000000 03000000 00000000 107b728bab550000 0a00000000000000
        < 0c00000000000000 04000000 01000000 04000000""",
    "missing": """
        > 1900000000000000 09000000 01000000 0b000000 0500000000000000 782e792e7a
        < 1400000000000000 04000000 01000000 03000000 0000000000000000""",
    "shutdown": "> 0400000000000000 01000000",
    "alloc": """
        > 3800000000000000 11000000 02000000 07000000 04000000 0000000000000000 01000000 00000000
          01000000 02200100 0400000000000000 0000000000000000
        < 1400000000000000 04000000 01000000 03000000 80000110fa7f0000""",
    "alloc bytes": """
        > 3800000000000000 0d000000 04000000 06000000 00000000 00000000 05000000 01000000 00000000
          0001000000000000 4000000000000000 02200100 00000000
        < 1400000000000000 04000000 01000000 03000000 c0f50010fa7f0000""",
    "upload": """
        > 4400000000000000 07000000 80000110fa7f0000 01000000 00000000 01000000 02200100
          0400000000000000 0000000000000000 1000000000000000 000000000000803f0000004000004040
        < 0c00000000000000 04000000 01000000 04000000""",
    "alloc 2x3": """
        > 4000000000000000 11000000 02000000 07000000 04000000 0000000000000000 01000000 00000000
          02000000 02200100 0200000000000000 0300000000000000 0000000000000000
        < 1400000000000000 04000000 01000000 03000000 00f30010fa7f0000""",
    "download": """
        > 3c00000000000000 06000000 00f30010fa7f0000 01000000 00000000 02000000 02200100
          0200000000000000 0300000000000000 0000000000000000 1800000000000000
        < 1c00000000000000 08000000 000000000000803f0000004000004040000080400000a040""",
    "sync": """
        > 2000000000000000 0f000000 02000000 06000000 03000000 01000000 00000000 0000000000000000
        < 0c00000000000000 04000000 01000000 04000000""",
}
"""As they were seen, but for four that were not kept: both lookups of other names, the allocation
of two dimensions and the voids. A bar stands between two parts of one line."""


def chunks(name: str) -> List[str]:
    """What went over, one text for each packet or part, direction first."""
    lines = CAPTURES[name].replace("|", "\n").replace("\n", " ").replace("  ", " ")
    parts = lines.replace("<", "\n<").replace(">", "\n>").strip().split("\n")
    return [part[0] + part[1:].replace(" ", "") for part in parts]


def seen(client: LegacyClient) -> List[str]:
    """The client's transcript in this form, and empties it; answers are joined to packets."""
    found: List[str] = []
    for direction, content in client.transcript:
        if direction == "<" and found and found[-1].startswith("<") and len(found[-1]) == 17:
            found[-1] += content.hex()  # 17: a length of eight bytes
        else:
            found.append(direction + content.hex())
    client.transcript.clear()
    return found


def test_it_stands_alone() -> None:
    """No part of the peer imports anything of the package, whose mistakes it would share."""
    for part in ("sequences", "clients", "functions", "session", "server", "peer"):
        source = (Path(__file__).parent / f"{part}.py").read_text()
        assert "pytest_tvmrpc" not in source, part


def test_a_session_byte_by_byte(legacy_server: Start) -> None:
    """Hello, opening, lookups, calls, a free and the end, as between two TVM 0.13."""
    server = legacy_server(handles=(0x55AB8B727B10, 0x55AB8B77CB80))
    with LegacyClient(server.port, init=False) as client:
        assert seen(client) == [chunk for chunk in chunks("hello")]
        client.init_server()
        assert seen(client) == chunks("init")
        addone = client.get_function("rpc.test.addone")
        assert seen(client) == chunks("lookup")
        assert client.call(addone, integer(10)) == integer(11)
        assert seen(client) == chunks("addone")
        strcat = client.get_function("rpc.test.strcat")
        assert seen(client) == chunks("lookup strcat")
        assert client.call(strcat, text("abc"), integer(11)) == text("abc:11")
        assert seen(client) == chunks("strcat")
        client.free_handle(addone, FUNCTION)
        assert seen(client) == chunks("free")
        assert client.get_function("x.y.z") == 0
        assert seen(client) == chunks("missing")
        client.shutdown()
        assert seen(client) == chunks("shutdown")
    assert [code for code in server.session.codes] == [2, 9, 3, 9, 3, 10, 9, 1]


def test_memory_byte_by_byte(legacy_server: Start) -> None:
    """Both allocations, both copies and a sync."""
    server = legacy_server(handles=(0x7FFA10010080, 0x7FFA1000F5C0, 0x7FFA1000F300))
    with LegacyClient(server.port) as client:
        seen(client)
        tensor = client.alloc((4,), FLOAT32)
        assert seen(client) == chunks("alloc")
        client.alloc_bytes(CPU, 256, 64, FLOAT32)
        assert seen(client) == chunks("alloc bytes")
        client.copy_to(tensor, struct.pack("<4f", *range(4)))
        assert seen(client) == chunks("upload")
        matrix = client.alloc((2, 3), FLOAT32)
        assert seen(client) == chunks("alloc 2x3")
        server.session.view(matrix)[:] = struct.pack("<6f", *range(6))
        client.copy_from(matrix)
        assert seen(client) == chunks("download")
        client.sync()
        assert seen(client) == chunks("sync")
        client.shutdown()


@pytest.mark.parametrize(
    ("values", "seen_hex"),
    [
        (
            [text("rpc.Nope"), text("x"), integer(5), integer(1)],
            "04000000 0b000000 0b000000 00000000 00000000 0800000000000000 7270632e4e6f7065"
            "0100000000000000 78 0500000000000000 0100000000000000",
        ),
        (
            [Value(MODULE, 0x2222222222222222), text("nofunc"), integer(1)],
            "03000000 09000000 0b000000 00000000 2222222222222222 0600000000000000 6e6f66756e63"
            "0100000000000000",
        ),
        (
            [text("x.bin"), Value(BYTES, b"hello")],
            "02000000 0b000000 0c000000 0500000000000000 782e62696e 0500000000000000 68656c6c6f",
        ),
        (
            [integer(BYTES), Value(BYTES, b"\0\1\2\3\4")],
            "02000000 00000000 0c000000 0c00000000000000 0500000000000000 0001020304",
        ),
        ([integer(NULL), NONE], "02000000 00000000 04000000 0400000000000000"),
        (
            [integer(OBJECT), Value(POINTER, 0x7FA3C8010C60)],
            "02000000 00000000 03000000 0800000000000000 600c01c8a37f0000",
        ),
        (
            [integer(BOOL), Value(BOOL, True)],
            "02000000 00000000 0f000000 0f00000000000000 0100000000000000",
        ),
        (
            [
                integer(NDARRAY),
                Value(TENSOR, Record(0x7F3218010940, CPU, FLOAT32, (2, 3))),
                Value(POINTER, 0x7F321800ABB0),
            ],
            "03000000 00000000 07000000 03000000 0d00000000000000 40090118327f0000 01000000"
            "00000000 02000000 02200100 0200000000000000 0300000000000000 0000000000000000"
            "b0ab0018327f0000",
        ),
    ],
)
def test_sequences(values: List[Value], seen_hex: str) -> None:
    """As they were seen, both ways; and with a byte more or less they are refused."""
    raw = bytes.fromhex(seen_hex.replace(" ", ""))
    codes = range(16)
    assert sequence(values) == raw
    assert Reader(raw, codes, "it").sequence() == values
    for wrong in (raw[:-1], raw + b"\0"):
        with pytest.raises(RuleBrokenError):
            Reader(wrong, codes, "it").sequence()


def test_the_strict_server(legacy_server: Start) -> None:
    """Keys, exceptions, modules, timing and memory scopes."""
    server = legacy_server(key="board")
    with pytest.raises(RefusedError, match=str(0xFF273)):
        LegacyClient(server.port, "other")
    with LegacyClient(server.port, "board") as client:
        assert client.server_key == "server:board"
        with pytest.raises(RemoteRaisedError, match=r"ValueError: boom\nStack trace:\n"):
            client.call_name("rpc.test.except", text("boom"))
        client.call_name("tvm.rpc.server.upload", text("a.so"), Value(BYTES, b"x"))
        assert client.call_name("tvm.rpc.server.download", text("a.so")) == Value(BYTES, b"x")
        module = client.call_name("tvm.rpc.server.load_module", text("a.so"))
        assert module.code == MODULE
        found = client.call_name(
            "tvm.rpc.server.ModuleGetFunction", module, text("addone"), integer(1)
        )
        assert client.call(found.content, integer(1)) == integer(2)
        setup = [module, text("addone"), *map(integer, [1, 0, 3, 2, 0, 100, 0, 1]), text("")]
        measure = client.call_name("runtime.RPCTimeEvaluator", *setup)
        assert client.call(measure.content, integer(1)) == Value(
            BYTES, struct.pack("<2d", 1e-6, 2e-6)
        )
        with pytest.raises(RemoteRaisedError, match="expects 11 arguments, but 12"):
            client.call_name("runtime.RPCTimeEvaluator", *setup, text(""))
        with pytest.raises(RemoteRaisedError, match="specified memory scope: texture"):
            client.alloc((4,), FLOAT32, scope="texture")
        array = client.call_name("peer.tensor")
        assert array.code == NDARRAY
        tensor, handle = array.content
        assert struct.unpack("<6f", client.copy_from(tensor)) == (0, 1, 2, 3, 4, 5)
        for owned, code in (
            (handle, NDARRAY),
            (measure.content, FUNCTION),
            (found.content, FUNCTION),
            (module.content, MODULE),
        ):
            client.free_handle(owned, code)
        assert client.get_attr(CPU, 0) == Value(INT, 1)
        assert client.get_attr(Device(2, 0), 0) == Value(INT, 0)
        client.shutdown()
    assert not server.session.objects


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (lambda client: client.call_name("peer.codes", Value(BOOL, True)), "kUnknownTypeCode 15"),
        (lambda client: client.call_name("peer.codes", Value(OBJECT, 1)), "kUnknownTypeCode 8"),
        (lambda client: client.syscall(21, Value(6, CPU)), "Unknown event 21"),
        (lambda client: client.syscall(10, Value(POINTER, 64)), "request 10"),
        (lambda client: client.free_handle(64, FUNCTION), "a real one dies"),
        (lambda client: client.free_data(CPU, 64), "not allocated"),
        (lambda client: client.copy_from(Record(64, CPU, FLOAT32, (1,))), "not within memory"),
        (lambda client: client.set_device(Device(129, 0)), "masked"),
        (lambda client: client.alloc((1,), DType(12, 8)), "no data type of those days"),
        (lambda client: client.call_name("peer.codes", text("a\0b")), "a NUL"),
    ],
)
def test_it_complains(
    legacy_server: Start, broken: Callable[[LegacyClient], object], rule: str
) -> None:
    """What would end a real server ends the session, and is noted."""
    server = legacy_server()
    with LegacyClient(server.port) as client, pytest.raises(PeerClosedError, match="kShutdown"):
        broken(client)
    with LegacyClient(server.port) as client:  # which is served by now only if the other has ended
        assert client.call_name("rpc.test.addone", integer(1)) == integer(2)
        client.shutdown()
    assert len(server.complaints) == 1
    assert rule in server.complaints.pop()


def test_newer_ones(legacy_server: Start) -> None:
    """What 0.16 and 0.18 have learnt, and that texts of exceptions got lost in between."""
    server = legacy_server(18)
    with LegacyClient(server.port, minor=18) as client:
        assert client.call_name("peer.codes", Value(BOOL, True), integer(1)) == text("15,0")
        assert client.call_name("peer.echo", Value(BOOL, True)) == Value(BOOL, True)
        assert client.current_stream() == 0
        thing = client.call_name("peer.object")
        assert thing.code == OBJECT
        assert client.call_name("peer.codes", thing) == text("8")
        client.free_handle(thing.content, OBJECT)
        with pytest.raises(RemoteRaisedError, match=r"^$"):
            client.call_name("rpc.test.except", text("boom"))
        client.shutdown()


def test_time_is_up(legacy_server: Start) -> None:
    """Idle or within a call, the client is told."""
    server = legacy_server()
    expected = r"RPCSessionTimeoutError: Your 0\.2s session has expired, try to"
    with LegacyClient(server.port, options="-timeout=0.2") as client:
        wait = client.get_function("peer.wait")
        with pytest.raises(RemoteRaisedError, match=expected):
            client.call(wait)
    assert server.session.ended == "timeout"
