"""--rpc-server-kind: with each kind of servers of a run's own, tests end and are told alike."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.runtime.compile_cache import VARIABLE
from pytest_tvmrpc.runtime.native_programs import build_server

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., pytest.RunResult]

TESTS = """
    import pytest
    from pytest_tvmrpc import runtime

    @pytest.fixture
    def faults(remote):
        remote.upload({library!r})
        return remote.load_module("faults.so")

    def test_passes(remote):
        assert remote.get_function("rpc.test.addone")(1) == 2
        tensor = runtime.tensor([1.5, 2.5], remote.cpu(0))
        assert tensor.numpy().tolist() == [1.5, 2.5]

    def test_says(faults):
        faults["say"]()
        assert False

    def test_raises(remote):
        remote.get_function("rpc.test.except")("boom")

    def test_crashes(faults):
        faults["crash"]()
"""


@pytest.fixture(name="_cache", scope="module")
def _cache() -> str:
    """The folder with both programs, which are compiled before a run's limits count."""
    try:
        return os.path.dirname(build_server() and build_server(kind="popen"))
    except CompilerError as error:
        pytest.skip(str(error))


@pytest.fixture(name="_built")
def _built(_cache: str, plain: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pytest inside, which has another home, finds them."""
    monkeypatch.setenv(VARIABLE, _cache)


SAID = [
    "E       assert False",
    "E       pytest_tvmrpc.errors.RemoteValueError: boom",
    "E       pytest_tvmrpc.errors.SessionCrashedError: the session's process was killed by SIGABRT "
    "while it served a request; it printed last:",
    "E       about to crash",
]
"""What is wrong in the tests, with each kind."""


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("python", ()), ("native", ()), ("native", ("-n", "2")), ("popen", ())],
    ids=["python", "native", "native in workers", "popen"],
)
@pytest.mark.usefixtures("_built")
def test_each_kind(
    plain: pytest.Pytester,
    run_apart: Run,
    faults: Path,
    kind: str,
    workers: "tuple[str, ...]",
) -> None:
    """Verdicts, errors and what the device printed are the same."""
    plain.makepyfile(TESTS.format(library=str(faults)))
    result = run_apart(f"--rpc-server-kind={kind}", *workers)
    assert result.parseoutcomes() == {"passed": 1, "failed": 3}
    assert sorted(line for line in result.outlines if line.startswith("E ")) == sorted(SAID)
    result.stdout.fnmatch_lines(["*Captured rpc output*", "said by the device"])


def test_without_a_compiler(
    plain: pytest.Pytester, run_apart: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error that says what to install, and no skip."""
    monkeypatch.setenv(VARIABLE, str(plain.path / "cache"))
    monkeypatch.setenv("PATH", str(plain.path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    plain.makepyfile("def test_a(remote): pass")
    for kind in ("native", "popen"):
        result = run_apart(f"--rpc-server-kind={kind}")
        assert result.parseoutcomes() == {"infra": 1}
        result.stdout.fnmatch_lines(["*no C compiler on this machine*install one*"])


def test_a_kind_that_is_none(plain: pytest.Pytester, run_apart: Run) -> None:
    """The kinds are named."""
    result = run_apart("--rpc-server-kind=rust")
    result.stderr.fnmatch_lines(["*'rust' cannot be used; expected 'python', 'native' or 'popen'*"])
