"""The fixtures with a real tracker and real servers, in one process."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from typing import Callable, List

import pytest

from pytest_tvmrpc import rpc

Run = Callable[..., pytest.RunResult]

ADD_ONE = """
    def test_add_one(remote):
        assert remote.get_function("rpc.test.addone")(41) == 42
"""


def test_without_any_setting(plain: pytest.Pytester, run: Run) -> None:
    """One fixture name is all it takes; the header and the section tell what happened."""
    plain.makepyfile(ADD_ONE)
    result = run("-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "rpc: tracker and 1 server start when a test asks for a device (keys: local)",
            "*::test_add_one PASSED*",
            "*= remote devices =*",
            "device *tests *passed *failed *busy *wait p50/p95 *call",
            "local@127.0.0.1:* 1 * 1 * 0 *%*ms*",
            "*= 1 passed in *",
        ]
    )


@pytest.mark.parametrize("arguments", [("-p", "no:xdist"), ("-n", "0"), ("-p", "no:cacheprovider")])
def test_with_and_without_other_plugins(
    plain: pytest.Pytester, run_apart: Run, arguments: "tuple[str, ...]"
) -> None:
    """The plugin needs none of pytest's optional parts."""
    plain.makepyfile(ADD_ONE)
    result = run_apart(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= remote devices =*"])


def test_without_a_terminal(plain: pytest.Pytester, run_apart: Run) -> None:
    """-p no:terminal: the tests run all the same."""
    plain.makepyfile(ADD_ONE)
    assert run_apart("-p", "no:terminal").ret == 0


def test_several_keys(plain: pytest.Pytester, run: Run) -> None:
    """A test of `remote` runs once for each key, in the order given, also through a fixture."""
    plain.makepyfile(
        """
        import pytest

        @pytest.fixture
        def add_one(remote):
            yield remote.get_function("rpc.test.addone")
            assert not remote.closed

        def test_fixture(add_one):
            assert add_one(1) == 2

        @pytest.mark.parametrize("x", [1, 2])
        def test_more(remote, x):
            pass

        def test_local():
            pass

        def test_asks_late(request):
            remote = request.getfixturevalue("remote")
            assert remote.get_function("rpc.test.addone")(1) == 2
        """
    )
    result = run("-v", "--rpc-key=b", "--rpc-key=a")
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(
        [
            "*::test_fixture[[]b[]] PASSED*",
            "*::test_fixture[[]a[]] PASSED*",
            "*::test_local PASSED*",
            "*::test_asks_late PASSED*",
            "a@127.0.0.1:* 3 * 3 * 0 *",
            "b@127.0.0.1:* 4 * 4 * 0 *",
            "total * 7 * 7 * 0 *",
        ]
    )


@pytest.mark.skipif(
    pytest.version_tuple < (9,), reason="before, pytest did not look behind an overriding fixture"
)
def test_a_project_may_extend_the_fixture(plain: pytest.Pytester, run: Run) -> None:
    """A conftest's own `remote` gets ours, for each key; one that does not ask for it is alone."""
    plain.makeconftest(
        """
        import pytest

        @pytest.fixture
        def remote(remote):
            return remote.get_function("rpc.test.addone")
        """
    )
    plain.makepyfile("def test_extended(remote): assert remote(1) == 2")
    folder = plain.mkdir("other")
    (folder / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef remote(): return 'http://example.org'\n"
    )
    (folder / "test_other.py").write_text("def test_other(remote): assert 'http' in remote\n")
    result = run("-v", "--rpc-key=b", "--rpc-key=a")
    result.stdout.fnmatch_lines_random(
        [
            "*::test_extended[[]b[]] PASSED*",
            "*::test_extended[[]a[]] PASSED*",
            "*::test_other PASSED*",
        ]
    )


def test_several_devices_in_one_test(plain: pytest.Pytester, run: Run) -> None:
    """remote_device leases by key, the first one by default, and all are closed at the end."""
    plain.makepyfile(
        """
        sessions = []

        def test_devices(remote_device):
            sessions.extend([remote_device(), remote_device("b"), remote_device(key="a")])
            places = {session.peer for session in sessions}
            assert len(places) == 3
            for session in sessions:
                assert session.get_function("rpc.test.addone")(1) == 2

        def test_all_are_closed():
            assert [session.closed for session in sessions] == [True] * 3

        def test_one_after_the_other(remote_device):
            for _ in range(5):
                with remote_device("b") as session:
                    assert session.get_function("rpc.test.addone")(1) == 2
        """
    )
    result = run("--rpc-key=a", "--rpc-key=b", "--rpc-servers=2")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["a@* 1 * 1 *", "a@* 1 * 1 *", "b@* 1 * 1 *"])


def test_a_test_that_would_wait_for_itself(plain: pytest.Pytester, run: Run) -> None:
    """More local devices than there are: an error at once, and what to do."""
    plain.makepyfile("def test_two(remote, remote_device): remote_device()")
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *TooManyError: this test holds all*--rpc-servers=2*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


UNKNOWN_KEY = "def test_other(remote_device): remote_device('jetson')\ndef test_local(): pass"


def test_an_unknown_key_of_a_run(plain: pytest.Pytester, run: Run) -> None:
    """The test is skipped, and the reason lists the keys of the run and says what to do."""
    plain.makepyfile(UNKNOWN_KEY)
    result = run("--rpc-key=a", "--rpc-key=b", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "*= infrastructure =*",
            "1 test was not run: *no server of key 'jetson'*: a, b; *--rpc-key=jetson",
            "SKIPPED * no server of key 'jetson'*: a, b; start one with --rpc-key=jetson",
        ]
    )


def test_an_unknown_key_that_is_required(plain: pytest.Pytester, run: Run) -> None:
    """--rpc-require: it is a fault of the farm, and the run fails."""
    plain.makepyfile(UNKNOWN_KEY)
    result = run("--rpc-key=a", "--rpc-require")
    assert result.parseoutcomes() == {"passed": 1, "infra": 1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["1 test was not run: no device, and --rpc-require asks for one: *'jetson'*"]
    )


def test_outcomes_by_device(plain: pytest.Pytester, run: Run) -> None:
    """A failing test, an error at the end and a skipped one are counted as what they are."""
    plain.makepyfile(
        """
        import pytest

        def test_passes(remote): pass
        def test_fails(remote): assert 0
        def test_skips(remote): pytest.skip("not today")

        @pytest.fixture
        def broken(remote):
            yield
            assert 0

        def test_error(broken): pass
        """
    )
    result = run("--rpc-summary=full")
    result.assert_outcomes(passed=2, failed=1, errors=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "device *tests *passed *failed *error *infra *skipped *flaky *",
            "local@* 4 * 1 * 1 * 1 * 0 * 1 * 0 *%*",
        ]
    )


def test_remote_errors_leave_the_next_test_alone(plain: pytest.Pytester, run: Run) -> None:
    """What the device raises fails the test that asked for it, with type and message."""
    plain.makepyfile(
        """
        def test_raises(remote):
            remote.get_function("rpc.test.except")("boom")

        def test_next(remote):
            assert remote.get_function("rpc.test.addone")(1) == 2
        """
    )
    result = run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*ValueError*boom*"])


def test_stop_at_the_first_failure_and_run_it_again(plain: pytest.Pytester, run: Run) -> None:
    """-x and --lf work as ever, and count what ran."""
    plain.makepyfile("def test_a(remote): assert 0\ndef test_b(remote): pass")
    run("-x").stdout.fnmatch_lines(["local@* 1 * 0 * 1 *"])
    run("--lf").stdout.fnmatch_lines(["local@* 1 * 0 * 1 *"])
    result = run("--lf", "--co", "-q")
    result.stdout.fnmatch_lines(["*::test_a"])
    result.stdout.no_fnmatch_line("*::test_b")


def test_debugger(plain: pytest.Pytester, loading: List[str], deadline_s: float) -> None:
    """--pdb: the session lives while the debugger is open, and the run ends with its section."""
    plain.makepyfile("def test_a(remote): assert 0")
    words = b"remote.get_function('rpc.test.addone')(41)\ncontinue\n"
    command = (sys.executable, "-m", "pytest", *loading, "--pdb")
    result = plain.run(*command, stdin=words, timeout=6 * deadline_s)
    result.stdout.fnmatch_lines(
        ["*entering PDB*", "(Pdb) 42*", "*= remote devices =*", "local@* 1 * 0 * 1 *"]
    )
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_leaving_the_debugger(plain: pytest.Pytester, run_apart: Run) -> None:
    """Quitting there ends the run, and with it tracker and servers."""
    plain.makepyfile("def test_a(remote): assert 0")
    run_apart("--pdb").stdout.fnmatch_lines(["*entering PDB*", "*Quitting debugger*"])


def test_properties(plain: pytest.Pytester, run: Run) -> None:
    """Key and device stand in the JUnit file, also for devices leased in mid-test."""
    plain.makepyfile(
        """
        def test_a(remote):
            remote.get_function("rpc.test.addone")(1)

        def test_b(remote_device):
            remote_device().get_function("rpc.test.addone")(1)
        """
    )
    run("--junitxml=out.xml")
    tree = ElementTree.parse(plain.path / "out.xml")
    for case in tree.iter("testcase"):
        found = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        assert found["rpc.key"] == "local"
        assert str(found["rpc.device"]).startswith("local@127.0.0.1:")
        assert found["rpc.attempts"] == "1"
        for name in ("queued_s", "connect_s", "upload_s", "call_s", "device_s"):
            assert float(str(found[f"rpc.{name}"])) >= 0
        for name in ("calls", "bytes_sent", "bytes_received"):
            assert int(str(found[f"rpc.{name}"])) > 0


def test_a_local_test_has_no_properties(plain: pytest.Pytester, run: Run) -> None:
    """What did not ask for a device has nothing of ours in the JUnit file, nor on its reports."""
    plain.makeconftest(
        """
        def pytest_runtest_logreport(report):
            assert not [name for name in vars(report) if name.startswith("rpc")]
        """
    )
    plain.makepyfile("def test_a(): pass\ndef test_b(remote_device): pass")
    run("--junitxml=out.xml").assert_outcomes(passed=2)
    text = (plain.path / "out.xml").read_text()
    assert "testcase" in text
    assert "rpc" not in text


def test_facts_on_the_report(plain: pytest.Pytester, run: Run) -> None:
    """The teardown report has the attempt, with the facts of each lease, as plain values."""
    plain.makeconftest(
        """
        import json

        def pytest_runtest_logreport(report):
            attempt = getattr(report, "rpc", None)
            assert (attempt is not None) == (report.when == "teardown")
            if attempt:
                assert json.loads(json.dumps(attempt)) == attempt
                assert (attempt["number"], attempt["verdict"]) == (1, "passed")
                assert attempt["started_at"] > 0 and attempt["duration_s"] > 0
                one, two = attempt["devices"]
                assert one["key"] == two["key"] == "local"
                assert one["device"] != two["device"]
                assert one["calls"] >= 2
                assert one["call_s"] > 0 and one["queued_s"] > 0 and one["connect_s"] > 0
                assert one["held_s"] >= one["call_s"]
                assert one["bytes_sent"] > 0 and one["bytes_received"] > 0
                assert set(map(type, one.values())) <= {str, int, float, bool}
                print("looked at the facts")
        """
    )
    plain.makepyfile(
        """
        def test_two(remote, remote_device):
            for session in (remote, remote_device()):
                assert session.get_function("rpc.test.addone")(41) == 42
        """
    )
    result = run("--rpc-servers=2", "-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*looked at the facts"])


def test_a_tracker_of_the_users_own(plain: pytest.Pytester, run: Run) -> None:
    """--rpc-tracker: devices come from there; a key that nobody serves is a skip that says so."""
    plain.makepyfile(ADD_ONE)
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = f"{tracker.host}:{tracker.port}"
        with rpc.Server(port=0, tracker_addr=(tracker.host, tracker.port), key="jetson") as server:
            result = run(f"--rpc-tracker={address}", "--rpc-key=jetson")
            result.assert_outcomes(passed=1)
            result.stdout.fnmatch_lines(
                [f"rpc: tracker {address}, keys: jetson", f"jetson@127.0.0.1:{server.port} * 1 *"]
            )
            result = run(f"--rpc-tracker={address}", "--rpc-key=rk3588")
            result.assert_outcomes(skipped=1)
            result.stdout.fnmatch_lines(["1 test was not run: *'rk3588'*jetson*"])
            result = run(f"--rpc-tracker={address}", "--rpc-key=rk3588", "--rpc-require")
            assert result.parseoutcomes() == {"infra": 1}
            assert result.ret == pytest.ExitCode.TESTS_FAILED
            result.stdout.fnmatch_lines(["1 test was not run: *--rpc-require*'rk3588'*jetson*"])


def test_a_device_that_stays_in_use(plain: pytest.Pytester, run: Run) -> None:
    """The wait for a device ends at the queue timeout, and the next run gets it."""
    plain.makepyfile(ADD_ONE)
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = (tracker.host, tracker.port)
        arguments = (f"--rpc-tracker={tracker.host}:{tracker.port}", "--rpc-queue-timeout=0.3")
        with rpc.Server(port=0, tracker_addr=address, key="local"):
            with rpc.connect_tracker(*address) as session, session.request("local"):
                result = run(*arguments)
                assert result.parseoutcomes() == {"infra": 1}
                result.stdout.fnmatch_lines(
                    [
                        "*= infrastructure =*",
                        "1 test was not run: no device 'local'*is held by *--rpc-queue-timeout*",
                        "    key local; no device was given; waited *",
                    ]
                )
            run(*arguments, "--rpc-queue-timeout=20").assert_outcomes(passed=1)
