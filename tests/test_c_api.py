"""The tables of ``docs/c-api.md`` against the functions that are offered, and their tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import List, Tuple

import pytest

from pytest_tvmrpc.runtime.context import FUNCTIONS

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| `(\w+)` \| ([\d.]+) \| (.+?) \| `(tests/[\w/.]+)::(\w+)` \|$", re.MULTILINE)
TEXT = (ROOT / "docs" / "c-api.md").read_text()
ROWS: List[Tuple[str, ...]] = ROW.findall(TEXT)


def test_each_function_is_listed_once() -> None:
    """What is offered is in the tables, and the other way round."""
    assert sorted(row[0] for row in ROWS) == sorted(FUNCTIONS)
    assert len(ROWS) == len(re.findall(r"^\| `TVM", TEXT, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_test_calls_it(row: Tuple[str, ...]) -> None:
    """The test that is named exists, and C code beside it calls the function."""
    name, _, _, file, test = row
    text = (ROOT / file).read_text()
    assert f"def {test}(" in text
    sources = (ROOT / file).parent.glob("*.c")
    assert any(name in source.read_text() for source in sources) or name in text


def test_what_is_not_offered() -> None:
    """What is listed as missing is missing."""
    for name in re.findall(r"`(TVM\w+)`", TEXT.replace("...", "")):
        if name not in {row[0] for row in ROWS}:
            assert name not in FUNCTIONS
