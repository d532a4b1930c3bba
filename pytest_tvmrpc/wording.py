"""Durations, sizes, parts and foreign text as people read them. No colours and no markup.

Plain ASCII, unless a caller has another sign for a millionth: logs show nothing else for certain.
"""

from __future__ import annotations

import json
from typing import Any


def seconds(duration_s: float, digits: int = 0, micro: str = "u") -> str:
    """A duration as people read it: ``0 s``, ``14 us``, ``1.2 ms``, ``3.4 s``, ``12 min 5 s``.

    Args:
        duration_s: the duration.
        digits: how many count, for what was measured well: ``1.20 ms``, ``60.5 ns``, ``754 s``.
        micro: the sign for a millionth.
    """
    if not digits and duration_s <= 0:
        return "0 s"
    if not digits and duration_s >= 119.95:
        whole, rest = divmod(round(duration_s), 60)
        return f"{whole} min {rest} s"
    units = {"s": duration_s, "ms": duration_s * 1e3, f"{micro}s": duration_s * 1e6}
    fitting = (entry for entry in units.items() if entry[1] >= 0.9995)
    unit, value = next(fitting, ("ns", duration_s * 1e9))
    if digits:
        return f"{significant(value, digits)} {unit}"
    has_point = unit == "s" or (unit == "ms" and value < 99.95)
    return f"{value:.{int(has_point)}f} {unit}"


def minutes(duration_s: float) -> str:
    """A long duration where seconds count for less: ``2 min``, ``12 min 5 s``, ``3 h 20 min``."""
    whole, rest = divmod(round(duration_s), 60)
    if whole < 60:
        return f"{whole} min {rest} s" if rest else f"{whole} min"
    hours, whole = divmod(round(duration_s / 60), 60)
    return f"{hours} h {whole} min" if whole else f"{hours} h"


def size(count: float, digits: int = 0) -> str:
    """A number of bytes as people read it: ``512 B``, ``12.3 MiB``.

    Args:
        count: the number.
        digits: how many count; by default one stands behind the point.
    """
    if count < 1024:
        return f"{count:.0f} B"
    value, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 999.5:
            break
        value, unit = value / 1024, larger
    return f"{significant(value, digits) if digits else f'{value:.1f}'} {unit}"


def percent(part: float, digits: int = 1) -> str:
    """A part of a whole: ``0.8 %``, ``12 %``.

    Args:
        part: the part; 1 is the whole.
        digits: how many stand behind the point where the number is small.
    """
    value = 100 * part
    return f"{value:.{digits if abs(value) < 9.95 else 0}f} %"


def significant(value: float, digits: int) -> str:
    """A positive number with so many digits that count, and no exponent: ``1.20``, ``12,345``."""
    for places in range(digits - 1, 0, -1):
        text = f"{value:.{places}f}"
        if len(text) <= digits + 1:  # with the point
            return text
    return f"{value:,.0f}"


def printable(text: str) -> str:
    """What a device says must not move the cursor: control characters are written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode-escape").decode() for char in text
    )


def first_line(message: str) -> str:
    """A message without what the device printed, which stands elsewhere."""
    return message.partition("\n")[0].removesuffix("; it printed last:")


def plain(value: Any) -> Any:
    """The same as JSON values with text that can be encoded, whatever it is made of."""
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "replace"))


def fault(hook: str, error: BaseException) -> str:
    """What is said of a project's hook that raised: which one, what, and where."""
    return f"the hook {hook} raised {described(error)}"


def described(error: BaseException) -> str:
    """An error that nobody expected: its type, what it says, and where it was raised."""
    where, trace = "", error.__traceback__
    while trace is not None:
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {first_line(str(error))} ({where})"
