"""Where a run is reported: on the terminal, into files, once and at the right moment.

What is said is the matter of reporting/; here is who says it when. There is none in workers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from .reporting.book import Book, guarded
from .reporting.status import status_of

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from .options import Options
    from .reporting.jsonl import LinesReport
    from .reporting.progress import Progress

    class Source(Protocol):
        """Where the run takes its devices from."""

        @property
        def notes(self) -> list[str]: ...
        def close(self) -> None: ...
        def address(self) -> tuple[str, int] | None: ...

    class Listening(Protocol):
        """What tells of devices that are asked for, given and returned."""

        listeners: list[Any]


class Desk:
    """The hooks of pytest by which a run is reported.

    Args:
        config: of the run.
        options: of the run.
        source: where the devices come from; closed here, for its last words.
        events: what happens in the run.
    """

    def __init__(
        self,
        config: pytest.Config,
        options: Options,
        source: Source,
        events: Listening,
    ) -> None:
        self.book = Book(config, options)
        self._config = config
        self._options = options
        self._source = source
        self._events = events
        self._progress: Progress | None = None
        self._written: list[str] = []
        self._lines: LinesReport | None = None
        self._saved: list[Path] | None = None  # not even tried, or in vain
        self._junit_notes: list[str] = []
        config.pluginmanager.register(self.book, "tvmrpc-book")
        if options.report:
            from .reporting.jsonl import LinesReport

            self._lines = LinesReport(options.report)
            self.book.reports.append(self._lines)
            config.add_cleanup(self._lines.close)
        if config.getoption("xmlpath", None):
            from .reporting.junit import JUnit

            junit = JUnit(config, options.artifacts_dir)
            self._junit_notes = junit.notes
            config.pluginmanager.register(junit, "tvmrpc-junit")
        _check_files(options)
        if options.artifacts != "off":
            from .running.artifacts import check

            check(options)

    def pytest_sessionstart(self) -> None:
        self.book.begin()
        if self._options.artifacts != "off":
            from .running.artifacts import clear

            clear(self._options)
        reporter = self._reporter
        if self._options.progress and reporter is not None:
            from .reporting.progress import Progress

            self._progress = Progress(self._source.address)
            self._config.pluginmanager.register(self._progress, "tvmrpc-progress")
            self._events.listeners.append(self._progress.on_event)
            self._progress.start(reporter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> tuple[str, str, str | tuple[str, dict[str, bool]]] | None:
        return status_of(report)

    @pytest.hookimpl(trylast=True)  # after the last fixtures of the session, after the last worker
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._stop_progress()
        self._source.close()
        self.book.finish(int(session.exitstatus), [*self._source.notes, *self._junit_notes])
        self._write_files()

    def pytest_unconfigure(self) -> None:
        self._stop_progress()  # whatever the way out was
        if self._options.artifacts != "off":
            from .running.artifacts import tidy

            tidy(self._options)

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        from .reporting.terminal import write_durations, write_notes, write_section

        run, options = self.book.run, self._options
        asked = options.given & {"bench_save", "bench_compare", "bench_fail"}
        if asked or any(test.attempts[-1].benchmarks for test in run.tests):
            from .reporting.benchmarks import write_benchmarks

            guarded(
                run,
                'the section "benchmarks"',
                lambda: write_benchmarks(terminalreporter, run, options, self._saved),
            )
        if options.durations:
            guarded(
                run,
                f"--rpc-durations={options.durations}",
                lambda: write_durations(terminalreporter, run, options.durations),
            )
        told = list(run.notes)
        guarded(
            run,
            'the section "remote devices"',
            lambda: write_section(terminalreporter, run, told, options.summary),
        )
        write_notes(terminalreporter, run.notes[len(told) :])
        for line in self._written:
            terminalreporter.write_line(line)

    @property
    def _reporter(self) -> TerminalReporter | None:
        reporter: TerminalReporter | None = self._config.pluginmanager.getplugin("terminalreporter")
        return reporter

    def _stop_progress(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            self._events.listeners.remove(progress.on_event)
            progress.stop()

    def _write_files(self) -> None:
        """Write what is made of the whole run, each file whatever becomes of the others."""
        options = self._options
        if self._lines is not None and self._lines.is_complete:
            self._wrote(options.report)
        for option, value, write in (
            ("--rpc-bench-save", options.bench_save, self._save_benchmarks),
            ("--rpc-html", options.html, self._write_page),
            ("--rpc-markdown", options.markdown, self._write_summary),
        ):
            if value:
                guarded(self.book.run, f"{option}={value}", write)

    def _save_benchmarks(self) -> None:
        from .benchmarking.store import save

        options = self._options
        self._saved = save(self.book.run, options.bench_dir, options.bench_save)

    def _write_page(self) -> None:
        from .benchmarking.store import history
        from .reporting.page import write_html

        options = self._options
        write_html(self.book.run, options.html, history(options.bench_dir))
        self._wrote(options.html)

    def _write_summary(self) -> None:
        from .reporting.files import write_whole
        from .reporting.markdown import markdown

        path = self._options.markdown
        write_whole(path, markdown(self.book.run))
        self._wrote(path)

    def _wrote(self, path: str) -> None:
        self._written.append(f"rpc: wrote {self._shown(path)}")

    def _shown(self, path: str) -> str:
        """A path as short as can be."""
        here = self._config.invocation_params.dir
        return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _check_files(options: Options) -> None:
    """Find out before the first test whether what is made at the end can be written.

    Raises:
        pytest.UsageError: it cannot.
    """
    if not (options.html or options.markdown or options.bench_save):
        return
    from .reporting.files import check_file, check_folder

    if options.html:
        check_file("--rpc-html", options.html, "farm.html")
    if options.markdown:
        check_file("--rpc-markdown", options.markdown, "farm.md")
    if options.bench_save:
        check_folder("--rpc-bench-dir", options.bench_dir, "benchmarks")
