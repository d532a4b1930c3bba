"""The run as the process that reports it sees it: records come in, reports go out.

Makes no record itself and formats nothing.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Protocol, Tuple

import pytest

from ..records import TROUBLE, Attempt, Run, TestRecord
from ..wording import described, fault, first_line

if TYPE_CHECKING:
    from ..options import Options


Name = Tuple[str, str]
"""Of a test: its node id, and its worker if each runs it."""


class Report(Protocol):
    """A report that is written while the run goes on."""

    @property
    def name(self) -> str: ...
    def begin(self, run: Run) -> None: ...
    def add(self, record: TestRecord, attempt: Attempt) -> None: ...
    def finish(self, run: Run) -> None: ...


class Book:
    """Collects the attempts of all tests with devices.

    Args:
        config: of the process that reports: not of a worker of pytest-xdist.
        options: of the run.

    Attributes:
        run: what is known by now.
        reports: told of each attempt as it ends.
    """

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.run = Run(
            started_at=time.time(),
            command=[str(argument) for argument in config.invocation_params.args],
            tracker=_address(options),
            keys=list(options.keys),
        )
        self.reports: list[Report] = []
        self._config = config
        self._records: dict[Name, TestRecord] = {}
        self._rerun: set[Name] = set()  # their attempt that goes on was said to run again
        self._open: dict[Name, Attempt] = {}  # those that follow, as far as others know them
        self._said: dict[str, list[str]] = {}  # what went wrong beside the tests, and where
        # --dist each runs a test of the same name in every worker.
        self._is_each = config.getoption("dist", "no") == "each"

    def begin(self) -> None:
        """The run begins."""
        self.run.started_at = time.time()
        for report in self.reports:
            report.begin(self.run)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the attempt that a report carries."""
        values = getattr(report, "rpc", None)
        is_rerun = str(report.outcome) == "rerun"  # by us, or by pytest-rerunfailures
        if not (values or is_rerun or self._rerun or self._open):
            return  # a local test; there may be many
        worker = str(getattr(report, "worker_id", ""))
        name = (report.nodeid, worker if self._is_each else "")
        if report.when == "setup":
            self._rerun.discard(name)
        if is_rerun:
            self._rerun.add(name)
        if values is None and name in self._open:
            values = self._without_device(name, report)
        if values is None:
            return
        for note in values.get("notes", ()):
            self._said.setdefault(note, []).append(report.nodeid)
        self._add(name, worker, Attempt.from_json(values))

    def _add(self, name: Name, worker: str, attempt: Attempt) -> None:
        record = self._records.get(name)
        if record is None or name not in self._open:  # a test may be given twice
            record = self._records[name] = TestRecord(name[0])
            self.run.tests.append(record)
        self._open.pop(name, None)
        if name in self._rerun or attempt.verdict == "lost":
            self._open[name] = Attempt(0, "passed")
        self._rerun.discard(name)
        # A worker knows nothing of the attempts that others made before they crashed.
        attempt.number = len(record.attempts) + 1
        record.worker = worker if worker != "master" else ""
        record.attempts.append(attempt)
        for one in self.reports:
            guarded(self.run, one.name, partial(one.add, record, attempt))

    def _without_device(self, name: Name, report: pytest.TestReport) -> dict[str, Any] | None:
        """The attempt of a test whose worker crashed, if the next one asks for no device."""
        attempt = self._open[name]
        attempt.started_at = attempt.started_at or report.start
        attempt.duration_s += report.duration
        if report.failed and attempt.verdict not in TROUBLE:
            attempt.verdict = "failed" if report.when in ("call", "???") else "error"
            attempt.details = report.longreprtext
            crash = getattr(report.longrepr, "reprcrash", None)
            attempt.message = first_line(crash.message if crash else attempt.details)
        elif report.skipped and attempt.verdict == "passed":
            attempt.verdict = "skipped"
        is_over = report.when in ("teardown", "???")
        return attempt.to_json() if is_over and self._records[name].verdict == "lost" else None

    def finish(self, exitstatus: int, notes: list[str]) -> None:
        """The run is over: complete the records, and every report.

        Args:
            exitstatus: pytest's.
            notes: what the user should read.
        """
        run = self.run
        run.ended_at = time.time()
        run.exitstatus = exitstatus
        run.notes += notes
        for note, tests in self._said.items():
            others = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
            run.notes.append(f"{note}; in {tests[0]}{others}")
        run.outcomes = _outcomes(self._config)
        for record in run.tests:
            _give_up(record.attempts[-1])
        try:
            self._config.hook.pytest_tvmrpc_run_finished(config=self._config, run=run)
        except pytest.exit.Exception:  # it is meant
            raise
        except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
            run.notes.append(fault("pytest_tvmrpc_run_finished", error))
        for report in self.reports:
            guarded(run, report.name, partial(report.finish, run))


def guarded(run: Run, what: str, make: Callable[[], object]) -> None:
    """Make a part of a report; if that fails, it is a note.

    A report is no test: it fails no run, and it takes no other report with it.
    """
    try:
        make()
    except OSError as error:
        note = f"{what} could not be written: {error}"
    except Exception as error:
        note = f"{what} is not complete: {described(error)}"
    else:
        return
    if note not in run.notes:
        run.notes.append(note)


def _give_up(attempt: Attempt) -> None:
    """A test that was to run again, and did not, has no other verdict: the farm was to blame."""
    if attempt.verdict == "lost":
        attempt.verdict = "infra"
        attempt.message = f"the run ended before the test was run again: {attempt.message}"


def _outcomes(config: pytest.Config) -> dict[str, int]:
    """What pytest's last line counts."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:  # -p no:terminal
        return {}
    left_out = ("", "warnings", "deselected")
    return {name: len(found) for name, found in reporter.stats.items() if name not in left_out}


def _address(options: Options) -> str:
    if options.tracker is None:
        return ""
    from ..network import format_address

    return format_address(*options.tracker)
