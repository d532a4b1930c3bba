"""The JSON file of a run: everything that was measured, round by round."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .rounds import Outcome
    from .table import Row

SCHEMA = 1


def write(path: Path, rows: Sequence[Row], facts: Mapping[str, object]) -> None:
    """Writes the rows of a run, with facts about machine, versions and options."""
    content = {"schema": SCHEMA, **facts, "rows": [_row(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _row(row: Row) -> dict[str, Any]:
    line = row.line
    return {
        "item": line.name,
        "work": line.work,
        "unit": line.kind.value,
        "cells": {name: _cell(outcome) for name, outcome in row.cells.items()},
        "ratio": row.ratio,
        "goal": line.goal._asdict() if line.goal else None,
        "met": row.is_met,
        "note": row.note,
    }


def _cell(outcome: Outcome) -> dict[str, Any]:
    return {"p50": outcome.value, "rounds": list(outcome.rounds), "error": outcome.error or None}
