"""A proxy with many servers behind it, killed and started again."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import ConnectionLostError

from .trial import ADD_ONE, LOOPBACK, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BACK_LIMIT_S = 10.0
CONTENT = bytes(range(256)) * 1024


def proxy_restarts(trial: Trial) -> None:
    """A proxy with 20 servers is killed amid sessions: the servers return to the next proxy."""
    pairs, times = (4 if trial.quick else 20), trial.times(20)
    proxy = _proxy(trial, 0)
    keys = [f"phone{number}" for number in range(pairs)]
    servers = [
        trial.start(rpc.Server(LOOPBACK, proxy.port, is_proxy=True, key=key, log=trial.log))
        for key in keys
    ]
    served = _serve_all(proxy.port, keys)
    for server in servers[:4]:
        trial.watch(f"server of {keys[servers.index(server)]}", server)
    back, told = [], 0
    for _ in trial.rounds(times, "restarts"):
        sessions = [rpc.connect(LOOPBACK, proxy.port, key) for key in keys[::2]]
        functions = [session.get_function(ADD_ONE) for session in sessions]
        os.kill(proxy.program.pid, signal.SIGKILL)
        proxy.terminate()
        told += sum(map(_is_over, functions))
        del functions
        for session in sessions:
            session.close()
        proxy = _proxy(trial, proxy.port)
        started = time.monotonic()
        served += _serve_all(proxy.port, keys)
        back.append(time.monotonic() - started)
    trial.watch("the last proxy", proxy)
    served += _serve_all(proxy.port, keys)
    due = times * len(keys[::2])
    trial.say_done(
        f"{pairs} servers, {times} kills with {len(keys[::2])} sessions in progress; "
        f"{served} sessions of {len(CONTENT) >> 10} KiB up and down, {pairs} at once"
    )
    trial.figure(f"all served again after {max(back):.2f} s at most")
    trial.figure(f"{told} of {due} sessions ended with ConnectionLostError")
    trial.check(max(back) < BACK_LIMIT_S, f"all were served after {max(back):.1f} s only")
    trial.check(told == due, f"{due - told} sessions ended otherwise")


def _proxy(trial: Trial, port: int) -> rpc.Proxy:
    proxy: rpc.Proxy = trial.start(
        rpc.Proxy(port=port, port_end=port + 1, timeout_client=30, log=trial.log)
    )
    return proxy


def _is_over(function: Callable[[int], object]) -> bool:
    try:
        function(1)
    except ConnectionLostError:
        return True
    return False


def _serve_all(port: int, keys: Sequence[str]) -> int:
    """A session with each of them, at the same time; their number."""

    def work(key: str) -> int:
        with rpc.connect(LOOPBACK, port, key, handshake_timeout=30) as remote:
            remote.upload(CONTENT, "a.bin")
            if remote.download("a.bin") != CONTENT:
                raise ValueError(f"{key} gave back something else")
        return 1

    with ThreadPoolExecutor(len(keys)) as pool:
        return sum(pool.map(work, keys))
