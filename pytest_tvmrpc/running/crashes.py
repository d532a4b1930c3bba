"""A worker that dies: its test is reported once, with its devices, and may run again elsewhere.

Replacing the worker is pytest-xdist's matter.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Generator, Mapping

import pytest

from ..options import options_of
from .events import events_of
from .trial import Earlier

if TYPE_CHECKING:
    from .workers import Needs

    Tell = Callable[[str, Earlier], None]
    """Told a test, and what is known of its attempts that have ended."""


@dataclass
class Holding:
    """A device that a test has asked for and not given back.

    Attributes:
        key: what was asked for.
        nodeid: the test for which it was asked.
        device: what was given; empty while it waits.
        asked_at, given_at: in seconds since the epoch, by the clock of the worker.
        given: the same moment by the monotonic clock of the controller.
    """

    key: str
    nodeid: str
    asked_at: float
    device: str = ""
    given_at: float = 0.0
    given: float = 0.0


class Ledger:
    """Who has which device now, by worker."""

    def __init__(self) -> None:
        self._open: dict[str, list[Holding]] = {}

    def hear(self, event: Mapping[str, Any]) -> None:
        """A listener: keeps count of the leases."""
        if event["kind"] != "lease":
            return
        held = self._open.setdefault(event.get("worker", ""), [])
        what, key, device = event["what"], event["key"], event["device"]
        if what == "asked":
            held.append(Holding(key, event["nodeid"], event["at"]))
            return
        # A worker waits for one device at a time, and until it has one, that has no name.
        name = device if what == "returned" else ""
        found = next((one for one in reversed(held) if one.device == name), None)
        if found is None:
            return
        if what == "given":
            found.key, found.device = key, device  # it may have been asked for one of several keys
            found.given_at, found.given = event["at"], time.monotonic()
        else:
            held.remove(found)

    def of(self, worker: str) -> list[Holding]:
        """What this worker has, and what it waits for."""
        return list(self._open.get(worker, ()))

    def held(self) -> Counter[str]:
        """The devices that this run has, by key; may be asked in any thread."""
        return Counter(one.key for one in self._all() if one.device)

    def is_waiting(self) -> bool:
        """Whether a test waits for a device."""
        return any(not one.device for one in self._all())

    def _all(self) -> list[Holding]:
        return [one for held in tuple(self._open.values()) for one in tuple(held)]


class Begun:
    """The tests that have begun, each until it is known to have crashed; hooks of the controller.

    One that ended stays here: its worker may crash before that is counted as done. Of tests with
    the same node id, all have begun when one has.
    """

    def __init__(self) -> None:
        self._at: dict[str, tuple[float, float]] = {}

    def __contains__(self, nodeid: str) -> bool:
        return nodeid in self._at

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note when a test began."""
        self._at[nodeid] = _now()

    def forget(self, nodeid: str) -> tuple[float, float]:
        """When it began, by the clock on the wall and for spans; now, if it did not."""
        return self._at.pop(nodeid, _now())


class Crashes:
    """The hooks of the controller around a crash.

    Args:
        config: of the controller.
        needs: which tests are remote, and how often they may run again.
        ledger: who has which device.
        begun: the tests that have begun.
        tell: told of a test before it is run again.
    """

    def __init__(
        self, config: pytest.Config, needs: Needs, ledger: Ledger, begun: Begun, tell: Tell
    ) -> None:
        self._config = config
        self._needs = needs
        self._ledger = ledger
        self._begun = begun
        self._tell = tell
        self._crashes = 0
        self._earlier: dict[str, Earlier] = {}  # of each test, the attempts that have ended
        self._lost: list[Holding] = []  # by the worker that went down last

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the attempts of a test that a worker made by itself."""
        attempt = getattr(report, "rpc", None)
        if report.when == "teardown" and attempt:
            is_lost = attempt["verdict"] == "lost"
            devices = [facts["device"] for facts in attempt["devices"]] if is_lost else []
            self._count(report.nodeid, is_lost, devices)

    def _count(self, nodeid: str, is_lost: bool, devices: list[str]) -> Earlier:
        """One more attempt of a test has ended, and was lost on these devices."""
        before = self._earlier.get(nodeid, Earlier())
        tried = dict.fromkeys([*before.tried, *filter(None, devices)])
        now = Earlier(before.attempts + 1, before.losses + is_lost, tuple(tried))
        self._earlier[nodeid] = now
        return now

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Note what a crashed worker had; the tracker takes it back as the connection is gone."""
        if not error:
            return
        self._crashes += 1
        worker = node.gateway.id
        self._lost = self._ledger.of(worker)
        for one in self._lost:
            events_of(self._config).deliver(
                {
                    "kind": "lease",
                    "what": "returned" if one.device else "gave_up",
                    "key": one.key,
                    "device": one.device,
                    "nodeid": one.nodeid,
                    "at": time.time(),
                    "worker": worker,
                }
            )

    @pytest.hookimpl(wrapper=True)
    def pytest_handlecrashitem(
        self, crashitem: str, report: pytest.TestReport, sched: Any
    ) -> Generator[None, object, object]:
        """Say what is known of the test, and have it run again if that is wanted.

        Around the other plugins: if one of them, pytest-rerunfailures say, runs it again, it does
        not need to be done twice.
        """
        # A test that asks by request.getfixturevalue() is known by what it has.
        is_remote = crashitem in self._needs.keys or crashitem in [x.nodeid for x in self._lost]
        began = self._begun.forget(crashitem)
        goes_on = not (is_remote or self._needs.keys) or self._goes_on()
        if not goes_on:  # it would be run after all, or forgotten, according to who has time left
            sched.mark_test_pending = _forget
        if is_remote:  # and whoever gets it has to know
            now = self._count(crashitem, True, [one.device for one in self._lost])
            self._tell(crashitem, now)
        result = yield
        if not goes_on:
            report.outcome = "failed"
        if not is_remote:
            return result
        reruns = self._needs.reruns.get(crashitem, options_of(self._config).reruns)
        if report.outcome == "failed" and now.losses <= reruns and goes_on:
            self._run_again(crashitem, report, sched)
        self._describe(report, now.attempts, began)
        return result

    def _goes_on(self) -> bool:
        """Whether a test that is put back will be run: not if pytest-xdist ends the run now."""
        from xdist.dsession import get_default_max_worker_restart

        most = get_default_max_worker_restart(self._config)
        session = self._config.pluginmanager.getplugin("dsession")
        return (most is None or self._crashes <= most) and not session.shouldstop

    def _run_again(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        try:
            sched.mark_test_pending(crashitem)
        except NotImplementedError:
            return  # some ways of --dist cannot; it stays a failure
        report.outcome = "rerun"  # type: ignore[assignment]  # the word of pytest-rerunfailures

    def _describe(self, report: pytest.TestReport, number: int, began: tuple[float, float]) -> None:
        """Complete the message, and add the attempt, as a worker does for tests that end."""
        from ..records import Attempt, RemoteFacts

        now_at, now = _now()
        started_at, started = began
        # Leases are noted at once, a test's begin only when the controller comes to it.
        own = [one.given for one in self._lost if one.device and one.nodeid == report.nodeid]
        late_s = started - min([started, *own])
        started_at, started = started_at - late_s, started - late_s
        devices = [
            RemoteFacts(
                key=one.key,
                device=one.device,
                asked_at=one.asked_at,
                queued_s=max((one.given_at or now_at) - one.asked_at, 0.0),
                held_s=now - one.given if one.device else 0.0,
            )
            for one in self._lost
        ]
        names = ", ".join(one.device for one in self._lost if one.device)
        if names:
            report.longrepr = f"{report.longrepr}; it had {names}"
        attempt = Attempt(
            number=number,
            verdict="failed" if report.outcome == "failed" else "lost",
            started_at=started_at,
            duration_s=now - started,
            message=str(report.longrepr),
            devices=devices,
        )
        report.rpc = attempt.to_json()  # type: ignore[attr-defined]
        # As on the reports that a worker makes.
        report.worker_id = report.node.gateway.id  # type: ignore[attr-defined]


def _now() -> tuple[float, float]:
    """By the clock on the wall, and for spans."""
    now_at = time.time()
    return now_at, time.monotonic()


def _forget(item: str) -> None:
    """Instead of a scheduler's `mark_test_pending`."""
