"""A peer's tuners, with all their trials on servers behind a tracker.

Run by the peer's interpreter, from Python 3.6 on, with nothing of this repository on its path::

    tuner_cases.py TUNER FLUSHES TRIALS HOST PORT KEY FOLDER

``TUNER`` is autotvm, auto_scheduler or tune_tir; ``FLUSHES`` is 1 to flush the caches before each
measurement. Prints a line of JSON for each trial: null, or what went wrong.
"""  # noqa: I002  (Python 3.6 has no annotations of the future)

import json
import os
import sys

import numpy as np
import tvm
from tvm import te

SIZE = 32
LIMIT_S = 60


def target():
    """Of this machine; the hhb builds compile for another processor by default."""
    chosen = {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
    try:
        return tvm.target.Target(dict(chosen, **{"num-cores": 2}))
    except ValueError:  # TVM 0.8, where it is no part of a target
        return tvm.target.Target(chosen)


def matmul():
    """The tensors of a product of two small matrices."""
    x = te.placeholder((SIZE, SIZE), name="x")
    y = te.placeholder((SIZE, SIZE), name="y")
    k = te.reduce_axis((0, SIZE), name="k")
    return x, y, te.compute((SIZE, SIZE), lambda i, j: te.sum(x[i, k] * y[k, j], axis=k), name="z")


def said(problem):
    """One trial: None, or what went wrong."""
    print(json.dumps(None if problem is None else str(problem)[-2000:]), flush=True)


def without_intrinsics():
    """Has TVM skip the registration of its intrinsics for accelerators, which a CPU needs not.

    From 0.21 on it takes a minute of each process.
    """
    import sys
    import types

    for package in ("tvm.tir", "tvm.s_tir"):
        name = package + ".tensor_intrin"
        sys.modules.setdefault(name, types.ModuleType(name))


def autotvm(flushes, trials, host, port, key, folder):
    from tvm import autotvm as tuning

    @tuning.template("peers/matmul")
    def template():
        x, y, z = matmul()
        schedule, config = te.create_schedule(z.op), tuning.get_config()
        config.define_split("rows", z.op.axis[0], num_outputs=2)
        config["rows"].apply(schedule, z, z.op.axis[0])
        return schedule, [x, y, z]

    task = tuning.task.create("peers/matmul", args=(), target=target())
    runner = tuning.RPCRunner(
        *(key, host, port),
        timeout=LIMIT_S,
        number=2,
        repeat=2,
        enable_cpu_cache_flush=flushes,
    )
    option = tuning.measure_option(tuning.LocalBuilder(timeout=LIMIT_S), runner)

    def report(tuner, inputs, results):
        for result in results:
            said(None if result.error_no == 0 else (result.error_no, result.costs))

    tuning.tuner.RandomTuner(task).tune(trials, option, callbacks=[report])


def auto_scheduler(flushes, trials, host, port, key, folder):
    from tvm import auto_scheduler as tuning

    tuning.register_workload("peers_matmul", f=lambda: list(matmul()))
    task = tuning.SearchTask(func="peers_matmul", args=(), target=target())
    log = os.path.join(folder, "trials.json")
    options = tuning.TuningOptions(
        num_measure_trials=trials,
        builder=tuning.LocalBuilder(timeout=LIMIT_S, n_parallel=2),
        runner=tuning.RPCRunner(
            *(key, host, port),
            timeout=LIMIT_S,
            n_parallel=2,
            number=2,
            repeat=2,
            min_repeat_ms=0,
            enable_cpu_cache_flush=flushes,
        ),
        measure_callbacks=[tuning.RecordToFile(log)],
        verbose=0,
    )
    policy = tuning.SketchPolicy(
        task, tuning.RandomModel(), params={"sample_init_min_population": trials}, verbose=0
    )
    task.tune(options, search_policy=policy)
    for _, result in tuning.RecordReader(log):
        said(None if result.error_no == 0 else (result.error_no, result.error_msg))


def tune_tir(flushes, trials, host, port, key, folder):
    if hasattr(tvm, "s_tir"):
        from tvm.ir.utils import derived_object
        from tvm.s_tir import meta_schedule as tuning
    else:
        from tvm import meta_schedule as tuning
        from tvm.meta_schedule import derived_object

    @derived_object
    class Report(tuning.measure_callback.PyMeasureCallback):
        def apply(self, scheduler, task_id, candidates, built, results):
            for build, result in zip(built, results):
                said(build.error_msg if build.error_msg is not None else result.error_msg)

    runner = tuning.runner.RPCRunner(
        tuning.runner.RPCConfig(
            tracker_host=host,
            tracker_port=port,
            tracker_key=key,
            session_timeout_sec=LIMIT_S,
        ),
        tuning.runner.EvaluatorConfig(
            number=2, repeat=2, min_repeat_ms=0, enable_cpu_cache_flush=flushes
        ),
        max_workers=2,
    )
    mod = tvm.IRModule({"main": te.create_prim_func(matmul()).with_attr("global_symbol", "main")})
    without_intrinsics()
    builder = tuning.builder.LocalBuilder(
        max_workers=2, timeout_sec=LIMIT_S, initializer=without_intrinsics
    )
    options = {"builder": builder, "runner": runner, "measure_callbacks": [Report()]}
    if hasattr(tuning, "TuneConfig"):  # TVM 0.9
        config = tuning.TuneConfig(trials, trials, strategy="replay_trace")
        model = tuning.cost_model.RandomModel()
        tuning.tune_tir(mod, target(), config, folder, cost_model=model, **options)
        return
    tuning.tune_tir(
        *(mod, target(), folder, trials),
        num_trials_per_iter=trials,
        strategy="replay-trace",
        cost_model="random",
        **options,
    )


TUNERS = {"autotvm": autotvm, "auto_scheduler": auto_scheduler, "tune_tir": tune_tir}


def main(tuner, flushes, trials, host, port, key, folder):
    """Tunes a product of matrices."""
    np.random.seed(0)
    TUNERS[tuner](flushes == "1", int(trials), host, int(port), key, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
