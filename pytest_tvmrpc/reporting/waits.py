"""Who in this run has a device or waits for one, and how that is said. Asks nobody, prints nothing.

What a tracker knows of others is told to it; see progress.py, which asks.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Collection, Mapping, NamedTuple, Sequence

from ..wording import seconds

if TYPE_CHECKING:
    from ..protocol.farm import Farm

MOST_USERS = 3
"""Users who are named; the others are a number."""


class Holding(NamedTuple):
    """A device that a test has; `since` is a time of the monotonic clock."""

    device: str
    nodeid: str
    worker: str
    since: float


class Wait(NamedTuple):
    """A test that asked for a device of one of these keys and has none yet."""

    keys: tuple[str, ...]
    nodeid: str
    worker: str
    since: float


class Watch:
    """The devices of a run as its lease events tell of them.

    Attributes:
        waits: those who wait, the longest first.
        devices: every device that the run has had, by name; None if nobody has it now.
    """

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.devices: dict[str, Holding | None] = {}

    def hear(self, event: Mapping[str, Any], now: float) -> None:
        """Take in a lease event that has just happened."""
        what, device, nodeid = event["what"], event["device"], event["nodeid"]
        worker = event.get("worker", "")
        if what == "asked":
            self.waits.append(Wait(tuple(event["key"].split(", ")), nodeid, worker, now))
        elif what == "returned":
            self.devices[device] = None
        else:
            self._end_wait(nodeid, worker, event["key"])
            if what == "given":
                self.devices[device] = Holding(device, nodeid, worker, now)

    def _end_wait(self, nodeid: str, worker: str, key: str) -> None:
        keys = set(key.split(", "))  # who asked for any of several is given a device of one
        for wait in self.waits:
            if (wait.nodeid, wait.worker) == (nodeid, worker) and keys <= set(wait.keys):
                self.waits.remove(wait)
                return

    @property
    def held(self) -> set[str]:
        """The devices that tests of this run have."""
        return {device for device, holding in self.devices.items() if holding is not None}

    def waits_by_keys(self) -> dict[tuple[str, ...], list[Wait]]:
        """Those who wait for the same, the longest first."""
        found: dict[tuple[str, ...], list[Wait]] = {}
        for wait in self.waits:
            found.setdefault(wait.keys, []).append(wait)
        return found


def waiting_line(waits: Sequence[Wait], farm: Sequence[str], now: float) -> str:
    """What is said of tests that wait for the same keys.

    Args:
        waits: at least one, the longest first.
        farm: what is known of each key.
        now: by the monotonic clock.
    """
    first = waits[0]
    who = f"{short_name(first.nodeid)} waits for {elapsed(now - first.since)}"
    if len(waits) > 1:
        who = f"{len(waits)} tests wait; {who}"
    return f"waiting for {' or '.join(first.keys)}: {'; '.join([*farm, who])}"


def describe_farm(
    farm: Farm, key: str, ours: Collection[str], nodeids: Collection[str], user: str
) -> str:
    """What our tracker says of a key: ``4 busy (this run 1, ada@ws12 3), position 3``.

    Args:
        farm: the tracker's answer.
        key: the device key.
        ours: the names of the devices that tests of this run have.
        nodeids: the tests of this run that wait for the key.
        user: what this run is called, as `user_of` has it.
    """
    servers = [server for server in farm.servers if server.key == key]
    if not servers:
        return "no server has this key"
    # By its value: a newer tracker may know more of them.
    states = Counter(str(getattr(server.state, "value", server.state)) for server in servers)
    users: Counter[str] = Counter()
    for server in servers:
        if f"{key}@{server.address}" in ours:
            users["this run"] += 1
        elif server.holder is not None:
            users[user_of(server.holder.user)] += 1
    parts = []
    for state in ("busy", "offered", "silent", "free"):
        if states[state]:
            named = f" ({_users(users)})" if state == "busy" and users else ""
            parts.append(f"{states[state]} {state}{named}")
    own = [one for one in farm.waiting if one.key == key and user_of(one.user) == user]
    # Another run of the same user is told apart by its tests, unless it has the same ones.
    same = [one for one in own if one.user.endswith(tuple(nodeids))]
    if own:
        parts.append(f"position {min(one.position for one in same or own)}")
    return ", ".join(parts)


def describe_summary(summary: Mapping[str, Any], key: str) -> str:
    """What TVM's tracker says of a key, which knows no names: ``0 of 4 free, 6 requests wait``."""
    servers = [one for one in summary["server_info"] if one["key"] == f"server:{key}"]
    queue = summary["queue_info"].get(key, {"free": 0, "pending": 0})
    if not servers:
        return "no server has this key"
    pending = queue["pending"]
    requests = "1 request waits" if pending == 1 else f"{pending} requests wait"
    return f"{queue['free']} of {len(servers)} free, {requests}"


def _users(users: Counter[str]) -> str:
    most = users.most_common(MOST_USERS)
    rest = sum(users.values()) - sum(count for _, count in most)
    named = [f"{name} {count}" for name, count in most]
    return ", ".join([*named, f"others {rest}"] if rest else named)


def user_of(text: str) -> str:
    """Whose a request is, without the process and the test: those of one user are counted as one.

    ``ada@ws12 pid 7 a.py::test_conv`` is ada@ws12's; ``ci-118 a.py::test_conv`` is that of a job.
    """
    return re.sub(r" pid \d+( .*)?$| \S*::.*$", "", text, count=1)


def short_name(nodeid: str) -> str:
    """A test without its file, for a line that is short."""
    return nodeid.rpartition("::")[2] or nodeid


def elapsed(duration_s: float) -> str:
    """How long something has gone on, in whole seconds: ``40 s``, ``12 min 5 s``."""
    if duration_s < 120:
        return f"{int(max(duration_s, 0))} s"
    return seconds(int(duration_s))
