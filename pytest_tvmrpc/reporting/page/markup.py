"""HTML that is written by functions: every text is escaped unless it is `Markup` already.

Nothing here knows what a page looks like. There is one way to make a `Markup` out of a text, and
that is `text`: who forgets to escape something gets an escaped text, never a hole.
"""

from __future__ import annotations

import re
from typing import Iterable, Mapping, Union


class Markup(str):
    """Text that is HTML already: made here, or written by us as a literal."""

    __slots__ = ()


Child = Union[str, int, None, Iterable["Child"]]

Attributes = Mapping[str, Union[str, int, bool, None]]

VOID = frozenset({"br", "hr", "input", "link", "meta"})

ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links: as far as their end
    r"|[ -/]*[0-~])?"
)

ODD = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls
    "\u202a-\u202e\u2066-\u2069"  # what turns the order of a line around
    "\ud800-\udfff\ufffe\uffff]"  # halves of characters, and what is none
)


NOT_PLAIN = re.compile("[^\t\n -~]|[&<>\"']")  # most texts have none, and need no more than this


def clean(raw: str) -> str:
    """The text without colour codes; what no page may hold becomes a replacement character."""
    if "\x1b" in raw:
        raw = ANSI.sub("", raw)
    if "\r" in raw:
        raw = raw.replace("\r\n", "\n").replace("\r", "\n")
    return ODD.sub("\ufffd", raw)


def text(raw: str) -> Markup:
    """The text as a page shows it, also between quotation marks."""
    if NOT_PLAIN.search(raw) is None:
        return Markup(raw)
    raw = clean(raw).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(raw.replace('"', "&quot;").replace("'", "&#39;"))


def joined(children: Iterable[Child]) -> Markup:
    """The children after one another: texts escaped, markup as it is, None left out."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(text(child))
        elif isinstance(child, int):
            parts.append(Markup(child))
        elif child is not None:
            parts.append(joined(child))
    return Markup("".join(parts))


def element(name: str, attributes: Attributes | None = None, *children: Child) -> Markup:
    """``<name attributes>children</name>``.

    Args:
        name: of the element; a literal.
        attributes: by name; True stands for one without a value, False and None for none at all.
        children: what stands inside.
    """
    opening = name
    if attributes:
        for key, value in attributes.items():
            if value is True:
                opening += f" {key}"
            elif value is not None and value is not False:
                opening += f' {key}="{text(str(value))}"'
    if name in VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{joined(children)}</{name}>")


SHORTEST = 400  # characters; of less than that a beginning and an end tell nothing


class Allowance:
    """How many characters of logs a page still takes: a page that no browser opens helps nobody."""

    def __init__(self, total: int, each: int) -> None:
        """Take ``total`` characters in all, and ``each`` at most of one text."""
        self._left = total
        self._each = each

    def cut(self, raw: str) -> str:
        """The text, or its beginning and its end with a note of what is missing between them."""
        limit = min(self._each, self._left)
        if limit < SHORTEST:
            return f"[... {len(raw):,} characters are left out here: the page has too many ...]"
        head, tail = raw, ""
        left_out = len(raw) - limit
        if left_out > 0:
            head, tail = raw[: limit // 4], raw[len(raw) - (limit - limit // 4) :]
            tail = f"\n[... {left_out:,} characters are left out here ...]\n{tail}"
        shown = clean(head + tail)
        self._left -= len(text(shown))  # what is written is longer than what is read: &lt; for <
        return shown
