"""JSON in frames: found wherever the stream is cut, and never longer than allowed."""

from __future__ import annotations

import struct
from typing import List

import pytest

from pytest_tvmrpc.errors import RemoteProtocolError
from pytest_tvmrpc.protocol.json_frames import MAX_FRAME, FrameReader


def bodies(reader: FrameReader) -> List[bytes]:
    return list(iter(reader.next_frame, None))


@pytest.mark.parametrize("cut", ["whole", "byte by byte", "with trailing bytes"])
def test_frames_are_found_wherever_the_stream_is_cut(cut: str) -> None:
    """The same frames come out of any segmentation, and the start of a next one waits."""
    texts = [b"[1]", b'[4, "k", "", 1]', b"0"]
    stream = b"".join(struct.pack("<i", len(text)) + text for text in texts)
    reader = FrameReader()
    found: List[bytes] = []
    if cut == "byte by byte":
        for index in range(len(stream)):
            reader.feed(stream[index : index + 1])
            found += bodies(reader)
    else:
        reader.feed(stream + (b"\x03\0\0\0[" if cut == "with trailing bytes" else b""))
        found += bodies(reader)
    assert found == texts
    assert (reader.left_nbytes > 0) == (cut == "with trailing bytes")
    if reader.left_nbytes:
        reader.feed(b"6]")
        assert bodies(reader) == [b"[6]"]


@pytest.mark.parametrize("length", [0, -1, -(2**31), MAX_FRAME + 1, 2**31 - 1])
def test_a_length_out_of_bounds_is_refused_before_its_bytes(length: int) -> None:
    """What a length merely claims is neither waited for nor allocated; it stays refused."""
    reader = FrameReader()
    reader.feed(struct.pack("<i", length))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="claims"):
            reader.next_frame()


def test_a_frame_of_the_greatest_length_is_taken() -> None:
    """The limit itself is allowed."""
    reader = FrameReader()
    reader.feed(struct.pack("<i", MAX_FRAME) + b" " * MAX_FRAME)
    assert bodies(reader) == [b" " * MAX_FRAME]
