"""Tests of a run, added up for each device, for each key, over all."""

from __future__ import annotations

from typing import List, Sequence

import pytest

from pytest_tvmrpc.records import Attempt, RemoteFacts, Run, TestRecord
from pytest_tvmrpc.reporting.tally import NONE_GIVEN, Sums, holds, leases, percentile, tally

A1, A2, B1 = "a@10.0.0.1:9090", "a@10.0.0.2:9090", "b@10.0.0.3:9090"


def facts(device: str, asked_at: float = 0.0, queued_s: float = 0.0, **more: float) -> RemoteFacts:
    """Facts of a lease; `a` alone is a key for which none was given."""
    key, _, address = device.partition("@")
    values = {"asked_at": asked_at, "queued_s": queued_s, **more}
    return RemoteFacts.from_json({"key": key, "device": device if address else "", **values})


def attempt(number: int, verdict: str, *devices: str) -> Attempt:
    """An attempt that had these devices."""
    return Attempt(number, verdict, devices=[facts(device) for device in devices])


def record(*attempts: Attempt, worker: str = "") -> TestRecord:
    """A test with these attempts."""
    return TestRecord("test_a.py::test", worker, list(attempts))


def counts(row: Sums) -> "tuple[int, ...]":
    """What the columns of a table would say."""
    verdicts = (row.passed, row.failed, row.error, row.infra, row.skipped)
    return (row.tests, *verdicts, row.flaky, row.lost)


def devices_of(run: Run) -> "dict[str, Sums]":
    """The rows of the devices by name."""
    return {row.name: row for row in tally(run).devices}


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("passed", (1, 1, 0, 0, 0, 0, 0, 0)),
        ("failed", (1, 0, 1, 0, 0, 0, 0, 0)),
        ("error", (1, 0, 0, 1, 0, 0, 0, 0)),
        ("infra", (1, 0, 0, 0, 1, 0, 0, 0)),
        ("skipped", (1, 0, 0, 0, 0, 1, 0, 0)),
    ],
)
def test_one_attempt(verdict: str, expected: "tuple[int, ...]") -> None:
    """A test counts under its verdict, for its device, its key and in total."""
    sums = tally(Run(tests=[record(attempt(1, verdict, A1))]))
    assert [counts(row) for row in (*sums.devices, *sums.keys, sums.total)] == [expected] * 3
    assert [(row.name, row.key) for row in (*sums.devices, *sums.keys, sums.total)] == [
        (A1, "a"),
        ("a", "a"),
        ("total", ""),
    ]


def test_passed_elsewhere() -> None:
    """The device that was lost made the test flaky; the verdict is the other one's."""
    run = Run(tests=[record(attempt(1, "lost", A1), attempt(2, "passed", A2))])
    rows = devices_of(run)
    assert counts(rows[A1]) == (1, 0, 0, 0, 0, 0, 1, 1)
    assert counts(rows[A2]) == (1, 1, 0, 0, 0, 0, 0, 0)
    assert counts(tally(run).total) == (1, 1, 0, 0, 0, 0, 1, 1)


def test_lost_on_every_attempt() -> None:
    """Infrastructure where it was tried last, lost attempts where it was tried before."""
    lost = [attempt(1, "lost", A1), attempt(2, "lost", A2), attempt(3, "infra", A1)]
    rows = devices_of(Run(tests=[record(*lost)]))
    assert counts(rows[A1]) == (1, 0, 0, 0, 1, 0, 0, 1)
    assert counts(rows[A2]) == (1, 0, 0, 0, 0, 0, 0, 1)


def test_no_device() -> None:
    """Who waits in vain has a row for the key; it was never busy."""
    run = Run(
        0.0, 100.0, tests=[record(attempt(1, "infra", "a")), record(attempt(1, "passed", A1))]
    )
    rows = devices_of(run)
    assert list(rows) == [f"a {NONE_GIVEN}", A1]
    assert counts(rows[f"a {NONE_GIVEN}"]) == (1, 0, 0, 0, 1, 0, 0, 0)
    assert rows[f"a {NONE_GIVEN}"].busy == 0
    assert counts(tally(run).keys[0]) == (2, 1, 0, 0, 1, 0, 0, 0)


def test_no_device_was_asked_for() -> None:
    """A test that was skipped before it asked is in the total alone."""
    sums = tally(Run(tests=[record(attempt(1, "skipped"))]))
    assert (sums.devices, sums.keys, counts(sums.total)[:1]) == ([], [], (1,))


def test_several_devices() -> None:
    """A test counts for each device that it had, once, and once in total."""
    run = Run(tests=[record(attempt(1, "failed", A1, B1, A1))])
    rows = devices_of(run)
    assert [counts(rows[name])[:3] for name in (A1, B1)] == [(1, 0, 1), (1, 0, 1)]
    assert [row.name for row in tally(run).keys] == ["a", "b"]
    assert tally(run).total.tests == 1


def test_sums() -> None:
    """What was measured is added up, over the devices and over all."""
    more = {
        "connect_s": 0.5,
        "upload_s": 0.25,
        "upload_nbytes": 7,
        "call_s": 2.0,
        "device_s": 1.0,
        "bytes_sent": 100,
        "bytes_received": 10,
    }
    tests = [
        record(Attempt(1, "passed", devices=[facts(device, 0.0, 1.0, **more)]))
        for device in (A1, A1, A2)
    ]
    run = Run(tests=tests)
    rows = [devices_of(run)[A1], tally(run).total]
    for row, count in zip(rows, (2, 3)):
        assert {name: getattr(row, name) / count for name in more} == more
    assert list(rows[1].waits) == [1.0, 1.0, 1.0]


def test_those_in_trouble_come_first() -> None:
    """First what the device is to blame for, then failures, then what was flaky, then by name."""
    tests = [
        record(attempt(1, "passed", "c@h:1")),
        record(attempt(1, "passed", "b@h:1")),
        *(record(attempt(1, "failed", "d@h:1")) for _ in range(3)),
        record(attempt(1, "infra", "e@h:1")),
        record(
            attempt(1, "lost", "f@h:1"), attempt(2, "lost", "f@h:1"), attempt(3, "error", "g@h:1")
        ),
    ]
    order = [row.name[0] for row in tally(Run(tests=tests)).devices]
    assert order == ["f", "e", "d", "g", "b", "c"]


def test_busy() -> None:
    """From the moment it was given to its return, as a part of the run."""
    one = facts(A1, 100.0, 10.0, connect_s=1.0, held_s=4.0)
    two = facts(A1, 200.0, 10.0, connect_s=0.0, held_s=5.0)
    other = facts(B1, 100.0, held_s=50.0)
    run = Run(100.0, 200.0, tests=[record(Attempt(1, "passed", devices=[one, two, other]))])
    assert devices_of(run)[A1].busy == pytest.approx(0.10)
    assert devices_of(run)[B1].busy == pytest.approx(0.50)
    assert tally(run).total.busy == pytest.approx(0.30)


def sharing(started_at: float, until_at: float, worker: str = "gw1") -> TestRecord:
    """A test with a lease that was asked for at 100, given at 102 and ready at 103."""
    more = {"connect_s": 1.0, "held_s": until_at - 103.0, "call_s": 3.0, "shared": True}
    devices = [facts(A1, 100.0, 2.0, **more)]
    return record(
        Attempt(1, "passed", started_at, until_at - started_at, devices=devices), worker=worker
    )


@pytest.mark.parametrize("worker", ["", "gw1", "gw2"])
def test_a_shared_lease(worker: str) -> None:
    """It counts once, whoever tells of it: one wait; held from its start to the last known end.

    Of a test that ran again in another worker, only that one is known.
    """
    tests = [sharing(99.0, 113.0), sharing(130.0, 143.0, worker), sharing(120.0, 123.0)]
    row = tally(Run(100.0, 200.0, tests=tests)).devices[0]
    assert (list(row.waits), row.connect_s, row.busy) == ([2.0], 1.0, pytest.approx(0.41))
    assert (row.tests, row.call_s) == (3, 9.0)


def test_who_waited_for_a_shared_lease() -> None:
    """The test that took it; the others had it at once."""
    tests = [sharing(130.0, 143.0), sharing(99.0, 113.0)]
    (lease,) = leases(holds((test, test.attempts) for test in tests))
    assert lease.record is tests[1]
    assert (lease.from_at, lease.until_at) == (102.0, 143.0)
    waits = [test.attempts[0].shares[0] for test in tests]
    assert [(one.queued_s, one.connect_s, one.held_s) for one in waits] == [
        (0.0, 0.0, 13.0),
        (2.0, 1.0, 10.0),
    ]


def test_leases_that_are_not_shared() -> None:
    """Each counts, also if two tests tell the same of it; and all of it is the attempt's."""
    tests = [record(Attempt(1, "passed", 200.0, devices=[facts(A1, 100.0, 2.0)])) for _ in range(2)]
    assert len(leases(holds((test, test.attempts) for test in tests))) == 2
    assert tests[0].attempts[0].shares == tests[0].attempts[0].devices


@pytest.mark.parametrize("verdict", ["failed", "error", "lost"])
def test_flaky(verdict: str) -> None:
    """A test that passed, but not at the first attempt, is flaky, whoever ran it again."""
    run = Run(tests=[record(attempt(1, verdict, A1), attempt(2, "passed", A1))])
    assert run.tests[0].flaky
    lost = int(verdict == "lost")
    rows = [devices_of(run)[A1], tally(run).total]
    assert [counts(row) for row in rows] == [(1, 1, 0, 0, 0, 0, 1, lost)] * 2


def test_a_run_without_an_end() -> None:
    """Of a run that was killed, the end is that of its last attempt."""
    last = Attempt(1, "passed", 150.0, 50.0, devices=[facts(A1, 150.0, held_s=50.0)])
    assert tally(Run(100.0, tests=[record(last)])).total.busy == pytest.approx(0.5)
    assert tally(Run()).total == Sums("total", waits=[])


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.5, 7.0),
        ([7.0], 0.95, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([1.0, 2.0], 0.95, 2.0),
        ([float(n) for n in range(1, 21)], 0.95, 19.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([1.0, 2.0], 0.0, 1.0),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_percentile(values: List[float], part: float, expected: float) -> None:
    """The nearest rank: always a value that was measured."""
    assert percentile(values, part) == expected


def test_as_json() -> None:
    """Plain values, with percentiles in place of what may be thousands of waits."""
    waits: Sequence[float] = [1.0, 2.0, 3.0]
    values = Sums("n", waits=waits).to_json()
    assert "waits" not in values
    assert (values["wait_p50_s"], values["wait_p95_s"]) == (2.0, 3.0)
