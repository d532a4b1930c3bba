"""The first words of a connection, as wire.c and as protocol/ take them."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.chaos.mutation import golden
from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.codes import HandshakeReply
from pytest_tvmrpc.protocol.handshake import (
    HelloReader,
    encode_client_hello,
    encode_server_hello,
    encode_server_reply,
    parse_client_key,
)


def assert_hellos_alike(wire: Any, content: bytes) -> Any:
    """Both take the first words for the same, or both refuse them."""
    found, reader = wire.read_hello(content), HelloReader()
    try:
        hello = reader.feed(content)
    except RemoteProtocolError as error:
        assert type(found).__name__ == "Refused", content
        assert not found.is_partial
        return str(error)
    if hello is None:
        assert found.is_partial
        return None
    assert found.nbytes == len(content) - len(reader.rest), content
    key = hello.match_key.replace("\0", " ").encode()  # which matches no server's
    assert found.value == (key, hello.session_timeout)
    assert math.copysign(1, found.value[1]) == math.copysign(1, hello.session_timeout)
    return hello


HELLOS = [
    *golden("handshake", direction=">"),
    encode_client_hello("board"),
    encode_client_hello("board:0.7956352009146216", 2.5) + b"more",
]


@pytest.mark.parametrize("content", HELLOS)
def test_hellos(wire, content):
    """Each in whole, in every part, with bytes behind it, and with a foreign one in front."""
    assert assert_hellos_alike(wire, content).match_key is not None
    for cut in range(len(content)):
        assert_hellos_alike(wire, content[:cut])
    for content in (b"GET / HTTP/1.1", b"\x16", b"\0" * 8, b"\x71\xf2\x02\0"):
        assert assert_hellos_alike(wire, content) == wire.read_hello(content).why


@pytest.mark.parametrize("length", [0, -1, 1, 4096, 4097, (1 << 31) - 1, -(1 << 31)])
def test_lengths_of_keys(wire, length):
    """1 to 4096 bytes, whatever follows."""
    head = struct.pack("<ii", 0xFF271, length)
    assert_hellos_alike(wire, head)
    if 0 < length < 10000:
        assert_hellos_alike(wire, head + b"client:".ljust(length, b"x"))
    if not 0 < length <= 4096:
        assert wire.read_hello(head).why == f"a key of {length} bytes; 1 to 4096 can be"


KEYS = [
    *("client:", "client:board", " client:board ", "client:board -timeout=2", "client:a b c -x=3"),
    *("client", "server:board", "", " ", "Client:x", "xclient:board", "client:board\0x", "\0"),
    *("client:\u00e9\u20ac\U0001f600 -timeout=1", "client:a\u00a0-timeout=3", "client:a\u3000b"),
    *("client:a\u2028-timeout=3", "client:a\x1c-timeout=3", "client:a\x85-timeout=3"),
    *("client:a\u200b-timeout=3", "client:a\u180e-timeout=3", "client:a\ufeff"),
    *(
        "client:a -timeout=1 -timeout=2",
        "client:a -timeouts=1",
        "client:a -timeout",
        "client:a -time",
    ),
    *(
        "client:a -timeout= 3",
        "client:a -timeout==3",
        "client:a --timeout=3",
        "client:a\t-timeout=3\n",
    ),
]
TIMES = [
    *(
        "0",
        "1",
        "1.5",
        "2.",
        ".5",
        "+3",
        "-0",
        "-0.0",
        "1e3",
        "1E+3",
        "1e-3",
        "1_000",
        "1_0.0_1e1_0",
    ),
    *("-1", "-1e-9", "nan", "NaN", "-nan", "inf", "-inf", "infinity", "1e300", "1e400", "1e-400"),
    *(
        "",
        ".",
        "+",
        "-",
        "e",
        "1e",
        "1e+",
        "0x10",
        "0x1p3",
        "1__0",
        "_1",
        "1_",
        "1_.0",
        "1._0",
        "1e_1",
    ),
    *("1,5", "1s", "1..5", "1.5.", "+-1", "--1", "1 ", "1\0", "\0", "nan(1)", "1d3", "1f", "1l"),
    *(
        "9" * 400,
        "0." + "0" * 3000 + "1",
        "1" * 300,
        "00000",
        "0_0",
        "4.9e-324",
        "1.7976931348623157e308",
    ),
]


@pytest.mark.parametrize("key", [*KEYS, *(f"client:a -timeout={text}" for text in TIMES)])
def test_keys(wire, key):
    """Words, options and times are what they are to Python, byte for byte."""
    content = key.encode()
    try:
        hello = parse_client_key(content)
    except RemoteProtocolError as error:
        reason = str(error).partition("=")[0]
        assert wire.parse_client_key(content).why.partition("=")[0] == reason
    else:
        found = wire.parse_client_key(content)
        key = hello.match_key.replace("\0", " ").encode()
        assert found.value == (key, hello.session_timeout)


@given(st.one_of(st.text(), st.text("clients:board -timeout=0123456789.e_+\0\u2003")))
def test_any_text_is_a_key_or_none(wire, text):
    """In front of it, what makes it one; digits of other scripts are none in C."""
    for key in (text, "client:" + text, "client:a -timeout=" + text):
        if key.isascii() or not any(one.isdecimal() and not one.isascii() for one in key):
            encoded = key.encode()
            assert_hellos_alike(wire, struct.pack("<ii", 0xFF271, len(encoded)) + encoded)


@given(st.binary(min_size=1, max_size=60))
def test_any_bytes_are_a_key_or_none(wire, key):
    """What is not UTF-8 is refused."""
    for content in (key, b"client:" + key):
        assert_hellos_alike(wire, struct.pack("<ii", 0xFF271, len(content)) + content)


def test_a_key_that_is_too_long(wire):
    """A proxy may pass on any; nothing is written behind the end of ours."""
    assert wire.parse_client_key(b"client:" + b"x" * 4089).value == (b"x" * 4089, 0)
    assert wire.parse_client_key(b"client:" + b"x" * 4090).why.startswith("a key of 4097 bytes")


@pytest.mark.parametrize("key", ["", "board", "h\u00e9", "k" * 4096])
def test_what_a_server_says(wire, key):
    """To a client, and to a proxy."""
    for reply in HandshakeReply:
        assert wire.write_reply(reply, key) == encode_server_reply(reply, key)
    assert wire.write_server_hello(key) == encode_server_hello(key)
