"""The tests that have no verdict when a run of pytest-xdist ends: it fails then, and says so.

Judges no test, and runs none again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Sequence

import pytest

if TYPE_CHECKING:
    from .workers import Needs

SHOWN = 10  # so many are named; a run that ends early may have thousands


class Unfinished:
    """The hooks of the controller that follow which tests were run to their end.

    Args:
        needs: which tests are remote; a run without any is not ours.
        note: told what the user should read.
    """

    def __init__(self, needs: Needs, note: Callable[[str], None]) -> None:
        self._needs = needs
        self._note = note
        self._has_begun = False
        self._never: dict[str, None] = {}  # those that did not begin
        self._again: set[str] = set()  # those with a phase after which they are run again
        self._waiting: dict[str, None] = {}  # those whose last attempt was to be followed by one

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """All workers collect the same tests, one that replaces another when some have run."""
        if not self._has_begun:
            self._never = dict.fromkeys(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """It began."""
        self._has_begun = True
        self._never.pop(nodeid, None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note whether there has to be another attempt."""
        nodeid, when, outcome = report.nodeid, str(report.when), str(report.outcome)
        self._has_begun = True
        self._never.pop(nodeid, None)
        if when == "setup":
            self._again.discard(nodeid)
        if outcome == "rerun":  # our word, and that of pytest-rerunfailures
            self._again.add(nodeid)
        if when in ("setup", "call"):
            return
        if nodeid in self._again:
            self._waiting[nodeid] = None
        else:
            self._waiting.pop(nodeid, None)
        self._again.discard(nodeid)

    @pytest.hookimpl(tryfirst=True)  # before the run is reported
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A run in which a test did not get its verdict has not passed."""
        if not self._needs.keys:
            return
        if self._waiting:
            self._note(
                f"{_count(self._waiting)} not run again, as the run ended before: "
                + _names(self._waiting)
            )
        if self._never:
            self._note(
                f"{_count(self._never)} not run at all, as the run ended before: "
                + _names(self._never)
            )
        # What pytest does not report at all, another plugin may have run in its own way.
        is_early = self._never and not _is_finished(session.config)
        if session.exitstatus == pytest.ExitCode.OK and (self._waiting or is_early):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_finished(config: pytest.Config) -> bool:
    """Whether pytest-xdist has given out all tests."""
    scheduler: Any = getattr(config.pluginmanager.getplugin("dsession"), "sched", None)
    return scheduler is None or bool(scheduler.tests_finished)


def _count(tests: dict[str, None]) -> str:
    return f"{len(tests)} tests were" if len(tests) != 1 else "1 test was"


def _names(tests: dict[str, None]) -> str:
    names = list(tests)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
