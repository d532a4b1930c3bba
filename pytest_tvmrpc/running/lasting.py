"""A session for several tests, leased anew when it is lost. For the fixture ``remote_session``.

Of scopes only pytest knows; here it is seen to that nobody waits for what nobody uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Generator, Hashable, TypeVar

import pytest

from .trial import trial_key

if TYPE_CHECKING:
    from ..client.session import RPCSession
    from .leases import Lessor
    from .selection import Wish
    from .trial import Lease, Trial

T = TypeVar("T")

SHARE_S = 5.0
"""For so long a session is shared, whoever waits: taking turns at each test would be no sharing."""


class LastingRemote:
    """A remote session that outlives its connection.

    It has the attributes and methods of the `RPCSession` that it has at the moment: a device is
    leased when the first of them is used, and another one when the session was lost. Functions,
    modules and tensors belong to one session and are lost with it; what a test needs of them is got
    by `keep`, which makes it again.
    """

    def __init__(self, lessor: Lessor, wish: Wish, finish: Callable[[], object]) -> None:
        self._lessor = lessor
        self._wish = wish
        self._finish = finish
        self._lease: Lease | None = None
        self._kept: dict[Hashable, Any] = {}

    @property
    def session(self) -> RPCSession:
        """The session, on another device if the last one was lost.

        Raises:
            NoDeviceError: there is no device; the message says why.
        """
        __tracebackhide__ = True
        lease = self._lease
        if lease is None or lease.session.closed:
            lease = self._renew()
        return lease.session

    def keep(self, make: Callable[[RPCSession], T]) -> T:
        """What `make` returns for the session; made again only when there is another session.

        Args:
            make: called with the session, for example to upload a library and load it. A function
                that is defined anew in each test is the same if its text stands at the same place
                and it uses the same values from around it.
        """
        __tracebackhide__ = True
        session, name = self.session, _name_of(make)
        if name not in self._kept:
            self._kept[name] = make(session)
        kept: T = self._kept[name]
        return kept

    def close(self) -> None:
        """Give the device back; the next use takes one again."""
        lease, self._lease = self._lease, None
        self._kept.clear()
        if lease is not None:
            trial = self._trial
            if not trial.is_over and any(used is lease for used, _ in trial.shared):
                self._lessor.collect_output(trial, lease)
            self._lessor.give_back(lease, self._trial.item.nodeid)

    def retire(self) -> None:
        """Give the device back between two tests, and end all fixtures that are made of it.

        Their next user sets them up anew.
        """
        self._finish()

    def end(self) -> None:
        """The same when its fixture ends: with its last test, or before one that has another."""
        lease, trial = self._lease, self._trial
        if not trial.outcomes:  # still in the set-up of that other one, which never had it
            trial.shared[:] = [pair for pair in trial.shared if pair[0] is not lease]
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.session, name)

    def __repr__(self) -> str:
        lease = self._lease
        return f"<LastingRemote: {'no session' if lease is None else repr(lease.session)}>"

    @property
    def keys(self) -> tuple[str, ...]:
        """Of which it leases a device."""
        return self._wish.keys

    @property
    def lease(self) -> Lease | None:
        """What it has at the moment."""
        return self._lease

    @property
    def _trial(self) -> Trial:
        trial = self._lessor.current
        assert trial is not None  # whoever has this got it in a test
        return trial

    def _renew(self) -> Lease:
        __tracebackhide__ = True
        self.close()
        trial = self._trial
        lease = self._lessor.take(trial, self._wish, shared=True)
        self._lease = lease
        trial.shared.append((lease, None))
        item: pytest.Item = trial.item
        try:
            item.ihook.pytest_tvmrpc_prepare_session(item=item, remote=lease.session, key=lease.key)
        except BaseException:  # nobody shall have what was prepared by half
            self.close()
            raise
        return lease


class Courtesy:
    """The hooks that end a test's part in a shared session.

    Args:
        lessor: who has the sessions.
    """

    def __init__(self, lessor: Lessor) -> None:
        self._lessor = lessor

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Keep what the test printed there, and let others have the device if they wait for it."""
        result = yield
        trial = item.stash.get(trial_key, None)
        if trial is not None and not trial.is_over:
            for used, _ in trial.shared:
                self._lessor.collect_output(trial, used)
        for lasting in tuple(self._lessor.lasting):
            lease = lasting.lease
            if lease is None or lease.session.closed or lease.held_s < SHARE_S:
                continue
            if self._lessor.stack.others_wait(lease.key):
                lasting.retire()
        return result


def _name_of(make: Callable[..., Any]) -> Hashable:
    """What a function is known by: itself, or what it is made of if that can be compared."""
    code = getattr(make, "__code__", None)
    if code is None or getattr(make, "__self__", None) is not None:
        return make
    try:
        around = tuple(cell.cell_contents for cell in make.__closure__ or ())
        name = (code, around, make.__defaults__, tuple((make.__kwdefaults__ or {}).items()))
        hash(name)
    except (TypeError, ValueError):  # a list, say, or a variable that is not set yet
        return make
    return name
