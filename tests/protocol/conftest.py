"""The golden packets of tests/vectors, and what reads them, for the tests of this folder.

A test that names ``packet_vector`` or ``hello_vector`` among its arguments runs once for each of
those; one that names ``spoken`` once for each packet and each dialect in which it can be said, as a
pair of the two. Nothing is checked in here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import pytest

from pytest_tvmrpc.data_type import DataType
from pytest_tvmrpc.dlpack import Device, OpaquePointer, TensorRecord
from pytest_tvmrpc.protocol.dialect import FFI, LEGACY
from pytest_tvmrpc.protocol.framing import PacketReader
from pytest_tvmrpc.protocol.values import FunctionHandle, ModuleHandle, ObjectHandle

FOLDER = Path(__file__).resolve().parent.parent / "vectors"


class Vector(NamedTuple):
    """One golden packet; ``value`` is the JSON that describes it, ``content`` its bytes."""

    name: str
    dialect: str
    direction: str
    source: str
    value: Dict[str, Any]
    content: bytes

    @property
    def values(self) -> List[Any]:
        """Its packed sequence, as the protocol decodes it."""
        return [_native(value) for value in self.value.get("values", ())]

    @property
    def record(self) -> TensorRecord:
        return _record(*self.value["record"])


def _record(
    data: int, device: Sequence[int], shape: Sequence[int], dtype: str, byte_offset: int
) -> TensorRecord:
    return TensorRecord(data, Device(*device), tuple(shape), DataType(dtype), byte_offset)


_TAGS: Dict[str, Callable[[Any], Any]] = {
    "bytes": bytes.fromhex,
    "pointer": OpaquePointer,
    "function": FunctionHandle,
    "module": ModuleHandle,
    "object": ObjectHandle,
    "dtype": DataType,
    "device": lambda numbers: Device(*numbers),
    "tensor": lambda fields: _record(*fields),
}


def _native(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    return _TAGS[tag](content)


def _read(path: Path) -> Iterator[Vector]:
    heads: List[List[str]] = []
    texts: List[str] = []
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(" "):
            texts[-1] += line
        elif line and not line.startswith("#"):
            heads.append(line.split(" ", 4))
            texts.append("")
    for (name, dialect, direction, source, value), text in zip(heads, texts):
        content = bytes.fromhex(text)
        yield Vector(name, dialect, direction, source, json.loads(value), content)


HELLOS = list(_read(FOLDER / "handshake.txt"))
PACKETS = [
    vector
    for path in sorted(FOLDER.glob("*.txt"))
    if path.name != "handshake.txt"
    for vector in _read(path)
]
SPOKEN = [
    (vector, dialect)
    for vector in PACKETS
    for dialect in (FFI, LEGACY)
    if vector.dialect in (dialect.name, "both")
]
SELECTIONS = {"hello_vector": HELLOS, "packet_vector": PACKETS}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, vectors in SELECTIONS.items():
        if argument in metafunc.fixturenames:
            ids = [f"{vector.dialect}-{vector.name}" for vector in vectors]
            metafunc.parametrize(argument, vectors, ids=ids)
    if "spoken" in metafunc.fixturenames:
        ids = [f"{dialect.name}-{vector.name}" for vector, dialect in SPOKEN]
        metafunc.parametrize("spoken", SPOKEN, ids=ids)


@pytest.fixture(name="golden", scope="session")
def _golden() -> Callable[..., Vector]:
    """``golden(name, dialect="ffi")``: the vector of that name."""
    named = {(vector.name, vector.dialect): vector for vector in HELLOS + PACKETS}

    def golden(name: str, dialect: str = "ffi") -> Vector:
        return named.get((name, dialect)) or named[name, "both"]

    return golden


@pytest.fixture(name="every_vector", scope="session")
def _every_vector() -> Tuple[List[Vector], List[Vector]]:
    """All hellos, all packets."""
    return HELLOS, PACKETS


@pytest.fixture(name="read_packets", scope="session")
def _read_packets() -> Callable[[bytes, Sequence[int]], List[Tuple[int, bytes]]]:
    """``read_packets(stream, cuts)``: code and body of each packet in a stream cut at these places.

    As the owner of a `PacketReader` does it: what is missing of a large packet is taken apart.
    """

    def read_packets(stream: bytes, cuts: Sequence[int]) -> List[Tuple[int, bytes]]:
        reader = PacketReader()
        packets: List[Tuple[int, bytes]] = []
        for start, stop in zip([0, *cuts], [*cuts, len(stream)]):
            part = stream[start:stop]
            while part:
                if reader.missing:
                    code, body = packets.pop()
                    taken, part = part[: reader.missing], part[reader.missing :]
                    packets.append((code, body + taken))
                    reader.missing -= len(taken)
                    continue
                room = reader.room()
                taken, part = part[: len(room)], part[len(room) :]
                room[: len(taken)] = taken
                reader.received(len(taken))
                while not reader.missing:
                    packet = reader.next_packet()
                    if packet is None:
                        break
                    code, begin, end = packet
                    packets.append((code, bytes(reader.buffer[begin:end])))
        return packets

    return read_packets
