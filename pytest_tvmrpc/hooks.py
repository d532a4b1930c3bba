"""The hooks of this plugin, for a conftest.py or another plugin to implement. Only their names
and promises: who calls them is running/.

Each is called where the test runs, in a worker of pytest-xdist if there are some, unless it says
otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Protocol, Sequence

import pytest

if TYPE_CHECKING:
    from .client.session import RPCSession
    from .records import Attempt, Run

    class Closable(Protocol):
        """A program that was started for the run."""

        def terminate(self) -> object:
            """End it; called once, at the end of the run."""


@pytest.hookspec(firstresult=True)
def pytest_tvmrpc_start_servers(
    config: pytest.Config, tracker: tuple[str, int], keys: Sequence[str], count: int
) -> Sequence[Closable] | None:
    """Start the servers of a run that has a tracker of its own, instead of local ones.

    Called once, in the main process, when the first test asks for a device; under pytest-xdist not
    in its main thread.

    Args:
        tracker: host and port at which the servers have to offer themselves.
        keys: the device keys of the run.
        count: how many servers each key shall have.

    Returns:
        What was started, each with a method ``terminate()``; None to leave it to the others.
    """


@pytest.hookspec(firstresult=True)
def pytest_tvmrpc_select_device(
    item: pytest.Item, key: str, device: str, tried: Sequence[str]
) -> bool | None:
    """Say whether a test may have the device that the tracker gave.

    After a refusal another device is asked for, and the refused one is given back as soon as
    somebody else waits for it; if there is no other one in half of the time that the test may wait,
    it is taken nevertheless.

    Args:
        device: ``key@host:port``.
        tried: the devices on which earlier attempts of this test dropped out. The plugin itself
            refuses these.

    Returns:
        False to refuse, True to take, None to leave it to the others.
    """


@pytest.hookspec(firstresult=True)
def pytest_tvmrpc_classify_error(item: pytest.Item, error: BaseException, when: str) -> str | None:
    """Say whose fault it is that a test which has devices raised.

    Args:
        when: ``setup``, ``call`` or ``teardown``.

    Returns:
        ``"test"``: the test's, or that of the function on the device; never run again.
        ``"lost"``: the device dropped out; the test may run again, and is `infra` in the end.
        ``"crashed"``: the session's process died; it may run again, and has failed in the end.
        ``"infra"``: the farm's; it is not run again.
        None to leave it to the others.
    """


def pytest_tvmrpc_prepare_session(item: pytest.Item, remote: RPCSession, key: str) -> None:
    """Prepare a session before the test gets it: upload what all need, set a power mode.

    What is raised here counts as raised in the set-up of the test.

    Args:
        item: the test, or the first one that uses a session of wider scope.
        remote: the session, just opened.
    """


def pytest_tvmrpc_add_to_report(item: pytest.Item, attempt: Attempt) -> Mapping[str, Any] | None:
    """Add facts of your own to what is reported of an attempt, when it has ended.

    Returns:
        JSON values by name. They stand in the attribute ``extra`` of the attempt: in the file of
        ``--rpc-report`` and on the page of ``--rpc-html``.
    """


def pytest_tvmrpc_run_finished(config: pytest.Config, run: Run) -> None:
    """Look at the whole run, in the main process, before its reports are written.

    You may add to ``run.notes``; they are shown at the end.
    """
