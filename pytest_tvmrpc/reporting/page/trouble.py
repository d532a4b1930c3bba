"""What somebody has to look at: failed, broken, unlucky and flaky tests, with all their attempts.

Tracebacks and what the device printed are folded in, and cut where they are long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .markup import Allowance, Child, Markup, element
from .outline import looked_at
from .pieces import chip, fold, section
from .wording import duration, plural

if TYPE_CHECKING:
    from ...records import Attempt, RemoteFacts, Run, TestRecord

UNFOLDED = 20  # tests of one verdict; the rest is behind a click

TITLES = {
    "failed": "Failed",
    "error": "Errors in set-up or teardown",
    "infra": "Infrastructure",
    "flaky": "Flaky",
    "lost": "Lost, without another attempt",
}


def trouble(run: Run, allowance: Allowance) -> Markup:
    """The section; a word of praise if it is empty."""
    found = looked_at(run)
    if not found:
        if not run.tests:
            return section("trouble", "Trouble", "No test of this run asked for a device.")
        return section("trouble", "Trouble", "None: no remote test failed, was lost or was flaky.")
    groups = []
    for verdict, records in found.items():
        title = TITLES.get(verdict, verdict.capitalize())
        count = element("span", {"class": "count"}, len(records))
        groups.append(element("h3", None, title, " ", count))
        cards = [_test(record, verdict, allowance) for record in records]
        groups += cards[:UNFOLDED]
        if len(cards) > UNFOLDED:
            more = element("div", None, *cards[UNFOLDED:])
            groups.append(fold(f"{len(cards) - UNFOLDED:,} more", more, name="more"))
    return section("trouble", "Trouble", None, *groups)


def _test(record: TestRecord, verdict: str, allowance: Allowance) -> Markup:
    names = dict.fromkeys(name for attempt in record.attempts for name in attempt.names)
    total_s = sum(attempt.duration_s for attempt in record.attempts)
    path, colons, name = record.nodeid.partition("::")
    facts = [duration(total_s)]
    if len(record.attempts) > 1:
        facts.insert(0, plural(len(record.attempts), "attempt"))
    if record.worker:
        facts.append(record.worker)
    head = element(
        "header",
        None,
        chip(verdict),
        element("h4", None, element("span", {"class": "path"}, path + colons), name),
        element("span", {"class": "aside"}, " · ".join(facts)),
    )
    attempts = [_attempt(attempt, allowance) for attempt in record.attempts]
    attributes = {"class": "test", "data-s": verdict, "data-d": "\n".join(names)}
    return element("article", attributes, head, element("ol", None, *attempts))


def _attempt(attempt: Attempt, allowance: Allowance) -> Markup:
    line = element(
        "p",
        {"class": "facts"},
        element("b", {"class": "no"}, f"#{attempt.number}"),
        chip(attempt.verdict, attempt.verdict),
        element("span", {"class": "device"}, ", ".join(attempt.names) or "no device"),
        element("span", {"class": "muted"}, _waits(attempt)),
    )
    message = element("p", {"class": "message"}, attempt.message) if attempt.message else None
    folded = _folded(attempt, allowance)
    folds = element("div", {"class": "folds"}, *folded) if folded else None
    return element("li", None, line, message, folds)


def _waits(attempt: Attempt) -> str:
    return " · ".join([duration(attempt.duration_s), *filter(None, map(_wait, attempt.shares))])


def _wait(facts: RemoteFacts) -> str:
    if not facts.device:
        return f"waited {duration(facts.queued_s)} for {facts.key} in vain"
    parts = []
    if facts.queued_s >= 0.1:
        parts.append(f"waited {duration(facts.queued_s)}")
    if facts.calls:
        parts.append(f"{plural(facts.calls, 'call')} in {duration(facts.call_s)}")
    return ", ".join(parts)


def _folded(attempt: Attempt, allowance: Allowance) -> list[Child]:
    found: list[Child] = []
    if attempt.details.strip() not in ("", attempt.message.strip()):
        found.append(_log("Traceback", attempt.details, allowance))
    if attempt.output.strip():
        found.append(_log("What the device printed", attempt.output, allowance))
    if attempt.extra:
        pairs = [
            (element("dt", None, name), element("dd", None, allowance.cut(str(value))))
            for name, value in attempt.extra.items()
        ]
        found.append(fold("Added by hooks", element("dl", None, *pairs)))
    if attempt.artifacts:
        found.append(
            element("p", {"class": "muted"}, "Files: ", element("code", None, attempt.artifacts))
        )
    return found


def _log(title: str, raw: str, allowance: Allowance) -> Markup:
    shown = allowance.cut(raw.strip("\n"))
    lines = element("span", {"class": "muted"}, plural(raw.strip("\n").count("\n") + 1, "line"))
    return fold([title, " ", lines], element("pre", {"tabindex": 0}, shown))
