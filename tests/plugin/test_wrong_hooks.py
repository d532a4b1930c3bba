"""Hooks of a project that go wrong: the run goes on, and says which hook it was."""

from __future__ import annotations

from typing import Callable

import pytest

from .farms import Farm, last, read, verdicts

Run = Callable[..., pytest.RunResult]

REPORT = "--rpc-report=run.jsonl"

WORKERS = pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "n1"])

ADDING = """
    import pathlib, threading
    import pytest

    def pytest_tvmrpc_add_to_report(item, attempt):
        name = item.name.partition("_")[2]
        if name == "raises":
            raise ValueError("no thermometer\\nat all")
        if name == "fails":
            pytest.fail("no thermometer")
        return {
            "path": {"path": pathlib.PurePosixPath("a")},
            "lock": {"lock": threading.Lock(), "set": {1}},
            "text": {"text": "a\\udc80", "\\udc81": 1},
            "list": ["a"],
            "keys": {("a", 1): 2},
            "good": {"celsius": 41, "fans": [1, None, 2.5]},
        }[name]
"""


@WORKERS
def test_what_is_added_to_a_report(
    plain: pytest.Pytester, run_apart: Run, lasting_farm: Farm, workers: "tuple[str, ...]"
) -> None:
    """It becomes JSON values; what cannot is told of, and no test has another verdict."""
    plain.makeconftest(ADDING)
    names = ("path", "lock", "text", "list", "keys", "raises", "fails", "good")
    plain.makepyfile("\n".join(f"def test_{name}(remote): pass" for name in names))
    result = run_apart(*lasting_farm.arguments, REPORT, *workers)
    assert result.parseoutcomes() == {"passed": 8}
    assert result.ret == 0
    extra = {name: last(test).extra for name, test in read(plain.path).items()}
    assert extra.pop("test_path") == {"path": "PurePosixPath('a')"}
    assert extra.pop("test_lock").keys() == {"lock", "set"}
    assert extra.pop("test_text") == {"text": "a?", "?": 1}
    assert extra.pop("test_good") == {"celsius": 41, "fans": [1, None, 2.5]}
    assert list(extra.values()) == [{}] * 4
    hook = "the hook pytest_tvmrpc_add_to_report"
    result.stdout.fnmatch_lines(
        [
            f"{hook} returned [[]'a'[]]; expected JSON values by name, * in *::test_list",
            f"{hook} raised TypeError: keys must be *; in *::test_keys",
            f"{hook} raised ValueError: no thermometer (*conftest.py:7); in *::test_raises",
            f"{hook} raised Failed: no thermometer (*); in *::test_fails",
        ]
    )


def test_text_that_cannot_be_encoded(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """What is told of an attempt goes into files and to other processes: it is text for UTF-8."""
    plain.makeconftest(
        """
        def pytest_runtest_logreport(report):
            if report.when == "teardown":
                repr(report.rpc).encode()
                report.rpc["details"].encode()
        """
    )
    plain.makepyfile(
        r"""
        def test_odd(remote):
            raise ValueError("caf\udce9")
        """
    )
    result = run(*lasting_farm.arguments, REPORT)
    assert result.parseoutcomes() == {"failed": 1}
    attempt = last(read(plain.path)["test_odd"])
    assert attempt.message == "ValueError: caf?"
    assert "caf?" in attempt.details


@WORKERS
def test_a_fault_that_cannot_be_classified(
    plain: pytest.Pytester, run_apart: Run, lasting_farm: Farm, workers: "tuple[str, ...]"
) -> None:
    """A wrong word, or an error: the section of the test says so, and our own rules hold."""
    plain.makeconftest(
        """
        def pytest_tvmrpc_classify_error(item, error, when):
            if "word" in item.name:
                return "TEST"
            raise LookupError("no such board")
        """
    )
    plain.makepyfile(
        """
        from acts import drop

        def test_word(remote):
            assert 0

        def test_word_lost(remote):
            drop(remote)

        def test_raises(remote):
            assert 0
        """
    )
    result = run_apart(*lasting_farm.arguments, REPORT, *workers)
    assert result.parseoutcomes() == {"failed": 2, "infra": 1}
    found = {name: verdicts(test) for name, test in read(plain.path).items()}
    assert found == {
        "test_word": ["failed"],
        "test_word_lost": ["infra"],
        "test_raises": ["failed"],
    }
    hook = "the hook pytest_tvmrpc_classify_error"
    words = "'test', 'lost', 'crashed', 'infra', or None"
    wrong = f"{hook} returned 'TEST'; expected one of {words}"
    raised = f"{hook} raised LookupError: no such board (*conftest.py:4)"
    result.stdout.fnmatch_lines(
        [
            "*- pytest_tvmrpc_classify_error -*",
            wrong,
            "*- pytest_tvmrpc_classify_error -*",
            raised,
            "*= remote devices =*",
            f"{wrong}; in *::test_word and 1 more",
            f"{raised}; in *::test_raises",
        ]
    )


@pytest.mark.parametrize("mistake", ["raise ValueError", "__import__('pytest').fail"])
def test_the_end_of_the_run(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm, mistake: str
) -> None:
    """The reports are written all the same, and say what is missing."""
    plain.makeconftest(
        f"""
        def pytest_tvmrpc_run_finished(run):
            {mistake}("no such disk")
        """
    )
    plain.makepyfile("def test_it(remote): pass")
    result = run(*lasting_farm.arguments, REPORT, "--rpc-html=run.html")
    assert result.parseoutcomes() == {"passed": 1}
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*pytest_tvmrpc_run_finished*no such disk*"])
    assert verdicts(read(plain.path)["test_it"]) == ["passed"]
    assert "no such disk" in (plain.path / "run.html").read_text()
