"""What is on the wire has one byte order, whatever machine it is on: little-endian, everywhere."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator, Tuple

import pytest

import pytest_tvmrpc

PACKAGE = Path(pytest_tvmrpc.__file__).parent
ON_THE_WIRE = ("protocol", "session", "tracker", "proxy", "client")
STRUCT_CALLS = {"Struct", "pack", "unpack", "pack_into", "unpack_from", "calcsize", "iter_unpack"}
MODULES = sorted(path for folder in ON_THE_WIRE for path in (PACKAGE / folder).rglob("*.py"))


def formats(tree: ast.AST) -> Iterator[Tuple[int, str]]:
    """Each format of `struct` in a module, with its line; of an f-string, what it begins with."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in STRUCT_CALLS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "struct"
        ):
            word = node.args[0]
            if isinstance(word, ast.JoinedStr):
                word = word.values[0]
            assert isinstance(word, ast.Constant), f"line {node.lineno}: which format is this?"
            yield node.lineno, str(word.value)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_number_has_its_byte_order(path: Path) -> None:
    """No format leaves it to the machine, and none is that of another protocol."""
    for line, text in formats(ast.parse(path.read_text(encoding="utf-8"))):
        native = path.name == "channel.py" and text in ("ll", "ii", "@ll")  # for the kernel
        assert text.startswith("<") or native, f"line {line}: {text!r}"


def test_there_are_such_formats() -> None:
    """The search finds what it is to look at."""
    found = [text for path in MODULES for _, text in formats(ast.parse(path.read_text("utf-8")))]
    assert len(found) > 10
