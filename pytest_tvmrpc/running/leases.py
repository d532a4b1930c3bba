"""Devices for a test: taken one by one, given back all together. Knows no tracker; see stack.py."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Sequence

import pytest

from ..errors import DeadlineError, StartError, UnknownKeyError
from ..records import RemoteFacts
from .logs import SessionLog, log_of
from .selection import Wish, no_key
from .stack import OPENING_ERRORS, Stack, TooManyError, name_option
from .trial import Lease, Trial
from .verdict import NoDeviceError

if TYPE_CHECKING:
    from ..client.session import RPCSession
    from .lasting import LastingRemote
    from .search import Given, Missed
    from .trial import Emit

OUTPUT_NBYTES = 64 << 10
"""How much of what a device printed is shown and kept: the last part."""

OUTPUT_S = 3.0
"""How long it may take to ask a device for it; one that hangs is what a test may have found."""

TURN_S = 2.0
"""About how long a test that needs several devices keeps some of them while others are missing."""

lessor_key: pytest.StashKey[Lessor] = pytest.StashKey()
"""On a config: who takes the devices of this process."""


class Lessor:
    """Takes devices on behalf of tests, and tells who has what.

    Args:
        stack: where they come from.
        emit: told of each device that is asked for, given and returned.

    Attributes:
        held: all that this process has at the moment.
        lasting: the sessions of wider scope.
        current: the attempt that goes on, or the last one.
    """

    def __init__(self, stack: Stack, emit: Emit) -> None:
        self.stack = stack
        self.held: list[Lease] = []
        self.lasting: list[LastingRemote] = []
        self.current: Trial | None = None
        self._emit = emit

    def take(
        self, trial: Trial, wish: Wish, *, shared: bool = False, wait_s: float | None = None
    ) -> Lease:
        """A device for a test.

        Args:
            trial: the attempt on whose account it is.
            wish: what is asked for.
            shared: whether it is for a fixture of wider scope.
            wait_s: for how long; None: as long as the wish allows.

        Raises:
            NoDeviceError: none was given; the cause says why.
            TooManyError: the test asks for more than the run has.
            pytest.skip.Exception: no server has such a key, and the run does not require it.
        """
        __tracebackhide__ = True
        item = trial.item
        if not wish.keys:  # it is for others, which no farm can help
            pytest.skip(no_key(item, self.stack.options))
        self._free_idle(trial, wish)
        asked_at, started = time.time(), time.monotonic()
        keys = ", ".join(wish.keys)
        missed: list[Missed] = []
        self._emit("asked", keys, "", item.nodeid)
        try:
            given = self._request(trial, wish, wait_s, missed)
        except BaseException as error:
            self._emit("gave_up", keys, "", item.nodeid)
            if isinstance(error, OPENING_ERRORS):
                own = _own_session(trial, wish)
                if isinstance(error, TooManyError):
                    error.args = (f"{error}{own}",)
                    raise
                waited_s = time.monotonic() - started
                in_queue_s = waited_s - _book(trial, missed)
                trial.waits.append(RemoteFacts(keys, "", asked_at, in_queue_s, shared=shared))
                is_first = trial.number == 1 and not any(map(self.stack.has_seen, wish.keys))
                if isinstance(error, UnknownKeyError) and is_first:
                    self._lack(str(error), error)
                raise _no_device(self.stack, wish, waited_s, own, error) from error
            raise
        lease = Lease(
            given.key,
            given.device,
            given.session,
            asked_at,
            SessionLog(log_of(self.stack.logs, given.session.peer[1]) if self.stack.logs else ""),
            shared,
        )
        lease.queued_s = time.monotonic() - started - lease.connect_s - _book(trial, missed)
        self.held.append(lease)
        self._emit("given", given.key, given.device, item.nodeid)
        return lease

    def _request(
        self, trial: Trial, wish: Wish, wait_s: float | None, missed: list[Missed]
    ) -> Given:
        __tracebackhide__ = True
        return self.stack.request(
            wish,
            Counter(lease.key for lease in self.held if not lease.session.closed),
            trial.item.nodeid,
            lambda key, device: self._accepts(trial, key, device),
            wish.queue_s if wait_s is None else wait_s,
            missed,
        )

    def _free_idle(self, trial: Trial, wish: Wish) -> None:
        """Give back sessions of wider scope that the test does not use, before it waits for one."""
        used = [lease for lease, _ in trial.shared]
        idle = [
            lasting
            for lasting in self.lasting
            if lasting.lease is not None
            and lasting.lease not in used
            and lasting.lease.key in wish.keys
            and not lasting.lease.session.closed
        ]
        if idle and not self.stack.has_free(wish.keys):
            for lasting in idle:
                lasting.retire()

    def give_back(self, lease: Lease, nodeid: str) -> None:
        """Close the session; may be called twice."""
        if lease.close():
            self.held.remove(lease)
            self._emit("returned", lease.key, lease.device, nodeid)

    def mark_output(self, lease: Lease) -> None:
        """What was printed so far belongs to the tests before; costs a round trip."""
        from ..errors import RPCError

        try:
            with lease.session.limited(OUTPUT_S):
                found = lease.session.output(limit=0)
        except RPCError:  # it is over; the test will find out, and say so
            found = None
        lease.log.read()
        if found is not None:
            lease.output_at = found.end

    def read_output(self, lease: Lease) -> str:
        """What the session printed since this was last asked; empty if nobody can tell."""
        from ..errors import RPCError

        session, found = lease.session, None
        if not session.closed:
            try:
                with session.limited(OUTPUT_S):
                    found = session.output(lease.output_at, OUTPUT_NBYTES)
            except RPCError:  # it is over now, or it hangs; its server's log may still tell
                found = None
        if found is None:
            content = lease.log.read()
            return _text(content[-OUTPUT_NBYTES:], max(len(content) - OUTPUT_NBYTES, 0))
        lease.output_at = found.end
        lease.log.read()  # what the session has told is in there, too
        return _text(found.content, found.dropped)

    def collect_output(self, trial: Trial, lease: Lease) -> None:
        """Keep what an attempt has printed there, if all of that is kept."""
        if self.stack.options.artifacts == "on" and not lease.session.closed:
            trial.output += self.read_output(lease)

    def _accepts(self, trial: Trial, key: str, device: str) -> bool:
        mine = [lease.device for lease in self.held if not lease.session.closed]
        if device in trial.tried or device in mine:  # whoever has it waits for it in vain
            return False
        answer = trial.item.ihook.pytest_tvmrpc_select_device(
            item=trial.item, key=key, device=device, tried=trial.tried
        )
        return answer is not False

    def _lack(self, reason: str, cause: Exception) -> None:
        """Nobody has such a device: the test is skipped, or an error if the run requires it."""
        __tracebackhide__ = True
        if self.stack.options.require:
            raise NoDeviceError(f"no device, and --rpc-require asks for one: {reason}") from cause
        pytest.skip(reason)


class Leases:
    """The devices of one attempt of a test.

    Args:
        lessor: who takes them.
        trial: the attempt.
    """

    def __init__(self, lessor: Lessor, trial: Trial) -> None:
        self._lessor = lessor
        self._trial = trial

    def take(self, key: str | None = None, wait_s: float | None = None) -> RPCSession:
        """A session on one more device, of this key or as the test wishes.

        Raises: as `Lessor.take`.
        """
        __tracebackhide__ = True
        trial = self._trial
        wish = trial.wish if key is None else trial.wish._replace(keys=(key,))
        lease = self._lessor.take(trial, wish, wait_s=wait_s)
        trial.leases.append(lease)
        trial.item.ihook.pytest_tvmrpc_prepare_session(
            item=trial.item, remote=lease.session, key=lease.key
        )
        return lease.session

    def take_all(self, count: int) -> list[RPCSession]:
        """Sessions on several devices, or on none.

        Two tests that each have one and wait for the other's would wait for ever. So none holds
        what it has for longer than a turn.

        Raises: as `Lessor.take`.
        """
        __tracebackhide__ = True
        end = time.monotonic() + self._trial.wish.queue_s
        while True:
            taken: list[RPCSession] = []
            while len(taken) < count:
                left_s = end - time.monotonic()
                turn_s = TURN_S * random.uniform(0.5, 1.5)
                wait_s = min(left_s, turn_s) if taken else left_s
                try:
                    taken.append(self.take(wait_s=max(wait_s, 0.001)))
                except NoDeviceError as error:
                    if not _is_wait(error) or end - time.monotonic() <= 0.001:
                        if count == 1:
                            raise
                        had = f"this test asks for {count} devices at once and was given"
                        text = f"{error}; {had} {len(taken)}"
                        raise NoDeviceError(text) from error.__cause__
                    break
            else:
                return taken
            self.close()

    def close(self) -> None:
        """Give all back, the last one first."""
        trial = self._trial
        for lease in reversed(trial.leases):
            self._lessor.collect_output(trial, lease)
            self._lessor.give_back(lease, trial.item.nodeid)


def _is_wait(error: NoDeviceError) -> bool:
    cause = error.__cause__
    return isinstance(cause, DeadlineError) and cause.argument == "wait_timeout"


def _book(trial: Trial, missed: Sequence[Missed]) -> float:
    """Put down the devices that could not be opened, each once; for how many seconds in all."""
    for name in dict.fromkeys(one.device for one in missed):
        mine = [one for one in missed if one.device == name]
        took_s, error = sum(one.took_s for one in mine), str(mine[-1].error)
        trial.waits.append(RemoteFacts(mine[0].key, name, mine[0].at, 0.0, took_s, error=error))
    return sum(one.took_s for one in missed)


def _own_session(trial: Trial, wish: Wish) -> str:
    """What to say of a test that waits for what it has itself."""
    mine = [x.device for x, _ in trial.shared if x.key in wish.keys and not x.session.closed]
    return f"; this test's own fixture remote_session has {', '.join(mine)}" if mine else ""


def _no_device(
    stack: Stack, wish: Wish, waited_s: float, own: str, error: Exception
) -> NoDeviceError:
    from ..network import format_address
    from ..wording import seconds

    name_option(error)
    keys = " or ".join(map(repr, wish.keys))
    text = str(error)
    says_so = text.startswith("no device") and len(wish.keys) == 1
    message = text if says_so else f"no device {keys}: {text}"
    message += f"{own}; waited {seconds(waited_s)}"
    if stack.options.tracker and not isinstance(error, StartError):
        address = format_address(*stack.options.tracker)
        message += f"; to find the cause: tvmrpc doctor --tracker {address} --key {wish.keys[0]}"
    return NoDeviceError(message)


def _text(content: bytes, dropped: int) -> str:
    text = content.decode("utf-8", "replace")
    return f"(the first {dropped} bytes are left out)\n{text}" if dropped else text
