"""Facts of single tests, added up for each device."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Dict, Sequence

import pytest

from pytest_tvmrpc.reporting.facts import RemoteFacts, Tally, verdict_of

FACTS = RemoteFacts("a", "a@127.0.0.1:9091", 0.5, 0.25, 3, 2.0, 1.0, 100, 10)


def _reports(name: str, facts: Sequence[RemoteFacts], **outcomes: str) -> Sequence[Any]:
    """The reports of a test, as they arrive in the controller."""
    reports = [
        pytest.TestReport(name, (name, 0, name), {}, outcome, None, when)  # type: ignore[arg-type]
        for when, outcome in outcomes.items()
    ]
    reports[-1].rpc = [one.to_json() for one in facts]  # type: ignore[attr-defined]
    return reports


def _tally(*reports: Sequence[Any]) -> Tally:
    tally = Tally()
    for several in reports:
        for report in several:
            tally.add_report(report)
    return tally


PASSED: Dict[str, str] = {"setup": "passed", "call": "passed", "teardown": "passed"}


@pytest.mark.parametrize(
    ("phases", "verdict"),
    [
        (PASSED, "passed"),
        ({**PASSED, "call": "failed"}, "failed"),
        ({**PASSED, "call": "failed", "teardown": "failed"}, "failed"),
        ({**PASSED, "teardown": "failed"}, "error"),
        ({"setup": "failed", "teardown": "passed"}, "error"),
        ({**PASSED, "call": "skipped"}, "skipped"),
    ],
)
def test_verdict(phases: Dict[str, str], verdict: str) -> None:
    """A test ends in one way, whatever its three phases say."""
    assert verdict_of(phases) == verdict


def test_tests_are_added_up_for_each_device() -> None:
    """Seconds, bytes and outcomes of a device are sums over its tests, and the total over these."""
    other = replace(FACTS, device="a@127.0.0.1:9092", bytes_sent=1)
    tally = _tally(
        _reports("t1", [FACTS], **PASSED),
        _reports("t2", [FACTS], **{**PASSED, "call": "failed"}),
        _reports("t3", [other], **{**PASSED, "teardown": "failed"}),
        _reports("t4", [], **PASSED),
    )
    first, second = tally.devices
    assert (first.device, second.device) == (FACTS.device, other.device)
    assert first.outcomes == {"passed": 1, "failed": 1}
    assert second.outcomes == {"error": 1}
    assert (first.queued_s, first.connect_s, first.call_s, first.device_s) == (1.0, 0.5, 4.0, 2.0)
    assert (first.bytes_sent, first.bytes_received) == (200, 20)
    total = tally.total
    assert total.tests == 3
    assert total.bytes_sent == 201
    assert total.queued_s == first.queued_s + second.queued_s


def test_a_test_with_two_leases() -> None:
    """It counts once for each device, and once only for a device that it had twice."""
    other = replace(FACTS, device="b@127.0.0.1:9092")
    tally = _tally(_reports("t", [FACTS, other, FACTS], **PASSED))
    assert [row.tests for row in tally.devices] == [1, 1]
    assert tally.devices[0].call_s == 4.0


def test_workers_that_run_the_same_test_are_told_apart() -> None:
    """With --dist each, phases of the same test from two workers come mixed."""
    tally = Tally()
    ok, bad = (
        _reports("t", [FACTS], **PASSED),
        _reports("t", [FACTS], **{**PASSED, "call": "failed"}),
    )
    for first, second in zip(ok, bad):
        first.worker_id, second.worker_id = "gw0", "gw1"
        tally.add_report(first)
        tally.add_report(second)
    assert tally.devices[0].outcomes == {"passed": 1, "failed": 1}


def test_facts_come_from_a_lease_and_travel_as_plain_values() -> None:
    """What is measured arrives unchanged; what a newer worker adds is ignored."""
    meter = SimpleNamespace(calls=3, call_s=2.0, device_s=1.0, bytes_sent=100, bytes_received=10)
    lease = SimpleNamespace(
        key="a", device="a@127.0.0.1:9091", queued_s=0.5, connect_s=0.25, meter=meter
    )
    facts = RemoteFacts.of(lease)
    assert facts == FACTS
    assert RemoteFacts.from_json({**facts.to_json(), "new": 1}) == facts
