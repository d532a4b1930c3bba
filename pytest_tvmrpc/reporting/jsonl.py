"""The report as JSON lines, written as things happen, and read again. Draws no conclusions.

The lines are described in docs/report-schema.md. They are plain ASCII: whatever a test is called,
every tool can read them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, TextIO

from ..records import FINAL, Attempt, Run, TestRecord
from .files import check_file, open_live, refusal

if TYPE_CHECKING:
    import os

SCHEMA = 1
"""Raised when a field changes its meaning or goes; new ones may come without."""

OPTION, EXAMPLE = "--rpc-report", "run.jsonl"


class LinesReport:
    """A file that gets a line for each thing that happens, and is whole at any time.

    Args:
        path: of the file. What was there is replaced; folders above it are made.

    Raises:
        pytest.UsageError: it cannot be written.

    Attributes:
        is_complete: whether all has been written, to the line of the end.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.is_complete = False
        self._file: TextIO | None = None
        self._run = Run()
        self._numbers: dict[int, tuple[int, TestRecord]] = {}
        self._open: dict[int, TestRecord] = {}  # by number: those of which the end is not told
        check_file(OPTION, str(path), EXAMPLE)

    @property
    def name(self) -> str:
        """What notes call it."""
        return f"{OPTION}={self.path}"

    def begin(self, run: Run) -> None:
        """Write what is known before the first test."""
        from .. import __version__

        self._run = run
        try:
            self._file = open_live(self.path)
        except OSError as error:  # it could be written a moment ago
            raise refusal(OPTION, self.path, error, EXAMPLE) from None
        self._write(
            {
                "$type": "run",
                "schema": SCHEMA,
                "version": __version__,
                "started_at": run.started_at,
                "command": list(run.command),
                "tracker": run.tracker,
                "keys": list(run.keys),
            }
        )

    def add(self, record: TestRecord, attempt: Attempt) -> None:
        """Write an attempt that has ended, and before it, what became of the worker's last test.

        That is certain only now: some plugins run a test again that has failed.
        """
        # The record is kept, so that no other one can get its place in memory, and so its number.
        number, _ = self._numbers.setdefault(id(record), (len(self._numbers), record))
        for other, known in list(self._open.items()):
            if other != number and known.worker == record.worker and known.verdict in FINAL:
                self._end(other)
        if len(record.attempts) == 1:
            self._open[number] = record
        self._write({"$type": "attempt", **_name(number, record), **attempt.to_json()})

    def _end(self, number: int) -> None:
        record = self._open.pop(number)
        self._write(
            {
                "$type": "test",
                **_name(number, record),
                "verdict": record.verdict,
                "message": record.attempts[-1].message,
                "flaky": record.flaky,
                "attempts": len(record.attempts),
                "duration_s": sum(one.duration_s for one in record.attempts),
            }
        )

    def finish(self, run: Run) -> None:
        """Write how it ended, with the sums for each device, and close the file."""
        from .tally import tally

        for number in list(self._open):
            self._end(number)
        sums = tally(run)
        self._write(
            {
                "$type": "end",
                "ended_at": run.ended_at,
                "exitstatus": run.exitstatus,
                "outcomes": dict(run.outcomes),
                "devices": [row.to_json() for row in sums.devices],
                "total": sums.total.to_json(),
                "notes": list(run.notes),
            }
        )
        self.is_complete = self._file is not None
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._give_up(error)

    def _write(self, values: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            line = json.dumps(values, allow_nan=False, default=repr)
        except (TypeError, ValueError):  # no number, or no name: JSON has no word for that
            line = json.dumps(_finite(values), allow_nan=False, default=repr)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            self._give_up(error)
            self.close()

    def _give_up(self, error: OSError) -> None:
        """A full disk ends the report, not the run; but it is told."""
        self.is_complete = False
        note = f"{self.name} is not complete: {error}; make room and run again"
        if note not in self._run.notes:
            self._run.notes.append(note)


def _name(number: int, record: TestRecord) -> dict[str, Any]:
    return {"test": number, "nodeid": record.nodeid, "worker": record.worker}


def _finite(value: Any) -> Any:
    """The same, with null for what is infinite or not a number, and with texts as names."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def read(path: str | os.PathLike[str]) -> Run:
    """The run that a report tells of, as far as it was written.

    A last line that is cut off, as when the run was killed, is left out. Lines of kinds that are
    not known here are left out, too.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such report, or one of a newer schema.
    """
    run: Run | None = None
    tests: dict[int, TestRecord] = {}
    lines = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            values = _parsed(line, where)
        except ValueError:
            if number == len(lines) and run is not None:
                break  # no line end behind it: it was being written
            raise
        kind = values["$type"]
        if kind == "run":
            run = _read_run(values, where)
        elif run is None:
            raise ValueError(
                f"{where}: a line of $type {kind!r} comes before that of the run; "
                "expected a file that --rpc-report has written, from its start"
            )
        elif kind == "attempt":
            _read_attempt(run, tests, values, where)
        elif kind == "test":
            _read_test(tests, values)
        elif kind == "end":
            _read_known(run, values, ("ended_at", "exitstatus", "outcomes", "notes"))
    if run is None:
        raise ValueError(f"{path} is empty; expected a file that --rpc-report has written")
    return run


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise _no_report(where, str(error)) from None
    if not isinstance(values, dict) or "$type" not in values:
        raise _no_report(where, "it is no object with a $type")
    return values


def _no_report(where: str, why: str) -> ValueError:
    return ValueError(
        f"{where}: this is no line of a report: {why}; "
        "expected a file that --rpc-report has written"
    )


def _read_run(values: Mapping[str, Any], where: str) -> Run:
    schema = values.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ValueError(
            f"{where}: the report has schema {schema!r}, and this version reads up to {SCHEMA}; "
            "read it with the version of pytest-tvmrpc that wrote it, "
            f"{values.get('version', 'which it does not tell')}"
        )
    run = Run()
    _read_known(run, values, ("started_at", "command", "tracker", "keys"))
    return run


def _read_known(run: Run, values: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in values:
            setattr(run, name, values[name])


def _read_attempt(
    run: Run, tests: dict[int, TestRecord], values: Mapping[str, Any], where: str
) -> None:
    try:
        number, nodeid = values["test"], values["nodeid"]
        attempt = Attempt.from_json(values)
    except (KeyError, TypeError) as error:
        raise _no_report(where, f"an attempt without what it needs: {error}") from None
    record = tests.get(number)
    if record is None:
        record = tests[number] = TestRecord(nodeid)
        run.tests.append(record)
    record.worker = values.get("worker", "")
    record.attempts.append(attempt)


def _read_test(tests: Mapping[int, TestRecord], values: Mapping[str, Any]) -> None:
    """A test that was to run again, and did not, ended otherwise than its attempt."""
    record = tests.get(values.get("test", -1))
    if record is not None and record.verdict not in FINAL:
        last = record.attempts[-1]
        last.verdict = values.get("verdict", last.verdict)
        last.message = values.get("message", last.message)
