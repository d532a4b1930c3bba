"""Our client and servers of TVM 0.8 to 0.20: tensors, files and modules."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Callable, ContextManager, List, Optional

import numpy
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import (
    LocalProtocolError,
    RemoteError,
)

from .sequences import (
    BOOLEAN,
    FUNCTION,
    MODULE,
    NDARRAY,
    NONE,
    Device,
    DType,
    Record,
    Value,
    integer,
    text,
)
from .server import LegacyServer

if TYPE_CHECKING:
    from pathlib import Path

Start = Callable[..., LegacyServer]
Open = Callable[..., ContextManager[rpc.RPCSession]]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", (2, 3)),
        ("int8", (5,)),
        ("uint16", (2, 1, 2)),
        ("float64", ()),
        ("float32", (0,)),
        ("int64", (3, 0, 2)),
    ],
)
def test_tensors(old: LegacyServer, dtype: str, shape: Any, session: Open) -> None:
    """There and back; then their memory is freed on their device."""
    array = numpy.arange(numpy.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    with session(old) as remote:
        tensor = runtime.tensor(array, remote.cpu(0))
        assert (tensor.shape, tensor.dtype) == (shape, dtype)
        numpy.testing.assert_array_equal(tensor.numpy(), array)
        tensor.copyfrom(array * 2)
        numpy.testing.assert_array_equal(tensor.numpy(), array * 2)
        del tensor
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert not old.session.memory
    (record, scope) = old.session.sequences(17)[0]
    assert record.content.shape == shape
    assert scope == NONE


def test_a_tensor_of_booleans(legacy_server: Start, session: Open) -> None:
    """Is of uint1, as it was called then; its number of today was a float's."""
    server = legacy_server()
    array = numpy.array([True, False, True])
    with session(server) as remote:
        tensor = runtime.tensor(array, remote.cpu(0))
        assert tensor.dtype == "bool"
        numpy.testing.assert_array_equal(tensor.numpy(), array)
        remote.get_function("peer.codes")(tensor)
        (wanted, _) = server.session.sequences(17)[0]
        assert wanted.content.dtype == BOOLEAN
        for body in server.session.requests(7) + server.session.requests(6):
            assert body[20:24] == bytes([1, 1, 1, 0])
        called = server.session.requests(3)[-1]
        assert called[8:16] + called[36:40] == bytes.fromhex("01000000 07000000 01010100")


def test_a_tensor_of_booleans_that_returns(legacy_server: Start, session: Open) -> None:
    """Is of bool here."""

    def make(its: Any, _: List[Value]) -> Value:
        made = Record(its.allocate(3), Device(), BOOLEAN, (3,))
        its.view(made)[:] = b"\1\0\1"
        return Value(NDARRAY, made)

    server = legacy_server(functions={"make": make})
    with session(server) as remote:
        tensor = remote.get_function("make")()
        assert tensor.dtype == "bool"
        assert tensor.numpy().tolist() == [True, False, True]


def test_tensors_in_calls(old: LegacyServer, session: Open) -> None:
    """A function reads and fills them."""
    with session(old) as remote:
        ones = runtime.tensor(numpy.ones((3, 4), "float32"), remote.cpu(0))
        assert remote.get_function("rpc.test.remote_array_func")(ones) is None
        remote.get_function("peer.fill")(ones, 2.5)
        assert ones.numpy().tolist() == [[2.5] * 4] * 3


def test_returned_tensors(old: LegacyServer, session: Open) -> None:
    """Are read and written, and freed by their object's handle, as tensors."""
    with session(old) as remote:
        tensor = remote.get_function("peer.tensor")()
        assert (tensor.shape, tensor.dtype) == ((2, 3), "float32")
        assert tensor.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
        tensor.copyfrom(numpy.full((2, 3), 7, "float32"))
        assert set(tensor.numpy().flat) == {7}
        del tensor
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert len(old.session.freed(NDARRAY)) == 1
        assert not old.session.sequences(14)


def test_views(legacy_server: Start, session: Open) -> None:
    """Parts of a tensor are read and written where they are."""
    server = legacy_server()
    with session(server) as remote:
        whole = runtime.tensor(numpy.arange(6, dtype="float32"), remote.cpu(0))
        part = whole._create_view((2,), None, 12)
        assert part.numpy().tolist() == [3, 4]
        part.copyfrom(numpy.array([30, 40], "float32"))
        assert whole.numpy().tolist() == [0, 1, 2, 30, 40, 5]
        remote.get_function("peer.fill")(part, 7.0)
        assert whole.numpy().tolist() == [0, 1, 2, 7, 7, 5]
        target = runtime.empty((2,), "float32", remote.cpu(0))
        part.copyto(target)
        assert target.numpy().tolist() == [7, 7]


@pytest.mark.parametrize(
    ("dtype", "legacy"),
    [
        ("bfloat16", DType(4, 16)),
        ("int4", DType(0, 4)),
        ("float32x4", DType(2, 32, 4)),
        ("float8_e4m3fn", DType(6, 8)),
        ("float8_e5m2", DType(7, 8)),
        ("float8_e8m0fnu", None),
        ("float4_e2m1fn", None),
        ("float8_e3m4", None),
    ],
)
def test_rarer_data_types(
    legacy_server: Start, dtype: str, legacy: Optional[DType], session: Open
) -> None:
    """Under their numbers of those days, or refused here if they had none."""
    server = legacy_server()
    with session(server) as remote:
        if legacy is None:
            with pytest.raises((LocalProtocolError, ValueError)):
                runtime.empty((4,), dtype, remote.cpu(0))
            assert not server.session.requests(17)
        else:
            tensor = runtime.empty((4,), dtype, remote.cpu(0))
            assert server.session.sequences(17)[0][0].content.dtype == legacy
            returned = remote.get_function("peer.echo")(tensor)
            assert (returned.dtype, returned.shape) == (tensor.dtype, (4,))
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_copies_between_servers(legacy_server: Start, server: rpc.Server, session: Open) -> None:
    """Of different days."""
    old = legacy_server()
    array = numpy.arange(6, dtype="float32").reshape(2, 3)
    with session(old) as there, rpc.connect(server.host, server.port) as here:
        source = runtime.tensor(array, there.cpu(0))
        target = runtime.empty((2, 3), "float32", here.cpu(0))
        source.copyto(target)
        numpy.testing.assert_array_equal(target.numpy(), array)
        target.copyfrom(array + 1)
        target.copyto(source)
        numpy.testing.assert_array_equal(source.numpy(), array + 1)


def test_copies_there(old: LegacyServer, session: Open) -> None:
    """From tensor to tensor without passing here."""
    with session(old) as remote:
        source = runtime.tensor(numpy.arange(6, dtype="float32"), remote.cpu(0))
        target = runtime.empty((6,), "float32", remote.cpu(0))
        source.copyto(target)
        assert target.numpy().tolist() == [0, 1, 2, 3, 4, 5]
        assert len(old.session.requests(16)) == 1
        assert len(old.session.requests(6)) == 1


def test_memory_scopes(legacy_server: Start, session: Open) -> None:
    """Are asked for as those days do, and refused by the server."""
    server = legacy_server()
    with session(server) as remote:
        assert runtime.empty((2,), "float32", remote.cpu(0), "global").shape == (2,)
        with pytest.raises(RemoteError, match="memory scope: texture"):
            runtime.empty((2,), "float32", remote.cpu(0), "texture")
    scopes = [scope for _, scope in server.session.sequences(17)]
    assert scopes in ([text("global"), text("texture")], [NONE, text("texture")])


def test_devices(old: LegacyServer, session: Open) -> None:
    """They tell whether they exist, can be waited for, and have streams."""
    with session(old) as remote:
        cpu = remote.cpu(0)
        assert cpu.exist
        assert not remote.cuda(0).exist
        assert cpu.warp_size is None
        cpu.sync()
        stream = cpu.create_raw_stream()
        cpu.set_raw_stream(stream)
        cpu.sync(stream)
        cpu.free_raw_stream(stream)
        with pytest.raises(RemoteError, match="Device API 2"):
            runtime.empty((2,), "float32", remote.cuda(0))


def test_a_packet_limit(legacy_server: Start, session: Open) -> None:
    """A server that takes small packets only gets small ones."""
    server = legacy_server(
        functions={"tvm.rpc.server.GetCRTMaxPacketSize": lambda _, __: integer(100)}
    )
    array = numpy.arange(30, dtype="int32")
    with session(server) as remote:
        tensor = runtime.tensor(array, remote.cpu(0))
        numpy.testing.assert_array_equal(tensor.numpy(), array)
    uploads = [
        packet for packet, code in zip(server.session.packets, server.session.codes) if code == 7
    ]
    assert [struct.unpack_from("<Q", packet)[0] for packet in uploads] == [100, 100, 76]
    assert [struct.unpack_from("<Q", packet, 44)[0] for packet in uploads] == [0, 48, 96]


def test_files(old: LegacyServer, tmp_path: Path, session: Open) -> None:
    """Up, down and away."""
    local = tmp_path / "local.bin"
    local.write_bytes(b"from a file")
    with session(old) as remote:
        remote.upload(bytearray(b"hello"), "x.bin")
        assert remote.download("x.bin") == bytearray(b"hello")
        remote.upload(str(local))
        assert remote.download("local.bin") == b"from a file"
        remote.upload(b"", "empty")
        assert remote.download("empty") == b""
        remote.remove("x.bin")
        remote.remove("x.bin")
        with pytest.raises(RemoteError, match=r"Cannot open .*x\.bin"):
            remote.download("x.bin")
        with pytest.raises(AttributeError, match="listdir"):
            remote.listdir(".")


def test_listdir(legacy_server: Start, session: Open) -> None:
    """Of the server in C++, which has it."""
    functions = {"tvm.rpc.server.listdir": lambda _, __: text("/rpc/a,/rpc/b,")}
    with session(legacy_server(functions=functions)) as remote:
        assert "a" in remote.listdir(".")


def test_modules(old: LegacyServer, session: Open) -> None:
    """Are loaded, asked for functions, passed, imported and freed, as modules."""
    with session(old) as remote:
        remote.upload(b"x", "a.so")
        remote.upload(b"x", "b.so")
        module, other = remote.load_module("a.so"), remote.load_module("b.so")
        assert module["addone"](1) == 2
        assert module.get_function("addone")(2) == 3
        with pytest.raises(AttributeError, match="only_in_b"):
            module["only_in_b"]
        module.import_module(other)
        assert module["only_in_b"](3) == 4
        tensor = runtime.tensor(numpy.zeros(3, "float32"), remote.cpu(0))
        module["fill"](tensor, 1.5)
        assert tensor.numpy().tolist() == [1.5] * 3
        codes, echo = remote.get_function("peer.codes"), remote.get_function("peer.echo")
        assert codes(module) == "9"
        assert echo(module)["addone"](1) == 2
        handle = module.handle
        del module, other
        assert remote.get_function("rpc.test.addone")(1) == 2
        assert old.session.freed(MODULE).count(handle) == 2
        assert len(old.session.freed(MODULE)) == 3
        with pytest.raises(RemoteError, match=r"cannot find file|does not say what"):
            remote.load_module("none.so")


def test_calling_a_module(legacy_server: Start, session: Open) -> None:
    """Its main function had another name in those days."""
    server = legacy_server()
    with session(server) as remote:
        remote.upload(b"x", "a.so")
        assert remote.load_module("a.so")(1) == 2


def test_the_system_library(legacy_server: Start, session: Open) -> None:
    """So had this."""
    server = legacy_server()
    with session(server) as remote:
        assert remote.system_lib()["addone"](1) == 2


def test_linked_modules(legacy_server: Start, session: Open) -> None:
    """Come back as files."""
    server = legacy_server()
    with session(server) as remote:
        remote.upload(b"linked", "a.so")
        assert remote.download_linked_module("a.so") == b"linked"


@pytest.mark.parametrize(
    ("count", "middle"),
    [(8, []), (10, [0, 1]), (11, [100, 0, 1]), (12, [100, 0, 1, 0])],
    ids=["8", "10", "11", "12"],
)
@pytest.mark.parametrize("minor", [13, 19])
def test_time_evaluators(
    legacy_server: Start, minor: int, count: int, middle: List[int], session: Open
) -> None:
    """Work, however many arguments the server wants; those that it lacks are not missed."""
    server = legacy_server(minor, evaluator_args=count)
    with session(server) as remote:
        remote.upload(b"x", "a.so")
        module = remote.load_module("a.so")
        evaluate = module.time_evaluator("addone", remote.cpu(0), number=3, repeat=2)
        assert evaluate(1).results == (1e-6, 2e-6)
        numbers = [integer(number) for number in [1, 0, 3, 2, 0, *middle]]
        assert server.session.setup[1:] == [text("addone"), *numbers, text("")]
        again = module.time_evaluator("addone", remote.cpu(0), repeat=3, min_repeat_ms=1)
        assert len(again(1).results) == 3
        assert server.session.setup[6] == integer(1)
        with pytest.raises(RemoteError, match="Cannot find nofunc"):
            module.time_evaluator("nofunc", remote.cpu(0))(1)
        assert remote.get_function("rpc.test.addone")(1) == 2


def test_leaving_while_answers_are_due(legacy_server: Start, session: Open) -> None:
    """Frees on their way when a session ends are heard out: some servers die of a broken pipe."""
    server = legacy_server()
    with session(server) as remote:
        kept = [runtime.empty((2,), "float32", remote.cpu(0)) for _ in range(20)]
        functions = [remote.get_function("rpc.test.add_to_lhs")(5) for _ in range(5)]
        server.answer_after_s = 0.02
        del kept, functions
    assert server.session.ended == "Shutdown"


def test_a_profile(old: LegacyServer, session: Open) -> None:
    """A server of TVM cannot take the time of one call; it is called once all the same."""
    with session(old) as remote:
        remote.upload(b"x", "a.so")
        with runtime.profile(remote.load_module("a.so")) as profile:
            assert profile["addone"](1) == 2
        (call,) = profile.report.calls
        assert (call["Name"], call["Device"]) == ("addone", "cpu0")
        assert profile.report.configuration == {"Clock": "of the client, with the network"}


def test_everything_is_freed_once(old: LegacyServer, session: Open) -> None:
    """No handle is left, and none is freed twice, which would have been complained about."""
    with session(old) as remote:
        for _ in range(3):
            remote.get_function("rpc.test.add_to_lhs")(5)(6)
            remote.get_function("peer.tensor")().numpy()
            runtime.empty((2,), "float32", remote.cpu(0))
        remote.upload(b"x", "a.so")
        remote.load_module("a.so")["addone"](1)
        assert remote.get_function("rpc.test.addone")(1) == 2
        kinds = [code for code, _, __ in old.session.objects.values()]
        # What our own client keeps: functions that every server has, and what it is just using.
        assert set(kinds) == {FUNCTION}
        names = {its: name for name, its in old.functions.items()}
        assert {names.get(its, "another") for _, its, __ in old.session.objects.values()} <= {
            "tvm.rpc.server.upload",
            "tvm.rpc.server.load_module",
            "tvm.rpc.server.ModuleGetFunction",
            "runtime.RPCTimeEvaluator",
            "tvm.rpc.server.download",
            "rpc.test.addone",
        }
