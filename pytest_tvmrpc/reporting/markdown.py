"""The summary of a run as Markdown, for the job pages of CI systems. The page says more.

Every text that a test or a device gave is escaped: GitHub shows HTML, pipes end cells of a table,
and backticks end code.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Iterable, Sequence

from ..benchmarking.records import FASTER, NEW, NOISY, SAME, SLOWER
from ..benchmarking.remarks import remarks
from ..benchmarking.store import benchmarks_of
from .page.markup import clean
from .page.outline import looked_at, shown_verdict
from .page.wording import ABSENT, VERDICTS, change, duration, percent, plural, rate, size
from .tally import tally

if TYPE_CHECKING:
    from ..benchmarking.records import Benchmark
    from ..records import Attempt, Run, TestRecord
    from .tally import Sums

LIMIT = 900_000
"""Bytes of the whole. GitHub refuses a summary of more than 1 MiB."""

EACH_LOG = 6_000  # characters of a traceback, and of what a device printed
ROOM = 400  # bytes that the note on what is left out may take

CHANGED = (SLOWER, FASTER)

OTHERS = {
    SAME: "without a change that counts",
    NEW: "without a baseline",
    NOISY: "too noisy to tell",
    "": "not compared",
}
"""What is said of benchmarks with other verdicts."""

SPECIAL = re.compile(r"[\\`*_{}\[\]#|~@:<>$\"']|^[-+=]|(?<=^\d)[.)]")
"""What may begin or end something: code, cells, HTML, links, names of people, emoji, lists."""

SIGNS = {
    "failed": "❌",
    "error": "💥",
    "infra": "🔌",
    "flaky": "🔁",
    "passed": "✅",
    "skipped": "⏭️",
}


def markdown(run: Run, limit: int = LIMIT) -> str:
    """The summary.

    Args:
        run: what is known of it.
        limit: bytes that it may have; what does not fit is left out, and that is said.
    """
    parts = []
    written = 0
    for part in [_headline(run), *map(_note, run.notes), *_device_table(run), *_benchmarks(run)]:
        if written + len(part.encode()) + 2 > limit - 2 * ROOM:
            part = "A table is left out here: a job page takes no more."
        parts.append(part)
        written += len(part.encode()) + 2
    found = looked_at(run)
    left_out = 0
    for verdict, records in found.items():
        title = f"### {SIGNS.get(verdict, '')} {verdict.capitalize()}: {len(records):,}"
        entries = [title, *(_test(record) for record in records)]
        for entry in entries:
            count = len(entry.encode()) + 2
            if left_out or written + count > limit - ROOM:
                left_out += entry is not title
                continue
            parts.append(entry)
            written += count
    if left_out:
        parts.append(f"{plural(left_out, 'test')} left out here: a job page takes no more.")
    return "\n\n".join(parts) + "\n"


def escape(raw: str) -> str:
    """A text in one line in which nothing is Markdown or HTML.

    Signs become numbers, not signs after a backslash: within HTML, backslashes are shown.
    """
    line = " ".join(clean(raw).split()).replace("&", "&amp;")
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", line)


def code(raw: str) -> str:
    """A text as code in one line; also within a table and within HTML."""
    return f"<code>{escape(raw)}</code>"


def _block(raw: str) -> str:
    """Several lines as they are; their beginning and their end if there are many.

    Code in a fence longer than any in the text: nothing in there can end it.
    """
    raw = clean(raw).strip("\n")
    if len(raw) > EACH_LOG:
        head, tail = EACH_LOG // 4, EACH_LOG - EACH_LOG // 4
        note = f"[... {len(raw) - EACH_LOG:,} characters are left out here ...]"
        raw = f"{raw[:head]}\n{note}\n{raw[-tail:]}"
    longest = max(map(len, re.findall("`+", raw)), default=0)
    fence = "`" * max(longest + 1, 3)
    return f"{fence}text\n{raw}\n{fence}"


def _headline(run: Run) -> str:
    found = [shown_verdict(record) for record in run.tests]
    known = [*VERDICTS, *sorted(set(found) - set(VERDICTS))]
    counts = [
        f"**{found.count(verdict):,}** {verdict}".strip() for verdict in known if verdict in found
    ]
    worst = next((verdict for verdict in known if verdict in found), "skipped")
    if run.exitstatus > 0 and run.exitstatus != 5 and worst not in ("failed", "error"):
        counts.append(f"pytest ended with status {run.exitstatus}")
        worst = "failed"
    lines = [f"## {SIGNS.get(worst, '')} Remote tests: {', '.join(counts) or 'none'}"]
    facts = [duration(run.duration_s)] if run.ended_at else ["still going on"]
    facts += [f"tracker {code(run.tracker)}"] if run.tracker else []
    facts += [f"keys {', '.join(map(code, run.keys))}"] if run.keys else []
    facts += [code(" ".join(["pytest", *run.command]))] if run.command else []
    return "\n\n".join([*lines, " · ".join(facts)])


def _note(raw: str) -> str:
    return f"> {escape(raw)}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column stands at the left, the others at the right."""
    lines = [heads, [":--", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _device_table(run: Run) -> list[str]:
    rows = tally(run).devices
    if not rows:
        return []
    heads = ["device", "tests", "passed", "failed", "error", "infra", "flaky", "lost", "skipped"]
    heads += ["busy", "wait p50", "wait p95", "in calls", "on device", "sent", "received"]
    return ["### Devices", _table(heads, map(_device_row, rows))]


def _device_row(row: Sums) -> list[str]:
    counts = (row.failed, row.error, row.infra, row.flaky, row.lost, row.skipped)
    return [
        code(row.name),
        f"{row.tests:,}",
        f"{row.passed:,}",
        *(f"**{count:,}**" if count else ABSENT for count in counts),
        percent(row.busy),
        *map(duration, (row.wait_p50_s, row.wait_p95_s, row.call_s, row.device_s)),
        size(row.bytes_sent),
        size(row.bytes_received),
    ]


def _test(record: TestRecord) -> str:
    verdict = shown_verdict(record)
    last = record.attempts[-1]
    message = next((a.message for a in reversed(record.attempts) if a.message), "")
    told = f": {escape(message[:300])}" if message else ""
    where = ", ".join(map(code, last.names)) or "no device"
    summary = f"<b>{code(record.nodeid)}</b> {verdict} on {where}"
    attempts = [_attempt(attempt) for attempt in record.attempts]
    lines = [f"<details><summary>{summary}{told}</summary>", *attempts, "</details>"]
    return "\n\n".join(lines)


def _attempt(attempt: Attempt) -> str:
    where = ", ".join(map(code, attempt.names)) or "no device"
    waited_s = sum(facts.queued_s for facts in attempt.shares)
    waited = f", waited {duration(waited_s)}" if waited_s >= 0.1 else ""
    head = f"**#{attempt.number} {escape(attempt.verdict)}** on {where}"
    parts = [f"{head}, {duration(attempt.duration_s)}{waited}"]
    details = attempt.details.strip("\n")
    if details or attempt.message:
        parts.append(_block(details or attempt.message))
    if attempt.output.strip():
        parts += ["What the device printed:", _block(attempt.output)]
    if attempt.artifacts:
        parts.append(f"Files: {code(attempt.artifacts)}")
    return "\n\n".join(parts)


def _benchmarks(run: Run) -> list[str]:
    """Those that changed, and what there is to say about the others."""
    found = benchmarks_of(run)
    if not found:
        return []
    shown = [one for one in found if one.fails or one.verdict in CHANGED]
    rest = Counter(one.verdict for one in found if one not in shown)
    told = [f"{plural(count, 'benchmark')} {OTHERS.get(one, one)}" for one, count in rest.items()]
    heads = ["benchmark", "device", "before", "now", "change", "result", "GFLOP/s", "GB/s"]
    parts = ["### Benchmarks"]
    if shown:
        parts.append(_table(heads, map(_benchmark_row, shown)))
    parts += map(_note, remarks(found))
    if told:
        parts.append(f"{escape(', '.join(told))}.")
    return parts


def _benchmark_row(one: Benchmark) -> list[str]:
    return [
        code(f"{one.test} {one.name}"),
        code(one.model or one.key),
        duration(one.baseline_median_s or None),
        duration(one.median_s),
        change(one.change),
        f"**{escape(one.verdict)}**" if one.fails else escape(one.verdict),
        rate(one.gflops),
        rate(one.gbps),
    ]
