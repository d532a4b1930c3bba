"""Sessions that end badly, and many that do not: does anything of them stay?"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import (
    ConnectionLostError,
    RPCSessionTimeoutError,
    SessionCrashedError,
)

from ..bench import machine
from ..bench.child import environment
from .footprint import MEGABYTE
from .trial import ADD_ONE, LOOPBACK, SkipError, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDS = {
    "segfault": "was killed by SIGSEGV",
    "abort": "was killed by SIGABRT",
    "exit_three": "exited with 3",
    "kill": "was killed by SIGKILL",
}

WARM_UP = 8

SMALL_DISK = """
mount -t tmpfs -o size=8m tmpfs {folder} && TMPDIR={folder} exec {python} -S \
-m pytest_tvmrpc.exec.rpc_server --port 0
"""


def crashes(trial: Trial) -> None:
    """A kernel ends its session's process, 1,000 times: the client is told how, nothing stays."""
    server = trial.server()
    count, told, slowest = trial.times(1000), 0, 0.0
    names = list(ENDS)
    for number in range(WARM_UP):
        _crash(trial, server.port, names[number % len(names)])
    trial.watch("server", server)
    trial.watch("client", os.getpid())
    for number in trial.rounds(count, "crashes"):
        started = time.monotonic()
        told += _crash(trial, server.port, names[number % len(names)])
        slowest = max(slowest, time.monotonic() - started)
    trial.say_done(f"{count} sessions ended by SIGSEGV, SIGABRT, _exit(3) and SIGKILL in turn")
    trial.figure(f"{told} of {count} clients told the right end, slowest round {slowest:.2f} s")
    trial.figure(f"the next client was served in {trial.serves(server.port):.2f} s")
    trial.check(told == count, f"{count - told} clients were told something else")
    trial.check(slowest < 10, f"a round took {slowest:.1f} s")


def _crash(trial: Trial, port: int, name: str) -> bool:
    module = trial.load(port)
    try:
        module[name]()
    except SessionCrashedError as error:
        return ENDS[name] in str(error) and module.session.closed
    finally:
        module.session.close()
    return False


def one_after_the_other(trial: Trial) -> None:
    """A client has 200 sessions in turn, each with files, a library and tensors: nothing stays."""
    from pytest_tvmrpc import runtime

    server = trial.server()
    content = bytes(range(256)) * 256

    def work() -> None:
        module = trial.load(server.port)
        with module.session as remote:
            remote.upload(content, "a.bin")
            if remote.download("a.bin") != content:
                raise ValueError("the file is not what was uploaded")
            tensor = runtime.empty((1 << 16,), "uint8", remote.cpu(0))
            tensor.copyfrom(memoryview(content))
            remote.get_function(ADD_ONE)(1)

    for _ in range(WARM_UP):
        work()
    trial.watch("server", server)
    trial.watch("client", os.getpid())
    count = trial.times(200)
    for _ in trial.rounds(count, "sessions"):
        work()
    trial.say_done(f"{count} sessions, each with an upload, a download, a library, a tensor")


def at_once(trial: Trial) -> None:
    """One process has 100 sessions at the same time, each with a server of its own."""
    count = trial.times(100)
    servers = [trial.server() for _ in trial.rounds(count, "servers")]
    started = time.monotonic()
    sessions = [rpc.connect(LOOPBACK, server.port) for server in servers]
    functions = [session.get_function("testing.echo") for session in sessions]
    wrong = sum(
        function(1000 * turn + number) != 1000 * turn + number
        for turn in range(10)
        for number, function in enumerate(functions)
    )
    lasted_s = time.monotonic() - started
    del functions
    for session in sessions:
        session.close()
    trial.say_done(f"{count} servers, {count} sessions at once, {10 * count} calls")
    trial.figure(f"opened and called in {lasted_s:.1f} s, {wrong} wrong results")
    trial.check(not wrong, f"{wrong} results belong to other sessions")


def threads(trial: Trial) -> None:
    """100 threads share one session: each gets its own results and its own errors."""
    server = trial.server()
    calls, mixed = trial.times(200), []
    with rpc.connect(LOOPBACK, server.port) as remote:
        echo, fail = remote.get_function("testing.echo"), remote.get_function("rpc.test.except")

        def work(number: int) -> None:
            for turn in range(calls):
                mark = f"{number}/{turn}"
                if turn % 10 == 9:
                    try:
                        fail(mark)
                    except rpc.RemoteError as error:
                        if mark in str(error):
                            continue
                    mixed.append(mark)
                elif echo(mark) != mark:
                    mixed.append(mark)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(100)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        trial.check(remote.get_function(ADD_ONE)(1) == 2, "the session does not work afterwards")
    trial.say_done(f"100 threads, {100 * calls} calls, a tenth of which raise")
    trial.figure(f"{len(mixed)} answers went to another thread")
    trial.check(not mixed, f"mixed: {mixed[:5]}")


def short_limits(trial: Trial) -> None:
    """Sessions with limits from a nanosecond on end at any moment, also before they begin."""
    server = trial.server()
    chance = random.Random(trial.seed)
    count, told = trial.times(1000), 0
    _outlast(server.port, 0.01)
    trial.watch("server", server)
    for _ in trial.rounds(count, "sessions"):
        told += _outlast(server.port, 10 ** chance.uniform(-9, -1.3))
    trial.say_done(f"{count} sessions with limits of 1 ns to 50 ms")
    trial.figure(f"{told} clients got RPCSessionTimeoutError")
    trial.figure(f"the next client was served in {trial.serves(server.port):.2f} s")
    trial.check(told == count, f"{count - told} clients were told something else")


def _outlast(port: int, limit_s: float) -> bool:
    try:
        with rpc.connect(LOOPBACK, port, session_timeout=limit_s) as remote:
            add_one = remote.get_function(ADD_ONE)
            while True:
                add_one(1)
    except RPCSessionTimeoutError:
        return True
    except ConnectionLostError:
        return False


def families(trial: Trial) -> None:
    """A kernel deaf to SIGTERM leaves children and a daemon and outlasts its session: all die."""
    server = trial.server()
    _leave_a_family(trial, server.port)
    trial.watch("server", server)
    count, slowest, overlaps = trial.times(100), 0.0, 0
    for _ in trial.rounds(count, "families"):
        daemon, told = _leave_a_family(trial, server.port)
        trial.check(told, "a client was not told RPCSessionTimeoutError")
        started = time.monotonic()
        with rpc.connect(LOOPBACK, server.port, handshake_timeout=10) as remote:
            overlaps += _is_running(daemon)  # before the next client does anything
            remote.get_function(ADD_ONE)(1)
        slowest = max(slowest, time.monotonic() - started)
    trial.say_done(f"{count} sessions with a limit of 0.3 s, each with three processes and a call")
    trial.figure(f"next client after {slowest:.2f} s at most; {overlaps} met a process of before")
    trial.check(not overlaps, f"{overlaps} sessions began beside processes of the one before")
    trial.check(slowest < 5, f"a client waited {slowest:.1f} s")


def _leave_a_family(trial: Trial, port: int) -> tuple[int, bool]:
    module = trial.load(port, session_timeout=0.3)
    daemon = module["leave_a_family"]()
    try:
        module["sleep_through_sigterm"]()
    except RPCSessionTimeoutError:
        return daemon, True
    finally:
        module.session.close()
    return daemon, False


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def full_disk(trial: Trial) -> None:
    """Uploads that do not fit on the disk fail by name, again and again, and leave nothing."""
    with _server_on_a_small_disk(trial) as (port, pid):
        _fill(port)
        # Its disk is seen by itself only, and by who looks through its eyes.
        disk = Path(f"/proc/{pid}/root") / (trial.temp / "disk").relative_to("/")

        trial.watch("server", pid, disk)
        count = trial.times(100)
        refused = sum(_fill(port) for _ in trial.rounds(count, "uploads"))
        trial.say_done(f"{count} sessions upload 64 MiB to a disk of 8 MiB, then 4 MiB")
        trial.figure(f"{refused} errors name the file and the disk; 4 MiB fit each time")
        trial.check(refused == count, f"{count - refused} uploads ended otherwise")
        trial.judge_watches()


def _fill(port: int) -> bool:
    refused = False
    with rpc.connect(LOOPBACK, port) as remote:
        try:
            remote.upload(bytes(64 << 20), "big.bin")
        except OSError as error:
            refused = "big.bin cannot be written: No space left on device" in str(error)
        remote.upload(bytes(4 << 20), "fits.bin")
        return refused and remote.listdir() == "fits.bin"


@contextlib.contextmanager
def _server_on_a_small_disk(trial: Trial) -> Iterator[tuple[int, int]]:
    if shutil.which("unshare") is None:
        raise SkipError("no program `unshare` to make a namespace with")
    disk = trial.temp / "disk"
    disk.mkdir()
    script = SMALL_DISK.format(folder=disk, python=sys.executable)
    with subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=trial.log,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip().rpartition(":")[2]
            if not port.isdigit():
                raise SkipError("this user cannot mount a disk of its own")
            yield int(port), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def large_copies(trial: Trial) -> None:
    """A tensor of 512 MiB, and one of 8 GiB where there is room, takes no memory but its own."""
    sizes = [trial.times(512) << 20]
    available = _available()
    if trial.quick:
        trial.figure("8 GiB: not in a quick run")
    elif available < 24 << 30:
        trial.figure(f"8 GiB: skipped, {available / 1e9:.0f} GB of memory are free, 26 are needed")
    else:
        sizes.append(8 << 30)
    server = trial.server()
    for nbytes in sizes:
        client, worker = _copy(server.port, server.program.pid, nbytes)
        trial.say_done(f"{nbytes >> 20} MiB copied to a tensor, from memory that was there")
        trial.figure(
            f"{nbytes >> 20} MiB: extra at the peak {client / MEGABYTE:.1f} MB in the "
            f"client, {worker / MEGABYTE:.1f} MB in the server beyond the tensor"
        )
        trial.check(client < 16 << 20, "the client held more than 16 MiB extra")
        trial.check(worker < 32 << 20, "the server held more than 32 MiB extra")


def _copy(port: int, server: int, nbytes: int) -> tuple[int, int]:
    import numpy

    from pytest_tvmrpc import runtime

    content = numpy.ones(nbytes, "uint8")  # every page is there
    with rpc.connect(LOOPBACK, port) as remote:
        tensor = runtime.empty((nbytes,), "uint8", remote.cpu(0))
        remote.get_function(ADD_ONE)(1)
        (worker,) = machine.descendants(server)
        own = os.getpid()
        for pid in (worker, own):
            machine.reset_peak(pid)
        before = [machine.memory(pid, "VmRSS") for pid in (own, worker)]
        tensor.copyfrom(content)
        remote.get_function(ADD_ONE)(1)
        peaks = [machine.memory(pid, "VmHWM") for pid in (own, worker)]
        del tensor
    return peaks[0] - before[0], peaks[1] - before[1] - nbytes


def _available() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
