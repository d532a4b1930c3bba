"""The marks and keys of tests in runs: names of tests, refused marks, and the choice of devices."""

from __future__ import annotations

import re
from typing import Callable, List

import pytest

Run = Callable[..., pytest.RunResult]

SEVERAL = """
    import pytest

    def test_conv(remote): pass

    @pytest.mark.parametrize("size", [3, 5])
    def test_sizes(remote, size): pass

    def test_wide(remote_session): pass

    @pytest.mark.rpc_device("rpi4")
    def test_rpi4(remote): pass

    @pytest.mark.rpc_device("rpi4", "jetson", mode="any")
    def test_any(remote): pass

    def test_by_key(remote_device): pass

    def test_local(): pass
"""

IDS = [
    "test_any",
    "test_by_key",
    "test_conv[jetson]",
    "test_conv[rpi4]",
    "test_local",
    "test_rpi4",
    "test_sizes[jetson-3]",
    "test_sizes[jetson-5]",
    "test_sizes[rpi4-3]",
    "test_sizes[rpi4-5]",
    "test_wide[jetson]",
    "test_wide[rpi4]",
]

KEYS = ("--rpc-key=rpi4", "--rpc-key=jetson")


def ids_in(result: pytest.RunResult) -> List[str]:
    """The names of all tests that are told of, each once."""
    return sorted(set(re.findall(r"::(test_\w+(?:\[[^\s\]]+\])?)", result.stdout.str())))


def test_ids(plain: pytest.Pytester, run: Run) -> None:
    """A test has a name for each of its keys if there are several, and its own name otherwise."""
    plain.makepyfile(SEVERAL)
    assert ids_in(run("--co", "-q", *KEYS)) == IDS
    assert ids_in(run("--co", "-q", "--rpc-key=rpi4")) == sorted(
        {i.split("[")[0] for i in IDS} - {"test_sizes"} | {"test_sizes[3]", "test_sizes[5]"}
    )
    with_any = ids_in(run("--co", "-q", *KEYS, "--rpc-mode=any"))
    assert with_any == ids_in(run("--co", "-q", "--rpc-key=rpi4"))


def test_a_test_can_be_chosen_by_its_id(plain: pytest.Pytester, run: Run) -> None:
    """It is a name as any other."""
    plain.makepyfile(SEVERAL)
    result = run(*KEYS, "test_a_test_can_be_chosen_by_its_id.py::test_conv[jetson]")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["jetson@* 1 * 1 *"])
    result.stdout.no_fnmatch_line("rpi4@*")


def test_ids_are_the_same_in_workers(
    plain: pytest.Pytester, run_apart: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have the keys of the controller, whatever their own environment says."""
    pytest.importorskip("xdist")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the outer run
    plain.makeini("[pytest]\nrpc_key = rpi4 jetson\n")  # which counts less than the environment
    plain.makeconftest(
        """
        import os

        if "PYTEST_XDIST_WORKER" in os.environ:
            os.environ["TVM_TRACKER_KEY"] = os.environ["PYTEST_XDIST_WORKER"]
        """
    )
    plain.makepyfile(SEVERAL)
    result = run_apart("-n", "2", "-v")
    result.assert_outcomes(passed=len(IDS))
    assert ids_in(result) == IDS


@pytest.mark.parametrize(
    ("mark", "advice"),
    [
        ('rpc_device("a b")', "*rpc_device('a b') cannot be used; expected keys, *"),
        ("rpc_device(count=0)", "*rpc_device(count=0) cannot be used; expected count from 1, *"),
        ("rpc_timeout(5)", "*rpc_timeout(5) cannot be used; expected seconds above 0 *"),
        ("rpc_reruns(-1)", "*rpc_reruns(-1) cannot be used; expected a whole number from 0*"),
    ],
)
@pytest.mark.parametrize("fixture", ["remote", "remotes", "remote_device", "remote_session"])
def test_a_wrong_mark(
    plain: pytest.Pytester, run: Run, mark: str, advice: str, fixture: str
) -> None:
    """It is found where the test is collected, by name, without a traceback; no test is run."""
    plain.makepyfile(
        f"""
        import pytest

        @pytest.mark.{mark}
        def test_conv({fixture}): pass
        """
    )
    result = run("--strict-markers")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"test_a_wrong_mark.py::test_conv: the mark {advice}"])
    result.stdout.no_fnmatch_line("*selection.py*")
    result.stdout.no_fnmatch_line("*= remote devices =*")


def test_a_mark_at_a_parameter(plain: pytest.Pytester, run: Run) -> None:
    """It chooses among the keys that the test is run on; with a shared session, too."""
    plain.makepyfile(
        """
        import pytest

        cases = pytest.mark.parametrize(
            "size",
            [
                pytest.param(2, marks=pytest.mark.rpc_device("jetson", timeout=7)),
                pytest.param(3, marks=pytest.mark.rpc_device("pixel")),
                1,
            ],
        )

        @cases
        def test_conv(remote, size):
            assert size == 1 or remote.key == "jetson"

        @cases
        def test_wide(remote_session, size):
            assert size == 1 or remote_session.key == "jetson"
        """
    )
    result = run(*KEYS, "-v", "-rs")
    result.assert_outcomes(passed=6, skipped=6)
    for name in ("conv", "wide"):
        for case in ("rpi4-2", "rpi4-3", "jetson-3"):
            result.stdout.fnmatch_lines([f"*::test_{name}[[]{case}[]] SKIPPED *"])
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED * this test is for jetson, not for rpi4",
            "SKIPPED * this test is for pixel, this run has rpi4, jetson; run it with *",
        ]
    )
    one = run("--rpc-key=jetson", "-rs")
    one.assert_outcomes(passed=4, skipped=2)


WRONG_LATER = """
    import pytest

    @pytest.mark.parametrize(
        "size", [1, pytest.param(2, marks=pytest.mark.rpc_device("rpi4", mode="sometimes"))]
    )
    def test_conv(remote, size): pass

    def test_added(remote): pass
"""


@pytest.mark.parametrize("keys", [(), KEYS], ids=["one key", "keys"])
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_a_wrong_mark_that_is_seen_later(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]", keys: "tuple[str, ...]"
) -> None:
    """At a parameter, or added by a hook: an error of the collection that names the test."""
    plain.makeconftest(
        """
        import pytest

        def pytest_collection_modifyitems(items):
            for item in items:
                if item.name.startswith("test_added"):
                    item.add_marker(pytest.mark.rpc_reruns(-1))
        """
    )
    plain.makepyfile(WRONG_LATER)
    result = run_apart(*keys, *workers)
    names = ["test_conv[[]rpi4-2[]]", "test_added[[]rpi4[]]"]
    names = names if keys else ["test_conv[[]2[]]", "test_added"]
    advice = ["rpc_device('rpi4', mode='sometimes')", "rpc_reruns(-1)"]
    for name, mark in zip(names, advice):
        result.stdout.fnmatch_lines([f"*.py::{name}: the mark {mark} cannot be used; expected *"])
    assert result.parseoutcomes()["errors"] == (4 if keys else 2)
    assert result.ret != 0
    result.stdout.no_fnmatch_line("*selection.py*")


def test_a_test_for_a_key_that_the_run_has_not(plain: pytest.Pytester, run: Run) -> None:
    """It is one skip with the reason, also with --rpc-require: there are other runs for it."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.rpc_device("jetson", "rk3588")
        def test_conv(remote): pass

        def test_add(remote): pass
        """
    )
    reason = "this test is for jetson or rk3588, this run has local; run it with --rpc-key=jetson*"
    for arguments in ((), ("--rpc-require",)):
        result = run("-rs", *arguments)
        result.assert_outcomes(passed=1, skipped=1)
        assert result.ret == 0
        result.stdout.fnmatch_lines([f"SKIPPED [[]1[]] *: {reason}"])
        result.stdout.no_fnmatch_line("*= infrastructure =*")


def test_any_of_several_keys(plain: pytest.Pytester, run: Run) -> None:
    """--rpc-mode=any: the test runs once, on the key that has a free device."""
    plain.makepyfile(
        """
        def test_both(remote, remote_device):
            other = remote_device()
            assert remote.peer != other.peer
        """
    )
    result = run(*KEYS, "--rpc-mode=any")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines_random(["jetson@* 1 * 1 *", "rpi4@* 1 * 1 *"])


def test_several_devices_of_a_key(plain: pytest.Pytester, run: Run) -> None:
    """remotes has as many as the mark counts, all of them other ones."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.rpc_device(count=2)
        def test_two(remotes):
            assert len({remote.peer for remote in remotes}) == 2

        @pytest.mark.rpc_device(count=3)
        def test_three(remotes): pass
        """
    )
    result = run("--rpc-servers=2")
    result.stdout.fnmatch_lines(
        ["E *TooManyError: this test holds all that the run has*--rpc-servers=3*"]
    )
    result.assert_outcomes(passed=1, errors=1)
