"""Cutting the byte stream into packets: every cut, every length, and the limits of both."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any, Callable, List, Optional, Tuple

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.framing import CAPACITY, HEAD, MAX_PACKET, PacketReader

Packets = List[Tuple[int, bytes]]
Read = Callable[..., Packets]


def packet(code: int, body: bytes = b"", claimed: Optional[int] = None) -> bytes:
    return struct.pack("<Qi", 4 + len(body) if claimed is None else claimed, code) + body


def reader_with(content: bytes) -> PacketReader:
    reader = PacketReader()
    reader.room()[: len(content)] = content
    reader.received(len(content))
    return reader


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_golden_packets_are_found(packet_vector: Any, cut: str, read_packets: Read) -> None:
    """TVM's packets, of both dialects, come out whole wherever the stream is cut."""
    content = packet_vector.content
    trailing = b"\x15\0\0\0\0\0\0\0\2" if cut == "with trailing bytes" else b""
    cuts = range(1, len(content)) if cut == "byte by byte" else []
    found = read_packets(content + trailing, cuts)
    assert found == [(packet_vector.value["code"], content[12:])]


def test_many_packets_in_one_buffer(every_vector: Any, read_packets: Read) -> None:
    """A conversation in one piece, and in two cut anywhere, gives the same packets."""
    contents = [vector.content for vector in every_vector[1]][:12]
    stream = b"".join(contents)
    expected = [(struct.unpack_from("<i", content, 8)[0], content[12:]) for content in contents]
    assert read_packets(stream, []) == expected
    for place in range(1, len(stream)):
        assert read_packets(stream, [place]) == expected


def test_more_packets_than_the_buffer_holds(read_packets: Read) -> None:
    """Packets that cross the end of the buffer are moved to its front, however many there are."""
    bodies = [bytes([number % 256]) * (number * 7 % 3000) for number in range(200)]
    stream = b"".join(packet(number, body) for number, body in enumerate(bodies))
    assert len(stream) > 2 * CAPACITY
    for size in (1000, CAPACITY - 1, CAPACITY, 10**9):
        assert read_packets(stream, range(size, len(stream), size)) == list(enumerate(bodies))


@pytest.mark.parametrize("cut", ["whole", "byte by byte"])
def test_packets_of_no_bytes_say_nothing(cut: str, read_packets: Read) -> None:
    """A length of 0 is legal anywhere, and is passed over."""
    empty = bytes(8)
    stream = empty + packet(9, b"ab") + 3 * empty + packet(1) + 2 * empty
    cuts = range(1, len(stream)) if cut == "byte by byte" else []
    assert read_packets(stream, cuts) == [(9, b"ab"), (1, b"")]


def test_buffer_full_of_packets_of_no_bytes(read_packets: Read) -> None:
    """Thousands of them in one segment are no deeper than one."""
    assert read_packets(bytes(CAPACITY) + bytes(CAPACITY) + packet(1), []) == [(1, b"")]


@pytest.mark.parametrize("nbytes", [1, 2, 3])
@pytest.mark.parametrize("more", [0, 1, 3, 4, 100])
def test_packets_too_short_for_a_code_are_refused(nbytes: int, more: int) -> None:
    """Lengths from 1 to 3 are refused as soon as the length is there, not awaited for ever."""
    reader = reader_with(struct.pack("<Q", nbytes) + bytes(more))
    with pytest.raises(RemoteProtocolError, match=f"a packet of {nbytes} bytes"):
        reader.next_packet()


def test_short_packet_behind_others_is_refused() -> None:
    """What was whole before it is handed out first."""
    reader = reader_with(packet(1) + bytes(8) + struct.pack("<Q", 3))
    assert reader.next_packet() == (1, 12, 12)
    with pytest.raises(RemoteProtocolError, match="a packet of 3 bytes"):
        reader.next_packet()


@pytest.mark.parametrize("nbytes", [MAX_PACKET + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_lengths_beyond_the_limit_are_refused(nbytes: int) -> None:
    """2^40 and a byte, and all above, are refused before any memory is taken for them."""
    reader = reader_with(packet(7, claimed=nbytes))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match=f"a packet of {nbytes} bytes"):
            reader.next_packet()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_longest_packet_gives_its_head() -> None:
    """The limit itself is legal: its head comes, the rest is a number, and no memory is taken."""
    reader = reader_with(packet(7, bytes(HEAD - 12), claimed=MAX_PACKET))
    tracemalloc.start()
    try:
        assert reader.next_packet() == (7, 12, HEAD)
        assert reader.missing == MAX_PACKET + 8 - HEAD
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_largest_packet_that_fits_is_whole() -> None:
    """Exactly the buffer's size is handed out whole, and only then."""
    content = packet(7, bytes(CAPACITY - 12))
    reader = reader_with(content[:-1])
    assert reader.next_packet() is None
    assert len(reader.room()) == 1
    reader.received(1)
    assert reader.next_packet() == (7, 12, CAPACITY)
    assert reader.missing == 0
    assert len(reader.room()) == CAPACITY


def test_packet_larger_than_the_buffer_comes_head_first() -> None:
    """One byte more: head and number of missing bytes, once enough of the head is there."""
    content = packet(7, bytes(CAPACITY - 11))
    reader = reader_with(content[: HEAD - 1])
    assert reader.next_packet() is None
    reader.room()[:1] = content[HEAD - 1 : HEAD]
    reader.received(1)
    assert reader.next_packet() == (7, 12, HEAD)
    assert reader.missing == len(content) - HEAD
    assert not reader.is_between_packets
    reader.missing = 0  # the owner received them
    assert reader.is_between_packets
    assert reader.next_packet() is None


def test_large_packet_behind_a_small_one(read_packets: Read) -> None:
    """Small, large, small in one stream, cut in many ways; the large one's bytes are all there."""
    large = bytes(range(256)) * 1000
    stream = packet(9, b"ab") + packet(7, large) + packet(10, b"cd")
    expected = [(9, b"ab"), (7, large), (10, b"cd")]
    assert read_packets(stream, []) == expected
    for size in (5000, HEAD, 40_000, CAPACITY):
        assert read_packets(stream, range(size, len(stream), size)) == expected


def test_there_is_always_room() -> None:
    """Whatever is left in the buffer, bytes can be received: a reader never comes to a halt."""
    for nbytes in (4, 5000, CAPACITY - 8, CAPACITY - 7, MAX_PACKET):
        reader = PacketReader()
        content = packet(9) + struct.pack("<Qi", nbytes, 7)
        sent = 0
        while sent < min(len(content) + nbytes, 2 * CAPACITY) and not reader.missing:
            room = reader.room()
            assert len(room) > 0
            part = min(len(room), 999)
            room[:part] = (content + bytes(part))[sent : sent + part].ljust(part, b"\0")
            reader.received(part)
            sent += part
            for _ in range(3):
                reader.next_packet()


def test_unknown_codes_are_not_the_readers_affair() -> None:
    """Codes nobody knows, and negative ones, come out as they are."""
    reader = reader_with(packet(-5) + packet(2**31 - 1))
    assert reader.next_packet() == (-5, 12, 12)
    assert reader.next_packet() == (2**31 - 1, 24, 24)


def test_lone_packet_is_known_by_its_size(golden: Callable[..., Any]) -> None:
    """`only_packet` tells the code of exactly one packet, and declines everything else."""
    content = golden("addone").content
    for taken, code in [(len(content), 3), (len(content) - 1, -1), (len(content) + 1, -1), (7, -1)]:
        reader = PacketReader()
        reader.room()[: len(content)] = content
        assert reader.only_packet(taken) == code
        assert not reader.filled, "asking changes nothing"
    empty = PacketReader()
    assert empty.only_packet(0) == -1
    assert empty.only_packet(8) == -1


def test_clean_end_is_between_packets() -> None:
    """Only with nothing of a next packet there may a stream end."""
    reader = reader_with(packet(9, b"ab") + b"\0")
    assert not reader.is_between_packets
    assert reader.filled
    reader.next_packet()
    assert not reader.is_between_packets
    reader = reader_with(packet(9, b"ab"))
    reader.next_packet()
    assert reader.is_between_packets
    assert not reader.filled
