"""What a run knows of its tests: plain records, made where it happened, carried as JSON values.

No output and no arithmetic over several tests here. A test has one `Attempt` for each time it was
run; an attempt has one `RemoteFacts` for each device that it had. An attempt travels on the report
of its teardown, in the attribute ``rpc``, because that is what pytest-xdist carries from a worker
to the controller.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Dict, List, Mapping, Tuple

FINAL = ("passed", "failed", "error", "infra", "skipped")
"""The verdicts that end a test. ``lost`` does not: the device dropped out, the test runs again."""

TROUBLE = ("failed", "error", "infra")
"""Those for which somebody has to look."""


@dataclass(frozen=True)
class RemoteFacts:
    """What happened on one device while one attempt of a test had it.

    Several tests tell of a lease that they share, and each of them as it is: when it was asked for,
    how long that took, and how long it has been held until the attempt ended. What was done on the
    device is told by attempt: each has its own share.

    Attributes:
        key: what was asked for.
        device: what was given, as ``key@host:port``; empty if none was.
        asked_at: when the device was asked for, in seconds since the epoch.
        queued_s: seconds until the tracker gave the device, or until the wait was given up.
        connect_s: seconds until the session with it stood.
        held_s: seconds from then on until the device was given back; if that was not before the
            end of the attempt, until then.
        upload_s: seconds in uploads and downloads of files; a part of `call_s`.
        upload_nbytes: bytes of the files that were uploaded.
        calls: questions to the device that it answered, or should have.
        call_s: seconds spent waiting for the answers.
        device_s: seconds measured on the device by ``time_evaluator``.
        bytes_sent: bytes written to the connection.
        bytes_received: bytes read from it.
        shared: whether a fixture of wider scope held it, also for other tests.
        error: why no session could be opened on it; then another device was waited for.
    """

    key: str
    device: str
    asked_at: float = 0.0
    queued_s: float = 0.0
    connect_s: float = 0.0
    held_s: float = 0.0
    upload_s: float = 0.0
    upload_nbytes: int = 0
    calls: int = 0
    call_s: float = 0.0
    device_s: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    shared: bool = False
    error: str = ""

    def within(self, started_at: float, duration_s: float) -> RemoteFacts:
        """The same as an attempt saw it that took this long.

        Of a shared lease, a wait before it was not the attempt's, nor is the time that others had.
        """
        if not self.shared:
            return self
        is_mine = self.asked_at >= started_at
        queued_s, connect_s = (self.queued_s, self.connect_s) if is_mine else (0.0, 0.0)
        held_s = min(self.held_s, max(duration_s - queued_s - connect_s, 0.0))
        return replace(self, queued_s=queued_s, connect_s=connect_s, held_s=held_s)

    def to_json(self) -> Dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RemoteFacts:
        """What `to_json` gave; names that are not known here are left out."""
        return cls(**_known(cls, values))


@dataclass
class Attempt:
    """One run of a test, from set-up to teardown.

    Attributes:
        number: 1 for the first one.
        verdict: one of `FINAL`, or ``lost``: the device dropped out, and another attempt follows.
        started_at: in seconds since the epoch.
        duration_s: of set-up, call and teardown.
        message: the first line of what went wrong or why it was skipped; empty if nothing did.
        details: the whole of it, as pytest shows it.
        output: what the session printed on the device, as far as it was fetched.
        artifacts: the folder of this attempt, relative to that of all artifacts; empty if not kept.
        devices: one for each device that was asked for, in that order.
        benchmarks: one for each `remote_benchmark`, in the form of benchmarking/records.py.
        extra: what hooks added, JSON values by name.
    """

    number: int
    verdict: str
    started_at: float = 0.0
    duration_s: float = 0.0
    message: str = ""
    details: str = ""
    output: str = ""
    artifacts: str = ""
    devices: List[RemoteFacts] = field(default_factory=list)
    benchmarks: List[Dict[str, Any]] = field(default_factory=list)
    extra: Dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> Dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Attempt:
        """What `to_json` gave; names that are not known here are left out."""
        known = _known(cls, values)
        known["devices"] = [RemoteFacts.from_json(facts) for facts in values.get("devices", ())]
        return cls(**known)

    @property
    def shares(self) -> List[RemoteFacts]:
        """Its devices as it saw them: without what other tests waited for."""
        return [facts.within(self.started_at, self.duration_s) for facts in self.devices]

    @property
    def names(self) -> Tuple[str, ...]:
        """The devices that were given, each once, in the order of their first use.

        Those that could not be opened are told only if there was no other.
        """
        given = [facts for facts in self.devices if facts.device]
        opened = [facts for facts in given if not facts.error]
        return tuple(dict.fromkeys(facts.device for facts in opened or given))


@dataclass
class TestRecord:
    """A test that asked for a device, with all its attempts.

    Attributes:
        nodeid: pytest's name of it.
        worker: that of the pytest-xdist worker which ran the last attempt; empty without one.
        attempts: in their order; there is at least one.
    """

    __test__ = False  # pytest would collect a class of this name

    nodeid: str
    worker: str = ""
    attempts: List[Attempt] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """That of the last attempt."""
        return self.attempts[-1].verdict

    @property
    def flaky(self) -> bool:
        """Whether it passed, but not at the first attempt."""
        return self.verdict == "passed" and len(self.attempts) > 1

    @property
    def keys(self) -> Tuple[str, ...]:
        """The device keys that it asked for."""
        return tuple(dict.fromkeys(f.key for attempt in self.attempts for f in attempt.devices))


@dataclass
class Run:
    """All that is known of a run, in the process that reports it.

    Attributes:
        started_at, ended_at: in seconds since the epoch; the end is 0 while it goes on.
        command: the arguments of pytest.
        tracker: the address as people write it; empty if the run has its own.
        keys: the device keys of the run.
        tests: those that asked for a device, in the order in which their first attempts ended.
        outcomes: how many tests of the whole run, local ones included, ended how.
        notes: what the user should read: programs of ours that ended, a tracker that is gone.
        exitstatus: of pytest; -1 while the run goes on.
    """

    started_at: float = 0.0
    ended_at: float = 0.0
    command: List[str] = field(default_factory=list)
    tracker: str = ""
    keys: List[str] = field(default_factory=list)
    tests: List[TestRecord] = field(default_factory=list)
    outcomes: Dict[str, int] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    exitstatus: int = -1

    @property
    def duration_s(self) -> float:
        """Seconds from start to end; 0 while it goes on."""
        return max(self.ended_at - self.started_at, 0.0)


def _known(cls: Any, values: Mapping[str, Any]) -> Dict[str, Any]:
    return {f.name: values[f.name] for f in fields(cls) if f.name in values}
