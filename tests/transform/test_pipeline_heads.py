"""PipelineHeads, before and expected; and the real kernel, pipelined, on any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling
from tvm.tirx.stmt_functor import ir_transform

from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.transform import PipelineHeads
from shadowattn_tvm.transform.pipeline_heads import require_pipelinable
from tests.tir_kernels.in_threads import sparse
from tests.transform.pipelined_in_threads import ROUNDS
from tir_kernels.build import build_kernels
from tir_kernels.constants import RATIO_ONE
from tir_kernels.features import AVX2, GENERIC, NEON_DOTPROD, CpuFeatures, cpu_features
from tir_kernels.shadow.list_stages import ATTEND, PILOT, PIPELINE, STAGE
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.simd.handoff import FLAG_STRIDE, handoff
from tir_kernels.spec import PilotSpec, ShadowSpec

ROOT = Path(__file__).parents[2]


def staged() -> tirx.PrimFunc:
    """out[i] = 3 * (x[order[i]] + 1), in two stages."""

    @T.prim_func(s_tir=True)
    def before(
        var_x: T.handle, var_order: T.handle, var_passed: T.handle, var_out: T.handle
    ) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        n = T.int32()
        x = T.match_buffer(var_x, (n,), "int32")
        order = T.match_buffer(var_order, (n,), "int32")
        passed = T.match_buffer(var_passed, (n,), "int32")
        out = T.match_buffer(var_out, (n,), "int32")
        for item in T.parallel(n, annotations={PIPELINE: 1}):
            index = T.bind(order[item])
            with T.attr(0, STAGE, PILOT):
                passed[item] = x[index] + 1
            with T.attr(0, STAGE, ATTEND):
                out[item] = passed[item] * 3

    return before


def expected(workers: int, features: CpuFeatures) -> tirx.PrimFunc:
    fences = handoff(features.isa)
    assert fences is not None

    @T.prim_func(s_tir=True)
    def after(
        var_x: T.handle, var_order: T.handle, var_passed: T.handle, var_out: T.handle
    ) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        n = T.int32()
        x = T.match_buffer(var_x, (n,), "int32")
        order = T.match_buffer(var_order, (n,), "int32")
        passed = T.match_buffer(var_passed, (n,), "int32")
        out = T.match_buffer(var_out, (n,), "int32")
        num_items = T.bind(n)
        ready = T.alloc_buffer((num_items * FLAG_STRIDE,), "int32")
        for item in range(num_items):
            ready[item * FLAG_STRIDE] = 0
        for task in T.parallel(1 + workers):
            if task == 0:
                for item in range(num_items):
                    index = T.bind(order[item])
                    passed[item] = x[index] + 1
                    T.evaluate(fences.release())
                    ready[item * FLAG_STRIDE] = 1
            else:
                for turn in range((num_items - task) // workers + 1):
                    mine = T.bind(task - 1 + turn * workers)
                    while ready[mine * FLAG_STRIDE] == 0:
                        T.evaluate(fences.pause())
                    T.evaluate(fences.acquire())
                    index = T.bind(order[mine])
                    out[mine] = passed[mine] * 3

    return after


def module_of(function: tirx.PrimFunc) -> tvm.IRModule:
    return tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("features", [AVX2, NEON_DOTPROD], ids=["x86", "arm"])
def test_stages_get_a_task_each(workers: int, features: CpuFeatures) -> None:
    after = PipelineHeads(workers, features)(module_of(staged()))
    tvm.ir.assert_structural_equal(after, module_of(expected(workers, features)))
    assert tirx.analysis.verify_well_formed(after["kernel"])
    assert tirx.analysis.verify_ssa(after["kernel"])


def test_other_functions_stay() -> None:
    plain = staged().with_body(tirx.Evaluate(tirx.IntImm("int32", 0)))
    module = module_of(plain)
    after = PipelineHeads(1, AVX2)(module)
    assert after["kernel"].same_as(module["kernel"])


def run_small(function: tirx.PrimFunc, target: tvm.target.Target, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, order = rng.integers(0, 1000, 37).astype(np.int32), rng.permutation(37).astype(np.int32)
    passed, out = (tvm.runtime.tensor(np.full(37, -5, np.int32)) for _ in range(2))
    kernel = build_kernels({"kernel": function}, target)["kernel"]
    kernel(tvm.runtime.tensor(x), tvm.runtime.tensor(order), passed, out)
    return np.asarray(out.numpy() - 3 * (x[order] + 1))


@pytest.mark.parametrize("workers", [1, 3])
def test_small_pipelines_compute(workers: int, host_target: tvm.target.Target) -> None:
    features = cpu_features(host_target)
    for function in (staged(), PipelineHeads(workers, features)(module_of(staged()))["kernel"]):
        assert not run_small(function, host_target, 0).any()


def without(function: tirx.PrimFunc, is_victim: Callable[[tirx.Stmt], bool]) -> tirx.PrimFunc:
    """The function with some of its stores gone."""
    nothing = tirx.Evaluate(tirx.IntImm("int32", 0))
    body = ir_transform(
        function.body, None, lambda s: nothing if is_victim(s) else None, ["tirx.BufferStore"]
    )
    return function.with_body(body)


def test_a_missing_step_shows(host_target: tvm.target.Target) -> None:
    """What a stage passes on is filled with garbage first, so its absence can't go unnoticed."""
    features = cpu_features(host_target)
    whole = PipelineHeads(1, features)(module_of(staged()))["kernel"]
    for buffer in ("passed", "out"):
        broken = without(whole, lambda store, name=buffer: store.buffer.name == name)
        assert run_small(broken, host_target, 0).any()


POOLED = PilotSpec(score_bits=8, share_group=True, query_block=16)


@pytest.mark.parametrize(
    ("pilot", "workers", "features", "message"),
    [
        (POOLED, 0, AVX2, "at least one CPU worker, got 0"),
        (POOLED, 1, GENERIC, "x86-64 CPU with AVX2 or"),
        (PilotSpec(), 1, AVX2, "selects for each query and head.*--query-block"),
    ],
)
def test_what_has_no_pipeline(
    pilot: PilotSpec, workers: int, features: CpuFeatures, message: str
) -> None:
    with pytest.raises(CompileError, match=message):
        require_pipelinable(sparse(pilot), workers, features)


def in_order(spec: ShadowSpec, order: tuple[int, ...]) -> ShadowSpec:
    launches = tuple((owner,) for owner in order)
    return replace(spec, launches=(launches,) * spec.num_layers)


def test_the_kernel_on_any_number_of_threads(
    tmp_path: Path, host_target: tvm.target.Target
) -> None:
    """Orders, workers and threads change no bit."""
    features = cpu_features(host_target)
    spec = sparse(POOLED)
    spec = replace(
        spec,
        heads=tuple(  # the first group keeps everything, the others less and less
            tuple(replace(head, keep_ratio_q16=RATIO_ONE >> h // 3) for h, head in enumerate(layer))
            for layer in spec.heads
        ),
    )
    functions = {"parallel": shadow_paged_prefill(spec, features)}
    for workers in (1, 3):
        kernel = shadow_paged_prefill(in_order(spec, (2, 0, 1)), features)
        pipelined = PipelineHeads(workers, features)(module_of(kernel))["kernel"]
        functions[f"{workers} workers"] = pipelined
    library = tmp_path / "kernels.so"
    build_kernels(functions, host_target).export_library(str(library))
    cores = os.cpu_count() or 1
    for threads in sorted({1, min(2, cores), cores}):
        results = tmp_path / f"{threads}.npz"
        subprocess.run(
            [
                *(sys.executable, "-m", "tests.transform.pipelined_in_threads"),
                *(library, results, *functions),
            ],
            cwd=ROOT,
            env={**os.environ, "TVM_NUM_THREADS": str(threads)},
            check=True,
            timeout=300,
        )
        arrays = dict(np.load(results))
        assert arrays.pop("threads") == threads
        for name in functions:
            for part in (f"{kind} {seed}" for kind in ("output", "lse") for seed in range(ROUNDS)):
                values = arrays[f"{name}, {part}"]
                assert np.isfinite(values).all()
                np.testing.assert_array_equal(values, arrays[f"parallel, {part}"])
