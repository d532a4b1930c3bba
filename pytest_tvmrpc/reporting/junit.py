"""Our part of the JUnit file that pytest writes: attempts, infrastructure, attachments.

It writes no file and adds no test case. pytest makes a test case of each attempt; just before it
writes them, those of one test are made one. Whatever of pytest's own is touched for that is
touched here; should it look otherwise than expected, the file stays as pytest has it, and
`JUnit.notes` says so.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Generator, Iterable, Iterator, Mapping

import pytest

VERDICTS = ("failure", "error", "skipped")
ORDER = (
    "properties",
    "failure",
    "rerunFailure",
    "flakyFailure",
    "skipped",
    "error",
    "system-out",
    "system-err",
)
"""What stands in a test case, as Maven Surefire's schema wants it; that of Jenkins takes any."""

FIRST = ("output.txt", "error.txt")
"""The attachments that come before the others: GitLab shows one for each test."""

WORKSPACES = ("CI_PROJECT_DIR", "WORKSPACE")
"""Where GitLab and Jenkins say what attachments are relative to."""

ILLEGAL = re.compile("[^\t\n\r\x20-\x7e\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
ERROR_TYPE = re.compile(r"([A-Za-z_][\w.]*):(?: |$)")
"""How Python begins the last line of a traceback."""

_Test = tuple[str, Any]  # node id and worker: --dist=each runs a test in every worker


@dataclass
class _Attempt:
    """What was reported of one attempt, and the test cases that pytest made of it.

    Attributes:
        cases: pytest's; the first one, and another if both call and teardown failed.
        passed: how often pytest has counted it as passed; with subtests, more than once.
        again: whether the test is to run again, by us or by pytest-rerunfailures.
        lost: whether the run ended before the test could run again.
        rpc: the attempt as in records.py; empty if it did not get so far.
        message, details: of the report after which it runs again.
        infra: phases whose failure or skip was the infrastructure's, and why.
    """

    cases: list[Any] = field(default_factory=list)
    passed: int = 0
    again: bool = False
    lost: bool = False
    rpc: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    details: str = ""
    infra: dict[str, str] = field(default_factory=dict)


class JUnit:
    """Where pytest writes a JUnit file: the hooks that put our part into it.

    Register it before the session starts, and in no worker.

    Args:
        config: of the run.
        artifacts_dir: the absolute path of the folder with those of the attempts.
        environment: names the folder that attachments are relative to.

    Attributes:
        notes: what the user should know, if the file could not be completed.
    """

    def __init__(
        self,
        config: pytest.Config,
        artifacts_dir: str,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.notes: list[str] = []
        self._config = config
        self._artifacts = Path(artifacts_dir)
        self._base = attachment_base(environment, config.rootpath)
        self._xml: Any = None
        self._known = 0  # how many test cases pytest had before the report at hand
        self._running: dict[_Test, _Attempt] = {}
        self._lost: dict[_Test, list[_Attempt]] = {}
        self._orphans: dict[str, list[_Attempt]] = {}  # lost with their worker, by node id
        self._ended: list[list[_Attempt]] = []  # those tests to which there is something to add

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        self._guarded(self._find)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, Any, Any]:
        self._guarded(lambda: self._take(report))
        result = yield  # pytest adds the report to its test case, and perhaps ends that
        self._guarded(lambda: self._settle(report))
        return result

    @pytest.hookimpl(tryfirst=True)  # before pytest writes the file
    def pytest_sessionfinish(self) -> None:
        self._guarded(self._complete)

    def _guarded(self, step: Callable[[], None]) -> None:
        if self.notes:
            return
        try:
            step()
        except Exception as error:  # pytest's own classes may change; no run is to end for that
            self.notes.append(
                "JUnit: attempts, infra and attachments may be missing in the file, because "
                f"pytest {pytest.__version__} keeps its test cases in another way than expected "
                f"({type(error).__name__}: {error})"
            )

    def _find(self) -> None:
        """pytest's JUnit plugin; it is there once all plugins are configured."""
        from _pytest.junitxml import xml_key

        xml = self._config.stash.get(xml_key, None)
        if xml is None:
            return  # pytest writes no such file
        if not (
            isinstance(xml.node_reporters_ordered, list)
            and isinstance(xml.stats, dict)
            and callable(xml.node_reporter)
        ):
            raise TypeError("LogXML has other members")
        self._xml = xml

    def _take(self, report: pytest.TestReport) -> None:
        if self._xml is None:
            return
        attempt = self._running.setdefault(_test(report), _Attempt())
        outcome: str = report.outcome
        if outcome in ("failed", "skipped") and getattr(report, "rpc_verdict", "") == "infra":
            attempt.infra[str(report.when)] = message_of(report)
        attempt.again |= outcome == "rerun"
        if outcome == "rerun" and not attempt.details:
            attempt.message, attempt.details = message_of(report), str(report.longrepr or "")
        if outcome == "passed" and report.when == "call":
            attempt.passed += 1
        if _ends(report):
            case = self._xml.node_reporter(report)
            attempt.cases.append(case)
            if outcome == "rerun":
                case.record_testreport(report)  # its names: pytest only sees to other outcomes
        self._known = len(self._xml.node_reporters_ordered)

    def _settle(self, report: pytest.TestReport) -> None:
        if self._xml is None or not _ends(report):
            return
        test = _test(report)
        attempt = self._running.pop(test)
        attempt.cases += self._xml.node_reporters_ordered[self._known :]
        attempt.rpc = _attempt_of(report)
        # Whichever worker ran a test after the one that crashed, it is the same test.
        attempts = [*self._orphans.pop(report.nodeid, ()), *self._lost.pop(test, ()), attempt]
        if _lost_with_worker(report):
            self._orphans[report.nodeid] = attempts
        elif attempt.rpc and attempt.again:
            self._lost[test] = attempts
        elif len(attempts) > 1 or attempt.infra or attempt.rpc.get("artifacts"):
            self._ended.append(attempts)

    def _complete(self) -> None:
        for attempts in [*self._lost.values(), *self._orphans.values()]:
            attempts[-1].lost = True
            self._ended.append(attempts)
        for attempts in self._ended:
            self._merge(attempts)

    def _merge(self, attempts: list[_Attempt]) -> None:
        *earlier, last = attempts
        # Everything that may turn out to be otherwise than expected comes first: a half-made
        # change would be worse than none.
        cases = [_element(case) for case in last.cases]
        gone = [_element(case) for attempt in earlier for case in attempt.cases]
        stats = self._xml.stats
        _mark_infra(cases, last, stats)
        if last.lost:  # the run ended before it could run again
            self._add_lost_for_good(cases[0], last, len(attempts))
        tag = "rerunFailure" if _verdicts(cases) else "flakyFailure"
        for number, attempt in enumerate(earlier, 1):
            cases[0].append(_lost_attempt(tag, number, attempt))
        self._drop(earlier, gone)
        whole_s = sum(float(case.get("time", "0")) for case in [cases[0], *gone])
        cases[0].set("time", f"{whole_s:.3f}")
        files = [path for attempt in reversed(attempts) for path in self._attachments(attempt)]
        for case in cases:
            _attach(case, files)
            case[:] = sorted(case, key=_rank)

    def _add_lost_for_good(self, case: ET.Element, attempt: _Attempt, number: int) -> None:
        message = f"{_title(attempt, number)}; the run ended before the test could run again"
        error = ET.SubElement(case, "error", type="infra", message=xml_text(message))
        error.text = xml_text(attempt.details or message)
        self._xml.stats["error"] += 1
        self._xml.stats["passed"] -= attempt.passed

    def _drop(self, attempts: Iterable[_Attempt], elements: Iterable[ET.Element]) -> None:
        """Take back what pytest has counted, and written, of attempts that do not count."""
        stats, ordered = self._xml.stats, self._xml.node_reporters_ordered
        for attempt in attempts:
            stats["passed"] -= attempt.passed
            for case in attempt.cases:
                ordered.remove(case)
        for verdict in _verdicts(elements):
            stats[verdict.tag] -= 1

    def _attachments(self, attempt: _Attempt) -> Iterator[str]:
        folder = attempt.rpc.get("artifacts")
        if not folder:
            return
        paths = (self._artifacts / folder).rglob("*")
        for path in sorted(paths, key=_place_of_file):
            if path.is_file():
                inside = path.is_relative_to(self._base)
                yield (path.relative_to(self._base) if inside else path).as_posix()


def attachment_base(environment: Mapping[str, str], rootpath: Path) -> Path:
    """The folder that attachments are relative to: that of the CI job, or pytest's own."""
    named = (environment.get(name) for name in WORKSPACES)
    return next((Path(path).resolve() for path in named if path), rootpath)


def message_of(report: pytest.TestReport) -> str:
    """What went wrong, or why it was skipped, without the traceback."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return str(longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(longrepr, "reprcrash", None)
    return str(longrepr or "") if crash is None else str(crash.message)


def xml_text(text: str) -> str:
    """The text with what XML cannot hold as pytest has it: ``#x07``."""
    return ILLEGAL.sub(lambda match: f"#x{ord(match.group()):02X}", text)


def _test(report: pytest.TestReport) -> _Test:
    return report.nodeid, getattr(report, "node", None)


def _ends(report: pytest.TestReport) -> bool:
    """Whether it is the last one of an attempt; ``???`` is that of a worker that crashed."""
    return report.when not in ("setup", "call")


def _lost_with_worker(report: pytest.TestReport) -> bool:
    when, outcome = str(report.when), str(report.outcome)
    return when == "???" and outcome == "rerun"


def _attempt_of(report: pytest.TestReport) -> Mapping[str, Any]:
    rpc = getattr(report, "rpc", None)
    return rpc if isinstance(rpc, dict) else {}


def _element(case: Any) -> ET.Element:
    """pytest's test case as the element that will be written."""
    case.finalize()  # from here on it is the same one whenever it is asked for
    element = case.to_xml()
    if not isinstance(element, ET.Element) or element.tag != "testcase":
        raise TypeError(f"its test case is a {type(element).__name__}, not an element")
    return element


def _verdicts(cases: Iterable[ET.Element]) -> list[ET.Element]:
    return [child for case in cases for child in case if child.tag in VERDICTS]


def _mark_infra(cases: list[ET.Element], attempt: _Attempt, stats: dict[str, int]) -> None:
    """Make those verdicts that are the infrastructure's errors, or skips, of type ``infra``."""
    for phase, raised in attempt.infra.items():
        message = xml_text(attempt.rpc.get("message") or raised)
        # Verdicts stand in the order of the phases, and a teardown's is the last.
        verdict = _verdicts(cases)[-1 if phase == "teardown" else 0]
        if verdict.tag == "failure":
            stats["failure"] -= 1
            stats["error"] += 1
            verdict.tag = "error"
        verdict.set("type", "infra")
        verdict.set("message", message)
        if message not in (verdict.text or ""):  # all that GitLab shows
            verdict.text = "\n\n".join(filter(None, [message, verdict.text]))


def _title(attempt: _Attempt, number: int) -> str:
    """``attempt 1 on board@10.0.0.5:9090: ConnectionLostError: ...``"""
    devices = dict.fromkeys(facts["device"] for facts in attempt.rpc.get("devices", ()))
    where = ", ".join(filter(None, devices))
    first = (attempt.message or attempt.rpc.get("message", "")).partition("\n")[0]
    return f"attempt {number}{' on ' if where else ''}{where}: {first}"


def _kind(attempt: _Attempt) -> str:
    """The class of the error, or ``infra`` for a worker that crashed, say."""
    verdict = attempt.rpc.get("verdict", "lost")
    # Ours always begins with the class; pytest's has the module, too, but of a plain assertion
    # neither, and `pytest.fail` may say just anything.
    ours = ERROR_TYPE.match(attempt.rpc.get("message", ""))
    shown = ERROR_TYPE.match(attempt.message)
    if shown and (ours is None or shown[1].rpartition(".")[2] == ours[1]):
        return shown[1]
    if ours:
        return ours[1]
    return "infra" if verdict in ("lost", "infra") else str(verdict)


def _lost_attempt(tag: str, number: int, attempt: _Attempt) -> ET.Element:
    title = _title(attempt, number)
    element = ET.Element(tag, message=xml_text(title), type=_kind(attempt))
    trace = ET.SubElement(element, "stackTrace")
    trace.text = xml_text(attempt.details or attempt.rpc.get("details", "") or attempt.message)
    for stream in ("system-out", "system-err"):
        texts = [
            child.text or ""
            for case in attempt.cases
            for child in _element(case)
            if child.tag == stream
        ]
        if texts:
            ET.SubElement(element, stream).text = "".join(texts)
    return element


def _attach(case: ET.Element, files: Iterable[str]) -> None:
    """One ``system-out`` with all that is in them, and with the files, each on its own line.

    One only: GitLab fails at a second one, and Jenkins does not look at it.
    """
    lines = [f"[[ATTACHMENT|{xml_text(path)}]]" for path in files]
    streams = case.findall("system-out")
    if not lines and len(streams) < 2:
        return
    texts = [stream.text or "" for stream in streams]
    for stream in streams:
        case.remove(stream)
    whole = "".join(text if text.endswith("\n") else f"{text}\n" for text in texts if text)
    ET.SubElement(case, "system-out").text = whole + "".join(f"{line}\n" for line in lines)


def _place_of_file(path: Path) -> tuple[int, Path]:
    return FIRST.index(path.name) if path.name in FIRST else len(FIRST), path


def _rank(element: ET.Element) -> int:
    return ORDER.index(element.tag) if element.tag in ORDER else len(ORDER)
