"""What a test did on the wire: measured where it ran, added up for each device.

No output here. Facts travel on the test's teardown report, as plain values in its attribute
``rpc``, because that is what pytest-xdist carries from a worker to the controller.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Iterable, Mapping

if TYPE_CHECKING:  # a Protocol takes as long to make as the rest of this module
    from typing import Protocol

    import pytest

    class Meter(Protocol):
        """What a session counts."""

        @property
        def calls(self) -> int: ...
        @property
        def call_s(self) -> float: ...
        @property
        def device_s(self) -> float: ...
        @property
        def bytes_sent(self) -> int: ...
        @property
        def bytes_received(self) -> int: ...

    class Lease(Protocol):
        """A device that a test had, and what is known of it."""

        @property
        def key(self) -> str: ...
        @property
        def device(self) -> str: ...
        @property
        def queued_s(self) -> float: ...
        @property
        def connect_s(self) -> float: ...
        @property
        def meter(self) -> Meter: ...


@dataclass(frozen=True)
class RemoteFacts:
    """What happened on one device between its lease and its return.

    Attributes:
        key: what was asked for.
        device: what was given, as ``key@host:port``.
        queued_s: seconds until the tracker gave the device.
        connect_s: seconds until the session with it stood.
        calls: questions to the device that it answered, or should have.
        call_s: seconds spent waiting for the answers.
        device_s: seconds measured on the device by ``time_evaluator``.
        bytes_sent: bytes written to the connection.
        bytes_received: bytes read from it.
    """

    key: str
    device: str
    queued_s: float = 0.0
    connect_s: float = 0.0
    calls: int = 0
    call_s: float = 0.0
    device_s: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0

    @classmethod
    def of(cls, lease: Lease) -> RemoteFacts:
        """The facts of a lease that is over."""
        meter = lease.meter
        return cls(
            lease.key,
            lease.device,
            lease.queued_s,
            lease.connect_s,
            meter.calls,
            meter.call_s,
            meter.device_s,
            meter.bytes_sent,
            meter.bytes_received,
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RemoteFacts:
        """What `to_json` gave; names that are not known here are left out."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


@dataclass
class DeviceTally:
    """The sums for one device.

    Attributes:
        outcomes: how many tests ended how: passed, failed, error, skipped.
    """

    device: str
    outcomes: Counter[str] = field(default_factory=Counter)
    queued_s: float = 0.0
    connect_s: float = 0.0
    call_s: float = 0.0
    device_s: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def tests(self) -> int:
        """Tests that had the device, whatever became of them."""
        return sum(self.outcomes.values())

    def add(self, other: RemoteFacts | DeviceTally) -> None:
        """Add what was measured, leaving the outcomes alone."""
        self.queued_s += other.queued_s
        self.connect_s += other.connect_s
        self.call_s += other.call_s
        self.device_s += other.device_s
        self.bytes_sent += other.bytes_sent
        self.bytes_received += other.bytes_received


class Tally:
    """The sums of a run, made from the reports of its tests as they come in."""

    def __init__(self) -> None:
        self._devices: dict[str, DeviceTally] = {}
        self._phases: dict[tuple[str, str], dict[str, str]] = {}

    def add_report(self, report: pytest.TestReport) -> None:
        """Take in the report of one phase; the teardown's one completes a test."""
        # --dist each runs a test of the same name in every worker.
        test = (report.nodeid, getattr(report, "worker_id", ""))
        if report.when == "setup":
            self._phases[test] = {}
        self._phases.setdefault(test, {})[str(report.when)] = report.outcome
        if report.when == "teardown":
            verdict = verdict_of(self._phases.pop(test))
            self._add_test(verdict, map(RemoteFacts.from_json, getattr(report, "rpc", ())))

    def _add_test(self, verdict: str, leases: Iterable[RemoteFacts]) -> None:
        counted = set()
        for facts in leases:
            row = self._devices.setdefault(facts.device, DeviceTally(facts.device))
            row.add(facts)
            if facts.device not in counted:  # leased twice, it is still one test
                row.outcomes[verdict] += 1
                counted.add(facts.device)

    @property
    def devices(self) -> list[DeviceTally]:
        """One for each device that a test had, in the order of their names."""
        return [self._devices[device] for device in sorted(self._devices)]

    @property
    def total(self) -> DeviceTally:
        """The sum over `devices`; a test that had two devices counts for each."""
        total = DeviceTally("total")
        for row in self._devices.values():
            total.add(row)
            total.outcomes.update(row.outcomes)
        return total


def verdict_of(phases: Mapping[str, str]) -> str:
    """How a test ended, from the outcome of each of its phases.

    A failing call makes it failed, a failing set-up or teardown error, as pytest's own last line
    has it; failed counts more, so that a test counts once.
    """
    if phases.get("call") == "failed":
        return "failed"
    if "failed" in phases.values():
        return "error"
    for outcome in phases.values():
        if outcome != "passed":
            return outcome  # skipped (also for an expected failure), or what another plugin says
    return "passed"
