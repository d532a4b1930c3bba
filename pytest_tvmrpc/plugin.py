"""The pytest11 plugin: options, fixtures and hooks; everything else on demand.

Importing it costs next to nothing, and a run in which no test asks for a device starts nothing.
The controller of pytest-xdist owns the tracker and the servers of a run; its workers are given the
tracker's address.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from .fixtures.artifacts import rpc_artifacts
from .fixtures.benchmark import remote_benchmark, rpc_device_model
from .fixtures.devices import remote_device
from .fixtures.remote import _rpc_key, _rpc_leases, remote, remotes
from .fixtures.wider import _rpc_wide_key, remote_session
from .options import add_options, is_worker, options_of

if TYPE_CHECKING:
    from .running.farm import Address, StartServers
    from .running.stack import Stack

__all__ = [  # the fixtures
    "_rpc_key",
    "_rpc_leases",
    "_rpc_wide_key",
    "remote",
    "remote_benchmark",
    "remote_device",
    "remote_session",
    "remotes",
    "rpc_artifacts",
    "rpc_device_model",
]

_stack_key: pytest.StashKey[Stack] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from . import hooks

    pluginmanager.add_hookspecs(hooks)


def pytest_configure(config: pytest.Config) -> None:
    from .running.selection import MARKERS

    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getoption("help", False):
        return  # help is there above all when the settings are wrong
    options = options_of(config)
    if config.getoption("collectonly", False):
        return  # no test runs: there is nothing to lease, and nothing to report
    stack = _register_tests(config)
    if is_worker(config):
        from .running.workers import WorkerHooks

        config.pluginmanager.register(WorkerHooks(config), "tvmrpc-worker")
        return
    from .desk import Desk
    from .running.events import events_of

    desk = Desk(config, options, stack, events_of(config))
    config.pluginmanager.register(desk, "tvmrpc-desk")
    if config.getoption("dist", "no") != "no":  # pytest-xdist is there, and at work
        from .running.workers import register

        register(config, stack.reception, desk.book.run.notes.append)


def _register_tests(config: pytest.Config) -> Stack:
    """What has to be in each process in which tests run."""
    from .fixtures import benchmark
    from .running.attempts import Attempts, Judge
    from .running.debugger import Debugger
    from .running.events import events_of
    from .running.lasting import Courtesy
    from .running.leases import Lessor, lessor_key
    from .running.stack import Stack
    from .running.workers import ask_reception, ask_seen

    options, events = options_of(config), events_of(config)
    is_guest = is_worker(config) and options.tracker is None
    stack = Stack(
        options,
        partial(ask_reception, config) if is_guest else None,
        _starter(config),
        lambda: bool(config.hook.pytest_tvmrpc_start_servers.get_hookimpls()),
        partial(ask_seen, config) if is_worker(config) else lambda key: False,
    )
    config.stash[_stack_key] = stack

    def emit(what: str, key: str, device: str, nodeid: str) -> None:
        fact = {"what": what, "key": key, "device": device, "nodeid": nodeid}
        events.emit({"kind": "lease", **fact, "at": time.time()})

    lessor = config.stash[lessor_key] = Lessor(stack, emit)
    config.pluginmanager.register(Judge(options), "tvmrpc-judge")
    config.pluginmanager.register(Attempts(config, options, lessor), "tvmrpc-attempts")
    config.pluginmanager.register(Courtesy(lessor), "tvmrpc-courtesy")
    config.pluginmanager.register(Debugger(lessor), "tvmrpc-debugger")
    config.pluginmanager.register(benchmark.Gate(config), "tvmrpc-benchmarks")
    return stack


def _starter(config: pytest.Config) -> StartServers:
    options = options_of(config)

    def start(tracker: Address) -> object:
        return config.hook.pytest_tvmrpc_start_servers(
            config=config, tracker=tracker, keys=options.keys, count=options.servers
        )

    return start  # type: ignore[return-value]  # a hook's result has no type


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # before pytest-xdist's own
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    from .running.capacity import count_workers

    return count_workers(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    from .reporting.terminal import header
    from .running.capacity import auto_line

    auto = auto_line(config)
    return [*header(options_of(config)), *([auto] if auto else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from .running.selection import USERS, parametrise

    if any(name in metafunc.fixturenames for name in USERS):
        parametrise(metafunc, options_of(metafunc.config))


@pytest.hookimpl(trylast=True)  # others add marks here
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from .running.selection import refuse_wrong

    refuse_wrong(items, options_of(config))


@pytest.hookimpl(trylast=True)  # after the last fixtures of the session, after the last worker
def pytest_sessionfinish(session: pytest.Session) -> None:
    _close(session.config)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    _close(config)  # whatever the way out was


def _close(config: pytest.Config) -> None:
    stack = config.stash.get(_stack_key, None)
    if stack is not None:
        stack.close()
