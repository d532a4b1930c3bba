"""The third verdict: the farm is to blame, not the code; and what a run makes of it."""

from __future__ import annotations

import re
import socket
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Callable, Dict, Iterator

import pytest

from .farms import Farm, last, read, verdicts

if TYPE_CHECKING:
    from pathlib import Path

Run = Callable[..., pytest.RunResult]

REPORTS = ("--rpc-report=run.jsonl", "--junitxml=junit.xml")
SOON = "--rpc-queue-timeout=0.3"


@pytest.fixture(name="held", scope="module")
def _held() -> Iterator[Farm]:
    """A farm of one device, which somebody has."""
    name = "alice@desk pid 7"
    with Farm("board") as farm, farm.ask(user=name) as tracker, tracker.request("board"):
        yield farm


def errors(folder: Path) -> Dict[str, ElementTree.Element]:
    """The errors of type infra in the JUnit file, by the names of their tests."""
    found = {}
    for case in ElementTree.parse(folder / "junit.xml").iter("testcase"):
        error = case.find("error[@type='infra']")
        if error is not None:
            found[case.get("name", "")] = error
    return found


@pytest.mark.parametrize(
    ("choice", "outcomes", "status"),
    [("error", {"infra": 2}, 1), ("fail", {"errors": 2}, 1), ("skip", {"infra": 2}, 0)],
)
def test_no_device_in_time(
    plain: pytest.Pytester,
    run: Run,
    held: Farm,
    choice: str,
    outcomes: "Dict[str, int]",
    status: int,
) -> None:
    """The wait ends, and the message says who has the device, which option, and what to do.

    Whatever it counts as, the section says what was not run.
    """
    plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass")
    result = run(*held.arguments, SOON, f"--rpc-infra={choice}", *REPORTS, "-v")
    assert result.parseoutcomes() == outcomes
    assert result.ret == status
    result.stdout.fnmatch_lines(
        [
            "*= infrastructure =*",
            "2 tests were not run: no device 'board'*",
            "*::test_a",
            "*::test_b",
        ]
    )
    word = "ERROR" if choice == "fail" else "INFRA"
    result.stdout.fnmatch_lines([f"*::test_a {word} *"])
    (device,) = held.servers
    for name, test in read(plain.path).items():
        assert verdicts(test) == ["infra"], name
        message = last(test).message
        assert f"{device} is held by alice@desk pid 7 for" in message
        assert "(option: --rpc-queue-timeout)" in message
        assert f"tvmrpc doctor --tracker {held.address} --key board" in message
        (wait,) = last(test).devices
        assert (wait.key, wait.device) == ("board", "")
        assert 0.3 <= wait.queued_s < 5
    found = errors(plain.path)
    if choice == "error":
        assert sorted(found) == ["test_a", "test_b"]
        assert "held by alice@desk pid 7" in found["test_a"].get("message", "")


@pytest.mark.parametrize(
    ("choice", "outcomes", "status"),
    [("error", {"infra": 1}, 1), ("fail", {"failed": 1}, 1), ("skip", {"infra": 1}, 0)],
)
def test_a_device_that_is_lost(
    plain: pytest.Pytester,
    run: Run,
    lasting_farm: Farm,
    choice: str,
    outcomes: "Dict[str, int]",
    status: int,
) -> None:
    """In the test itself: the same, and the traceback is shown."""
    plain.makepyfile(
        """
        from acts import drop

        def test_lost(remote):
            drop(remote)
        """
    )
    result = run(*lasting_farm.arguments, f"--rpc-infra={choice}", *REPORTS)
    assert result.parseoutcomes() == outcomes
    assert result.ret == status
    test = read(plain.path)["test_lost"]
    assert verdicts(test) == ["infra"]
    assert "--rpc-reruns=1 would run the test again" in last(test).message
    assert "drop(remote)" in last(test).details
    result.stdout.fnmatch_lines(["1 test was not completed: board@* lost after *"])
    assert list(errors(plain.path)) == (["test_lost"] if choice == "error" else [])


@pytest.mark.parametrize("choice", ["error", "fail", "skip"])
def test_phases(plain: pytest.Pytester, run: Run, lasting_farm: Farm, choice: str) -> None:
    """A loss is infra in each phase; what is wrong beside it counts more, also in the set-up.

    That a test would be run again is not promised where it would not.
    """
    plain.makepyfile(
        """
        import pytest
        from acts import drop

        @pytest.fixture
        def early(remote):
            drop(remote)

        @pytest.fixture
        def late(remote):
            yield
            drop(remote)

        def test_set_up(early): pass

        def test_teardown(late): pass

        def test_wrong(late):
            assert 0, "as told"

        @pytest.fixture
        def broken(late):
            raise KeyError(1)

        def test_wrong_early(broken): pass

        def test_skipped(late):
            pytest.skip("no")

        @pytest.mark.xfail(reason="known", strict=True)
        def test_xfail(remote):
            drop(remote)
        """
    )
    result = run(*lasting_farm.arguments, *REPORTS, f"--rpc-infra={choice}")
    if choice == "error":
        outcomes = {"passed": 1, "failed": 1, "skipped": 1, "errors": 1, "infra": 6}
        assert result.parseoutcomes() == outcomes
    tests = read(plain.path)
    assert {name: verdicts(test) for name, test in tests.items()} == {
        "test_set_up": ["infra"],
        "test_teardown": ["infra"],
        "test_wrong": ["failed"],
        "test_wrong_early": ["error"],
        "test_skipped": ["infra"],
        "test_xfail": ["infra"],
    }
    wrong = last(tests["test_wrong"])
    assert re.match(r"AssertionError: as told; then board@\S+ lost ", wrong.message)
    assert "assert 0" in wrong.details
    assert last(tests["test_wrong_early"]).message.startswith("KeyError: 1; then board@")
    assert last(tests["test_skipped"]).message.startswith("board@")
    again = "--rpc-reruns=1 would run the test again"
    assert again in last(tests["test_set_up"]).message
    assert again not in last(tests["test_teardown"]).message


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_a_wrong_address(
    plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]"
) -> None:
    """Nobody listens there: each test is infra, at once, and names the address."""
    plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass\ndef test_c(): pass")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening, and nobody else can
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        result = run_apart(f"--rpc-tracker={address}", *REPORTS, *workers)
    assert result.parseoutcomes() == {"passed": 1, "infra": 2}
    result.stdout.fnmatch_lines([f"2 tests were not run: no device 'local': *{address}*"])
    assert sorted(errors(plain.path)) == ["test_a", "test_b"]


@pytest.mark.parametrize(
    ("arguments", "outcomes", "status"),
    [((), {"passed": 1, "skipped": 1}, 0), (("--rpc-require",), {"passed": 1, "infra": 1}, 1)],
)
def test_a_key_that_nobody_has(
    plain: pytest.Pytester,
    run: Run,
    lasting_farm: Farm,
    arguments: "tuple[str, ...]",
    outcomes: "Dict[str, int]",
    status: int,
) -> None:
    """A skip that says which keys there are; with --rpc-require the run fails."""
    plain.makepyfile("def test_it(remote): pass")
    keys = ("--rpc-key=nobodys", "--rpc-key=board")
    tracker = lasting_farm.arguments[0]
    result = run(tracker, *keys, *arguments, *REPORTS, "-rs")
    assert result.parseoutcomes() == outcomes
    assert result.ret == status
    message = last(read(plain.path)["test_it[nobodys]"]).message
    assert "nobodys" in message
    assert "board" in message
    assert ("--rpc-require" in message) == bool(arguments)
    assert result.duration < 10


def test_what_is_required_is_not_skipped(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm
) -> None:
    """--rpc-require counts more than --rpc-infra=skip, which is about devices that drop out."""
    plain.makepyfile(
        """
        from acts import drop

        def test_it(remote_device):
            remote_device("nobodys")

        def test_lost(remote_device):
            drop(remote_device("board"))
        """
    )
    arguments = (*lasting_farm.arguments, "--rpc-infra=skip", *REPORTS)
    assert run(*arguments).ret == 0
    result = run(*arguments, "--rpc-require")
    assert result.parseoutcomes() == {"infra": 2}
    assert result.ret == 1
    assert list(errors(plain.path)) == ["test_it"]


def test_a_doctest(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """A device that is lost in an example is a device that is lost."""
    plain.makepyfile(
        test_documented="""
        from acts import add_one, drop, is_first

        def add():
            '''
            >>> remote = getfixture("remote")
            >>> if is_first(): drop(remote)
            >>> add_one(remote)
            2
            '''

        def never():
            '''
            >>> remote = getfixture("remote")
            >>> drop(remote)
            '''

        def wrong():
            '''
            >>> getfixture("remote").no_such_name
            '''
        """
    )
    result = run(*lasting_farm.arguments, "--doctest-modules", "--rpc-reruns=1", *REPORTS)
    assert result.parseoutcomes() == {"passed": 1, "infra": 1, "failed": 1, "rerun": 2}
    tests = {name.rpartition(".")[2]: test for name, test in read(plain.path).items()}
    assert verdicts(tests["add"]) == ["lost", "passed"]
    assert tests["add"].attempts[0].message.startswith("SessionKickedError: ")
    assert verdicts(tests["never"]) == ["lost", "infra"]
    assert verdicts(tests["wrong"]) == ["failed"]
    assert last(tests["wrong"]).message.startswith("AttributeError: ")


def test_a_key_that_disappears(plain: pytest.Pytester, run: Run, lone: Farm) -> None:
    """It was there in this run: no skip, which nobody would notice."""
    plain.makepyfile(
        """
        import pytest
        from acts import kill
        from pytest_tvmrpc.errors import ConnectionLostError

        def test_before(remote):
            with pytest.raises(ConnectionLostError):
                kill(remote)

        def test_after(remote): pass
        """
    )
    result = run(*lone.arguments, *REPORTS)
    assert result.parseoutcomes() == {"passed": 1, "infra": 1}
    assert "test_after" in errors(plain.path)


def test_a_key_that_disappears_while_it_is_waited_for(
    plain: pytest.Pytester, run: Run, lone: Farm
) -> None:
    """Whoever has waited for it knows that it was there."""
    plain.makepyfile(
        f"""
        import os, signal
        from pytest_tvmrpc import rpc

        def test_before(remote): pass

        def test_killed():
            os.kill({next(iter(lone.servers.values()))}, signal.SIGKILL)
            with rpc.connect_tracker("{lone.tracker.host}", {lone.tracker.port}) as tracker:
                while tracker.summary()["server_info"]:
                    pass

        def test_after(remote): pass
        """
    )
    with lone.ask() as tracker, tracker.request("board"):
        result = run(*lone.arguments, SOON, *REPORTS)
    assert result.parseoutcomes() == {"passed": 1, "infra": 2}
    assert "no server offers the key 'board'" in last(read(plain.path)["test_after"]).message
