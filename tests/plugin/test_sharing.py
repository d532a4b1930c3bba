"""remote_session beside others: tests with a device of their own, other runs, several keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import pytest

from .farms import Farm, devices, last, read

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_tvmrpc.records import TestRecord

Run = Callable[..., pytest.RunResult]

REPORT = "--rpc-report=run.jsonl"
SOON = "--rpc-queue-timeout=3"

MIXED = """
    import pytest
    from acts import add_one as ask

    made = []

    @pytest.fixture(scope="module")
    def add_one(remote_session):
        made.append(remote_session.session)
        return remote_session.get_function("rpc.test.addone")

    def test_a(add_one):
        assert add_one(1) == 2

    def test_b(remote):
        assert ask(remote) == 2

    def test_c(add_one):
        assert add_one(2) == 3
        assert len(made) == {sessions}
"""


@pytest.mark.parametrize("count", [1, 2])
def test_beside_a_device_of_its_own(
    plain: pytest.Pytester, run: Run, acts: None, count: int
) -> None:
    """A session that a test does not use is given back before the test would wait for it.

    What is made of it is made anew. Where another device is free, it is kept.
    """
    plain.makepyfile(MIXED.format(sessions=2 if count == 1 else 1))
    with Farm(*["board"] * count) as farm:
        farm.write(plain.path)
        result = run(*farm.arguments, SOON, REPORT)
    assert result.parseoutcomes() == {"passed": 3}
    tests = read(plain.path)
    assert devices(tests["test_a"]) == devices(tests["test_c"])
    assert (devices(tests["test_a"]) == devices(tests["test_b"])) is (count == 1)


BOTH = """
    def test_both(remote_session, request):
        remote_session.cpu(0)
        request.getfixturevalue("remote")
"""


def test_a_test_that_waits_for_itself(plain: pytest.Pytester, run: Run, lone: Farm) -> None:
    """With both fixtures on one device: the message says who has it."""
    plain.makepyfile(BOTH)
    result = run(*lone.arguments, "--rpc-queue-timeout=0.2", REPORT)
    assert result.parseoutcomes() == {"infra": 1}
    (device,) = lone.servers
    message = last(read(plain.path)["test_both"]).message
    assert f"this test's own fixture remote_session has {device}" in message


def test_a_test_that_asks_for_too_much(plain: pytest.Pytester, run: Run) -> None:
    """The same with a server of the run's own."""
    plain.makepyfile(BOTH)
    result = run()
    assert result.parseoutcomes() == {"failed": 1}
    result.stdout.fnmatch_lines(["E *TooManyError: *this test's own fixture remote_session has *"])


def test_several_keys_in_one_test(plain: pytest.Pytester, run: Run, acts: None) -> None:
    """With an own and a shared session, a test runs once for each key, and both are of that."""
    plain.makepyfile(
        """
        def test_both(remote, remote_session, request):
            assert remote.key == remote_session.key == request.node.callspec.id
        """
    )
    with Farm("a", "a", "b", "b") as farm:
        result = run(*farm.arguments, SOON, REPORT)
    assert result.parseoutcomes() == {"passed": 2}
    assert list(read(plain.path)) == ["test_both[a]", "test_both[b]"]


TURNS = """
    import threading
    import pytest
    from acts import FARM
    from pytest_tvmrpc import rpc

    made = []

    @pytest.fixture(scope="module")
    def add_one(remote_session):
        made.append(remote_session.session)
        yield remote_session.get_function("rpc.test.addone")
        assert remote_session.get_function("rpc.test.addone")(1) == 2  # it is still there

    def other():
        with rpc.connect_tracker(*FARM["tracker"]) as tracker, tracker.request("board"):
            pass

    def test_alone(add_one):
        assert add_one(1) == 2

    def test_while_somebody_waits(add_one):
        assert len(made) == 1
        waiting = threading.Thread(target=other, daemon=True)
        waiting.start()
        with rpc.connect_tracker(*FARM["tracker"]) as tracker:
            while not tracker.who().waiting:
                pass
        made.append(waiting)

    def test_again(add_one):
        made[1].join(10 if {is_polite} else 0)
        assert made[1].is_alive() is not {is_polite}
        assert add_one(2) == 3
        assert len(made) == (3 if {is_polite} else 2)

"""


@pytest.mark.parametrize("is_polite", [True, False], ids=["long", "short"])
def test_taking_turns(
    plain: pytest.Pytester,
    run: Run,
    lone: Farm,
    is_polite: bool,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    """Between tests a session that was held for a while goes to whoever waits; before, it stays."""
    if is_polite:
        monkeypatch.setattr("pytest_tvmrpc.running.lasting.SHARE_S", 0.0)
    plain.makepyfile(TURNS.format(is_polite=is_polite))
    result = run(*lone.arguments, "--rpc-queue-timeout=10")
    assert result.parseoutcomes() == {"passed": 3}
    wait_until(lone.free, "the other one has given it back, too")


def test_a_session_that_cannot_be_prepared(plain: pytest.Pytester, run: Run, lone: Farm) -> None:
    """It is given back; no test gets one that was not prepared."""
    plain.makeconftest(
        """
        asked = []

        def pytest_tvmrpc_prepare_session(item, remote):
            asked.append(item.name)
            if len(asked) == 1:
                raise ValueError("no such power mode")
            remote.prepared = True
        """
    )
    plain.makepyfile(
        """
        def test_first(remote_session):
            remote_session.cpu(0)

        def test_second(remote_session):
            assert remote_session.prepared
        """
    )
    result = run(*lone.arguments, SOON)
    assert result.parseoutcomes() == {"failed": 1, "passed": 1}
    lone.settle()


def test_what_is_kept(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """A function that each test defines anew is the same one, unless it uses other values."""
    plain.makepyfile(
        """
        import pytest
        from functools import partial

        made = []

        @pytest.mark.parametrize("number", [1, 2, 1])
        def test_it(remote_session, number):
            remote_session.keep(lambda remote: made.append("same"))
            assert remote_session.keep(lambda remote: [made.append(number), number][1]) == number

        def note(remote, what):
            made.append(what)
            return what

        def test_others(remote_session):
            values = ["a", "list"]
            for _ in range(2):
                remote_session.keep(lambda remote: made.append(values))
            twice = partial(note, what="twice")
            assert remote_session.keep(twice) == remote_session.keep(twice) == "twice"

            class Maker:
                def make(self, remote):
                    return self

            first, second = Maker(), Maker()
            assert remote_session.keep(first.make) is first
            assert remote_session.keep(second.make) is second

        def test_end():
            assert made == ["same", 1, 2, *[["a", "list"]] * 2, "twice"]
        """
    )
    result = run(*lasting_farm.arguments)
    assert result.parseoutcomes() == {"passed": 5}


@pytest.mark.parametrize("is_last", [True, False], ids=["last", "not_last"])
def test_output_of_each_test(
    plain: pytest.Pytester, run: Run, lone: Farm, faults: Path, is_last: bool
) -> None:
    """With --rpc-artifacts=on, what a passing test printed on a shared session is kept with it."""
    lone.write(plain.path, faults)
    plain.makepyfile(
        """
        import pytest
        from acts import load

        @pytest.mark.parametrize("times", [2, 0, 1])
        def test_it(remote_session, times):
            say = remote_session.keep(load)["say"]
            for _ in range(times):
                say()
        """
        + ("" if is_last else "\n        def test_local(): pass\n")
    )
    result = run(*lone.arguments, "--rpc-artifacts=on", REPORT)
    assert result.parseoutcomes() == {"passed": 3 if is_last else 4}
    said = {name: last(test).output.count("said by the device") for name, test in _read(plain)}
    assert said == {"test_it[2]": 2, "test_it[0]": 0, "test_it[1]": 1}


def _read(plain: pytest.Pytester) -> "list[tuple[str, TestRecord]]":
    return list(read(plain.path).items())


@pytest.mark.parametrize("fixture", ["remote", "remote_session"])
def test_a_device_that_stands_still(
    plain: pytest.Pytester,
    run: Run,
    lone: Farm,
    fixture: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it printed is not waited for as long as a call may take; the session is over then."""
    monkeypatch.setattr("pytest_tvmrpc.running.leases.OUTPUT_S", 0.2)
    plain.makepyfile(
        f"""
        import os, signal
        from pathlib import Path
        from acts import FARM, add_one

        def test_failed({fixture}):
            add_one({fixture})
            (pid,) = FARM["servers"].values()
            for child in Path(f"/proc/{{pid}}/task/{{pid}}/children").read_text().split():
                os.kill(int(child), signal.SIGSTOP)
            assert 0, "a wrong result"

        def test_next({fixture}):
            assert add_one({fixture}) == 2
        """
    )
    result = run(*lone.arguments, "--rpc-call-timeout=100", REPORT)
    assert result.parseoutcomes() == {"failed": 1, "passed": 1}
    assert result.duration < 10
    assert "a wrong result" in last(read(plain.path)["test_failed"]).message


def test_a_key_that_was_there_for_another_worker(
    plain: pytest.Pytester, run_apart: Run, lone: Farm
) -> None:
    """It is gone, so the test is no skip, although this worker never had a device of it."""
    plain.makepyfile(
        test_one="""
            from acts import kill

            def test_lost(remote):
                kill(remote)
        """,
        test_two="""
            from acts import FARM
            from pytest_tvmrpc import rpc

            def test_local():
                with rpc.connect_tracker(*FARM["tracker"]) as tracker:
                    while tracker.summary()["server_info"]:
                        pass

            def test_it(remote): pass
        """,
    )
    result = run_apart(*lone.arguments, "-n", "2", "--dist=loadfile")
    assert result.parseoutcomes() == {"passed": 1, "infra": 2}
