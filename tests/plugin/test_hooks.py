"""The hooks of the plugin, from a conftest.py."""

from __future__ import annotations

from typing import Callable

import pytest

from .farms import Farm, devices, last, read, verdicts

Run = Callable[..., pytest.RunResult]

REPORT = "--rpc-report=run.jsonl"


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "n2"])
def test_start_servers(plain: pytest.Pytester, run_apart: Run, workers: "tuple[str, ...]") -> None:
    """Called once, by whoever has the tracker; ended with the run; no server of ours is started."""
    plain.makeconftest(
        """
        from pytest_tvmrpc import rpc

        class Special(rpc.Server):
            def terminate(self):
                super().terminate()
                with open("ended", "a") as file:
                    print(self.key, file=file)

        def pytest_tvmrpc_start_servers(config, tracker, keys, count):
            with open("started", "a") as file:
                print(*keys, count, file=file)
            started = []
            for key in keys:
                for _ in range(count):
                    server = Special(port=0, tracker_addr=tracker, key=key, silent=True)
                    server.key = key
                    started.append(server)
            return started
        """
    )
    plain.makepyfile("def test_a(remote): pass\ndef test_b(remote): pass")
    result = run_apart("--rpc-key=a", "--rpc-key=b", "--rpc-servers=2", *workers)
    assert result.parseoutcomes() == {"passed": 4}
    assert (plain.path / "started").read_text() == "a b 2\n"
    assert (plain.path / "ended").read_text().split() == ["a", "a", "b", "b"]


def test_servers_that_do_not_start(plain: pytest.Pytester, run: Run) -> None:
    """What the hook raises is said at the end, and its tests are infra."""
    plain.makeconftest(
        """
        def pytest_tvmrpc_start_servers():
            raise OSError("the rack has no power")
        """
    )
    plain.makepyfile("def test_a(remote): pass")
    result = run()
    assert result.parseoutcomes() == {"infra": 1}
    result.stdout.fnmatch_lines(["1 test was not run: *OSError: the rack has no power*"])


def test_select_device(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """What is refused is not taken, and its name is that of the reports."""
    refused, wanted = lasting_farm.servers
    plain.makeconftest(
        f"""
        def pytest_tvmrpc_select_device(item, key, device, tried):
            assert key == "board"
            assert device.startswith("board@")
            assert item.name.startswith("test_")
            assert tried == ()
            if device == {refused!r}:
                return False
        """
    )
    plain.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(remote, number): pass
        """
    )
    result = run(*lasting_farm.arguments, REPORT)
    assert result.parseoutcomes() == {"passed": 4}
    assert {name for test in read(plain.path).values() for name in devices(test)} == {wanted}


def test_all_devices_are_refused(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """There is no other one, so it is taken nevertheless, and nobody waits for nothing."""
    plain.makeconftest("def pytest_tvmrpc_select_device(): return False")
    plain.makepyfile("def test_it(remote): pass")
    result = run(*lasting_farm.arguments, REPORT, "--rpc-queue-timeout=20")
    assert result.parseoutcomes() == {"passed": 1}
    assert result.duration < 8


def test_classify_error(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """What the hook says counts more than what we think."""
    plain.makeconftest(
        """
        def pytest_tvmrpc_classify_error(item, error, when):
            assert when in ("setup", "call", "teardown")
            if "short circuit" in str(error):
                return "lost"
            if item.name == "test_own_fault":
                return "test"
            if "overheated" in str(error):
                return "infra"
        """
    )
    plain.makepyfile(
        """
        import pytest
        from acts import drop, is_first

        def test_again(remote):
            if is_first():
                remote.get_function("rpc.test.except")("short circuit")

        def test_own_fault(remote):
            drop(remote)

        def test_infra(remote):
            raise ValueError("overheated")

        def test_failed(remote):
            raise ValueError("wrong")
        """
    )
    result = run(*lasting_farm.arguments, REPORT, "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1, "failed": 2, "infra": 1}
    assert {name: verdicts(test) for name, test in read(plain.path).items()} == {
        "test_again": ["lost", "passed"],
        "test_own_fault": ["failed"],
        "test_infra": ["infra"],
        "test_failed": ["failed"],
    }


def test_a_loss_that_only_a_hook_knows(
    plain: pytest.Pytester, run: Run, lasting_farm: Farm
) -> None:
    """The session still stands, and the next attempt avoids its device all the same."""
    plain.makeconftest(
        """
        def pytest_tvmrpc_classify_error(error):
            return "lost"

        def pytest_tvmrpc_select_device(device, tried):
            with open("asked", "a") as file:
                print(device, *tried, file=file)
        """
    )
    plain.makepyfile(
        """
        from acts import is_first

        def test_it(remote):
            assert not is_first(), "short circuit"
        """
    )
    result = run(*lasting_farm.arguments, REPORT, "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    first, second = devices(read(plain.path)["test_it"])
    assert first != second
    assert (plain.path / "asked").read_text().splitlines() == [first, f"{second} {first}"]


def test_prepare_session(plain: pytest.Pytester, run: Run, lasting_farm: Farm) -> None:
    """Every session is prepared once; what is raised there is an error of the set-up."""
    plain.makeconftest(
        """
        prepared = []

        def pytest_tvmrpc_prepare_session(item, remote, key):
            assert remote.get_function("rpc.test.addone")(1) == 2
            prepared.append((item.name, key))
            if item.name == "test_broken":
                raise ValueError("no such power mode")
            remote.prepared = True
        """
    )
    plain.makepyfile(
        """
        from conftest import prepared
        from acts import drop, is_first

        def test_own(remote):
            assert remote.prepared

        def test_again(remote):
            assert remote.prepared
            if is_first():
                drop(remote)

        def test_wide(remote_session):
            assert remote_session.prepared

        def test_wide_too(remote_session):
            assert remote_session.prepared
            names = ["test_own", "test_again", "test_again", "test_wide"]
            assert prepared == [(name, "board") for name in names]

        def test_broken(remote): pass
        """
    )
    result = run(*lasting_farm.arguments, REPORT, "--rpc-reruns=1")
    assert result.parseoutcomes() == {"passed": 4, "rerun": 1, "errors": 1}
    assert "no such power mode" in last(read(plain.path)["test_broken"]).message
    lasting_farm.settle()


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "n1"])
def test_reports(
    plain: pytest.Pytester, run_apart: Run, lasting_farm: Farm, workers: "tuple[str, ...]"
) -> None:
    """Facts are added to each attempt, notes to the whole run, where the reports are written."""
    plain.makeconftest(
        """
        def pytest_tvmrpc_add_to_report(item, attempt):
            assert attempt.devices[0].held_s > 0
            return {"celsius": 40 + attempt.number, "verdict": attempt.verdict}

        def pytest_tvmrpc_run_finished(config, run):
            assert not hasattr(config, "workerinput")
            assert [test.verdict for test in run.tests] == ["passed", "failed"]
            run.notes.append("the fan is loud")
        """
    )
    plain.makepyfile(
        """
        from acts import drop, is_first

        def test_again(remote):
            if is_first():
                drop(remote)

        def test_failed(remote):
            assert 0
        """
    )
    result = run_apart(*lasting_farm.arguments, REPORT, "--rpc-reruns=1", *workers)
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1, "failed": 1}
    result.stdout.fnmatch_lines(["*= remote devices =*", "the fan is loud"])
    tests = read(plain.path)
    assert [attempt.extra for attempt in tests["test_again"].attempts] == [
        {"celsius": 41, "verdict": "lost"},
        {"celsius": 42, "verdict": "passed"},
    ]
    assert last(tests["test_failed"]).extra == {"celsius": 41, "verdict": "failed"}
