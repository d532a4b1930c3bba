"""The fixture remote_session: one device for several tests, and another one if that is lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, Iterator

import pytest

from pytest_tvmrpc.reporting import jsonl
from pytest_tvmrpc.reporting.page import html
from pytest_tvmrpc.reporting.page.breakdown import times_of_test
from pytest_tvmrpc.reporting.page.outline import lanes, span
from pytest_tvmrpc.reporting.tally import tally

from .farms import Farm, devices, last, read, verdicts

if TYPE_CHECKING:
    from pytest_tvmrpc.records import TestRecord

Run = Callable[..., pytest.RunResult]

REPORT = "--rpc-report=run.jsonl"

SHARED = """
    import pytest
    from acts import FARM, add_one
    from pytest_tvmrpc import rpc

    def held():
        with rpc.connect_tracker(*FARM["tracker"]) as tracker:
            return sum(server.holder is not None for server in tracker.who().servers)

    @pytest.mark.parametrize("number", range(3))
    def test_it(remote_session, number):
        for _ in range(number + 1):
            add_one(remote_session)
        assert held() == 1

    def test_without(): pass

    def test_unused(remote_session): pass

    def test_last(remote_session):
        assert remote_session.meter.calls >= 12
"""


def test_tests_share_a_session(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """One lease; what was measured is told by test, without what the others did."""
    plain.makepyfile(SHARED)
    result = run(*lasting_farm.arguments, REPORT)
    assert result.parseoutcomes() == {"passed": 6}
    tests = read(plain.path)
    assert list(tests) == [*(f"test_it[{n}]" for n in range(3)), "test_unused", "test_last"]
    facts = [last(test).devices[0] for test in tests.values()]
    assert all(one.shared for one in facts)
    assert len({one.device for one in facts}) == 1
    assert [one.calls for one in facts] == [2, 4, 6, 0, 0]
    assert len({(one.asked_at, one.queued_s, one.connect_s) for one in facts}) == 1
    assert [one.held_s for one in facts] == sorted(one.held_s for one in facts)
    shares = [last(test).shares[0] for test in tests.values()]
    assert [one.queued_s > 0 for one in shares] == [True, False, False, False, False]
    assert [one.connect_s > 0 for one in shares] == [True, False, False, False, False]
    lasting_farm.settle()


def test_a_lease_between_tests(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """Nobody else can have the device while a local test runs: it is held, and one lease."""
    plain.makepyfile(
        """
        import threading
        from acts import add_one

        def test_one(remote_session): add_one(remote_session)

        def test_local():
            threading.Event().wait(0.5)

        def test_two(remote_session): add_one(remote_session)

        def test_three(remote_session): add_one(remote_session)
        """
    )
    result = run(*lasting_farm.arguments, REPORT, "--junitxml=junit.xml")
    assert result.parseoutcomes() == {"passed": 4}
    told = jsonl.read(plain.path / "run.jsonl")
    (row,) = tally(told).devices
    (lane,) = lanes(told)
    (lease,) = lane.leases
    first = told.tests[0].attempts[0].devices[0]
    assert list(row.waits) == [first.queued_s]
    assert (row.tests, row.connect_s) == (3, first.connect_s)
    assert lease.record.nodeid.endswith("::test_one")
    assert 0.5 < row.busy * told.duration_s < lease.until_at - told.started_at
    assert lease.facts.held_s > 0.5
    frames = re.findall(r'class="shared" x="[\d.]+%" width="([\d.]+)%"', html(told))
    ((start, end),) = [span(told, [lane])]
    held_s = lease.until_at - lease.from_at
    assert [float(frame) / 100 for frame in frames] == [pytest.approx(held_s / (end - start), 1e-3)]
    junit = (plain.path / "junit.xml").read_text()
    waited = re.findall(r'name="rpc.queued_s" value="([^"]+)"', junit)
    assert [float(value) > 0 for value in waited] == [True, False, False]
    assert [times_of_test(test).queue > 0 for test in told.tests] == [True, False, False]


def test_a_loss(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """The test that had it runs again on another device; what it kept is made anew, once."""
    plain.makepyfile(
        """
        from acts import add_one, drop, is_first

        made = []

        def make(remote):
            made.append(remote)
            return remote.get_function("rpc.test.addone")

        def test_before(remote_session):
            assert remote_session.keep(make)(1) == 2
            assert remote_session.keep(make)(2) == 3
            assert len(made) == 1

        def test_lost(remote_session):
            function = remote_session.keep(make)
            if is_first():
                drop(remote_session.session)
            assert function(3) == 4
            assert len(made) == 2

        def test_after(remote_session):
            assert remote_session.keep(make)(4) == 5
            assert len(made) == 2
            assert made[0] is not made[1]
        """
    )
    result = run(*lasting_farm.arguments, REPORT, "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 3, "rerun": 1}
    tests = read(plain.path)
    (before,) = devices(tests["test_before"])
    (after,) = devices(tests["test_after"])
    assert before != after
    lost, again = tests["test_lost"].attempts
    assert (lost.verdict, lost.names) == ("lost", (before,))
    assert again.names == (after,)
    lasting_farm.settle()


def test_a_loss_without_rerun(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """That test is infra, the next one has a new session."""
    plain.makepyfile(
        """
        from acts import add_one, drop

        def test_lost(remote_session):
            drop(remote_session.session)

        def test_after(remote_session):
            assert add_one(remote_session) == 2
            remote_session.close()
            assert add_one(remote_session) == 2
        """
    )
    result = run(*lasting_farm.arguments, REPORT)
    assert result.parseoutcomes() == {"passed": 1, "infra": 1}
    tests = read(plain.path)
    assert verdicts(tests["test_lost"]) == ["infra"]
    assert len(last(tests["test_after"]).devices) == 2


MADE_OF_IT = """
    import pytest
    from acts import drop, is_first

    @pytest.fixture(scope="module")
    def add_one(remote_session):
        yield remote_session.get_function("rpc.test.addone")

    @pytest.fixture(scope="module")
    def two(add_one):
        return add_one(1)

    @pytest.fixture
    def narrow(add_one):
        yield
        add_one(2)  # fails if the device was lost

    def test_before(add_one, two):
        assert add_one(two) == 3

    def test_lost(remote_session, add_one, two, {narrow}):
        if is_first():
            drop(remote_session.session)
        assert add_one(two) == 3

    def test_after(add_one, two):
        assert add_one(two) == 3
"""


@pytest.mark.parametrize("narrow", ["narrow", "request"])
@pytest.mark.parametrize("reruns", ["0", "1"])
def test_fixtures_that_are_made_of_it(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm, reruns: str, narrow: str
) -> None:
    """They end with a session that is lost, and are made of the next one."""
    plain.makepyfile(MADE_OF_IT.format(narrow=narrow))
    result = run(*lasting_farm.arguments, REPORT, f"--rpc-reruns={reruns}")
    tests = read(plain.path)
    if reruns == "1":
        assert result.parseoutcomes() == {"passed": 3, "rerun": 1}
        assert verdicts(tests["test_lost"]) == ["lost", "passed"]
    else:
        assert result.parseoutcomes()["passed"] == 2
        assert verdicts(tests["test_lost"]) == ["infra"]
    lasting_farm.settle()


OVER = """
    import pytest
    from acts import drop_quietly

    @pytest.fixture(scope="module")
    def add_one(remote_session):
        return remote_session.get_function("rpc.test.addone")

    def end(remote, how):
        if how == "call":
            remote.get_function("testing.sleep")(20.0)
        elif how == "session":
            while True:
                remote.get_function("testing.sleep")(0.02)
        else:
            remote.session.close()
            if how == "renew":
                remote.meter  # the test goes on with another one

    def test_over(remote_session, add_one):
        assert add_one(1) == 2
        end(remote_session, {how!r})

    def test_after(remote_session, add_one):
        assert add_one(1) == 2
        assert remote_session.meter.calls == 2  # found, and called

    def test_last(add_one):
        assert add_one(2) == 3
"""


@pytest.mark.parametrize("how", ["call", "session", "close", "renew"])
def test_a_session_that_is_over(
    plain: pytest.Pytester,
    run: Run,
    lasting_farm: Farm,
    how: str,
    wait_until: Callable[..., None],
) -> None:
    """At a limit, or as a test closed it: the test is not run again, and the next one has another.

    So have the fixtures that are made of it.
    """
    plain.makepyfile(OVER.format(how=how))
    limits = {"call": ["--rpc-call-timeout=0.3"], "session": ["--rpc-session-timeout=0.5"]}
    result = run(*lasting_farm.arguments, REPORT, "--rpc-reruns=1", *limits.get(how, ()))
    expected = {"failed": 1, "passed": 2} if how in limits else {"passed": 3}
    assert result.parseoutcomes() == expected
    tests = read(plain.path)
    assert verdicts(tests["test_over"]) == ["failed" if how in limits else "passed"]
    assert all(last(tests[name]).names for name in ("test_over", "test_after", "test_last"))
    wait_until(lambda: not lasting_farm.held(), "what was still running has ended")


def test_a_session_that_ends_between_tests(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm
) -> None:
    """No test had it then: the next one has another one from the beginning, in one attempt."""
    plain.makepyfile(
        """
        import pytest
        from acts import FARM, drop_quietly, add_one as ask
        from pytest_tvmrpc import rpc

        @pytest.fixture(scope="module")
        def add_one(remote_session):
            return remote_session.get_function("rpc.test.addone")

        def test_before(add_one):
            assert add_one(1) == 2

        def test_local():
            with rpc.connect_tracker(*FARM["tracker"]) as tracker:
                (held,) = [one for one in tracker.who().servers if one.holder]
                tracker.kick(held.address, "between the tests")

        def test_after(add_one):
            assert add_one(1) == 2
        """
    )
    result = run(*lasting_farm.arguments, REPORT, "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 3}
    assert verdicts(read(plain.path)["test_after"]) == ["passed"]
    lasting_farm.settle()


def test_marks_with_other_keys(
    plain: pytest.Pytester, run: Run, acts: None, two_keys: Farm
) -> None:
    """A session is shared by tests of the same keys; a test for a key that is not here has none."""
    two_keys.write(plain.path)
    plain.makepyfile(
        """
        import pytest
        from acts import add_one

        for_a, for_b = pytest.mark.rpc_device("a"), pytest.mark.rpc_device("b")

        @for_a
        def test_a(remote_session):
            assert remote_session.key == "a"

        @for_b
        def test_b(remote_session):
            assert remote_session.key == "b"

        @for_b
        def test_b_again(remote_session):
            assert add_one(remote_session) == 2

        @pytest.mark.rpc_device("pixel")
        def test_nowhere(remote_session): pass
        """
    )
    result = run(*two_keys.arguments, REPORT, "-rs")
    assert result.parseoutcomes() == {"passed": 3, "skipped": 1}
    facts = {name: last(test).devices for name, test in read(plain.path).items()}
    assert [one.key for devices in facts.values() for one in devices] == ["a", "b", "b"]
    assert len({one.asked_at for devices in facts.values() for one in devices}) == 2
    result.stdout.fnmatch_lines(["SKIPPED [[]1[]] test_marks_with_other_keys.py:*: this test is *"])


SCOPES = {
    "test_one": """
        class TestA:
            def test_a(self, remote_session): remote_session.meter
            def test_b(self, remote_session): remote_session.meter

        class TestB:
            def test_c(self, remote_session): remote_session.meter
    """,
    "test_two": """
        def test_d(remote_session): remote_session.meter
    """,
}


@pytest.mark.parametrize(("scope", "leases"), [("class", 3), ("", 2), ("session", 1)])
def test_scopes(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm, scope: str, leases: int
) -> None:
    """A class, a module, or the whole run."""
    plain.makepyfile(**SCOPES)
    option = [f"--rpc-session-scope={scope}"] if scope else []
    result = run(*lasting_farm.arguments, REPORT, *option)
    assert result.parseoutcomes() == {"passed": 4}
    facts = [last(test).devices[0] for test in read(plain.path).values()]
    assert len({one.asked_at for one in facts}) == leases


@pytest.fixture(name="two_keys", scope="module")
def _two_keys() -> Iterator[Farm]:
    """A device of each of two keys."""
    with Farm("a", "b") as farm:
        yield farm


def keys(test: TestRecord) -> "list[str]":
    return [facts.key for facts in last(test).devices]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_several_keys(
    plain: pytest.Pytester,
    run_apart: Run,
    acts: None,
    two_keys: Farm,
    workers: "tuple[str, ...]",
    wait_until: Callable[..., None],
) -> None:
    """Each test runs on each key; those of a key share its device as far as one process goes."""
    two_keys.write(plain.path)
    plain.makepyfile(
        """
        from acts import add_one

        def test_x(remote_session):
            assert add_one(remote_session) == 2

        def test_y(remote_session):
            assert add_one(remote_session) == 2
        """
    )
    result = run_apart(*two_keys.arguments, REPORT, *workers)
    assert result.parseoutcomes() == {"passed": 4}
    tests = read(plain.path)
    assert {name: keys(test) for name, test in tests.items()} == {
        f"test_{name}[{key}]": [key] for name in "xy" for key in "ab"
    }
    wait_until(lambda: len(two_keys.free()) == 2, "all devices are free")
    if not workers:
        facts = [last(test).devices[0] for test in tests.values()]
        assert len({one.asked_at for one in facts}) == 2
