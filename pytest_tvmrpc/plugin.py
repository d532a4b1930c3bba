"""The pytest11 plugin: options, fixtures and hooks; everything else on demand.

Importing it costs next to nothing, and a run in which no test asks for a device starts nothing.
The controller of pytest-xdist owns the tracker and the servers of a run; its workers are given the
tracker's address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generator

import pytest

from .fixtures.devices import remote_device
from .fixtures.remote import _rpc_key, _rpc_leases, leases_key, remote, stack_key
from .fixtures.stack import Stack, name_option
from .options import WORKER_INPUT, add_options, options_of

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__ = ["_rpc_key", "_rpc_leases", "remote", "remote_device"]  # the fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("help", False):
        return  # help is there above all when the settings are wrong
    options = options_of(config)
    given = getattr(config, "workerinput", {}).get(WORKER_INPUT)
    reception = given["reception"] if given else None
    config.stash[stack_key] = Stack(options, tuple(reception) if reception else None)
    if not _is_worker(config):
        config.pluginmanager.register(Section(config), "tvmrpc-section")
        if config.pluginmanager.hasplugin("xdist"):
            config.pluginmanager.register(ControllerHooks(), "tvmrpc-controller")


@pytest.hookimpl(trylast=True)  # after the last fixtures of the session, after the last worker
def pytest_sessionfinish(session: pytest.Session) -> None:
    _close(session.config)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    _close(config)  # whatever the way out was


def _close(config: pytest.Config) -> None:
    stack = config.stash.get(stack_key, None)
    if stack is not None:
        stack.close()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


class Section:
    """What the user sees of the devices; only where pytest writes to a terminal, not in workers."""

    def __init__(self, config: pytest.Config) -> None:
        from .reporting.facts import Tally

        self._config = config
        self._tally = Tally()

    def pytest_report_header(self) -> list[str]:
        from .reporting.terminal import header

        return header(options_of(self._config))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tally.add_report(report)

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        from .reporting.terminal import write_section

        write_section(terminalreporter, self._tally, self._config.stash[stack_key].notes)


class ControllerHooks:
    """The hooks of pytest-xdist; they are only known to pytest when it is installed."""

    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker that is about to start the same options, and the way to the tracker."""
        config = node.config
        node.workerinput[WORKER_INPUT] = {
            "options": options_of(config).to_json(),
            "reception": config.stash[stack_key].reception(),
        }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "_rpc_key" in metafunc.fixturenames:
        keys = options_of(metafunc.config).keys
        if len(keys) > 1:
            metafunc.parametrize("_rpc_key", keys, indirect=True, ids=keys)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and leases_key in item.stash:
        name_option(call.excinfo.value)
    report = yield
    if call.when == "teardown":  # by now, the fixtures have closed the sessions
        leases = item.stash.get(leases_key, [])
        if leases:
            from .reporting.facts import RemoteFacts

            report.rpc = [RemoteFacts.of(lease).to_json() for lease in leases]  # type: ignore[attr-defined]
            leases.clear()  # a rerun of the test starts anew
    return report
