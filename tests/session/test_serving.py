"""The answering end, told byte by byte what a client may say, and what it may not."""

from __future__ import annotations

import asyncio
import os
import struct
from typing import TYPE_CHECKING, Any, Callable, Dict

import pytest

from pytest_tvmrpc.errors import SessionCrashedError
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI
from pytest_tvmrpc.session.serving import MAX_TEXT, Progress, StreamBrokenError, describe

if TYPE_CHECKING:
    from pathlib import Path

Packet = Callable[..., bytes]

RETURN, EXCEPTION, COPY_ACK = 4, 5, 8


def text_of(body: bytes) -> str:
    """The text of an exception."""
    return str(FFI.decode_values(body, 0, len(body))[0])


def value_of(body: bytes) -> Any:
    """The one value of a syscall's answer."""
    (value,) = FFI.decode_values(body, 0, len(body))
    return value


def call(handle: int, *arguments: Any) -> bytes:
    """The bytes of a call."""
    body = struct.pack("<Q", handle) + b"".join(FFI.encode_values(arguments))
    return struct.pack("<Qi", 4 + len(body), RPCCode.CALL_FUNC) + body


def syscall(code: int, *values: Any) -> bytes:
    """The bytes of a syscall."""
    body = b"".join(FFI.encode_values(values))
    return struct.pack("<Qi", 4 + len(body), code) + body


def lookup(raw: Any, name: str) -> int:
    """Handle of a function."""
    raw.socket.sendall(syscall(RPCCode.GET_GLOBAL_FUNC, name))
    code, body = raw.answer()
    assert code == RETURN
    return int(value_of(body))


def still_serves(raw: Any) -> None:
    """The session answers a call as if nothing had been."""
    raw.socket.sendall(call(lookup(raw, "rpc.test.addone"), 41))
    code, body = raw.answer()
    assert (code, FFI.decode_result(body, 0, len(body))) == (RETURN, 42)


def is_over(raw: Any) -> None:
    """The session has ended, with the socket closed."""
    assert raw.socket.recv(1) == b""
    raw.join()
    assert isinstance(raw.ended_by, StreamBrokenError)


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_any_segmentation(conversation: Any, words: Dict[str, bytes], cut: str) -> None:
    """Requests may come in pieces, one by one, or with a part of the next behind them."""
    first, second = words["init"] + words["lookup"], words["lookup"]
    if cut == "with trailing bytes":
        conversation.socket.sendall(first + second[:7])
        rest = second[7:]
    else:
        rest = first + second
    step = 1 if cut == "byte by byte" else len(rest)
    for index in range(0, len(rest), step):
        conversation.socket.sendall(rest[index : index + step])
    codes, bodies = zip(*(conversation.answer() for _ in range(3)))
    assert codes == (RETURN, RETURN, RETURN)
    assert bodies[0] == bytes(4)
    assert [bool(value_of(body)) for body in bodies[1:]] == [True, True]


def test_empty_packets_say_nothing(raw: Any) -> None:
    """A packet of no bytes is legal between others and has no answer."""
    raw.socket.sendall(bytes(8) * 3)
    still_serves(raw)


def test_shutdown_is_a_clean_end(raw: Any, words: Dict[str, bytes]) -> None:
    """Shutdown ends the session without an answer."""
    raw.socket.sendall(words["shutdown"])
    assert raw.socket.recv(1) == b""
    raw.join()
    assert raw.ended_by is None


def test_a_close_between_packets_is_a_clean_end(raw: Any) -> None:
    """A client that just closes has ended its session, too."""
    raw.close()
    assert raw.ended_by is None


@pytest.mark.parametrize(
    "first",
    [syscall(RPCCode.GET_GLOBAL_FUNC, "rpc.test.addone"), call(1, 10), struct.pack("<Qi", 4, 4)],
    ids=["look-up", "call", "answer"],
)
def test_before_init_server(conversation: Any, first: bytes) -> None:
    """A session that was not opened takes no request: the client is told, then it is over."""
    conversation.socket.sendall(first)
    code, body = conversation.answer()
    assert code == EXCEPTION
    assert "legal now: SHUTDOWN, INIT_SERVER" in text_of(body)
    is_over(conversation)


@pytest.mark.parametrize("code", [0, 22, 4096, -1, 4, 5, 8])
def test_unknown_codes(raw: Any, packet: Packet, code: int) -> None:
    """A code that is no request: the client is told which, then the session is over."""
    raw.socket.sendall(packet(code, bytes(8)))
    answer, body = raw.answer()
    assert answer == EXCEPTION
    assert text_of(body).startswith("RemoteProtocolError: packet ")
    is_over(raw)


@pytest.mark.parametrize("nbytes", [1, 3, (1 << 40) + 1, 1 << 63, (1 << 64) - 1])
def test_absurd_lengths(raw: Any, nbytes: int) -> None:
    """A length that no packet has is refused at once, before anything is allocated."""
    raw.socket.sendall(struct.pack("<Qi", nbytes, 3) + bytes(64))
    code, body = raw.answer()
    assert code == EXCEPTION
    assert f"a packet of {nbytes} bytes" in text_of(body)
    with pytest.raises((AssertionError, ConnectionError)):
        raw.answer()
    raw.join()


def test_a_second_init_server(raw: Any, words: Dict[str, bytes]) -> None:
    """It is refused, and the session goes on."""
    raw.socket.sendall(words["init"])
    code, body = raw.answer()
    assert code == EXCEPTION
    assert "InitServer comes once" in text_of(body)
    still_serves(raw)


def test_another_version_of_the_protocol(conversation: Any, packet: Packet) -> None:
    """Both versions are named; the session has not begun."""
    conversation.socket.sendall(packet(2, struct.pack("<Q", 5) + b"9.9.9" + bytes(4)))
    code, body = conversation.answer()
    assert code == EXCEPTION
    assert "'9.9.9'" in text_of(body)
    assert "'0.8.0'" in text_of(body)


def test_an_unknown_constructor(conversation: Any, packet: Packet, words: Dict[str, bytes]) -> None:
    """A session that this server cannot open is refused by name; another may be asked for."""
    constructor = b"".join(FFI.encode_values(["rpc.NoSuchThing", 1]))
    conversation.socket.sendall(packet(2, struct.pack("<Q", 5) + b"0.8.0" + constructor))
    code, body = conversation.answer()
    assert code == EXCEPTION
    assert "rpc.NoSuchThing" in text_of(body)
    conversation.socket.sendall(words["init"])
    assert conversation.answer()[0] == RETURN
    still_serves(conversation)


@pytest.mark.parametrize("part", [4, 10, 20, 34])
def test_the_client_closes_within_a_packet(raw: Any, words: Dict[str, bytes], part: int) -> None:
    """That is no clean end, and no reason to wait."""
    raw.socket.sendall(words["lookup"][:part])
    raw.close()
    assert isinstance(raw.ended_by, StreamBrokenError)


@pytest.mark.parametrize("body", [b"", bytes(7), struct.pack("<Q", 1)], ids=len)
def test_calls_that_are_cut_short(raw: Any, packet: Packet, body: bytes) -> None:
    """A call without a function, or without a number of arguments, is an error of that call."""
    raw.socket.sendall(packet(3, body))
    assert raw.answer()[0] == EXCEPTION
    still_serves(raw)


@pytest.mark.parametrize("count", [-1, 1 << 20, (1 << 31) - 1])
def test_absurd_numbers_of_arguments(raw: Any, packet: Packet, count: int) -> None:
    """A negative or huge number of arguments is an error of that call."""
    handle = lookup(raw, "testing.echo")
    raw.socket.sendall(packet(3, struct.pack("<Qi", handle, count) + bytes(16)))
    assert raw.answer()[0] == EXCEPTION
    still_serves(raw)


@pytest.mark.parametrize(
    "values",
    [
        struct.pack("<ii", 1, 999),
        struct.pack("<iiQ", 1, 8, 1 << 60) + b"abc",
        struct.pack("<iiQ", 1, 8, (1 << 64) - 1),
        struct.pack("<iiQ", 1, 8, 2) + b"\xff\xfe",
        struct.pack("<iiiI", 1, 7, 1, 1),
        struct.pack("<iiQiiiBBH", 1, 7, 1, 1, 0, -1, 2, 32, 1) + bytes(16),
        struct.pack("<iiQiiiBBH", 1, 7, 1, 1, 0, 1 << 30, 2, 32, 1) + bytes(16),
        struct.pack("<iiQiiiBBHqqqQ", 1, 7, 1, 1, 0, 3, 2, 32, 1, 1 << 40, 1 << 40, 1 << 40, 0),
        struct.pack("<iiQiiiBBHqQ", 1, 7, 1, 1, 0, 1, 2, 32, 1, -5, 0),
    ],
    ids=[
        "kind",
        "long text",
        "longest text",
        "not utf-8",
        "half a tensor",
        "ndim -1",
        "ndim 2^30",
        "shape beyond any memory",
        "negative shape",
    ],
)
def test_absurd_arguments(raw: Any, packet: Packet, values: bytes) -> None:
    """What cannot be read as values is an error of that call, unless the function can bear it."""
    handle = lookup(raw, "testing.echo")
    raw.socket.sendall(packet(3, struct.pack("<Q", handle) + values))
    code, _ = raw.answer()
    assert code in (RETURN, EXCEPTION)
    still_serves(raw)


@pytest.mark.parametrize("code", [code for code in RPCCode if code >= RPCCode.GET_GLOBAL_FUNC])
def test_syscalls_with_the_wrong_values(raw: Any, code: RPCCode) -> None:
    """Too few values, or values of other kinds, are an error of that request alone."""
    for values in ((), ("x", "x", "x", "x"), (None, None, None, None), (1.5, -1, b"\0", 1 << 62)):
        raw.socket.sendall(syscall(code, *values))
        assert raw.answer()[0] in (RETURN, EXCEPTION)
    raw.socket.sendall(syscall(code))
    answer, body = raw.answer()
    assert answer == EXCEPTION
    assert "0 values, which it does not take" in text_of(body)
    still_serves(raw)


class _Unprintable(BaseException):
    """Its text cannot be made, for a reason that is no ordinary error, either."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt("x"), "KeyboardInterrupt: x"),
        (asyncio.CancelledError("x"), "CancelledError: x"),
        (GeneratorExit("x"), "GeneratorExit: x"),
        (pytest.fail.Exception("x"), "Failed: x"),
        (pytest.exit.Exception("x"), "Exit: x"),
        (_Unprintable(), "_Unprintable: its text cannot be made: KeyboardInterrupt"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "with others"])
def test_an_interrupting_function(
    raw: Any, error: BaseException, text: str, *, is_alone: bool
) -> None:
    """A function may raise anything at all: the client is told, and the session goes on."""

    def leave() -> None:
        raise error

    raw.add("test.leave", leave)
    request = call(lookup(raw, "test.leave"))
    for _ in range(2):  # the first call of a session may take another way than the others
        raw.socket.sendall(request if is_alone else request * 2)
        for _ in range(1 if is_alone else 2):
            code, body = raw.answer()
            assert (code, text_of(body)) == (EXCEPTION, text)
    still_serves(raw)


def test_a_large_refused_copy_is_passed_over(raw: Any, packet: Packet) -> None:
    """The bytes of a refused copy are read and forgotten: the next packet is found."""
    nbytes = 1 << 20
    record = struct.pack("<QiiiBBHqQ", 4711, 1, 0, 1, 0, 8, 1, nbytes, 0)
    raw.socket.sendall(packet(7, record + struct.pack("<Q", nbytes) + bytes(nbytes)))
    code, body = raw.answer()
    assert code == EXCEPTION
    assert "was never given out" in text_of(body)
    still_serves(raw)


def test_a_refused_copy_that_would_not_end(raw: Any) -> None:
    """What claims to go on for a terabyte after a refusal ends the session instead."""
    nbytes = 1 << 39
    record = struct.pack("<QiiiBBHqQ", 4711, 1, 0, 1, 0, 8, 1, nbytes, 0)
    body = record + struct.pack("<Q", nbytes)
    raw.socket.sendall(struct.pack("<Qi", 4 + len(body) + nbytes, 7) + body + bytes(8192))
    raw.join()
    assert isinstance(raw.ended_by, StreamBrokenError)


def test_a_copy_whose_size_contradicts_its_packet(raw: Any, packet: Packet) -> None:
    """Says so, and the session goes on."""
    record = struct.pack("<QiiiBBHqQ", 1, 1, 0, 1, 0, 8, 1, 16, 0)
    raw.socket.sendall(packet(7, record + struct.pack("<Q", 16) + bytes(8)))
    code, body = raw.answer()
    assert code == EXCEPTION
    assert "a copy of 16 bytes in a packet with 8" in text_of(body)
    still_serves(raw)


def test_an_upload_that_breaks_off(raw: Any, folder: Path) -> None:
    """The client closes in the middle of a file: nothing of it stays."""
    handle = lookup(raw, "tvm.rpc.server.upload")
    packet = call(handle, "big.bin", bytes(1 << 20))
    raw.socket.sendall(packet[:300_000])
    raw.close()
    assert isinstance(raw.ended_by, StreamBrokenError)
    assert os.listdir(folder) == []


def test_answers_of_a_pipeline_come_in_order(raw: Any) -> None:
    """Many requests at once are answered one after the other."""
    echo = lookup(raw, "testing.echo")
    raw.socket.sendall(b"".join(call(echo, number) for number in range(300)))
    answers = [raw.answer() for _ in range(300)]
    assert [FFI.decode_result(body, 0, len(body)) for _, body in answers] == list(range(300))


def test_progress(raw: Any, wait_until: Callable[..., None]) -> None:
    """Whoever shares the byte sees that a request is being served, and that it is done."""
    seen = []
    raw.add("test.look", lambda: seen.append(raw.progress[0]))
    raw.socket.sendall(call(lookup(raw, "test.look")))
    raw.answer()
    assert seen == [Progress.CALLING]
    wait_until(lambda: raw.progress[0] == Progress.IDLE, "the session is idle")


def test_description_of_errors() -> None:
    """Type and message; a message of any length is cut."""
    assert describe(ValueError("boom")) == "ValueError: boom"
    assert describe(KeyError()) == "KeyError"

    class SilentError(Exception):
        def __str__(self) -> str:
            raise OSError

    assert describe(SilentError()) == "SilentError: its text cannot be made: OSError"
    assert describe(SessionCrashedError("x")) == "SessionCrashedError: x"
    noted = ValueError("boom")
    noted.__notes__ = ["in kernel.cc"]  # type: ignore[attr-defined]  # add_note, before Python 3.11
    assert describe(noted) == "ValueError: boom\nin kernel.cc"
    text = describe(ValueError("x" * (MAX_TEXT + 5)))
    assert text.endswith("... (5 characters more)")
    assert len(text) < MAX_TEXT + 100
