"""The protocol of a test that has devices: its attempts, its verdict, and another device if lost.

Takes no device and writes no report; it says what became of each phase, and starts over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generator, Mapping

import pytest

from ..benchmarking.records import benchmarks_key
from ..records import Attempt
from ..wording import fault, first_line, plain
from . import artifacts
from .selection import no_key, parametrised_key, uses_devices
from .trial import Trial, begin, trial_key, trial_of

if TYPE_CHECKING:
    from ..options import Options
    from .leases import Lessor
    from .verdict import Cause

RERUN = "rerun"
"""The outcome of a phase after which the test runs again; the word of pytest-rerunfailures."""

_OURS = "rpc."
"""The names of our properties begin with this."""

FAULTS = (Exception, pytest.fail.Exception, pytest.skip.Exception)
"""What a project's hook may raise by mistake; ``pytest.exit()`` is meant."""


class Judge:
    """Says whose fault an error is, where pytest makes the report of a phase.

    A plugin of its own, because its hook is the innermost one: pytest-rerunfailures shall see that
    a test which is run again here has not failed.
    """

    def __init__(self, options: Options) -> None:
        self._options = options

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        trial = item.stash.get(trial_key, None)
        if trial is None or trial.is_over or not trial.has_devices:
            return (yield)
        if call.excinfo is not None:
            from .stack import name_option

            name_option(call.excinfo.value)
        report = yield
        if report.failed and call.excinfo is not None:
            self._judge(trial, report, call.excinfo.value)
        if trial.is_lost and call.when == "teardown":
            report.outcome = RERUN  # type: ignore[assignment]
            trial.decided[call.when] = RERUN
        return report

    def _judge(self, trial: Trial, report: pytest.TestReport, error: BaseException) -> None:
        from .verdict import DROPPED, Cause

        when = str(report.when)
        cause = _cause_of(trial, report, error)
        if trial.is_lost:
            return  # its teardown failed, too
        if cause in DROPPED and when != "teardown" and trial.losses < trial.wish.reruns:
            trial.is_lost = True
            report.outcome = RERUN  # type: ignore[assignment]
            trial.decided[when] = RERUN
            trial.message = _message_of(error)
        elif cause in (Cause.INFRA, Cause.LOST):
            self._blame_farm(trial, report, error)

    def _blame_farm(self, trial: Trial, report: pytest.TestReport, error: BaseException) -> None:
        from .verdict import lacks_key

        message = _infra_message(trial, error, str(report.when))
        own = f"{first_line(trial.message)}; then " if _own_fault(trial) else ""
        trial.is_infra = True
        trial.message = own + message
        choice = self._options.infra
        if choice == "skip" and self._options.require and lacks_key(error):
            choice = "error"  # what is required is not skipped
        if choice == "skip":
            trial.details = trial.details or report.longreprtext
            path, line, _ = trial.item.location
            report.outcome = "skipped"
            report.longrepr = (path, (line or 0) + 1, message)
        elif report.when == "setup":
            report.longrepr = message  # a traceback through fixtures says nothing more
        else:
            report.sections.append(("infrastructure", message))
        if choice != "fail":
            report.rpc_verdict = "infra"  # type: ignore[attr-defined]
        trial.decided[str(report.when)] = report.outcome


class Attempts:
    """Begins, ends and repeats the attempts of the tests of one process.

    Args:
        config: of the run.
        options: of the run.
        lessor: who takes the devices.
    """

    def __init__(self, config: pytest.Config, options: Options, lessor: Lessor) -> None:
        self._config = config
        self._options = options
        self._lessor = lessor

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Run the test again while its device drops out.

        Everybody else's wrappers have ended by then, and begin again: each attempt is what a whole
        test is to them.
        """
        result = yield
        while (trial := item.stash.get(trial_key, None)) is not None and trial.is_lost:
            _forget_attempt(item)
            begin(item, self._options)  # here, as it may do without a device this time
            protocol = self._config.pluginmanager.subset_hook_caller(
                "pytest_runtest_protocol", [self]
            )
            protocol(item=item, nextitem=nextitem)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if not uses_devices(item):
            return
        trial = self._lessor.current = trial_of(item, self._options)
        is_sharing = "remote_session" in item.fixturenames  # type: ignore[attr-defined]
        if not trial.wish.keys and (is_sharing or parametrised_key(item)):
            reason = no_key(item, self._options)
            raise pytest.skip.Exception(reason, _use_item_location=True)
        if is_sharing:
            self._share(trial)

    def _share(self, trial: Trial) -> None:
        """Count what the test does on a session that others had before; not on one that is over.

        Nor on one of another key: their marks may differ.
        """
        for lasting in tuple(self._lessor.lasting):
            lease = lasting.lease
            is_fit = lasting.keys == trial.wish.keys
            if is_fit and lease is not None and not lease.session.closed:
                self._lessor.mark_output(lease)
            if not is_fit or (lease is not None and lease.session.closed):
                lasting.retire()
            elif lease is not None:
                trial.shared.append((lease, lease.facts()))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Have what a lost device leaves behind end with the attempt."""
        try:
            return (yield)
        finally:
            trial = item.stash.get(trial_key, None)
            if trial is not None and not trial.is_over:
                self._finish_lost(item, trial)

    def _finish_lost(self, item: Any, trial: Trial) -> None:
        """End fixtures of wider scope that are of no use any more, so that they are set up anew.

        Those that failed with the attempt, and `remote_session` if its session is over: with it end
        all that were made of it, such as functions and tensors.
        """
        if any(lease.is_over for lease, _ in trial.shared):
            for lasting in tuple(self._lessor.lasting):
                lasting.retire()
        if trial.is_lost:
            for definitions in item._fixtureinfo.name2fixturedefs.values():
                for definition in definitions:
                    cached = definition.cached_result
                    if cached is not None and cached[2] is not None:
                        definition.finish(request=item._request)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        trial = item.stash.get(trial_key, None)
        if trial is None or trial.is_over:
            return (yield)
        if call.when == "teardown" and trial.is_told:  # the fixtures have given them back
            _set_properties(trial)
        report = yield
        decided = trial.decided.get(call.when)
        if decided is not None and decided != report.outcome:  # by what handles xfail
            report.outcome = decided  # type: ignore[assignment]
            vars(report).pop("wasxfail", None)
        trial.outcomes[call.when] = report.outcome
        trial.duration_s += report.duration
        if report.outcome in ("failed", RERUN) and call.excinfo is not None:
            self._note(trial, report, call.excinfo.value)
        elif report.skipped and not trial.message:
            trial.message = _reason(report)
        if call.when == "teardown":
            trial.is_over = True
            if trial.is_told:
                self._end(trial, report)
            elif trial.folder and not artifacts.is_kept(self._options, verdict_of(trial)):
                artifacts.discard(self._options, trial.folder)
        return report

    def _note(self, trial: Trial, report: pytest.TestReport, error: BaseException) -> None:
        """Keep what went wrong, and what the devices printed, while they can still be asked."""
        trial.message = trial.message or _message_of(error)
        if report.when != "teardown" or not trial.details:
            trial.details = report.longreprtext
        for lease in trial.held:
            text = self._lessor.read_output(lease)
            if text:
                report.sections.append((f"Captured rpc output ({lease.device})", text))
                trial.output += text

    def _end(self, trial: Trial, report: pytest.TestReport) -> None:
        attempt = Attempt(
            trial.number,
            verdict_of(trial),
            trial.started_at,
            trial.duration_s,
            first_line(trial.message),
            trial.details,
            trial.output,
            devices=trial.facts(),
            benchmarks=[one.to_json() for one in trial.item.stash.get(benchmarks_key, [])],
        )
        trial.item.stash[benchmarks_key] = []
        attempt.extra.update(_added(trial, attempt))
        self._keep(trial, attempt)
        # What is no text for UTF-8 would end the worker that sends it.
        report.rpc = plain({**attempt.to_json(), "notes": trial.notes})  # type: ignore[attr-defined]

    def _keep(self, trial: Trial, attempt: Attempt) -> None:
        folder = trial.folder or artifacts.folder_of(trial.item.nodeid, trial.number)
        if artifacts.is_kept(self._options, attempt.verdict):
            attempt.artifacts = folder
            try:
                artifacts.store(self._options, folder, attempt)
            except OSError as error:
                attempt.artifacts = ""
                folder = self._options.artifacts_dir
                trial.notes.append(
                    f"--rpc-artifacts-dir={folder} did not take all files: {error.strerror}"
                )
        elif trial.folder:
            artifacts.discard(self._options, folder)


def verdict_of(trial: Trial) -> str:
    """How an attempt ended, from the outcomes of its phases.

    A failing call makes it failed, a failing set-up or teardown error, as pytest's own last line
    has it; failed counts more, so that a test counts once.
    """
    if trial.is_lost:
        return "lost"
    if own := _own_fault(trial):
        return own
    if trial.is_infra:
        return "infra"
    outcomes = trial.outcomes.values()
    if "failed" in outcomes:
        return "error"
    return "skipped" if "skipped" in outcomes else "passed"


def _own_fault(trial: Trial) -> str:
    """The verdict if the set-up or the call failed by the test's own fault; else empty."""
    for when, verdict in (("call", "failed"), ("setup", "error")):
        if trial.outcomes.get(when) == "failed" and when not in trial.decided:
            return verdict
    return ""


def _cause_of(trial: Trial, report: pytest.TestReport, error: BaseException) -> Cause:
    """Whose fault an error is: what a hook of the project says, if it says what it may."""
    from .verdict import Cause, classify

    name, words = "pytest_tvmrpc_classify_error", [cause.value for cause in Cause]
    wrong, said = "", None
    try:
        hook = trial.item.ihook.pytest_tvmrpc_classify_error
        said = hook(item=trial.item, error=error, when=str(report.when))
    except pytest.exit.Exception:
        raise
    except FAULTS as raised:
        wrong = fault(name, raised)
    if said in words:
        return Cause(said)
    if said is not None:
        expected = ", ".join(map(repr, words))
        wrong = f"the hook {name} returned {said!r}; expected one of {expected}, or None"
    if wrong:
        report.sections.append((name, wrong))
        trial.notes.append(wrong)
    return classify(error, any(lease.is_lost for lease in trial.held))


def _added(trial: Trial, attempt: Attempt) -> dict[str, Any]:
    """What hooks of the project add to the report of an attempt, as JSON values."""
    name = "pytest_tvmrpc_add_to_report"
    found: dict[str, Any] = {}
    try:
        answers = trial.item.ihook.pytest_tvmrpc_add_to_report(item=trial.item, attempt=attempt)
        for answer in answers:
            if isinstance(answer, Mapping):
                found.update(plain(answer))
            elif answer is not None:
                trial.notes.append(
                    f"the hook {name} returned {answer!r}; expected JSON values by name, for "
                    'example {"celsius": 41}'
                )
    except pytest.exit.Exception:
        raise
    except FAULTS as raised:
        trial.notes.append(fault(name, raised))
    return found


def _message_of(error: BaseException) -> str:
    from .verdict import told_by_doctest

    error = told_by_doctest(error)
    return f"{type(error).__name__}: {error}".strip()


def _infra_message(trial: Trial, error: BaseException, when: str) -> str:
    """What the farm did: the error, and what was tried before it."""
    from ..wording import seconds
    from .verdict import told_by_doctest

    text = str(told_by_doctest(error))
    lost = [lease for lease in trial.held if lease.is_lost]
    if lost:
        devices = ", ".join(f"{x.device} lost after {seconds(x.held_s)}" for x in lost)
        text = f"{devices}: {text}"
    if trial.tried:
        text += f"; lost in earlier attempts: {', '.join(trial.tried)}"
    elif lost and not trial.wish.reruns and when != "teardown":
        text += "; --rpc-reruns=1 would run the test again on another device"
    return text


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped, or expected to fail."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", "") or "")


def _set_properties(trial: Trial) -> None:
    """The properties of the test, which pytest takes from the report of its teardown."""
    facts = [one.within(trial.started_at, trial.duration_s) for one in trial.facts()]
    given = [one for one in facts if one.device]
    properties: list[tuple[str, object]] = []
    for one in given:
        properties += [("rpc.key", one.key), ("rpc.device", one.device)]
    properties.append(("rpc.attempts", trial.number))
    for name in ("queued_s", "connect_s", "upload_s", "call_s", "device_s"):
        total = sum(getattr(one, name) for one in facts)
        properties.append((_OURS + name, round(total, 6)))
    for name in ("calls", "bytes_sent", "bytes_received"):
        properties.append((_OURS + name, sum(getattr(one, name) for one in facts)))
    others = [pair for pair in trial.item.user_properties if not pair[0].startswith(_OURS)]
    trial.item.user_properties[:] = [*others, *properties]


def _forget_attempt(item: Any) -> None:
    """Let the next attempt begin as a test of its own does.

    What was captured would be shown again, and the instance of the test's class used again.
    """
    item._report_sections.clear()
    if getattr(item, "_instance", None) is not None:
        del item._instance
        item.obj = None  # its bound method; found again when it is asked for
