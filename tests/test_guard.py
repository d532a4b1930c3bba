"""The guard of the root conftest.py: what a test leaves behind makes it fail."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = (Path(__file__).resolve().parent.parent / "conftest.py").read_text(encoding="utf-8")

LEAKS = """
import os, socket, subprocess, sys, tempfile, threading
import pytest

kept = []
over = threading.Event()

@pytest.fixture(scope="module", autouse=True)
def _of_the_module():
    shared = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield
    over.set()
    shared.communicate()
    for child in kept:
        child.communicate()

def test_clean():
    with socket.socket():
        subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.mark.leak
def test_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

@pytest.mark.leak
def test_thread():
    threading.Thread(target=over.wait, name="left-over").start()

@pytest.mark.leak
def test_socket(request):
    request.config.kept = socket.socket()

@pytest.mark.leak
def test_file():
    tempfile.mkdtemp(prefix="tvmrpc-")
"""


def test_the_guard(pytester, monkeypatch):
    """A process, thread, socket or file left behind is an error; what a module shares is not."""
    monkeypatch.setenv("PYTEST_TVMRPC_TEST_TIMEOUT_FACTOR", "0.01")  # the leaks never end
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(LEAKS)
    pytester.makeini("[pytest]\nmarkers = leak")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=5, errors=4)
    for what in ("process *input()*", "thread left-over", "socket socket:*", "file *tvmrpc-*"):
        result.stdout.fnmatch_lines([f"still there * s after the test: {what}"])


@pytest.mark.parametrize(("factor", "expected"), [("1", 10.0), ("2.5", 25.0)])
def test_the_unit_of_waits(pytester, monkeypatch, factor, expected):
    """CI can stretch every wait of the tests, by one variable."""
    monkeypatch.setenv("PYTEST_TVMRPC_TEST_TIMEOUT_FACTOR", factor)
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        f"""
        def test_unit(deadline_s, wait_until):
            assert deadline_s == {expected}
            wait_until(iter([0, 0, 1]).__next__, "the third look")
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
