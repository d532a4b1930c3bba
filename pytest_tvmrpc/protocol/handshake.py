"""The first words on a data connection: magic, key, options; both sides. No I/O.

The client says magic and key, the server answers with a code and, if it agrees, its own key. A
client key is ``client:KEY``, then options behind blanks; the only option is ``-timeout=SECONDS``.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple, Optional

from ..errors import RemoteProtocolError
from .codes import RPC_MAGIC, HandshakeReply

MAX_KEY = 4096
"""Bytes of a key with its options. TVM sets no limit, and dies of a long one."""

OURS = "-tvmrpc=1"
"""The option behind the key of our servers. TVM's clients do not look at a server's key."""

_I32 = struct.Struct("<i")


class ClientHello(NamedTuple):
    """What a client says first: the key it wants, and how long the session may last (0: any)."""

    match_key: str
    session_timeout: float = 0.0


class PeerHello(NamedTuple):
    """What either side says first to a proxy; ``text`` is what the other side will be told."""

    is_server: bool
    match_key: str
    text: bytes


def encode_client_hello(key: str, session_timeout: float = 0) -> bytes:
    """The client's first words."""
    text = f"client:{key}"
    if session_timeout:
        text += f" -timeout={session_timeout}"
    return _word(RPC_MAGIC) + _text(text)


def encode_server_hello(key: str) -> bytes:
    """The first words of a server that waits at a proxy, which tells the client its whole key."""
    return _word(RPC_MAGIC) + _text(f"server:{key} {OURS}")


def encode_server_reply(reply: HandshakeReply, key: str = "") -> bytes:
    """The server's answer; its key follows only if it agrees."""
    agreed = f"server:{key} {OURS}"
    return _word(reply) + (_text(agreed) if reply is HandshakeReply.SUCCESS else b"")


def encode_partner(key: bytes) -> bytes:
    """A proxy's answer to one side: success, and the other side's whole key with its options."""
    return _word(HandshakeReply.SUCCESS) + _I32.pack(len(key)) + key


def _word(number: int) -> bytes:
    return _I32.pack(number)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return _I32.pack(len(encoded)) + encoded


class HelloReader:
    """The server's ear: takes bytes in any segmentation until a `ClientHello` is complete.

    ``rest`` then holds what came behind it: a client need not wait before its first packet.
    """

    def __init__(self) -> None:
        self.rest = bytearray()

    def feed(self, received: bytes) -> Optional[ClientHello]:
        """The client's words once they are complete, else None.

        Raises:
            RemoteProtocolError: this is no client of this protocol.
        """
        self.rest += received
        text = take_key(self.rest)
        return None if text is None else parse_client_key(text)


def take_key(received: bytearray) -> Optional[bytes]:
    """Removes magic and key from the front of what came, once they are complete, else None.

    Raises:
        RemoteProtocolError: this is no peer of this protocol.
    """
    if received[:4] != _I32.pack(RPC_MAGIC)[: len(received)]:
        raise RemoteProtocolError("the peer does not speak TVM's RPC protocol")
    if len(received) < 8:
        return None
    (length,) = _I32.unpack_from(received, 4)
    if not 0 < length <= MAX_KEY:
        raise RemoteProtocolError(f"a key of {length} bytes; 1 to {MAX_KEY} can be")
    if len(received) < 8 + length:
        return None
    text = bytes(received[8 : 8 + length])
    del received[: 8 + length]
    return text


def parse_client_key(encoded: bytes) -> ClientHello:
    """The client's key and options.

    Raises:
        RemoteProtocolError: it is not text, is no client's key, or its time limit is no time.
    """
    try:
        words = encoded.decode("utf-8").split()
    except UnicodeDecodeError:
        raise RemoteProtocolError("the client's key is not UTF-8") from None
    if not words or not words[0].startswith("client:"):
        raise RemoteProtocolError("the first word is no client's key; expected client:KEY")
    timeout = 0.0
    for option in words[1:]:
        name, _, text = option.partition("=")
        if name == "-timeout":
            timeout = _seconds(text)
    return ClientHello(words[0][len("client:") :], timeout)


def parse_peer_key(encoded: bytes) -> PeerHello:
    """The key of either side, as a proxy reads it: options are left to the other side.

    Raises:
        RemoteProtocolError: it is not text.
    """
    try:
        text = encoded.decode("utf-8")
    except UnicodeDecodeError:
        raise RemoteProtocolError("the peer's key is not UTF-8") from None
    named = text[len("server:") :]  # TVM's proxy takes any seven characters for a client's
    match_key = named.split()[0] if named and not named[0].isspace() else ""
    return PeerHello(text.startswith("server:"), match_key, encoded)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise RemoteProtocolError(f"-timeout={text[:80]!r} is no time in seconds")
    return seconds


class ReplyReader:
    """The client's ear: takes bytes until the server's answer is complete.

    Attributes:
        reply: the server's code, once it is there.
        server_key: the server's key without ``server:``, once it agreed.
        is_ours: whether it is a server of this package.
        text: the whole key as it came, with its options; of a client, behind a proxy.
        needed: how many bytes to receive next; 0 when the answer is complete.
    """

    def __init__(self) -> None:
        self.reply: Optional[HandshakeReply] = None
        self.server_key = ""
        self.is_ours = False
        self.text = b""
        self.needed = 4
        self._length: Optional[int] = None
        self._received = b""

    def feed(self, received: bytes) -> None:
        """Takes at most `needed` bytes.

        Raises:
            RemoteProtocolError: the peer is no server of this protocol.
        """
        self._received += received
        self.needed -= len(received)
        if self.needed or not received:
            return
        whole, self._received = self._received, b""
        if self.reply is None:
            (code,) = _I32.unpack(whole)
            try:
                self.reply = HandshakeReply(code)
            except ValueError:
                raise RemoteProtocolError("it does not speak TVM's RPC protocol") from None
            self.needed = 4 if self.reply is HandshakeReply.SUCCESS else 0
        elif self._length is None:
            (self._length,) = _I32.unpack(whole)
            if not 0 <= self._length <= MAX_KEY:
                raise RemoteProtocolError(f"it has a key of {self._length} bytes")
            self.needed = self._length
        else:
            self.text = whole
            said = whole.decode("utf-8", "replace").partition(":")[2]
            self.server_key, _, options = said.partition(" ")
            self.is_ours = OURS in options.split()
