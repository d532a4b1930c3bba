"""Hostile bytes: what peers really said, changed at random. The same seed makes the same."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tvmrpc.protocol import farm, tracker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VECTORS = Path(__file__).resolve().parents[2] / "tests" / "vectors"

EDGES = (
    *(0, 1, 2, 3, 4, 7, 8, 11, 12, 64, 65, 127, 128, 255, 256, 4095, 4096, 4097, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1),
)
"""What lengths, counts, codes and handles are replaced with."""

JSON_PIECES = (
    *(b"null", b"-1", b"1e999", b"NaN", b"-Infinity", b"true", b'""', b'"\\ud800"', b"[]", b"{}"),
    *(b"9" * 400, b"[" * 300, b'{"a":' * 300, b"\xff", b'"\\u0000"', b"65536", b"[0]", b"[100]"),
)

FRAMES = (
    tracker.update_info("junk", 9090),
    tracker.put("junk", 9090, "junk:0.7956352009146216", "10.0.0.1"),
    tracker.request("junk", 5, "somebody", 10.0),
    tracker.summary(),
    tracker.ping(),
    tracker.get_pending_matchkeys(),
    tracker.granted(tracker.Granted("10.0.0.1", 9090, "junk:0.5")),
    tracker.encode(["junk:0.5", "junk:0.6"]),
    tracker.SUCCESS,
    farm.who(),
    farm.kick("junk", "why not"),
    farm.kick_order(farm.KickOrder("why not", "junk:0.5")),
    farm.kick_reply([farm.Kicked("10.0.0.1:9090", farm.Outcome.KICKED)]),
)

FOREIGN = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\0" * 8,
    b"\xff" * 64,
)


def golden(*names: str, direction: str = "") -> list[bytes]:
    """The golden packets in these files of tests/vectors; all but the hellos for no name.

    Args:
        direction: ``>`` for what clients say, ``<`` for what servers say.
    """
    paths = (
        [VECTORS / f"{name}.txt" for name in names]
        if names
        else sorted(set(VECTORS.glob("*.txt")) - {VECTORS / "handshake.txt"})
    )
    texts: list[str] = []
    directions: list[str] = []
    for line in "\n".join(path.read_text(encoding="ascii") for path in paths).splitlines():
        if line.startswith(" "):
            texts[-1] += line
        elif line and not line.startswith("#"):
            texts.append("")
            directions.append(line.split(" ", 3)[2])
    return [
        bytes.fromhex(text)
        for text, said in zip(texts, directions, strict=True)
        if said == direction or not direction
    ]


class Mutator:
    """Makes new byte strings of known ones.

    Args:
        seed: of its chance.
        corpus: what is known.
        pieces: what may be put in anywhere.
    """

    def __init__(self, seed: int, corpus: Sequence[bytes], pieces: Sequence[bytes] = ()) -> None:
        self.chance = random.Random(seed)
        self._corpus = corpus
        self._pieces = (*pieces, bytes(8), b"\xff" * 4)

    def one(self) -> bytes:
        """A known string with up to five changes."""
        content = bytearray(self.chance.choice(self._corpus))
        for _ in range(self.chance.randint(0, 5)):
            self._change(content)
        if len(content) >= 12 and self.chance.random() < 0.6:
            # Otherwise few changes of size would be looked at, behind a length that is wrong.
            width = self.chance.choice((4, 8))
            struct.pack_into("<I" if width == 4 else "<Q", content, 0, len(content) - width)
        return bytes(content)

    def cuts(self, content: bytes) -> Iterator[bytes]:
        """The same bytes in segments."""
        start = 0
        while start < len(content):
            size = self.chance.choice((1, 3, 8, 13, 200, 100_000))
            yield content[start : start + size]
            start += size

    def _change(self, content: bytearray) -> None:
        chance, place = self.chance, self.chance.randrange(len(content) + 1)
        kind = chance.randrange(7)
        if kind == 0 and place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        elif kind in (1, 2):
            size = chance.choice((1, 4, 8))
            place -= place % 4
            content[place : place + size] = struct.pack("<Q", chance.choice(EDGES))[:size]
        elif kind == 3:
            del content[place : place + chance.choice((1, 4, 8, 1 << 20))]
        elif kind == 4:
            content[place:place] = chance.choice(self._pieces)
        elif kind == 5:
            content[place:] = chance.choice(self._corpus)[place:]
        else:
            content += chance.choice(self._corpus)
