"""Benchmarks on real servers: measured, saved, compared, and a failed test if they are slower.

What is measured sleeps on the server, so that it is never faster than that; and what it is compared
with is made as fast as the test needs it, so that no verdict hangs on the load of the machine.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Callable

import pytest

from pytest_tvmrpc.errors import CompilerError
from pytest_tvmrpc.fixtures import benchmark
from pytest_tvmrpc.runtime.toolchain import find_compiler

Run = Callable[..., pytest.RunResult]

NAP = """
    import os

    def test_nap(remote, remote_benchmark):
        nap = remote.get_function("testing.sleep")
        result = remote_benchmark(nap, float(os.environ.get("NAP_S", "0.001")), repeats=8,
                                  min_time_s=0, flop=1e6, bytes=2e6)
        assert result.min_s >= 0.0009
        print("printed:", result)
"""

WORKERS = [pytest.param(("-n", "0"), id="n0"), pytest.param(("-n", "2"), id="n2")]


@pytest.fixture(name="slow_down")
def _slow_down(plain: pytest.Pytester) -> Callable[[], None]:
    """After its call, all that is stored was ten times as fast."""

    def slow_down() -> None:
        for path in _stored(plain):
            run = json.loads(path.read_text())
            for one in run["benchmarks"]:
                one["samples_s"] = [1e-4 + 1e-7 * place for place in range(len(one["samples_s"]))]
            path.write_text(json.dumps(run))

    return slow_down


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing disturbs these measurements that time would end; processes of their own wait."""
    monkeypatch.setattr(benchmark, "PAUSE_S", 0.0)


def _stored(plain: pytest.Pytester) -> "list[Path]":
    return sorted(plain.path.glob(".rpc-benchmarks/*/*.json"))


def test_the_table_and_the_result(plain: pytest.Pytester, run: Run) -> None:
    """A line for each benchmark, with rates; the result reads well; nothing is stored unasked."""
    plain.makepyfile(NAP)
    result = run("-s")
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines(
        [
            r".*printed: testing.sleep on local: \S+ ms \(MAD .* 8 samples of 1 calls\), .* GB/s",
            r"=+ benchmarks =+",
            r"key +median .*GFLOP/s +GB/s .*benchmark$",
            r"local +\d.* ms .* test_the_table\S+::test_nap testing.sleep$",
            r"local: \S.*",
        ]
    )
    assert _stored(plain) == []


def test_a_compiled_kernel(plain: pytest.Pytester, run_apart: Run) -> None:
    """Measured by its name in the module, on the device of its tensors, with enough calls."""
    try:
        find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    kernel = Path(__file__).resolve().parents[2] / "examples" / "kernels" / "vector_add.c"
    plain.makepyfile(
        f"""
        import numpy as np
        import pytest
        from pytest_tvmrpc.runtime import tensor
        from pytest_tvmrpc.runtime.toolchain import compile_library

        def test_add(remote, remote_benchmark, tmp_path):
            compile_library([{str(kernel)!r}], tmp_path / "add.so", options=("-std=c99",))
            remote.upload(tmp_path / "add.so")
            a = tensor(np.ones(1 << 16, "float32"), remote.cpu(0))
            add = remote.load_module("add.so")["vector_add"]
            result = remote_benchmark(add, a, a, a, flop=1 << 16, bytes=12 << 16, min_time_s=0.02)
            assert len(result.samples_s) == 10
            assert result.number > 20  # of calls that take less than a millisecond each
            assert result.gbps == pytest.approx(12 * result.gflops)
            assert remote.meter.device_s >= result.number * sum(result.samples_s)
            assert a.numpy()[0] > 1
        """
    )
    run_apart().assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", WORKERS)
def test_saved_and_compared(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """One file for each kind of device, by the controller alone; the next run finds it."""
    plain.makepyfile(NAP)
    keys = ("--rpc-key=a", "--rpc-key=b-1")
    result = run_apart(*workers, *keys, "--rpc-bench-save=main")
    result.assert_outcomes(passed=2)
    saved = [json.loads(path.read_text()) for path in _stored(plain)]
    assert sorted(run["key"] for run in saved) == ["a", "b-1"]
    tests = {one["test"] for run in saved for one in run["benchmarks"]}
    assert len(tests) == 1  # the same on both
    assert tests.pop().endswith("::test_nap")
    result.stdout.fnmatch_lines(["saved as 'main': *", "saved as 'main': *"])

    result = run_apart(*workers, *keys, "--rpc-bench-compare=main", "--rpc-bench-fail=900%")
    result.assert_outcomes(passed=2)
    result.stdout.re_match_lines([r".* baseline +change +verdict +benchmark$"])
    rows = [line for line in result.outlines if re.search(r" main \d.* [+-]\d.*::test_nap", line)]
    assert len(rows) == 2
    result.stdout.no_fnmatch_line("*COMPARED*")
    assert len(_stored(plain)) == 2


@pytest.mark.parametrize("workers", WORKERS)
def test_slower_is_failed(
    plain: pytest.Pytester,
    run_apart: Run,
    slow_down: Callable[[], None],
    workers: "tuple[str, ...]",
) -> None:
    """A regression is a failed test: on the terminal, by the exit status, and in JUnit."""
    plain.makepyfile(NAP)
    run_apart("-n", "0", "--rpc-bench-save=main").assert_outcomes(passed=1)
    slow_down()
    result = run_apart(*workers, "--rpc-bench-fail=20%", "--junitxml=out.xml")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.re_match_lines(
        [
            r"testing.sleep on local: \S+ ms, baseline 'main' 100 us: \d+ % slower "
            r"\(limit 20 %\), p < 0\.0001, noise \(MAD\) \d.*",
            r".* main 100 us +\+\d+ % +SLOWER +\S+::test_nap testing.sleep",
            r"FAILED .*::test_nap - Failed: t.*",
        ]
    )
    (failure,) = ElementTree.parse(plain.path / "out.xml").iter("failure")
    assert "slower (limit 20 %)" in str(failure.get("message"))


def test_a_kernel_that_does_more(
    plain: pytest.Pytester, run_apart: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty times the work is found by measuring alone."""
    plain.makepyfile(NAP)
    run_apart("-n", "0", "--rpc-bench-save=main").assert_outcomes(passed=1)
    monkeypatch.setenv("NAP_S", "0.03")
    result = run_apart("-n", "0", "--rpc-bench-fail=20%")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [r"testing.sleep on local: 3\d\.\d ms, baseline 'main' .* slower .*"]
    )


def test_slower_without_a_limit(
    plain: pytest.Pytester, run: Run, slow_down: Callable[[], None]
) -> None:
    """A comparison alone only says so, and the slower result is saved when that is asked for."""
    plain.makepyfile(NAP)
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    slow_down()
    result = run("--rpc-bench-compare", "--rpc-bench-save=later")
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r".* main 100 us +\+\d+ % +slower .*::test_nap testing.sleep$"])
    names = [path.name.partition("_")[2].rpartition("-")[0] for path in _stored(plain)]
    assert names == ["main", "later"]


@pytest.mark.parametrize("workers", WORKERS)
def test_no_baseline(plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]") -> None:
    """The gate lets the test pass, and says in a line of its own that it compared nothing."""
    plain.makepyfile(NAP)
    result = run_apart(*workers, "--rpc-bench-compare=main", "--rpc-bench-fail=5%")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "* new *::test_nap testing.sleep",
            "NOTHING WAS COMPARED: no baseline 'main' for any of 1 benchmark in *; store one with "
            "--rpc-bench-save=main",
            "no baseline: no stored run 'main' of local on * has it: *::test_nap testing.sleep (*",
        ]
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_nothing_was_measured(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """A gate before which nothing came by says so."""
    plain.makepyfile("def test_none(remote): pass")
    result = run_apart(*workers, "--rpc-bench-fail=5%")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["nothing was compared: no test has measured anything"])


@pytest.mark.parametrize("workers", WORKERS)
def test_a_session_of_wider_scope(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """Each test that measures on it has its own benchmarks."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("name", ["a", "b"])
        def test_wide(remote_session, remote_benchmark, name):
            echo = remote_session.get_function("testing.echo")
            found = remote_benchmark(echo, 1, device=remote_session.cpu(0), repeats=2, name=name)
            assert (found.key, found.name) == ("local", name)
        """
    )
    result = run_apart(*workers, "--rpc-servers=2")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::test_wide[[]a[]] a", "*::test_wide[[]b[]] b"])


def test_all_are_measured_before_the_test_fails(
    plain: pytest.Pytester, run: Run, slow_down: Callable[[], None]
) -> None:
    """Several of a test, told apart by names; each that is slower has its line."""
    plain.makepyfile(
        """
        def test_naps(remote, remote_benchmark):
            nap = remote.get_function("testing.sleep")
            for name in ("first", "second"):
                remote_benchmark(nap, 0.001, repeats=5, min_time_s=0, name=name)
            print("the end of the test")
        """
    )
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    slow_down()
    result = run("-s", "--rpc-bench-fail=100%")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the end of the test*",
            "first on local: * slower *",
            "second on local: * slower *",
            "*SLOWER *::test_naps first",
            "*SLOWER *::test_naps second",
        ]
    )


def test_the_assertion_of_the_test_counts_more(
    plain: pytest.Pytester, run: Run, slow_down: Callable[[], None]
) -> None:
    """A test that fails by itself says why; its result is shown, and not saved."""
    plain.makepyfile(NAP)
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    slow_down()
    plain.makepyfile(NAP + "        assert 1 + 1 == 3\n")
    result = run("--rpc-bench-fail=100%", "--rpc-bench-save=later")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert (1 + 1) == 3*", "* SLOWER *::test_nap testing.sleep"])
    result.stdout.fnmatch_lines(["nothing was saved: no test that passed has measured anything"])
    assert len(_stored(plain)) == 1


@pytest.fixture(name="disturb")
def _disturb(plain: pytest.Pytester) -> Callable[..., None]:
    """``disturb(100, 1)``: the first measurement takes 100 times as long, the second as long."""

    def disturb(*factors: float) -> None:
        plain.makeconftest(
            f"""
            import pytest
            from pytest_tvmrpc.fixtures import benchmark

            @pytest.fixture(autouse=True)
            def disturbed(monkeypatch):
                measure, left = benchmark._measure, list({factors})

                def disturbed(*arguments):
                    number, _ = measure(*arguments)
                    return number, [left[0] * (1 + n / 1e4) for n in range(8)], left.pop(0)

                monkeypatch.setattr(benchmark, "_measure", lambda *a: disturbed(*a)[:2])
                yield
                assert left == []
            """
        )

    return disturb


NAP_AT_WILL = NAP.replace("assert result.min_s >= 0.0009", "pass")


def test_a_passing_disturbance(
    plain: pytest.Pytester, run: Run, disturb: Callable[..., None]
) -> None:
    """What would fail is measured once more, and the test passes if that is not slower."""
    plain.makepyfile(NAP_AT_WILL)
    disturb(0.001)
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    disturb(0.1, 0.001)
    result = run("--rpc-bench-fail=900%", "--rpc-bench-save=later")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*SLOWER*")
    (_, later) = (json.loads(path.read_text()) for path in _stored(plain))
    assert later["benchmarks"][0]["median_s"] == pytest.approx(0.001, rel=0.01)


def test_slower_twice(plain: pytest.Pytester, run: Run, disturb: Callable[..., None]) -> None:
    """Then it fails, and the second result is shown, which is as good as any, not the faster."""
    plain.makepyfile(NAP_AT_WILL)
    disturb(0.001)
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    disturb(0.002, 0.003)
    result = run("--rpc-bench-fail=5%")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "testing.sleep on local: 3.00 ms, baseline 'main' 1.00 ms: 200 % slower *; 1 earlier "
            "run: how much runs differ is not known; --rpc-bench-save several runs to teach it"
        ]
    )


def test_runs_that_differ(plain: pytest.Pytester, run: Run, disturb: Callable[..., None]) -> None:
    """What earlier runs differed by is no failure; that it hides changes of the limit is said."""
    plain.makepyfile(NAP_AT_WILL)
    for median_s in (0.00100, 0.00112, 0.00097, 0.00109, 0.00100):
        disturb(median_s)
        run("--rpc-bench-save=main").assert_outcomes(passed=1)
    disturb(0.0011)
    result = run("--rpc-bench-fail=5%")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "* main 1.00 ms * +10 %  noisy *",
            "noisy: earlier runs vary by * %: changes below * % cannot be seen: *",
            "what differs from run to run hides changes of 5 %, the limit, and *",
        ]
    )
    disturb(0.003, 0.003)
    result = run("--rpc-bench-fail=5%")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["testing.sleep on local: * 200 % slower *; earlier runs vary by *"]
    )


def test_runs_of_other_names(
    plain: pytest.Pytester, run: Run, disturb: Callable[..., None]
) -> None:
    """The baseline has its name; if that has too few runs, others tell how much runs differ."""
    plain.makepyfile(NAP_AT_WILL)
    for name, median_s in (("v1", 0.001), ("a", 0.0011), ("b", 0.00098), ("c", 0.0011)):
        disturb(median_s)
        run(f"--rpc-bench-save={name}").assert_outcomes(passed=1)
    disturb(0.00111)
    result = run("--rpc-bench-compare=v1", "--rpc-bench-fail=5%")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["* v1 1.00 ms * +11 %  noisy *", "noisy: earlier runs vary by * %: changes below *"]
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_what_is_stored_during_the_run(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """It is no baseline: only what was there when the run began is compared with."""
    plain.makepyfile(NAP)
    run_apart("-n", "0", "--rpc-bench-save=main").assert_outcomes(passed=1)
    (stored,) = _stored(plain)
    plain.makepyfile(
        f"""
        import json, pathlib, time

        def test_nap(remote, remote_benchmark):
            stored = pathlib.Path({str(stored)!r})
            text = stored.read_text().replace('"main"', '"meanwhile"')
            stored.with_name("99991231T000000.000Z_meanwhile-000000.json").write_text(text)
            nap = remote.get_function("testing.sleep")
            found = remote_benchmark(nap, 0.001, repeats=8, min_time_s=0, flop=1e6, bytes=2e6)
            assert found.baseline == "main"
        """
    )
    run_apart(*workers, "--rpc-bench-compare").assert_outcomes(passed=1)
    assert len(_stored(plain)) == 2


def test_an_expected_failure(
    plain: pytest.Pytester, run: Run, slow_down: Callable[[], None]
) -> None:
    """A regression is a failure like others: a test marked xfail may have one."""
    plain.makepyfile(NAP)
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    slow_down()
    marked = NAP.replace("def test", "@pytest.mark.xfail\n    def test")
    plain.makepyfile(marked.replace("import os", "import os, pytest"))
    run("--rpc-bench-fail=100%").assert_outcomes(xfailed=1)


def test_a_broken_file_is_named(plain: pytest.Pytester, run: Run) -> None:
    """The run goes on without it."""
    plain.makepyfile(NAP)
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    (good,) = _stored(plain)
    good.with_name("bad.json").write_text("{")
    result = run("--rpc-bench-compare")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*bad.json: left out, it is no stored run (JSONDecodeError: *"])
    result.stdout.re_match_lines([r".* main \S+ ms +[+-].*"])


def test_another_folder(plain: pytest.Pytester, run: Run) -> None:
    """--rpc-bench-dir says where stored runs are."""
    plain.makepyfile(NAP)
    run("--rpc-bench-save=main", "--rpc-bench-dir=kept/here").assert_outcomes(passed=1)
    assert _stored(plain) == []
    assert len(list(plain.path.glob("kept/here/*/*_main-*.json"))) == 1


def test_a_model_of_ones_own(plain: pytest.Pytester, run: Run) -> None:
    """A conftest.py says what the devices are; without it, the server does."""
    plain.makepyfile(NAP)
    run("--rpc-bench-save=main").assert_outcomes(passed=1)
    plain.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def rpc_device_model():
            return lambda device: f"board {device.device_id}"
        """
    )
    result = run("--rpc-bench-save=main", "--rpc-bench-compare")
    result.stdout.fnmatch_lines(
        ["NOTHING WAS COMPARED: *", "*no stored run of local on board 0 has it*"]
    )
    assert "board-0-local" in [path.parent.name for path in _stored(plain)]


def test_the_same_name_twice(plain: pytest.Pytester, run: Run) -> None:
    """Nothing would tell the two apart in another run, so it is an error that says what to do."""
    plain.makepyfile(
        """
        import pytest

        def test_twice(remote, remote_benchmark):
            echo = remote.get_function("testing.echo")
            remote_benchmark(echo, 1, repeats=1, min_time_s=0)
            with pytest.raises(ValueError, match="has measured 'testing.echo' already.*name=..."):
                remote_benchmark(echo, 2)
            remote_benchmark(echo, 2, repeats=1, min_time_s=0, name="again")
        """
    )
    run().assert_outcomes(passed=1)


def test_what_cannot_be_measured(plain: pytest.Pytester, run: Run) -> None:
    """It is refused before the device is asked, with what was expected."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("options, message", [
            ({"repeats": 0}, "repeats=0 makes no sense; expected a whole number from 1"),
            ({"warmup": 1.5}, "warmup=1.5 makes no sense; expected a whole number from 0"),
            ({"min_time_s": -1}, "min_time_s=-1 makes no sense; expected a number from 0"),
            ({"flop": float("nan")}, "flop=nan makes no sense"),
            ({"bytes": "many"}, "bytes='many' makes no sense"),
        ])
        def test_options(remote, remote_benchmark, options, message):
            with pytest.raises(ValueError, match=message):
                remote_benchmark(remote.get_function("testing.echo"), 1, **options)

        def test_functions(remote, remote_benchmark):
            with pytest.raises(TypeError, match="is no function of a device; expected one such as"):
                remote_benchmark(lambda: None)
            with pytest.raises(ValueError, match="the server measures what it finds by name"):
                remote_benchmark(remote.get_function("rpc.test.add_to_lhs")(1), 1)
            with pytest.raises(RuntimeError, match="on purpose"):
                remote_benchmark(remote.get_function("rpc.test.except"), "on purpose")
        """
    )
    result = run()
    result.assert_outcomes(passed=6)
    result.stdout.no_fnmatch_line("*= benchmarks =*")


def test_it_needs_no_device_of_the_run(plain: pytest.Pytester, run: Run) -> None:
    """A session that the test opened itself is as good; what it measures is compared under ''."""
    plain.makepyfile(
        """
        from pytest_tvmrpc import rpc

        def test_own(remote_benchmark):
            with rpc.Server(port=0, silent=True) as server:
                with rpc.connect(server.host, server.port) as session:
                    result = remote_benchmark(session.get_function("testing.echo"), 1, repeats=2)
            assert (result.key, result.device) == ("", f"{server.host}:{server.port}")
            assert result.model
        """
    )
    run().assert_outcomes(passed=1)


def test_the_page_and_the_lines(plain: pytest.Pytester, run_apart: Run) -> None:
    """Other reports have them, too: what was measured is in the attempt."""
    plain.makepyfile(NAP)
    result = run_apart("-n", "2", "--rpc-report=run.jsonl", "--rpc-bench-save=main")
    result.assert_outcomes(passed=1)
    lines = [json.loads(line) for line in (plain.path / "run.jsonl").read_text().splitlines()]
    assert '"name": "testing.sleep"' in json.dumps(lines)
