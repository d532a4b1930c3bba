"""The promise of protocol/: whatever bytes arrive, it returns or raises `RemoteProtocolError`.

Nothing else is raised, and no memory is taken for what a length merely claims. Golden bytes are
changed at random and go through every decoder. To repeat a failure, set PYTEST_TVMRPC_FUZZ_SEED to
the seed in its message; PYTEST_TVMRPC_FUZZ_ROUNDS makes the search longer.
"""

from __future__ import annotations

import os
import random
import struct
import tracemalloc
from typing import Any, Callable, Dict, Iterator, List

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol import packets, requests, tracker
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, of_client, of_server
from pytest_tvmrpc.protocol.framing import CAPACITY, PacketReader
from pytest_tvmrpc.protocol.handshake import HelloReader, ReplyReader
from pytest_tvmrpc.protocol.records import decode_legacy_record, decode_record, known_record

ROUNDS = int(os.environ.get("PYTEST_TVMRPC_FUZZ_ROUNDS", "4000"))
SEED = os.environ.get("PYTEST_TVMRPC_FUZZ_SEED")

MOST_MEMORY = 1 << 20
"""Bytes a decoder may take for a few hundred that arrived, the reader's own buffer included."""

NUMBERS = [
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 64, 65, 66, 68, 70, 72, 73),
    *(77, 115, 116, 127, 128, 255, 256, 4096, 4097),
    *(2**16 - 12, 2**16 - 8, 2**16, 2**21, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**40 + 1),
    *(2**63 - 1, 2**63, 2**64 - 13, 2**64 - 8, 2**64 - 4, 2**64 - 1),
]
"""What lengths, counts, codes and type indices are replaced with: the edges of all of them."""

TRACKER_FRAMES = [
    tracker.update_info("board", 9090),
    tracker.put("board", 9090, "board:0.7956352009146216", "10.0.0.1"),
    tracker.request("board", 5),
    tracker.summary(),
    tracker.ping(),
    tracker.get_pending_matchkeys(),
    tracker.granted(tracker.Granted("10.0.0.1", 9090, "board:0.5")),
    tracker.summary_reply(
        {
            "queue_info": {"board": {"free": 1, "pending": 0}},
            "server_info": [{"key": "server:board", "addr": ["127.0.0.1", "19100"]}],
        }
    ),
    tracker.encode(["board:0.5", "board:0.6"]),
    tracker.SUCCESS,
]
JSON_PIECES = [
    *(b"null", b"-1", b"1e999", b"NaN", b"-Infinity", b"true", b'""', b'"\\ud800"', b"[]", b"{}"),
    *(b"9" * 400, b"[" * 300, b'{"a":' * 300, b"\xff", b'"\\u0000"', b"65536", b'"a b"', b"0.5"),
]


class Mutator:
    """Makes new byte strings of known ones; the same seed makes the same."""

    def __init__(self, seed: int, corpus: List[bytes], pieces: List[bytes]) -> None:
        self.random = random.Random(seed)
        self.corpus = corpus
        self.pieces = pieces

    def one(self) -> bytes:
        content = bytearray(self.random.choice(self.corpus))
        for _ in range(self.random.randint(0, 4)):
            self.random.choice(self.CHANGES)(self, content)
        return bytes(content)

    def cuts(self, content: bytes) -> Iterator[bytes]:
        """The same bytes in segments of any size."""
        start = 0
        while start < len(content):
            size = self.random.choice((1, 2, 4, 7, 12, 50, 1000, 100_000))
            yield content[start : start + size]
            start += size

    def _place(self, content: bytearray) -> int:
        return self.random.randrange(len(content) + 1)

    def _flip(self, content: bytearray) -> None:
        if content:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)

    def _number(self, content: bytearray) -> None:
        number = self.random.choice(NUMBERS)
        size = self.random.choice((1, 4, 4, 8, 8))
        place = self.random.randrange(0, len(content) + 1, self.random.choice((1, 4)))
        content[place : place + size] = struct.pack("<Q", number)[:size]

    def _cut(self, content: bytearray) -> None:
        del content[self._place(content) :]

    def _remove(self, content: bytearray) -> None:
        place = self._place(content)
        del content[place : place + self.random.choice((1, 4, 8, 12))]

    def _insert(self, content: bytearray) -> None:
        place = self._place(content)
        content[place:place] = self.random.choice(
            (bytes(8), b"\xff" * 4, self.random.randbytes(6), *self.pieces)
        )

    def _splice(self, content: bytearray) -> None:
        other = self.random.choice(self.corpus)
        content[self._place(content) :] = other[self.random.randrange(len(other) + 1) :]

    def _follow(self, content: bytearray) -> None:
        content += self.random.choice(self.corpus)

    def _right_length(self, content: bytearray) -> None:
        """Without it, few changes of size get past the framing."""
        if len(content) >= 12:
            struct.pack_into("<Q", content, 0, len(content) - 8)

    CHANGES = (
        *(_flip, _number, _number, _number, _cut, _remove, _insert, _splice, _follow),
        *(_right_length,) * 5,
    )


def tolerated(decode: Callable[..., Any], *arguments: Any) -> Any:
    """What a decoder returns; None if it refuses, as it may."""
    try:
        return decode(*arguments)
    except RemoteProtocolError:
        return None


def read_hello(mutator: Mutator, content: bytes) -> None:
    reader = HelloReader()
    for part in mutator.cuts(content):
        if reader.feed(part) is not None:
            break


def read_reply(mutator: Mutator, content: bytes) -> None:
    reader = ReplyReader()
    while reader.needed and content:
        size = mutator.random.randint(1, reader.needed)
        reader.feed(content[:size])
        content = content[size:]


def read_stream(mutator: Mutator, content: bytes) -> None:
    """Frames and everything within, as a peer that decodes all it gets in all ways."""
    reader = PacketReader()
    records: Dict[bytes, Any] = {}
    legacy_records: Dict[bytes, Any] = {}
    where = requests.State.OPENED
    for part in mutator.cuts(content):
        while part:
            if reader.missing:
                passed = min(reader.missing, len(part))
                reader.missing -= passed
                part = part[passed:]
                continue
            room = reader.room()
            taken, part = part[: len(room)], part[len(room) :]
            room[: len(taken)] = taken
            reader.only_packet(len(taken))
            reader.received(len(taken))
            while not reader.missing:
                packet = reader.next_packet()
                if packet is None:
                    break
                code, start, end = packet
                step = tolerated(requests.step_of, where, code)
                where = where if step is None else step.state
                requests.code_name(code)
                decode_all_ways(mutator, reader, code, start, end, records, legacy_records)


def decode_all_ways(
    mutator: Mutator,
    reader: PacketReader,
    code: int,
    start: int,
    end: int,
    records: Dict[bytes, Any],
    legacy_records: Dict[bytes, Any],
) -> None:
    buffer = reader.buffer
    begin = min(start + mutator.random.choice((0, 0, 0, 8)), end)
    head_end = mutator.random.randint(begin, end)
    init = tolerated(packets.decode_init_server, buffer, start, end)
    for dialect, known in ((FFI, records), (LEGACY, legacy_records)):
        tolerated(dialect.decode_values, buffer, begin, end)
        tolerated(dialect.decode_values, buffer, begin, end, known)
        tolerated(dialect.decode_values, buffer, begin, end, None, type)
        tolerated(dialect.decode_result, buffer, begin, end)
        tolerated(dialect.decode_result, bytes(buffer[begin:end]), 0, end - begin)
        dialect.decode_values_before(buffer, begin, head_end, end + reader.missing)
        if init is not None:
            tolerated(dialect.decode_values, buffer, init.values_at, end)
    tolerated(packets.decode_call_handle, buffer, start, end)
    tolerated(packets.decode_copy, buffer, start, end, records)
    tolerated(decode_record, buffer, begin, end)
    tolerated(decode_legacy_record, buffer, begin, end)
    tolerated(known_record, buffer, begin, end, records)
    body = memoryview(buffer)[start:end]
    tolerated(of_server, body)
    for assumed in (code, RPCCode.GET_GLOBAL_FUNC, RPCCode.INIT_SERVER, RPCCode.CALL_FUNC):
        tolerated(of_client, assumed, body)
        tolerated(of_client, assumed, body, reader.missing or 1)


def read_tracker(mutator: Mutator, content: bytes) -> None:
    reader = tracker.FrameReader()
    for part in mutator.cuts(content):
        reader.feed(part)
        for frame in iter(reader.next_frame, None):
            value = tolerated(tracker.parse_json, frame)
            tracker.is_granted(value)
            for parse in (
                tracker.parse_request,
                tracker.parse_status,
                tracker.parse_granted,
                tracker.parse_summary,
                tracker.parse_pending,
            ):
                tolerated(parse, value)


@pytest.mark.parametrize("decoder", [read_hello, read_reply, read_stream, read_tracker])
def test_changed_bytes_are_read_or_refused(
    decoder: Callable[[Mutator, bytes], None], every_vector: Any
) -> None:
    """Each decoder, for thousands of inputs: returns or raises the one error, in little memory."""
    hellos, vectors = every_vector
    corpus = {
        read_hello: [vector.content for vector in hellos if vector.direction == ">"],
        read_reply: [vector.content for vector in hellos if vector.direction == "<"],
        read_stream: [vector.content for vector in vectors],
        read_tracker: TRACKER_FRAMES,
    }[decoder]
    pieces = JSON_PIECES if decoder is read_tracker else [corpus[0], struct.pack("<i", 1)]
    seed = int(SEED) if SEED else random.randrange(2**32)
    mutator = Mutator(seed, corpus, pieces)
    peak = 0
    tracemalloc.start()
    try:
        for number in range(ROUNDS):
            content = mutator.one()
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            try:
                tolerated(decoder, mutator, content)
            except Exception as error:  # whatever it is, the message says how to repeat it
                pytest.fail(f"{error!r} in round {number} of seed {seed} for {content.hex()}")
            peak = tracemalloc.get_traced_memory()[1] - before
            if peak > MOST_MEMORY:
                pytest.fail(f"{peak} bytes in round {number} of seed {seed} for {content.hex()}")
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dialect", [FFI, LEGACY], ids=lambda dialect: dialect.name)
def test_changes_get_past_the_framing(dialect: Any, every_vector: Any) -> None:
    """The search is worth something: many changed packets are still decoded, many are refused."""
    mutator = Mutator(1, [vector.content for vector in every_vector[1]], [])
    taken = refused = 0
    for _ in range(1000):
        content = mutator.one()
        if len(content) > 12:
            if tolerated(dialect.decode_values, content, 12, len(content)) is None:
                refused += 1
            else:
                taken += 1
    assert taken > 100
    assert refused > 100


@pytest.mark.parametrize("size", [0, 1, 11, 12, 100, CAPACITY - 1, CAPACITY, 3 * CAPACITY])
@pytest.mark.parametrize("kind", ["zeros", "ones", "noise"])
def test_noise(kind: str, size: int) -> None:
    """Bytes with no thought behind them, up to several buffers full."""
    seed = int(SEED) if SEED else random.randrange(2**32)
    mutator = Mutator(seed, [b"\0"], [])
    content = {
        "zeros": bytes(size),
        "ones": b"\xff" * size,
        "noise": mutator.random.randbytes(size),
    }[kind]
    for decoder in (read_hello, read_reply, read_stream, read_tracker):
        try:
            tolerated(decoder, mutator, content)
        except Exception as error:  # as above
            pytest.fail(f"{error!r} in {decoder.__name__} for {size} {kind} of seed {seed}")
