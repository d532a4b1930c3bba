"""Everything that reads what others wrote, fed with changed bytes for a while."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_tvmrpc.errors import CompilerError, LibraryError, RemoteProtocolError
from pytest_tvmrpc.protocol import farm, packets, requests, tracker
from pytest_tvmrpc.protocol.codes import RPCCode
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY, of_client, of_server
from pytest_tvmrpc.protocol.framing import PacketReader
from pytest_tvmrpc.protocol.handshake import HelloReader, ReplyReader, parse_peer_key, take_key
from pytest_tvmrpc.protocol.json_frames import FrameReader, parse_json
from pytest_tvmrpc.protocol.records import decode_legacy_record, decode_record, known_record
from pytest_tvmrpc.runtime import archive, elf, imports, params
from pytest_tvmrpc.runtime.profiling import BenchmarkResult
from pytest_tvmrpc.server.registration import Registration

from .mutation import FOREIGN, FRAMES, JSON_PIECES, Mutator, golden

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .trial import Trial

MOST_MEMORY = 4 << 20
"""Bytes that one input of a few hundred may take; of files, beyond their own size."""

LONGEST_S = 2.0


class Decoder(NamedTuple):
    """One reader: what it is fed with, and what it may raise."""

    name: str
    corpus: Sequence[bytes]
    read: Callable[[Mutator, bytes], object]
    errors: tuple[type[Exception], ...] = (RemoteProtocolError,)
    pieces: Sequence[bytes] = FOREIGN


def decoders(trial: Trial) -> None:
    """Golden bytes are changed at random and given to every decoder: an answer or its one error."""
    readers = _decoders(trial.temp, trial.library)
    each_s, rounds = trial.seconds(90) / len(readers), 0
    for number in trial.rounds(len(readers), "decoders"):
        rounds += _search(trial, readers[number], each_s)
    trial.say_done(f"{rounds} inputs for {len(readers)} decoders, seed {trial.seed}")
    trial.figure("decoders: " + ", ".join(reader.name for reader in readers))


def _search(trial: Trial, decoder: Decoder, limit_s: float) -> int:
    mutator = Mutator(trial.seed, decoder.corpus, decoder.pieces)
    until, rounds, taken = time.monotonic() + limit_s, 0, 0
    tracemalloc.start()
    try:
        while time.monotonic() < until:
            content = mutator.one()
            before, started = tracemalloc.get_traced_memory()[0], time.monotonic()
            tracemalloc.reset_peak()
            rounds += 1
            problem = ""
            try:
                decoder.read(mutator, content)
                taken += 1
            except decoder.errors:
                pass
            except Exception as error:  # whatever it is, it is what is searched for
                problem = repr(error)
            peak = tracemalloc.get_traced_memory()[1] - before - 4 * len(content)
            if peak > MOST_MEMORY:
                problem = f"it took {peak} bytes"
            if time.monotonic() - started > LONGEST_S:
                problem = f"it took {time.monotonic() - started:.1f} s"
            if problem:
                where = trial.temp.parent / f"{decoder.name.replace(' ', '-')}-{rounds}.bin"
                trial.check(
                    False,
                    f"{decoder.name}, input {rounds} of seed {trial.seed}, "
                    f"{content[:200].hex()}: {problem}",
                )
                where.write_bytes(content)
                break
    finally:
        tracemalloc.stop()
    trial.check(
        0 < taken < rounds or problem,
        f"{decoder.name}: {taken} of {rounds} were taken, so nothing was searched",
    )
    return rounds


def _decoders(folder: Path, library: Path) -> list[Decoder]:
    vectors, hellos = golden(), golden("handshake")
    tensors = params.save_param_dict({"a": _tensor(), "b": _tensor()})
    file = folder / "input"
    path = str(file)

    def from_file(read: Callable[[str], object]) -> Callable[[Mutator, bytes], object]:
        def write_and_read(mutator: Mutator, content: bytes) -> object:
            file.write_bytes(content)
            return read(path)

        return write_and_read

    refused = (LibraryError, CompilerError, OSError)
    return [
        Decoder("a client's hello", hellos, _hello),
        Decoder("a server's reply", hellos, _reply),
        Decoder("a hello at a proxy", hellos, _peer_hello),
        Decoder("packets, both dialects", vectors, _packets),
        Decoder("tracker messages", FRAMES, _frames, pieces=JSON_PIECES),
        Decoder("a tracker's words", FRAMES, _registration, pieces=JSON_PIECES),
        Decoder("parameters", [bytes(tensors)], _parameters, (ValueError,)),
        Decoder("measurements", [struct.pack("<3d", 1, 2, 3)], _results, (ValueError,)),
        Decoder("libraries", [library.read_bytes()], from_file(elf.read), refused),
        Decoder("archives", [_archive(folder)], from_file(_unpack), refused),
        Decoder("tables of imports", _tables(), _imports, (struct.error, ValueError)),
    ]


def _hello(mutator: Mutator, content: bytes) -> object:
    reader = HelloReader()
    return [reader.feed(part) for part in mutator.cuts(content)]


def _reply(mutator: Mutator, content: bytes) -> object:
    reader = ReplyReader()
    while reader.needed and content:
        part, content = content[: reader.needed], content[reader.needed :]
        reader.feed(part)
    return reader.reply


def _peer_hello(mutator: Mutator, content: bytes) -> object:
    text = take_key(bytearray(content))
    return None if text is None else parse_peer_key(text)


def _packets(mutator: Mutator, content: bytes) -> int:
    """How many were looked at; as a peer that reads each in all the ways that there are."""
    reader, known = PacketReader(), ({}, {})
    where, seen, taken = requests.State.OPENED, 0, 0
    for part in mutator.cuts(content):
        while part:
            if reader.missing:
                passed = min(reader.missing, len(part))
                reader.missing -= passed
                part = part[passed:]
                continue
            room = reader.room()
            size = min(len(room), len(part))
            room[:size] = part[:size]
            part = part[size:]
            reader.received(size)
            while not reader.missing:
                packet = reader.next_packet()
                if packet is None:
                    break
                seen += 1
                step = _tolerated(requests.step_of, where, packet[0])
                where = step.state if step else where
                taken += _all_ways(reader, *packet, known)
    if seen and not taken:
        raise RemoteProtocolError("no way to read it")
    return seen


def _all_ways(reader: PacketReader, code: int, start: int, end: int, known: Any) -> int:
    buffer, taken = reader.buffer, 0
    body = memoryview(buffer)[start:end]
    for dialect, records in zip((FFI, LEGACY), known, strict=True):
        for begin in {start, min(start + 8, end)}:
            taken += _tolerated(dialect.decode_values, buffer, begin, end) is not None
            _tolerated(dialect.decode_values, buffer, begin, end, records)
            _tolerated(dialect.decode_result, buffer, begin, end)
        dialect.decode_values_before(buffer, start, (start + end) // 2, end + reader.missing)
    for read in (packets.decode_init_server, packets.decode_call_handle):
        taken += _tolerated(read, buffer, start, end) is not None
    taken += _tolerated(packets.decode_copy, buffer, start, end, known[0]) is not None
    _tolerated(decode_record, buffer, start, end)
    _tolerated(decode_legacy_record, buffer, start, end)
    _tolerated(known_record, buffer, start, end, known[0])
    _tolerated(of_server, body)
    for assumed in (code, RPCCode.GET_GLOBAL_FUNC, RPCCode.INIT_SERVER, RPCCode.CALL_FUNC):
        _tolerated(of_client, assumed, body, reader.missing)
    return taken


def _tolerated(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except RemoteProtocolError:
        return None


def _frames(mutator: Mutator, content: bytes) -> int:
    reader, taken, seen = FrameReader(), 0, 0
    parsers = (
        *(farm.parse_request, farm.parse_farm, farm.parse_kicked),
        *(tracker.parse_request, tracker.parse_status, tracker.parse_granted),
        *(tracker.parse_summary, tracker.parse_pending, tracker.parse_welcome),
    )
    for part in mutator.cuts(content):
        reader.feed(part)
        for frame in iter(reader.next_frame, None):
            value = parse_json(frame)
            seen += 1
            tracker.is_granted(value)
            if farm.is_order(value):
                _tolerated(farm.parse_order, value)
            taken += sum(_tolerated(parse, value) is not None for parse in parsers)
    if seen and not taken:
        raise RemoteProtocolError("nothing that a tracker hears or says")
    return seen


def _registration(mutator: Mutator, content: bytes) -> object:
    server = Registration("board", 9090, entropy=os.urandom)
    server.connected(0.0)
    server.received(tracker.MAGIC, 0.0)
    for now, part in enumerate(mutator.cuts(content)):
        server.received(part, float(now))
    return server.match_key


def _parameters(mutator: Mutator, content: bytes) -> object:
    return params.load_param_dict(content)


def _results(mutator: Mutator, content: bytes) -> object:
    return BenchmarkResult.from_bytes(content)


def _imports(mutator: Mutator, content: bytes) -> object:
    if mutator.chance.random() < 0.5:
        return imports.imported_modules(content)
    return imports.entry_kinds(content)


def _tensor() -> Any:
    from pytest_tvmrpc import runtime

    return runtime.empty((2, 3), "float32")


def _archive(folder: Path) -> bytes:
    import tarfile

    (folder / "a.o").write_bytes(bytes(100))
    with tarfile.open(folder / "a.tar", "w") as file:
        file.add(folder / "a.o", "a.o")
    return (folder / "a.tar").read_bytes()


def _unpack(path: str) -> object:
    import shutil
    import tempfile

    target = tempfile.mkdtemp()
    try:
        return archive.unpack(path, target)
    finally:
        shutil.rmtree(target)


def _tables() -> list[bytes]:
    """A table of one library with one import, of each age."""

    def text(content: bytes) -> bytes:
        return struct.pack("<Q", len(content)) + content

    vectors = struct.pack("<Q2Q", 2, 0, 1) + struct.pack("<QQ", 1, 1)
    old = struct.pack("<Q", 3) + text(b"_lib") + text(b"cuda") + text(b"x" * 8)
    new = vectors + text(b"_lib") + text(b"cuda") + text(b"x" * 8)
    return [new, old + text(b"_import_tree") + vectors]
