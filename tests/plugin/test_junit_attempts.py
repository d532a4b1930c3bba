"""The JUnit file of real attempts: servers that crash or leave, the files kept, other plugins."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest

from pytest_tvmrpc import rpc

from .junit_files import COUNTED, LOST, case_of, check, gitlab, jenkins

Run = Callable[..., pytest.RunResult]

REAL = """
    import os
    import time

    import pytest

    def first_time(request):
        try:
            (request.config.rootpath / request.node.name).mkdir()
        except FileExistsError:
            return False
        return True

    def test_flaky(remote, request, rpc_artifacts):
        print("here")
        (rpc_artifacts / "mine.txt").write_text("kept")
        if first_time(request):
            remote.get_function("own.crash")()
        assert remote.get_function("rpc.test.addone")(1) == 2

    @pytest.mark.parametrize("size", ["3x3"])
    def test_wrong(remote, size):
        assert remote.get_function("rpc.test.addone")(1) == 3

    def test_nobody(remote_device):
        remote_device("nobody")

    def test_local():
        pass
"""

GONE = """
    def test_gone(remote):
        remote.get_function("own.leave")()
"""


@pytest.fixture(name="farm")
def _farm() -> Iterator[str]:
    """The address of a tracker with two devices, whose sessions and servers can be ended."""
    pytest.importorskip("cloudpickle")

    def register() -> None:
        import ctypes
        import os
        import signal

        from pytest_tvmrpc import runtime

        def leave() -> None:
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

        runtime.register_func("own.crash", lambda: ctypes.string_at(8))
        runtime.register_func("own.leave", leave)

    with rpc.Tracker(port=0, silent=True) as tracker, ExitStack() as servers:
        address = (tracker.host, tracker.port)
        for _ in range(2):
            server = rpc.Server(
                port=0,
                key="board",
                tracker_addr=address,
                silent=True,
                server_init_callback=register,
            )
            servers.enter_context(server)
        yield f"127.0.0.1:{tracker.port}"


@pytest.fixture(name="arguments")
def _arguments(farm: str, monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """What a pipeline would say."""
    for name in ("CI_PROJECT_DIR", "WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    return [
        f"--rpc-tracker={farm}",
        "--rpc-key=board",
        "--rpc-reruns=1",
        "--rpc-require",
        "--rpc-artifacts=retain-on-failure",
        "--junitxml=junit.xml",
    ]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_real_attempts(
    plain: pytest.Pytester, run_apart: Run, arguments: List[str], workers: str
) -> None:
    """Attempts, artefacts and properties of real tests on real servers."""
    if workers != "0":
        pytest.importorskip("xdist")
        arguments += ["-n", workers]
    plain.makepyfile(test_it=REAL)
    file = plain.path / "junit.xml"
    run_apart(*arguments, "-o", "junit_logging=all")
    check(file)
    tests = jenkins(file)
    flaky = tests["test_it.test_flaky"]
    assert flaky.status == "passed"
    ((message, kind, trace),) = flaky.flaky
    assert message.startswith("attempt 1 on board@127.0.0.1:")
    assert kind == "pytest_tvmrpc.errors.SessionCrashedError"
    assert "own.crash" in trace
    assert flaky.output.count("here") == 1
    assert flaky.properties["rpc.attempts"] == "2"
    assert [Path(path).name for path in flaky.attachments][-1] == "mine.txt"
    assert all((plain.path / path).is_file() for path in flaky.attachments)
    wrong = tests["test_it.test_wrong[3x3]"]
    assert (wrong.status, wrong.reruns, wrong.flaky) == ("failed", [], [])
    (shown,) = gitlab(file)["test_it.test_wrong[3x3]"].attachments
    assert (plain.path / shown).is_file()
    nobody = tests["test_it.test_nobody"]
    assert (nobody.status, nobody.reruns, nobody.flaky) == ("failed", [], [])
    assert "'nobody'" in nobody.text
    assert case_of(file, "test_nobody").find("error").get("type") == "infra"
    local = tests["test_it.test_local"]
    assert (local.status, local.output.count("ATTACHMENT")) == ("passed", 0)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_real_attempts_beside_rerunfailures(
    plain: pytest.Pytester, run_apart: Run, arguments: List[str], workers: str
) -> None:
    """Whichever plugin runs a test with devices again, it is one test case."""
    pytest.importorskip("pytest_rerunfailures")
    if workers != "0":
        pytest.importorskip("xdist")
        arguments += ["-n", workers]
    plain.makepyfile(test_it=REAL)
    result = run_apart(*arguments, "-p", "rerunfailures", "--reruns=1", "-k", "flaky or wrong")
    result.stdout.no_fnmatch_line("JUnit: *")
    lost: Dict[str, str] = {}
    cases: Dict[str, List[List[str]]] = {}
    for case in ET.parse(plain.path / "junit.xml").iter("testcase"):
        inner = [child.tag for child in case if child.tag in {*LOST, *COUNTED.values()}]
        cases.setdefault(str(case.get("name")), []).append(inner)
        lost.update((str(case.get("name")), str(e.get("type"))) for e in case if e.tag in LOST)
    again = [["failure", "rerunFailure"]]
    assert cases == {"test_flaky": [["flakyFailure"]], "test_wrong[3x3]": again}
    crashed = "pytest_tvmrpc.errors.SessionCrashedError"
    assert lost == {"test_flaky": crashed, "test_wrong[3x3]": "AssertionError"}


ERRORS = """
    import pytest

    @pytest.mark.parametrize("number", range(1))
    def test_assert(remote, number): assert number

    def test_bare(remote): raise LookupError

    def test_message(remote): raise LookupError("why")

    def test_fail(remote): pytest.fail("why", pytrace=False)
"""


@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "native", "no"])
def test_the_class_of_an_error(
    plain: pytest.Pytester, run_apart: Run, arguments: List[str], style: str
) -> None:
    """An attempt that failed by itself is not the infrastructure's, however little is shown."""
    pytest.importorskip("pytest_rerunfailures")
    plain.makepyfile(test_it=ERRORS)
    run_apart(*arguments, "-p", "rerunfailures", "--reruns=1", f"--tb={style}")
    kinds = {
        case.get("name"): each.get("type")
        for case in ET.parse(plain.path / "junit.xml").iter("testcase")
        for each in case.iter("rerunFailure")
    }
    assert kinds == {
        "test_assert[0]": "AssertionError",
        "test_bare": "LookupError",
        "test_message": "LookupError",
        "test_fail": "Failed",
    }


@pytest.mark.parametrize("verdict", ["error", "fail", "skip"])
def test_real_infra(
    plain: pytest.Pytester, run_apart: Run, arguments: List[str], verdict: str
) -> None:
    """A device that was lost in each attempt is an error or a skip of type infra, as asked for."""
    plain.makepyfile(test_it=GONE)
    run_apart(*arguments, f"--rpc-infra={verdict}")
    with rpc.Server(port=0, silent=True):
        pass  # which cleans up after those that were killed
    file = plain.path / "junit.xml"
    check(file)
    case = case_of(file, "test_gone")
    (shown,) = [child for child in case if child.tag in COUNTED.values()]
    expected = {
        "error": ("error", "infra"),
        "fail": ("failure", None),
        "skip": ("skipped", "infra"),
    }
    assert (shown.tag, shown.get("type")) == expected[verdict]
    if verdict != "fail":
        assert "lost in earlier attempts: board@127.0.0.1:" in str(shown.get("message"))
        assert str(shown.get("message")) in (shown.text or "")
    ((message, kind, _),) = jenkins(file)["test_it.test_gone"].reruns
    assert message.startswith("attempt 1 on board@127.0.0.1:")
    assert kind == "pytest_tvmrpc.errors.ConnectionLostError"
