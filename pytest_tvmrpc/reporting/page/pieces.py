"""The small parts that every section of the page is made of: chips, names, sections, tables.

No section is built here.
"""

from __future__ import annotations

from typing import Iterable

from .markup import Attributes, Child, Markup, element
from .outline import short_device
from .wording import MEANING, VERDICTS, duration, iso, letter, moment


def chip(verdict: str, label: str = "") -> Markup:
    """The letter of a verdict in its colour; its word for those who do not see it."""
    known = verdict if verdict in VERDICTS else "other"
    word = element("span", {"class": "name" if label else "unseen"}, label or verdict)
    return element("span", {"class": f"chip {known}"}, element("b", None, letter(verdict)), word)


def section(name: str, title: str, lead: Child, *children: Child) -> Markup:
    """A part of the page with its heading and a sentence on how to read it."""
    heading = element("h2", {"id": f"{name}-title"}, title)
    lead = element("p", {"class": "lead"}, lead) if lead else None
    attributes = {"id": name, "aria-labelledby": f"{name}-title"}
    return element("section", attributes, heading, lead, *children)


def table(name: str, label: str, heads: Iterable[Child], rows: Iterable[Child]) -> Markup:
    """A table that scrolls in itself where the page is narrow."""
    head = element("thead", None, element("tr", None, *heads))
    body = element("table", {"class": name}, head, element("tbody", None, *rows))
    attributes: Attributes = {
        "class": "scroll",
        "role": "region",
        "aria-label": label,
        "tabindex": 0,
    }
    return element("div", attributes, body)


def column(title: Child, *, numeric: bool = True, hint: str = "") -> Markup:
    """The head of a column."""
    attributes = {"scope": "col", "class": "n" if numeric else None, "title": hint or None}
    return element("th", attributes, title)


def number(shown: Child, value: float | None = None) -> Markup:
    """A cell with a quantity, and what it is sorted by if the words do not say it."""
    sort = None if value is None else f"{value:.6g}"
    return element("td", {"class": "n", "data-v": sort}, shown)


def time(value_s: float) -> Markup:
    """A cell with a duration; a dot where there is none, so that the others stand out."""
    shown = duration(value_s) if value_s > 0 else element("span", {"class": "dim"}, "·")
    return number(shown, value_s)


def device_name(device: str, key: str) -> list[Child]:
    """A device in two lines: its key, and the rest of its name."""
    rest = short_device(device, key)
    return [device] if rest == device else [key, element("small", None, rest)]


def when(at: float) -> Child:
    """A moment, for people and for machines."""
    machine = iso(at)
    return element("time", {"datetime": machine}, moment(at)) if machine else None


def fold(title: Child, *children: Child, name: str | None = None) -> Markup:
    """What is hidden until somebody asks for it."""
    return element("details", {"class": name}, element("summary", None, title), *children)


def legend(verdicts: Iterable[str]) -> Markup:
    """What the letters mean."""
    items = [
        element("li", {"title": MEANING.get(verdict)}, chip(verdict, verdict))
        for verdict in verdicts
    ]
    return element("ul", {"class": "legend", "aria-label": "Letters"}, *items)


def share(fraction: float) -> str:
    """A part of a width, for an attribute of an SVG element."""
    if fraction != fraction:  # not a number: what a broken clock leads to
        fraction = 0.0
    return f"{min(max(fraction, 0.0), 1.0) * 100:.3f}".rstrip("0").rstrip(".") + "%"
