"""The golden packets of TVM 0.8 to 0.20, as the scripted peer reads and writes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple

import pytest

from .sequences import (
    BYTES,
    DEVICE,
    DTYPE,
    FUNCTION,
    MODULE,
    NULL,
    OBJECT,
    POINTER,
    TENSOR,
    DType,
    Reader,
    Record,
    Value,
    packet,
    record,
    sequence,
)

FILES = ("session", "memory", "results", "files", "timing")


class Vector(NamedTuple):
    """One packet of a file: its name, its bytes, and what it says."""

    name: str
    raw: bytes
    said: Any


def vectors() -> Iterator[Vector]:
    """All that are legacy, or the same in both dialects."""
    for file in FILES:
        text = (Path(__file__).parents[1] / "vectors" / f"{file}.txt").read_text()
        blocks: List[List[str]] = []
        for line in text.splitlines():
            if line[:1].isalpha():
                blocks.append([line])
            elif line.startswith(" "):
                blocks[-1].append(line)
        for head, *lines in blocks:
            name, dialect, _, _, said = head.split(None, 4)
            if dialect in ("legacy", "both"):
                raw = bytes.fromhex("".join(lines))
                yield Vector(f"{file}-{name}", raw, json.loads(said))


def plain(value: Value) -> Any:
    """A value in the words of the files."""
    code, content = value
    if code == TENSOR:
        return {"tensor": said_record(content)}
    if code == DTYPE:
        return {"dtype": said_dtype(content)}
    names = {BYTES: "bytes", POINTER: "pointer", FUNCTION: "function", MODULE: "module"}
    names.update({OBJECT: "object", DEVICE: "device"})
    if code in names:
        said = content.hex() if code == BYTES else list(content) if code == DEVICE else content
        return {names[code]: said}
    return None if code == NULL else content


def said_record(tensor: Record) -> List[Any]:
    """A tensor in the words of the files."""
    return [
        tensor.data,
        list(tensor.device),
        list(tensor.shape),
        said_dtype(tensor.dtype),
        tensor.byte_offset,
    ]


def said_dtype(dtype: DType) -> str:
    """A data type in the words of the files."""
    names = {0: "int", 1: "uint", 2: "float", 3: "handle", 4: "bfloat"}
    lanes = f"x{dtype.lanes}" if dtype.lanes > 1 else ""
    return f"{names[dtype.code]}{dtype.bits}{lanes}"


@pytest.mark.parametrize("vector", list(vectors()), ids=lambda vector: vector.name)
def test_every_packet(vector: Vector) -> None:
    """Says what the file says, and is written with the same bytes."""
    (length, code) = struct.unpack_from("<Qi", vector.raw)
    assert length == len(vector.raw) - 8
    reader = Reader(vector.raw[12:], range(16), vector.name)
    said = {"code": code}
    written = b""
    if code == 2:
        version = reader.take(*reader.unpack("Q"))
        said["version"] = version.decode()
        written = struct.pack("<Q", len(version)) + version
    if code == 3:
        (said["handle"],) = reader.unpack("Q")
        written = struct.pack("<Q", said["handle"])
    if code in (6, 7):
        tensor = reader.record()
        (nbytes,) = reader.unpack("Q")
        said.update(record=said_record(tensor), nbytes=nbytes)
        written = record(tensor) + struct.pack("<Q", nbytes)
    if code in (7, 8):
        content = reader.rest()
        said["content"] = content.hex()
        written += content
    if code in (2, 3, 4, 5) or code >= 9:
        values = reader.sequence()
        said["values"] = [plain(value) for value in values]
        written += sequence(values)
    reader.end()
    assert said == vector.said
    assert packet(code, written) == vector.raw
