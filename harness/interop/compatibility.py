"""The tables of docs/compatibility.md as values. Compares them with nothing.

Loaded by the tests of the page, too, where TVM is not: it needs Python only.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "compatibility.md"

REQUIRED = inspect.Parameter.empty
"""The default of a parameter that has none."""


class Row(NamedTuple):
    """A line of a table."""

    line: int
    cells: Tuple[str, ...]

    @property
    def name(self) -> str:
        """What the line is about."""
        return first_code(self.cells[0])

    @property
    def is_ours(self) -> bool:
        """Whether TVM has no such thing."""
        return any(cell.startswith("Ours:") for cell in self.cells)

    @property
    def is_old(self) -> bool:
        """Whether only the documented TVM, 0.13, has it."""
        return any(cell.startswith("0.13:") for cell in self.cells)

    @property
    def of_tvm(self) -> str:
        """TVM's own form of what stands in front; empty if it is the same."""
        for cell in self.cells:
            if cell.startswith("TVM: "):
                return first_code(cell) if cell[5] == "`" else cell[5:]
        return ""


class Table(NamedTuple):
    """A table, and what stands above it."""

    section: str
    header: Tuple[str, ...]
    rows: List[Row]


class Argument(NamedTuple):
    """A parameter of something: its default here, and in TVM."""

    name: str
    default: Any
    tvm_default: Any
    is_ours: bool


def first_code(text: str) -> str:
    """The first part of a text that is set as code; the text itself if there is none."""
    found = re.search(r"`([^`]+)`", text)
    return found.group(1) if found else text


def tables(text: str) -> List[Table]:
    """All tables of a page."""
    found: List[Table] = []
    section, is_open = "", False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            section = first_code(line.lstrip("# "))
        if not line.startswith("|"):
            is_open = False
            continue
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
        if not is_open:
            found.append(Table(section, cells, []))
            is_open = True
        elif set(line) - set("|-: "):
            found[-1].rows.append(Row(number, cells))
    return found


def parameters(page: List[Table]) -> Dict[str, List[Argument]]:
    """What takes parameters, such as ``TrackerSession.request``, and the rows of its table."""
    found = {}
    for table in page:
        if table.header[0] == "parameter":
            found[table.section] = [_argument(row) for row in table.rows]
    return found


def _argument(row: Row) -> Argument:
    default = _value(row.cells[1])
    of_tvm = row.of_tvm
    tvm_default = default
    if of_tvm:
        tvm_default = REQUIRED if of_tvm == "no default" else ast.literal_eval(of_tvm)
    return Argument(row.name, default, tvm_default, row.is_ours)


def _value(cell: str) -> Any:
    return ast.literal_eval(first_code(cell)) if cell else REQUIRED


def methods(page: List[Table]) -> Dict[str, List[Row]]:
    """The classes whose methods are listed, and the rows of their tables."""
    return {
        first_code(table.header[0]): table.rows
        for table in page
        if table.header[0].startswith("method of ")
    }


def signature(form: str) -> Dict[str, Any]:
    """The parameters in ``method(a, b=1)`` with their defaults, in their order."""
    call = ast.parse(form, mode="eval").body
    assert isinstance(call, ast.Call), form
    found: Dict[str, Any] = {argument.id: REQUIRED for argument in call.args}  # type: ignore[attr-defined]
    for keyword in call.keywords:
        found[str(keyword.arg)] = ast.literal_eval(keyword.value)
    return found


def members(page: List[Table]) -> Dict[str, List[Row]]:
    """The classes of `runtime` whose members are listed, and the rows of their tables."""
    return {
        first_code(table.header[0]): table.rows
        for table in page
        if table.header[0].startswith("member of ")
    }


def normal(form: str) -> str:
    """``f(a, b = 1)`` as Python writes it, so that two forms of one signature are equal."""
    name, parenthesis, rest = form.partition("(")
    if not parenthesis:
        return form
    (function,) = ast.parse(f"def f({rest}: pass").body
    assert isinstance(function, ast.FunctionDef), form
    return f"{name}({ast.unparse(function.args)})"


def form_of(name: str, value: Any) -> str:
    """What `normal` makes of something's real signature; the bare name if it cannot be called."""
    if not callable(value):
        return name
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(value).parameters.values()
        if parameter.name != "self"
    ]
    return normal(f"{name}{inspect.Signature(bare)}")


def public_members(owner: type) -> List[str]:
    """The public names of a class but those that Python's own classes gave it."""
    found = []
    for name in filter(lambda name: not name.startswith("_"), dir(owner)):
        home = next(kind for kind in owner.__mro__ if name in vars(kind))
        if home.__module__ not in ("builtins", "enum"):
            found.append(name)
    return [*found, *(set(getattr(owner, "__members__", ())) - set(found))]  # other names, too


def tests(text: str) -> List[Tuple[str, str]]:
    """The tests that are named: file and function."""
    return re.findall(r"`((?:tests|harness)/[\w/]+\.py)::(\w+)`", text)
