"""The table of what TVM's server does in another way."""

from __future__ import annotations

import ast
from pathlib import Path

from .deviations import OF_TVM


def test_names_are_of_tests() -> None:
    """Each entry is of a test that there is; and a test stands there once."""
    there = {
        f"{path.stem}::{found.name}"
        for path in Path(__file__).parent.glob("test_*.py")
        for found in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(found, ast.FunctionDef)
    }
    named = [name for deviation in OF_TVM for name in deviation.tests]
    assert {name.partition("[")[0] for name in named} <= there
    assert len(named) == len(set(named))
