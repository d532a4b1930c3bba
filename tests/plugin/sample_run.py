"""A run with everything that a report can show, and larger ones. No device is behind it.

The same every time: what looks like chance comes from a generator with a fixed seed.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from pytest_tvmrpc.benchmarking.records import Benchmark
from pytest_tvmrpc.benchmarking.store import Point, Series
from pytest_tvmrpc.records import Attempt, RemoteFacts, Run, TestRecord

START = 1_795_000_000.0
MODELS = {"jetson": "NVIDIA Jetson Orin NX", "rpi4": "Raspberry Pi 4B"}

TRACEBACK = """\
    def test_softmax(remote):
        module = remote.load_module(upload(remote, build("softmax")))
        out = run(module, x)
>       np.testing.assert_allclose(out, expected, rtol=1e-4)
\x1b[1m\x1b[31mE       AssertionError: \x1b[0m
E       Not equal to tolerance rtol=0.0001, atol=0
E
E       Mismatched elements: 3 / 4096 (0.0732%)
E       Max absolute difference: 0.00231
E        x: array([0.000244, 0.000244, 0.000243, ..., 0.000245, 0.000244, 0.000244])

tests/kernels/test_activations.py:41: AssertionError"""

OUTPUT = "[softmax] 4096 elements, 4 threads\n[softmax] \x1b[33mwarning: denormals flushed\x1b[0m\n"

LOST = "the connection to jetson@10.0.0.12:9090 was lost after 3.1 s, in the call of `run`"


class Farm:
    """Gives devices to tests, one after the other, whichever is free first."""

    def __init__(self, devices: list[str], seed: int = 4) -> None:
        self.free_at = dict.fromkeys(devices, START + 1.0)
        self.chance = random.Random(seed)

    def attempt(
        self,
        number: int,
        verdict: str,
        key: str,
        held_s: float,
        asked_at: float = START,
        device: str = "",
    ) -> Attempt:
        """One attempt on the device of this key that is free first."""
        fitting = [name for name in self.free_at if name.startswith(f"{key}@")]
        device = device or min(fitting, key=self.free_at.__getitem__)
        asked_at = max(asked_at, self.free_at[device] - self.chance.uniform(-0.8, 2.0))
        queued_s = max(self.free_at[device] - asked_at, 0.002)
        connect_s = self.chance.uniform(0.01, 0.12)
        call_s = held_s * self.chance.uniform(0.55, 0.9)
        self.free_at[device] = asked_at + queued_s + connect_s + held_s
        facts = RemoteFacts(
            key,
            device,
            asked_at,
            queued_s,
            connect_s,
            held_s,
            upload_s=held_s * 0.18,
            upload_nbytes=int(held_s * 4e6),
            calls=int(20 + held_s * 12),
            call_s=call_s,
            device_s=held_s * 0.22,
            bytes_sent=int(held_s * 4.1e6),
            bytes_received=int(held_s * 3e5),
        )
        return Attempt(number, verdict, asked_at, queued_s + connect_s + held_s, devices=[facts])


DEVICES = [
    "jetson@10.0.0.11:9090",
    "jetson@10.0.0.12:9090",
    "rpi4@10.0.0.21:9090",
    "rpi4@10.0.0.22:9090",
]

FUNCTIONS = {
    "tests/kernels/test_conv.py": [
        f"test_conv2d[{{key}}-{n}x{n}-{layout}]" for n in (1, 3, 5) for layout in ("NCHW", "NHWC")
    ],
    "tests/kernels/test_gemm.py": [
        *(f"test_gemm[{{key}}-{n}]" for n in (64, 256, 1024)),
        "test_gemm_batched[{key}]",
    ],
    "tests/kernels/test_activations.py": [
        f"test_{name}[{{key}}]" for name in ("relu", "gelu", "softmax", "layer_norm")
    ],
    "tests/models/test_resnet.py": [
        "TestResNet::test_first_block[{key}]",
        "TestResNet::test_whole[{key}]",
    ],
}


def sample_run() -> Run:
    """40 tests on four devices: every verdict, reruns, waits, a shared lease, benchmarks."""
    farm = Farm(DEVICES)
    run = Run(
        started_at=START,
        command=["-n", "4", "--rpc-key=jetson,rpi4", "--rpc-reruns=2", "--rpc-html=farm.html"],
        tracker="farm.example:9190",
        keys=["jetson", "rpi4"],
        exitstatus=1,
    )
    for path, names in FUNCTIONS.items():
        for name in names:
            for key in run.keys:
                run.tests.append(_test(farm, path, name, key))
    _add_shared(run, farm)
    _add_infra(run)
    run.ended_at = max(farm.free_at.values()) + 0.8
    run.outcomes = {"passed": 162, "failed": 1, "error": 1, "infra": 1, "skipped": 7}
    return run


def _test(farm: Farm, path: str, name: str, key: str) -> TestRecord:
    record = TestRecord(f"{path}::{name.format(key=key)}", f"gw{farm.chance.randrange(4)}")
    held_s = farm.chance.uniform(0.4, 3.5) * (2.5 if "models" in path else 1)
    if "softmax" in name and key == "jetson":
        attempt = farm.attempt(1, "failed", key, held_s)
        attempt.message = "AssertionError: Not equal to tolerance rtol=0.0001, atol=0"
        attempt.details, attempt.output = TRACEBACK, OUTPUT
        attempt.artifacts = "test_activations/test_softmax-jetson"
        attempt.extra = {"temperature": "61 C", "governor": "performance"}
        record.attempts.append(attempt)
    elif "first_block" in name and key == "rpi4":
        attempt = farm.attempt(1, "error", key, held_s)
        attempt.message = "RPCError: no function `tvm.contrib.graph_executor.create` on the device"
        attempt.details = f"conftest.py:12: in executor\nE   {attempt.message}"
        record.attempts.append(attempt)
    elif key == "jetson" and name in ("test_gemm[{key}-256]", "test_conv2d[{key}-3x3-NCHW]"):
        lost = farm.attempt(1, "lost", key, 3.1, device="jetson@10.0.0.12:9090")
        lost.message, lost.output = LOST, "Segmentation fault\n"
        lost.details = f"E   pytest_tvmrpc.errors.ConnectionLost: {LOST}"
        again = farm.attempt(
            2, "passed", key, held_s, lost.started_at + lost.duration_s, "jetson@10.0.0.11:9090"
        )
        record.attempts += [lost, again]
    else:
        record.attempts.append(farm.attempt(1, "passed", key, held_s))
    if "gemm" in name:
        record.attempts[-1].benchmarks.append(benchmark(farm.chance, record, key))
    return record


def _add_shared(run: Run, farm: Farm) -> None:
    """Five tests of a class with one `remote_session`."""
    lease = farm.attempt(1, "passed", "rpi4", 9.0, device="rpi4@10.0.0.22:9090").devices[0]
    waited_s = lease.queued_s + lease.connect_s
    for number in range(5):
        values = {**lease.to_json(), "shared": True, "held_s": 1.8 * number + 1.5, "call_s": 0.6}
        facts = RemoteFacts.from_json({**values, "upload_s": 0.1, "device_s": 0.2, "calls": 6})
        begin_s = waited_s + 1.8 * number if number else 0.0
        duration_s = 1.5 if number else waited_s + 1.5
        attempt = Attempt(1, "passed", lease.asked_at + begin_s, duration_s, devices=[facts])
        name = f"tests/models/test_session.py::TestSession::test_step[{number}]"
        run.tests.append(TestRecord(name, "gw1", [attempt]))


def _add_infra(run: Run) -> None:
    """A key whose device somebody else has, and tests that were skipped."""
    wait = RemoteFacts("hexagon", "", START + 6, queued_s=20.0)
    message = (
        "no device `hexagon` within 20 s: 1 is registered, held by nightly@ci-118 since 14:02; "
        "wait longer with --rpc-queue-timeout, or ask for another key"
    )
    attempt = Attempt(1, "infra", START + 6, 20.0, message, devices=[wait])
    run.tests.append(TestRecord("tests/kernels/test_dsp.py::test_vector_add", "gw2", [attempt]))
    reason = "no device `mali` is served (--rpc-require makes this an error)"
    for name in ("test_blit", "test_scale"):
        skipped = Attempt(1, "skipped", START + 1, 0.001, reason)
        run.tests.append(TestRecord(f"tests/kernels/test_gpu.py::{name}", "gw0", [skipped]))


SPEEDS = {"64": 12e-6, "256": 410e-6, "1024": 21e-3, "batched": 3.2e-3}


def benchmark(chance: random.Random, record: TestRecord, key: str) -> dict[str, Any]:
    """What a test measured, in the form of benchmarking/records.py."""
    test = record.nodeid.replace(f"[{key}-", "[").replace(f"[{key}]", "")
    size = next(name for name in SPEEDS if name in test)
    usual_s = SPEEDS[size] * (1.0 if key == "jetson" else 5.3)
    grown = {("256", "rpi4"): 0.17, ("1024", "jetson"): -0.09}.get((size, key), 0.004)
    samples = [usual_s * (1 + grown) * chance.lognormvariate(0.0, 0.012) for _ in range(30)]
    verdict = "slower" if grown > 0.05 else "faster" if grown < -0.05 else "same"
    is_new = size == "batched" and key == "rpi4"
    flop = 2.0 * {"64": 64, "256": 256, "1024": 1024, "batched": 512}[size] ** 3
    one = Benchmark(
        test=test,
        name=f"gemm_{size}",
        key=key,
        model=MODELS[key],
        device=record.attempts[-1].names[0],
        started_at=record.attempts[-1].started_at,
        number=10,
        samples_s=samples,
        flop=flop,
        nbytes=flop / 40,
    )
    if is_new:
        note = f"no stored run has gemm_{size} on {key} ({MODELS[key]})"
        return replace(one, verdict="new", limit=0.05, note=note).to_json()
    compared = replace(
        one,
        verdict=verdict,
        baseline="main",
        baseline_at=START - 86400,
        baseline_median_s=usual_s,
        change=one.median_s / usual_s - 1,
        p_value=0.00002 if verdict != "same" else 0.41,
        limit=0.05,
        visible=0.011,
        fails=verdict == "slower",
    )
    return compared.to_json()


def sample_history(run: Run, length: int = 18) -> list[Series]:
    """Stored runs, one each day, of every benchmark of the run but the new ones."""
    chance = random.Random(9)
    found = []
    for one in [one for test in run.tests for one in test.attempts[-1].benchmarks]:
        if one["verdict"] == "new":
            continue
        usual_s, points = one["baseline_median_s"], []
        for day in range(length, 0, -1):
            early = 60.0 if one["name"] == "gemm_1024" and day > length - 3 else 1.0
            at_s = usual_s * early * (1.12 if day > 9 else 1.0) * chance.uniform(0.985, 1.015)
            points.append(
                Point(run.started_at - 86400 * day, f"main-{day}", at_s, at_s * 0.99, at_s * 1.012)
            )
        found.append(Series(one["test"], one["name"], one["model"], one["key"], points))
    return found


def large_run(tests: int = 1000, devices: int = 3, text: str = "") -> Run:
    """Tests with two attempts each, the first of them lost; every tenth fails."""
    keys = ["jetson", "rpi4", "pixel"]
    farm = Farm([f"{keys[n % 3]}@10.0.{n}.1:9090" for n in range(devices)], seed=7)
    run = Run(started_at=START, command=["-n", "8"], keys=keys, tracker="farm.example:9190")
    for number in range(tests):
        key = keys[number % min(3, devices)]
        name = f"tests/kernels/test_{number // 50}.py::test_operator_{number % 50}[{key}-float32]"
        lost = farm.attempt(1, "lost", key, farm.chance.uniform(0.1, 3))
        lost.message, lost.details = LOST, text or TRACEBACK
        last = farm.attempt(2, "passed" if number % 10 else "failed", key, 1.5)
        if number % 10 == 0:
            last.message, last.details = "AssertionError: not close", text or TRACEBACK
            last.output = text or OUTPUT
        run.tests.append(TestRecord(name, f"gw{number % 8}", [lost, last]))
    run.ended_at = max(farm.free_at.values())
    run.exitstatus = 1
    return run
