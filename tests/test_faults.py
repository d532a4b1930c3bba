"""docs/faults.md: every test and every scenario that it names is there. Imports none of them."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path
from typing import FrozenSet

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"([\w/]+\.py)::(\w+)", PAGE)))
SCENARIOS = sorted(set(re.findall(r"  chaos ([a-z-]+)$", PAGE, re.MULTILINE)))


@lru_cache(maxsize=None)
def functions(path: Path) -> FrozenSet[str]:
    """The tests of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def existing_scenarios() -> FrozenSet[str]:
    """The keys of the table in harness/chaos/scenarios.py."""
    tree = ast.parse((ROOT / "harness" / "chaos" / "scenarios.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return frozenset(ast.literal_eval(key) for key in node.value.keys if key is not None)
    pytest.fail("there is no table of scenarios")


@pytest.mark.parametrize(("file", "name"), TESTS, ids=lambda part: part)
def test_every_test_is_there(file: str, name: str) -> None:
    """A renamed test takes its line on the page along."""
    assert name in functions(ROOT / "tests" / file)


def test_every_scenario_is_there() -> None:
    """And each scenario has a line."""
    assert set(SCENARIOS) == existing_scenarios()


def test_the_page_is_read() -> None:
    """As tables whose columns stand below one another; a test stands at the end of its line."""
    assert len(TESTS) > 80
    assert len(re.findall(r"  [\w/]+\.py::\w+$", PAGE, re.MULTILINE)) == PAGE.count(".py::")
    for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL):
        head, rule, *lines = block.splitlines()
        gaps = [found.start() for found in re.finditer("  ", rule)]
        assert len(gaps) == len(re.findall("  +", head))
        for line in [head, *lines]:
            assert all(line[gap : gap + 2].strip() == "" for gap in gaps), line
