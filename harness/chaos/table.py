"""The verdicts as a table for people, and as JSON. Runs nothing."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PASSED, FAILED, SKIPPED = "PASSED", "FAILED", "skipped"
HEAD = ("scenario", "what was done", "what came out", "verdict")
WIDTHS = (36, 62)  # of the two columns of text


class Result(NamedTuple):
    """What came of one scenario."""

    name: str
    verdict: str
    done: tuple[str, ...]
    figures: tuple[str, ...]
    failures: tuple[str, ...]
    lasted_s: float


def render(results: Sequence[Result]) -> str:
    """The table; its last line counts."""
    names = max([len(HEAD[0]), *(len(result.name) for result in results)])
    widths = (names, *WIDTHS, len(HEAD[3]))
    lines = [_aligned(HEAD, widths), _aligned(["-" * width for width in widths], widths)]
    for result in results:
        lines += _lines(result, widths)
    counts = [
        f"{sum(result.verdict == verdict for result in results)} {verdict.lower()}"
        for verdict in (PASSED, FAILED, SKIPPED)
    ]
    return "\n".join([*lines, "", ", ".join(counts), ""])


def write(path: Path, results: Sequence[Result], facts: dict[str, object]) -> None:
    """The same with all figures, for programs."""
    content = {**facts, "results": [result._asdict() for result in results]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _lines(result: Result, widths: Sequence[int]) -> list[str]:
    done = _wrapped([*result.done, f"{result.lasted_s:.0f} s"], widths[1])
    came = _wrapped([*result.figures, *(f"! {text}" for text in result.failures)], widths[2])
    height = max(len(done), len(came), 1)
    columns = (
        [result.name, *[""] * (height - 1)],
        [*done, *[""] * (height - len(done))],
        [*came, *[""] * (height - len(came))],
        [result.verdict, *[""] * (height - 1)],
    )
    return [_aligned(row, widths) for row in zip(*columns, strict=True)]


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    return [
        line
        for text in texts
        for line in textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    ]


def _aligned(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(t.ljust(width) for t, width in zip(texts, widths, strict=True)).rstrip()
