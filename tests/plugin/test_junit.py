"""The JUnit file: one test case for each test, with its attempts; here these are simulated."""

from __future__ import annotations

import os
import re
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Callable

import pytest

from pytest_tvmrpc.reporting.junit import attachment_base

from .junit_files import COUNTED, case_of, check, gitlab, jenkins

Run = Callable[..., pytest.RunResult]

SCHEMA = "JUNIT_XSD"
"""Names a copy of Jenkins' junit-10.xsd (pytest's own sources have one) to check against."""

ATTEMPTS = '''
"""Runs a test once for each verdict of its mark, and reports as the plugin does."""

import pytest
from _pytest.runner import runtestprotocol

number_key = pytest.StashKey()

def pytest_addoption(parser):
    parser.addoption("--crash-once", action="store_true")
    parser.addoption("--crash-and-end", action="store_true")

def pytest_configure(config):
    config.addinivalue_line("markers", "attempts: the verdict of each")

@pytest.fixture(name="number")
def _number(request):
    return request.node.stash[number_key]

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    mark = item.get_closest_marker("attempts")
    if mark is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for number in range(1, len(mark.args) + 1):
        item.stash[number_key] = number
        item._report_sections.clear()  # what it printed before
        runtestprotocol(item, nextitem=nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if number_key not in item.stash:
        return report
    number = item.stash[number_key]
    verdict = item.get_closest_marker("attempts").args[number - 1]
    if report.failed and verdict.startswith("infra"):
        report.rpc_verdict = "infra"
        if verdict == "infra-skip":
            report.outcome = "skipped"
            report.longrepr = (str(item.path), 1, f"Skipped: {call.excinfo.value}")
    if verdict == "lost" and (report.failed or call.when == "teardown"):
        report.outcome = "rerun"
    if call.when == "teardown":
        device = {"key": "board", "device": f"board@10.0.0.{number}:9090"}
        folder = f"{item.name}/{number}"
        report.rpc = {"number": number, "verdict": verdict, "devices": [device], "artifacts": ""}
        if "keeps" in item.name:
            report.rpc["artifacts"] = folder
            path = item.config.rootpath / "rpc-artifacts" / folder
            path.mkdir(parents=True)
            (path / "attempt.json").write_text("{}")
            (path / "output.txt").write_text("hello")
        item.user_properties[:] = [("rpc.key", "board"), ("rpc.attempts", number)]
        report.user_properties = item.user_properties
    return report

class CrashedWorkers:
    """Has a test whose worker crashed run again, once."""
    def __init__(self, ends):
        self.seen = set()
        self.ends = ends
    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem, report, sched):
        if crashitem not in self.seen:
            self.seen.add(crashitem)
            if not self.ends:
                sched.mark_test_pending(crashitem)
            report.outcome = "rerun"

def pytest_sessionstart(session):
    once, ends = map(session.config.getoption, ("--crash-once", "--crash-and-end"))
    if once or ends:
        session.config.pluginmanager.register(CrashedWorkers(ends))
'''

LOSSES = """
    import pytest

    class ConnectionLostError(OSError): ...

    def cut():
        raise ConnectionLostError("the device is gone")

    @pytest.fixture
    def late(number, request):
        if "setup" in request.node.name and number == 1:
            cut()
        yield
        if "teardown" in request.node.name and number == 1:
            cut()

    @pytest.mark.attempts("passed")
    def test_plain(number):
        print("plain output")

    @pytest.mark.attempts("lost", "passed")
    def test_call(number):
        print(f"output {number}")
        if number == 1:
            cut()

    @pytest.mark.attempts("lost", "passed")
    def test_setup(late):
        pass

    @pytest.mark.attempts("lost", "passed")
    def test_teardown(late):
        pass

    @pytest.mark.attempts("lost", "lost", "passed")
    def test_twice(number):
        if number < 3:
            cut()

    @pytest.mark.attempts("lost", "failed")
    def test_fails(number):
        if number == 1:
            cut()
        assert 1 + 1 == 3

    def test_local():
        assert "a local" == "failure"
"""


@pytest.fixture(name="file")
def _file(plain: pytest.Pytester) -> Path:
    """Where the runs of a test write; their conftest.py simulates attempts."""
    plain.makeconftest(ATTEMPTS)
    return plain.path / "junit.xml"


@pytest.fixture(name="written")
def _written(plain: pytest.Pytester, file: Path, run: Run) -> Path:
    """The file of a run with all kinds of losses."""
    plain.makepyfile(test_it=LOSSES)
    run("--junitxml=junit.xml", "-o", "junit_logging=all").assert_outcomes(passed=6, failed=2)
    return file


def test_one_case(written: Path) -> None:
    """A test that was run several times is one test case, and counts once."""
    check(written)
    assert len(jenkins(written)) == 7


@pytest.mark.parametrize(
    ("name", "count"), [("call", 1), ("setup", 1), ("teardown", 1), ("twice", 2)]
)
def test_flaky(written: Path, name: str, count: int) -> None:
    """A test that passed at last has passed, and each lost attempt is a flakyFailure in it."""
    assert gitlab(written)[f"test_it.test_{name}"].status == "success"
    shown = jenkins(written)[f"test_it.test_{name}"]
    assert shown.status == "passed"
    assert not shown.reruns
    assert len(shown.flaky) == count
    for number, (message, kind, trace) in enumerate(shown.flaky, 1):
        assert message == (
            f"attempt {number} on board@10.0.0.{number}:9090: "
            "test_it.ConnectionLostError: the device is gone"
        )
        assert kind == "test_it.ConnectionLostError"
        assert 'raise ConnectionLostError("the device is gone")' in trace


def test_rerun(written: Path) -> None:
    """A test that failed at last has its own failure, and each lost attempt as rerunFailure."""
    assert gitlab(written)["test_it.test_fails"].status == "failure"
    shown = jenkins(written)["test_it.test_fails"]
    assert shown.status == "failed"
    assert "assert (1 + 1) == 3" in shown.text
    assert not shown.flaky
    assert [kind for _, kind, _ in shown.reruns] == ["test_it.ConnectionLostError"]


def test_output_of_attempts(written: Path) -> None:
    """What a lost attempt printed stands with it, and what the last one printed with the test."""
    case = case_of(written, "test_call")
    assert "output 2" in (case.findtext("system-out") or "")
    assert "output 1" not in (case.findtext("system-out") or "")
    assert "output 1" in (case.findtext("flakyFailure/system-out") or "")


def test_properties_once(written: Path) -> None:
    """Properties are those of the last attempt, each once."""
    assert jenkins(written)["test_it.test_twice"].properties == {
        "rpc.key": "board",
        "rpc.attempts": "3",
    }


def test_others_untouched(plain: pytest.Pytester, file: Path, run: Run) -> None:
    """Tests to which nothing is to be added are written as pytest writes them."""
    plain.makepyfile(LOSSES)
    written = []
    for disabled in ("no:nothing", "no:tvmrpc-junit"):
        run("--junitxml=junit.xml", "-p", disabled, "-k", "plain or local")
        text = re.sub(r'(time|timestamp)="[^"]*"', "", file.read_text(encoding="utf-8"))
        written.append(text)
    assert written[0] == written[1]


def test_time(plain: pytest.Pytester, file: Path, run: Run) -> None:
    """The time of a test is that of all its attempts."""
    plain.makepyfile(
        """
        import time, pytest

        @pytest.mark.attempts("lost", "passed")
        def test_slow(number):
            end = time.perf_counter() + 0.2
            while time.perf_counter() < end:
                pass
            if number == 1:
                raise OSError("gone")
        """
    )
    run("--junitxml=junit.xml").assert_outcomes(passed=1)
    check(file)
    assert float(case_of(file, "test_slow").attrib["time"]) >= 0.4


def test_time_of_calls(plain: pytest.Pytester, file: Path, run: Run) -> None:
    """With junit_duration_report=call, set-up and teardown of no attempt count."""
    plain.makepyfile(test_it=LOSSES)
    run("--junitxml=junit.xml", "-o", "junit_duration_report=call").assert_outcomes(
        passed=6, failed=2
    )
    check(file)
    assert len(jenkins(file)["test_it.test_twice"].flaky) == 2
    assert case_of(file, "test_setup").attrib["time"] == "0.000"


INFRA = """
    import pytest

    @pytest.fixture
    def remote(request):
        if "setup" in request.node.name:
            raise LookupError("no device 'board' within 60 s")
        yield
        if "teardown" in request.node.name:
            raise LookupError("the tracker is gone")

    @pytest.mark.attempts("infra")
    def test_setup(remote):
        pass

    @pytest.mark.attempts("infra")
    def test_call():
        raise OSError("lost on every attempt")

    @pytest.mark.attempts("infra")
    def test_teardown(remote):
        pass

    @pytest.mark.attempts("infra-skip")
    def test_skip_in_setup(remote):
        pass

    @pytest.mark.attempts("infra-skip")
    def test_skip():
        raise OSError("not here")

    @pytest.mark.attempts("lost", "infra")
    def test_lost():
        raise OSError("lost on every attempt")

    @pytest.mark.attempts("infra")
    def test_both_teardown(remote):
        assert 1 == 2
"""


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_infra(plain: pytest.Pytester, file: Path, run: Run, family: str) -> None:
    """What the infrastructure did is an error, or a skip, of type infra, with the bare reason."""
    plain.makepyfile(test_it=INFRA)
    run("--junitxml=junit.xml", "-o", f"junit_family={family}", "-k", "not both")
    check(file, family)
    shown = {}
    for case in ET.parse(file).getroot().iter("testcase"):
        (verdict,) = [child for child in case if child.tag in COUNTED.values()]
        shown[case.get("name")] = (verdict.tag, verdict.get("type"), verdict.get("message"))
        assert str(verdict.get("message")).partition(": ")[2] in (verdict.text or "")
    assert shown == {
        "test_setup": ("error", "infra", "LookupError: no device 'board' within 60 s"),
        "test_call": ("error", "infra", "OSError: lost on every attempt"),
        "test_teardown": ("error", "infra", "LookupError: the tracker is gone"),
        "test_skip_in_setup": ("skipped", "infra", "no device 'board' within 60 s"),
        "test_skip": ("skipped", "infra", "not here"),
        "test_lost": ("error", "infra", "OSError: lost on every attempt"),
    }
    assert [kind for _, kind, _ in jenkins(file)["test_it.test_lost"].reruns] == ["OSError"]


def test_infra_twice(plain: pytest.Pytester, file: Path, run: Run) -> None:
    """A call and a teardown that both fail are two test cases, as pytest has it; both are ours."""
    plain.makepyfile(test_it=INFRA)
    run("--junitxml=junit.xml", "-k", "both")
    errors = ET.parse(file).getroot().findall("*/testcase/error")
    assert [error.get("type") for error in errors] == ["infra", "infra"]
    assert "1 == 2" in str(errors[0].get("message"))
    assert errors[1].get("message") == "LookupError: the tracker is gone"
    suite = ET.parse(file).getroot()[0]
    assert (suite.get("errors"), suite.get("failures")) == ("2", "0")


KEEPS = """
    import pytest

    @pytest.mark.attempts("lost", "failed")
    def test_keeps(number):
        print("printed")
        if number == 1:
            raise OSError("gone")
        assert False

    @pytest.mark.attempts("passed")
    def test_keeps_passed():
        pass
"""


@pytest.mark.parametrize("logging", ["no", "all"])
def test_attachments(
    plain: pytest.Pytester,
    file: Path,
    run: Run,
    logging: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each kept file is a line of its own in the one system-out, the last attempt's first."""
    for name in ("CI_PROJECT_DIR", "WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    plain.makepyfile(test_it=KEEPS)
    options = ("-o", f"junit_logging={logging}", "-o", "junit_log_passing_tests=false")
    run("--junitxml=junit.xml", *options).assert_outcomes(passed=1, failed=1)
    check(file)
    shown = jenkins(file)["test_it.test_keeps"]
    assert shown.attachments == [
        "rpc-artifacts/test_keeps/2/output.txt",
        "rpc-artifacts/test_keeps/2/attempt.json",
        "rpc-artifacts/test_keeps/1/output.txt",
        "rpc-artifacts/test_keeps/1/attempt.json",
    ]
    assert ("printed" in shown.output) == (logging == "all")
    assert gitlab(file)["test_it.test_keeps"].attachments == shown.attachments[:1]
    assert len(jenkins(file)["test_it.test_keeps_passed"].attachments) == 2


def test_attachment_base(tmp_path: Path) -> None:
    """Attachments are relative to the folder of the CI job, if that says it, else to pytest's."""
    root = tmp_path / "checkout" / "project"
    job = str(tmp_path / "checkout")
    assert attachment_base({}, root) == root
    assert attachment_base({"CI_PROJECT_DIR": job}, root) == Path(job).resolve()
    assert attachment_base({"WORKSPACE": job, "CI_PROJECT_DIR": ""}, root) == Path(job).resolve()


def test_attachments_elsewhere(
    plain: pytest.Pytester,
    file: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Files outside the folder of the job have absolute paths."""
    monkeypatch.setenv("CI_PROJECT_DIR", str(tmp_path_factory.mktemp("job")))
    plain.makepyfile(test_it=KEEPS)
    run("--junitxml=junit.xml", "-k", "passed").assert_outcomes(passed=1)
    paths = jenkins(file)["test_it.test_keeps_passed"].attachments
    assert paths[0] == str(plain.path / "rpc-artifacts/test_keeps_passed/1/output.txt")


def test_illegal_characters(plain: pytest.Pytester, file: Path, run: Run) -> None:
    """What XML cannot hold is written as pytest writes it."""
    plain.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.attempts("lost", "infra")
        def test_bell():
            raise OSError("ring \\x07 <&> \\x1b[0m")
        """
    )
    run("--junitxml=junit.xml")
    check(file)
    shown = jenkins(file)["test_it.test_bell"]
    assert shown.text == "OSError: ring #x07 <&> #x1B[0m"
    assert shown.reruns[0][0].endswith("OSError: ring #x07 <&> #x1B[0m")


def test_ended_too_early(plain: pytest.Pytester, file: Path, run_apart: Run) -> None:
    """A lost attempt after which the run ended is an infra error, not a test that passed."""
    plain.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.attempts("lost", "interrupted")
        def test_it(number):
            if number == 1:
                raise OSError("gone")

        @pytest.fixture(autouse=True)
        def end(number, request):
            if number == 2:
                raise KeyboardInterrupt
        """
    )
    run_apart("--junitxml=junit.xml")
    shown = [case for case in ET.parse(file).getroot().iter("testcase") if case.get("name")]
    ((verdict,),) = [[child for child in case if child.tag != "properties"] for case in shown]
    assert (verdict.tag, verdict.get("type")) == ("error", "infra")
    assert str(verdict.get("message")).endswith(
        "OSError: gone; the run ended before the test could run again"
    )


@pytest.mark.parametrize("family", ["xunit1", "xunit2"])
def test_workers(plain: pytest.Pytester, file: Path, run_apart: Run, family: str) -> None:
    """With pytest-xdist the file is the same."""
    pytest.importorskip("xdist")
    plain.makepyfile(test_it=LOSSES)
    arguments = ("-n2", "--junitxml=junit.xml", "-o", f"junit_family={family}")
    run_apart(*arguments).assert_outcomes(passed=6, failed=2)
    check(file, family)
    shown = jenkins(file)
    assert len(shown) == 7
    assert len(shown["test_it.test_twice"].flaky) == 2
    assert len(shown["test_it.test_fails"].reruns) == 1


def test_each_worker(plain: pytest.Pytester, file: Path, run_apart: Run) -> None:
    """With --dist=each, the attempts in one worker are not those in the other."""
    pytest.importorskip("xdist")
    plain.makepyfile(test_it=LOSSES)
    run_apart("--dist=each", "--tx=2*popen", "--junitxml=junit.xml", "-k", "twice or call")
    cases = [
        (str(case.get("name")), len(case.findall("flakyFailure")))
        for case in ET.parse(file).getroot().iter("testcase")
    ]
    assert sorted(cases) == [("test_call", 1)] * 2 + [("test_twice", 2)] * 2


CRASHES = """
    import os
    import pytest

    @pytest.mark.attempts("lost", "passed")
    def test_crashes(number, request):
        if number == 1:
            raise OSError("gone")
        first = request.config.rootpath / "first"
        if not first.exists():
            first.touch()
            os._exit(1)

    @pytest.mark.attempts("passed")
    def test_other(number):
        pass
"""


def test_crashed_worker_again(plain: pytest.Pytester, file: Path, run_apart: Run) -> None:
    """A test whose worker crashed and that ran again elsewhere is one test case, too."""
    pytest.importorskip("xdist")
    plain.makepyfile(test_it=CRASHES)
    result = run_apart("-n2", "--crash-once", "--junitxml=junit.xml")
    result.assert_outcomes(passed=2)
    check(file)
    (first, second, third) = jenkins(file)["test_it.test_crashes"].flaky
    assert first[0].startswith("attempt 1 on board@10.0.0.1:9090: OSError")
    assert second[0].startswith("attempt 2: worker 'gw")
    assert "crashed while running" in second[2]
    assert second[1] == "infra"
    assert third[0].startswith("attempt 3 on board@10.0.0.1:9090: OSError")
    assert jenkins(file)["test_it.test_crashes"].status == "passed"


def test_crashed_worker_never_again(plain: pytest.Pytester, file: Path, run_apart: Run) -> None:
    """If the run ends before such a test could run again, it is an infra error under its name."""
    pytest.importorskip("xdist")
    plain.makepyfile(test_it=CRASHES)
    run_apart("-n2", "--crash-and-end", "--junitxml=junit.xml")
    check(file)
    error = case_of(file, "test_crashes").find("error")
    assert error is not None
    assert error.get("type") == "infra"
    assert "crashed while running" in str(error.get("message"))
    assert "the run ended before" in str(error.get("message"))
    assert [kind for _, kind, _ in jenkins(file)["test_it.test_crashes"].reruns] == ["OSError"]


def test_crashed_worker(plain: pytest.Pytester, file: Path, run_apart: Run) -> None:
    """A test whose worker crashed for good keeps the attempts that it had before."""
    pytest.importorskip("xdist")
    plain.makepyfile(test_it=CRASHES)
    result = run_apart("-n2", "--junitxml=junit.xml")
    result.assert_outcomes(passed=1, failed=1)
    check(file)
    shown = jenkins(file)["test_it.test_crashes"]
    assert shown.status == "failed"
    assert "crashed while running" in shown.text
    assert [kind for _, kind, _ in shown.reruns] == ["OSError"]


def test_rerunfailures(plain: pytest.Pytester, file: Path, run_apart: Run) -> None:
    """Tests that pytest-rerunfailures runs again are written as they are without us."""
    pytest.importorskip("pytest_rerunfailures")
    plain.makepyfile(
        test_it="""
        import pytest

        seen = []

        @pytest.mark.flaky(reruns=1)
        def test_flaky():
            seen.append(1)
            assert len(seen) == 2

        @pytest.mark.attempts("lost", "passed")
        def test_lost(number):
            if number == 1:
                raise OSError("gone")
        """
    )
    run_apart("-p", "rerunfailures", "--junitxml=junit.xml").assert_outcomes(passed=2)
    check_them = [
        (case.get("name"), [child.tag for child in case if child.tag != "properties"])
        for case in ET.parse(file).getroot().iter("testcase")
    ]
    assert ("test_lost", ["flakyFailure"]) in check_them
    assert check_them.count(("test_flaky", [])) == len(check_them) - 1


OTHER_PYTESTS = {
    "collections": """
        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionstart(session):
            from collections import deque
            from _pytest.junitxml import xml_key
            session.config.stash[xml_key].node_reporters_ordered = deque()
        """,
    "elements": """
        import xml.etree.ElementTree
        from _pytest.junitxml import _NodeReporter
        _NodeReporter.to_xml = lambda self: xml.etree.ElementTree.Element("case")
        """,
}


@pytest.mark.parametrize("change", OTHER_PYTESTS)
def test_other_pytest(plain: pytest.Pytester, run_apart: Run, change: str) -> None:
    """If pytest's own classes are not as expected, its file stays as it is, and a note says so."""
    plain.makeconftest(ATTEMPTS + textwrap.dedent(OTHER_PYTESTS[change]))
    plain.makepyfile(test_it=LOSSES)
    result = run_apart("--junitxml=junit.xml", "-k", "test_call")
    result.stdout.fnmatch_lines(["JUnit: attempts, infra and attachments may be missing *"])
    suite = ET.parse(plain.path / "junit.xml").getroot()[0]
    assert len(suite) == 2  # one for each attempt
    assert suite.get("tests") == "1"


def test_schema(written: Path) -> None:
    """Jenkins' own schema takes the file; all but pytest's properties of test cases."""
    named = os.environ.get(SCHEMA)
    if not named:
        pytest.skip(f"{SCHEMA} names no copy of junit-10.xsd")
    etree = pytest.importorskip("lxml.etree")
    document = etree.parse(str(written))
    assert document.findall(".//flakyFailure")
    assert document.findall(".//rerunFailure")
    for properties in document.findall(".//testcase/properties"):
        properties.getparent().remove(properties)
    etree.XMLSchema(etree.parse(named)).assertValid(document)
