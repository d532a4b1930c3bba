"""The table that the bench prints, from rows to text. Measures nothing, prints nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .goals import BARE, COLUMNS, NATIVE, OURS, TVM, TVM_NATIVE, Line
from .rounds import ABSENT, Outcome, ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEFT = ("item", "work", "verdict")  # texts; the other columns are figures

SMALLEST = 0.001  # of a ratio that is written out

MET = "met"
NOT_MET = "NOT met"
UNKNOWN = "-"


class Row(NamedTuple):
    """One line with what was measured for it."""

    line: Line
    cells: dict[str, Outcome]
    note: str = ""
    subject: str = OURS
    """The column that the goal is about."""

    @property
    def ratio(self) -> float | None:
        """The subject against the goal's column, or else against TVM's, or else against bare."""
        against = self.line.goal.against if self.line.goal else ""
        for name in (against,) if against else (TVM, BARE):
            figure = ratio(self.cells[self.subject], self.cells[name])
            if figure is not None:
                return figure
        return None

    @property
    def ratio_text(self) -> str:
        figure = self.ratio
        if figure is None:
            return UNKNOWN
        against = self.line.goal.against if self.line.goal else ""
        against = against or (TVM if self.cells[TVM].rounds else BARE)
        text = f"{figure:.3g}" if figure >= SMALLEST else f"< {SMALLEST:g}"
        return f"{text} x {against}"

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None without a goal, or without a figure to judge."""
        goal = self.line.goal
        if goal is None:
            return None
        figure = self.ratio if goal.against else self.cells[self.subject].value
        return None if figure is None else goal.is_met(figure)

    @property
    def verdict(self) -> str:
        met = self.is_met
        return UNKNOWN if met is None else (MET if met else NOT_MET)


def render(rows: Iterable[Row]) -> str:
    """The table, then a line for each cell that has no figure, then the remarks."""
    rows = list(rows)
    errors: list[str] = []
    headings = _headings(rows)
    texts = [_texts(row, errors, headings) for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    lines = [_aligned(headings, headings, widths), rule]
    lines.extend(_aligned(headings, text, widths) for text in texts)
    lines.append(rule)
    lines.append(_count(rows))
    lines.extend(f"[{number}] {error}" for number, error in enumerate(errors, 1))
    lines.extend(f"{row.line.name}: {row.note}" for row in rows if row.note)
    return "\n".join(lines) + "\n"


def markdown(rows: Iterable[Row]) -> str:
    """The same table for a page of the documentation."""
    rows = list(rows)
    errors: list[str] = []
    headings = _headings(rows)
    figures = (_texts(row, errors, headings) for row in rows)
    texts = [headings, ["---"] * len(headings), *figures]
    lines = [f"| {' | '.join(text)} |" for text in texts]
    lines.extend(["", _count(rows)])
    return "\n".join(lines) + "\n"


def _headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns: of the servers in C only if one of them was measured."""
    there = [name for name in COLUMNS if name not in (NATIVE, TVM_NATIVE) or _is_in(rows, name)]
    return ("item", "work", *there, "ratio", "goal", "verdict")


def _is_in(rows: Sequence[Row], column: str) -> bool:
    outcomes = [row.cells.get(column, ABSENT) for row in rows]
    return any(outcome.rounds or outcome.error for outcome in outcomes)


def _texts(row: Row, errors: list[str], headings: Sequence[str]) -> tuple[str, ...]:
    line = row.line
    return (
        line.name,
        line.work,
        *(_cell(row, name, errors) for name in headings if name in COLUMNS),
        row.ratio_text,
        line.goal.text(line.kind) if line.goal else UNKNOWN,
        row.verdict,
    )


def _cell(row: Row, name: str, errors: list[str]) -> str:
    outcome = row.cells.get(name, ABSENT)
    if outcome.value is not None and not outcome.error:
        return row.line.kind.text(outcome.value)
    if not outcome.error:
        return UNKNOWN
    text = f"{name}: {outcome.error}"
    if text not in errors:
        errors.append(text)
    return f"{'absent' if outcome.absent else 'error'} [{errors.index(text) + 1}]"


def _aligned(headings: Sequence[str], texts: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        text.ljust(width) if heading in LEFT else text.rjust(width)
        for heading, text, width in zip(headings, texts, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _count(rows: Sequence[Row]) -> str:
    verdicts = [row.verdict for row in rows if row.line.goal]
    met, missed = verdicts.count(MET), verdicts.count(NOT_MET)
    text = f"{met} of {len(verdicts)} goals met, {missed} not met"
    unknown = len(verdicts) - met - missed
    return f"{text}, {unknown} without a figure" if unknown else text
