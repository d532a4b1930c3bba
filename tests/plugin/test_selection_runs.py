"""Which devices a test has: keys, marks, modes and counts, in runs on a real farm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Iterator, List

import pytest

from .farms import Farm, devices, last, read

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

Run = Callable[..., pytest.RunResult]

REPORT = "--rpc-report=run.jsonl"


@pytest.fixture(name="keyed_farm", scope="module")
def _keyed_farm() -> Iterator[Farm]:
    """A device of key a, two of key b."""
    with Farm("a", "b", "b") as farm:
        yield farm


@pytest.fixture(name="mixed")
def _mixed(
    keyed_farm: Farm, plain: pytest.Pytester, acts: None, wait_until: Callable[..., None]
) -> Farm:
    """The same, and all its devices are free."""
    keyed_farm.write(plain.path)
    wait_until(lambda: len(keyed_farm.free()) == 3, "all devices are free")
    return keyed_farm


def keys(folder: Path) -> "dict[str, list[str]]":
    """The keys of the devices of each test."""
    return {
        name: [device.partition("@")[0] for device in devices(test)]
        for name, test in read(folder).items()
    }


MARKS = """
    import pytest
    from acts import add_one

    def test_all(remote):
        assert add_one(remote) == 2

    @pytest.mark.rpc_device("b")
    def test_one(remote): pass

    @pytest.mark.rpc_device("b", "a")
    def test_both(remote): pass

    @pytest.mark.rpc_device("a", "b", mode="any")
    def test_any(remote): pass

    @pytest.mark.rpc_device("c", "d")
    def test_none(remote): pass

    @pytest.mark.rpc_device("b", count=2)
    def test_two(remotes):
        assert len({remote.peer for remote in remotes}) == 2
        assert [add_one(remote) for remote in remotes] == [2, 2]

    def test_by_name(remote_device):
        assert add_one(remote_device("a")) + add_one(remote_device("b")) == 4

    def test_local(): pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_each(
    plain: pytest.Pytester, run_apart: Run, mixed: Farm, workers: "tuple[str, ...]"
) -> None:
    """On each key of the run, as far as the mark has it; the same list in every worker."""
    plain.makepyfile(MARKS)
    result = run_apart(*mixed.arguments, REPORT, *workers, "-rs")
    assert result.parseoutcomes() == {"passed": 9, "skipped": 1}
    assert keys(plain.path) == {
        "test_all[a]": ["a"],
        "test_all[b]": ["b"],
        "test_one": ["b"],
        "test_both[a]": ["a"],
        "test_both[b]": ["b"],
        **{name: found for name, found in keys(plain.path).items() if name == "test_any"},
        "test_two": ["b", "b"],
        "test_by_name": ["a", "b"],
    }
    assert keys(plain.path)["test_any"] in (["a"], ["b"])
    result.stdout.fnmatch_lines(
        ["SKIPPED*this test is for c or d, this run has a, b; run it with*"]
    )


def test_any(plain: pytest.Pytester, run: Run, mixed: Farm) -> None:
    """On any key of the run, once: on one that is free, if the first one is not."""
    plain.makepyfile("def test_it(remote): pass")
    arguments = (*mixed.arguments, REPORT, "--rpc-mode=any")
    with mixed.ask() as tracker:
        with tracker.request("a"):
            assert run(*arguments).parseoutcomes() == {"passed": 1}
            assert keys(plain.path) == {"test_it": ["b"]}
        with tracker.request("b"), tracker.request("b"):
            assert run(*arguments).parseoutcomes() == {"passed": 1}
            assert keys(plain.path) == {"test_it": ["a"]}
        with tracker.request("a"), tracker.request("b"), tracker.request("b"):
            result = run(*arguments, "--rpc-queue-timeout=0.5")
    assert result.parseoutcomes() == {"infra": 1}
    assert "no device 'a' or 'b'" in last(read(plain.path)["test_it"]).message


def test_any_runs_again_on_another_key(plain: pytest.Pytester, run: Run, mixed: Farm) -> None:
    """The device that was lost is avoided, whatever key the next one has."""
    plain.makepyfile(
        """
        from acts import drop, is_first

        def test_it(remote):
            if is_first():
                drop(remote)
        """
    )
    result = run(*mixed.arguments, REPORT, "--rpc-mode=any", "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    test = read(plain.path)["test_it"]
    assert len(set(devices(test))) == 2
    assert result.duration < 10


def test_marks_are_keys_where_none_is_named(plain: pytest.Pytester, run: Run, mixed: Farm) -> None:
    """On somebody's farm, without --rpc-key, the mark says which device a test has."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.rpc_device("b")
        def test_it(remote): pass
        """
    )
    result = run(mixed.arguments[0], REPORT)
    assert result.parseoutcomes() == {"passed": 1}
    assert keys(plain.path) == {"test_it": ["b"]}


def test_several_devices_or_none(plain: pytest.Pytester, run_apart: Run, mixed: Farm) -> None:
    """Tests that want two of two at once do not wait for each other for ever."""
    plain.makepyfile(
        """
        import pytest
        from acts import add_one

        @pytest.mark.rpc_device("b", count=2)
        @pytest.mark.parametrize("number", range(3))
        def test_two(remotes, number):
            assert [add_one(remote, number) for remote in remotes] == [number + 1] * 2
        """
    )
    result = run_apart(*mixed.arguments, REPORT, "-n", "2", "--rpc-queue-timeout=30")
    assert result.parseoutcomes() == {"passed": 3}
    mixed.settle()


def test_more_devices_than_there_are(plain: pytest.Pytester, run: Run, mixed: Farm) -> None:
    """The wait ends, and nothing stays leased; one's own farm says at once what to start."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.rpc_device("b", count=3)
        def test_three(remotes): pass
        """
    )
    result = run(*mixed.arguments, REPORT, "--rpc-queue-timeout=0.5")
    assert result.parseoutcomes() == {"infra": 1}
    mixed.settle()
    result = run("--rpc-key=b", "--rpc-servers=2")
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines(["E *start more with --rpc-servers=3*"])


def test_the_place_in_the_queue(
    plain: pytest.Pytester,
    mixed: Farm,
    start: Callable[..., "subprocess.Popen[bytes]"],
    wait_until: Callable[..., None],
    deadline_s: float,
) -> None:
    """It is that of the mark, else of the option; the tracker shows which test waits."""
    plain.makepyfile(
        """
        import pytest

        def test_option(remote): pass

        @pytest.mark.rpc_device(priority=7)
        def test_mark(remote): pass
        """
    )
    with mixed.ask() as tracker, tracker.request("a"):
        arguments = [mixed.arguments[0], "--rpc-key=a", "--rpc-priority=3", "-n", "2"]
        running = start(*arguments)

        def waiting() -> "List[tuple[float, str]]":
            users = [(one.priority, one.user) for one in tracker.who().waiting]
            return [(priority, user.rpartition("::")[2]) for priority, user in users]

        wait_until(lambda: len(waiting()) == 2, "both tests wait")
        assert waiting() == [(7, "test_mark"), (3, "test_option")]
    assert running.wait(deadline_s) == 0


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("rpc_device(7)", "keys, and options by name"),
        ("rpc_device('a', color='red')", "keys, and options by name"),
        ("rpc_device('a', count=0)", "count from 1"),
        ("rpc_device('a', mode='all')", "mode 'each' or 'any'"),
        ("rpc_device('a', timeout=-1)", "timeout as numbers"),
        ("rpc_reruns(-1)", "a whole number from 0"),
        ("rpc_reruns()", "a whole number from 0"),
    ],
)
def test_marks_of_no_use(plain: pytest.Pytester, run: Run, mark: str, message: str) -> None:
    """They are errors of the collection, with what was expected."""
    plain.makepyfile(f"import pytest\n@pytest.mark.{mark}\ndef test_it(remote): pass")
    result = run()
    assert result.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR)
    text = result.stdout.str() + result.stderr.str()
    assert "cannot be used; expected" in text
    assert message in text


@pytest.mark.parametrize("option", [(), ("--rpc-require",)])
def test_a_test_for_other_keys(
    plain: pytest.Pytester, run: Run, mixed: Farm, option: "tuple[str, ...]"
) -> None:
    """Whoever chose the keys of the run left it out, also where the keys of the run have to be."""
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.rpc_device("c")
        def test_it(remote): pass
        """
    )
    result = run(*mixed.arguments, *option, "-rs")
    assert result.parseoutcomes() == {"skipped": 1}
    result.stdout.fnmatch_lines(["SKIPPED*this test is for c, this run has a, b; run it with*"])
