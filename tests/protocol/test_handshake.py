"""The first words on a data connection: what TVM says is understood, all else is refused."""

from __future__ import annotations

import struct
from typing import Any, Callable, List

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.codes import RPC_MAGIC, HandshakeReply
from pytest_tvmrpc.protocol.handshake import (
    MAX_KEY,
    ClientHello,
    HelloReader,
    PeerHello,
    ReplyReader,
    encode_client_hello,
    encode_partner,
    encode_server_reply,
    parse_client_key,
    parse_peer_key,
    take_key,
)


def hello(key: bytes, length: int = -9, magic: int = RPC_MAGIC) -> bytes:
    return struct.pack("<ii", magic, len(key) if length == -9 else length) + key


def fed(reader: ReplyReader, stream: bytes, step: int) -> List[int]:
    """Feed as the client does, at most `step` bytes a time; what the reader asked for each time."""
    asked, position = [], 0
    while reader.needed and position < len(stream):
        asked.append(reader.needed)
        part = stream[position : position + min(step, reader.needed)]
        reader.feed(part)
        position += len(part)
    return asked


def test_golden_words_are_encoded(hello_vector: Any) -> None:
    """Both sides say, byte for byte, what TVM's do; our server adds an option to its key."""
    said, content = hello_vector.value, hello_vector.content
    if hello_vector.direction == ">":
        assert encode_client_hello(said["key"], said["timeout"]) == content
        return
    reply = HandshakeReply[said["reply"]]
    if reply is HandshakeReply.SUCCESS:
        ours = content[8:] + b" -tvmrpc=1"
        content = content[:4] + struct.pack("<i", len(ours)) + ours
    assert encode_server_reply(reply, said["server_key"]) == content


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_golden_words_are_understood(hello_vector: Any, cut: str) -> None:
    """Both sides understand TVM's words wherever the stream is cut, and leave what follows."""
    said, content = hello_vector.value, hello_vector.content
    trailing = b"\x15\0\0" if cut == "with trailing bytes" else b""
    step = 1 if cut == "byte by byte" else len(content) + len(trailing)
    if hello_vector.direction == ">":
        hearing, stream = HelloReader(), content + trailing
        heard = [hearing.feed(stream[at : at + step]) for at in range(0, len(stream), step)]
        assert heard[:-1] == [None] * (len(heard) - 1)
        assert heard[-1] == ClientHello(said["key"], said["timeout"])
        assert hearing.rest == trailing
    else:
        reply = ReplyReader()
        asked = fed(reply, content + trailing, step)
        assert reply.needed == 0
        assert reply.reply is HandshakeReply[said["reply"]]
        assert reply.server_key == said["server_key"]
        if step > 1:
            assert sum(asked) == len(content), "it asks for its own bytes and no more"


@pytest.mark.parametrize("step", [1, 100])
@pytest.mark.parametrize("key", ["", "board", "größe"])
def test_our_servers_are_recognised(key: str, step: int) -> None:
    """By an option behind the key, which clients of TVM do not look at; the key stays the key."""
    reply = ReplyReader()
    fed(reply, encode_server_reply(HandshakeReply.SUCCESS, key), step)
    assert (reply.needed, reply.server_key, reply.is_ours) == (0, key, True)
    assert reply.text == f"server:{key} -tvmrpc=1".encode()


@pytest.mark.parametrize("text", ["server:board", "server:board -other=1", "server:x -tvmrpc=12"])
def test_other_servers_are_not_ours(text: str) -> None:
    """Neither TVM's servers nor those with other options."""
    reply = ReplyReader()
    fed(reply, hello(text.encode()), 100)
    assert (reply.needed, reply.is_ours) == (0, False)


def test_first_packet_may_come_with_the_hello(golden: Callable[..., Any]) -> None:
    """Hello and first request in one segment: the request waits, untouched, in `rest`."""
    reader = HelloReader()
    request = golden("init").content
    assert reader.feed(golden("hello").content + request) == ClientHello("", 0.0)
    assert reader.rest == request


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        struct.pack("<i", 0x0002F271),
        struct.pack(">i", RPC_MAGIC),
        b"\0",
        b"\x71\xf2\x0e",
    ],
    ids=["http", "tls", "ssh", "tracker", "big-endian", "one-byte", "third-byte"],
)
def test_other_protocols_are_refused_at_their_first_wrong_byte(first: bytes) -> None:
    """HTTP, TLS, SSH and the like are told apart as soon as a byte differs."""
    with pytest.raises(RemoteProtocolError, match="does not speak"):
        HelloReader().feed(first)
    reader = HelloReader()
    magic = struct.pack("<i", RPC_MAGIC)
    wrong = next(place for place in range(4) if first[place] != magic[place])
    for place in range(wrong):
        assert reader.feed(first[place : place + 1]) is None
    with pytest.raises(RemoteProtocolError, match="does not speak"):
        reader.feed(first[wrong : wrong + 1])


@pytest.mark.parametrize("length", [0, -1, -(2**31), MAX_KEY + 1, 2**31 - 1])
def test_key_lengths_that_cannot_be_are_refused(length: int) -> None:
    """A key of no bytes, of less, or of too many is refused before a byte of it has come."""
    with pytest.raises(RemoteProtocolError, match=f"a key of {length} bytes"):
        HelloReader().feed(hello(b"", length))


def test_longest_key_is_taken() -> None:
    """The limit itself is still a key."""
    key = b"client:" + b"k" * (MAX_KEY - 7)
    assert HelloReader().feed(hello(key)) == ClientHello("k" * (MAX_KEY - 7))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"client:board:0.7956352009146216", ClientHello("board:0.7956352009146216")),
        (b"client:board -timeout=1.5", ClientHello("board", 1.5)),
        (b"client:board -timeout=1e300", ClientHello("board", 1e300)),
        (b"client:board -timeout=0", ClientHello("board", 0.0)),
        (b"client:board  -timeout=3 \t-verbose -x=y", ClientHello("board", 3.0)),
        (b"client: -timeout=1 -timeout=2", ClientHello("", 2.0)),
        ("client:gerät".encode(), ClientHello("gerät")),
    ],
)
def test_keys_and_options(key: bytes, expected: ClientHello) -> None:
    """The key ends at the first blank; of the options only the time limit means anything."""
    assert parse_client_key(key) == expected


@pytest.mark.parametrize(
    "key",
    [
        b" ",
        b"\t\n",
        b"server:board",
        b"client",
        b"-timeout=2 client:board",
        b"client:\xff\xfe",
        b"client:\xed\xa0\x80",
        b"client: -timeout=abc",
        b"client: -timeout=",
        b"client: -timeout=-1",
        b"client: -timeout=nan",
        b"client: -timeout=inf",
        b"client: -timeout=1e999",
        b"client: -timeout=1,5",
    ],
)
def test_keys_that_are_none_are_refused(key: bytes) -> None:
    """No client's key, no text, or a time limit that is no time: refused, with our own error."""
    with pytest.raises(RemoteProtocolError):
        HelloReader().feed(hello(key))


def test_long_nonsense_is_shown_in_part() -> None:
    """What the peer sent reaches the message quoted and cut, not as it is."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse_client_key(b"client: -timeout=\x1b[2J" + b"x" * 4000)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("code", [0, 1, -1, RPC_MAGIC - 1, RPC_MAGIC + 3, 0x0002F271, 2**31 - 1])
def test_replies_of_others_are_refused(code: int) -> None:
    """A first word that is none of the three known ones is no server's."""
    with pytest.raises(RemoteProtocolError, match="does not speak"):
        ReplyReader().feed(struct.pack("<i", code))


@pytest.mark.parametrize("length", [-1, -(2**31), MAX_KEY + 1, 2**31 - 1])
def test_server_keys_of_impossible_length_are_refused(length: int) -> None:
    """The client never waits for, or makes room for, a key that cannot be."""
    reader = ReplyReader()
    reader.feed(struct.pack("<i", RPC_MAGIC))
    with pytest.raises(RemoteProtocolError, match=f"a key of {length} bytes"):
        reader.feed(struct.pack("<i", length))


def test_server_key_may_be_anything() -> None:
    """Nobody needs the server's key: none at all and no text are both taken."""
    empty, odd = ReplyReader(), ReplyReader()
    fed(empty, struct.pack("<ii", RPC_MAGIC, 0), 8)
    fed(odd, struct.pack("<ii", RPC_MAGIC, 9) + b"server:\xff\0", 99)
    assert (empty.needed, empty.server_key) == (0, "")
    assert (odd.needed, odd.server_key) == (0, "\ufffd\0")


@pytest.mark.parametrize("reply", ["MISMATCH", "DUPLICATE", "SUCCESS"])
def test_complete_reply_takes_no_bytes(reply: str) -> None:
    """Feeding nothing to a reader that needs nothing does nothing."""
    reader = ReplyReader()
    fed(reader, encode_server_reply(HandshakeReply[reply], "board"), 99)
    reader.feed(b"")
    assert (reader.needed, reader.reply) == (0, HandshakeReply[reply])


@pytest.mark.parametrize(
    ("text", "is_server", "match_key"),
    [
        (b"server:pk", True, "pk"),
        (b"client:pk -timeout=30", False, "pk"),
        (b"client:pk:0.25\t-timeout=30", False, "pk:0.25"),
        (b"server:", True, ""),
        (b"client: -timeout=2", False, ""),
        (b"javascr123", False, "123"),
        (b"Server:pk", False, "pk"),
        (b"short", False, ""),
        ("server:\u00e4\u3000x".encode(), True, "\u00e4"),
    ],
)
def test_how_a_proxy_reads_a_key(text: bytes, is_server: bool, match_key: str) -> None:
    """``server:`` decides the side; what is behind seven characters, up to a blank, the partner."""
    assert parse_peer_key(text) == PeerHello(is_server, match_key, text)


def test_a_proxy_takes_no_key_that_is_not_text() -> None:
    """As everybody: it ends up in logs, and at a tracker."""
    with pytest.raises(RemoteProtocolError, match="not UTF-8"):
        parse_peer_key(b"server:\xff")


def test_what_a_proxy_tells_each_side() -> None:
    """Success and the other side's whole key, to the byte as TVM's proxy was recorded."""
    recorded = "71f20f00 15000000 636c69656e743a706b202d74696d656f75743d3330"
    assert encode_partner(b"client:pk -timeout=30") == bytes.fromhex(recorded)


@pytest.mark.parametrize("cut", [1, 5, 100], ids=["byte by byte", "in pieces", "whole"])
def test_what_is_behind_a_key_is_left(cut: int) -> None:
    """The key is taken once it is complete; until then nothing is."""
    stream = hello(b"server:pk")
    received = bytearray()
    for start in range(0, len(stream), cut):
        assert take_key(received) is None
        received += stream[start : start + cut]
    received += b"rest"
    assert take_key(received) == b"server:pk"
    assert received == b"rest"
