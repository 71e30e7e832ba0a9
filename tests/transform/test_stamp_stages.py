"""StampStages, before and expected."""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.transform import PipelineHeads, StampStages
from shadowattn_tvm.transform.stamp_stages import ITEMS_COLUMN, STAMP_COLUMNS, TRACE_VARIABLE
from tir_kernels.features import AVX2
from tir_kernels.shadow.list_stages import ATTEND, PILOT, PIPELINE, STAGE

from .test_pipeline_heads import module_of, staged


def expected() -> tirx.PrimFunc:
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
        stamps = T.alloc_buffer((num_items, STAMP_COLUMNS), "int64")
        for item in T.parallel(num_items, annotations={PIPELINE: 1}):
            index = T.bind(order[item])
            with T.attr(0, STAGE, PILOT):
                stamps[item, ITEMS_COLUMN] = T.Cast("int64", num_items)
                stamps[item, 0] = T.call_llvm_intrin("int64", "llvm.readcyclecounter")
                passed[item] = x[index] + 1
                stamps[item, 1] = T.call_llvm_intrin("int64", "llvm.readcyclecounter")
            with T.attr(0, STAGE, ATTEND):
                stamps[item, 2] = T.call_llvm_intrin("int64", "llvm.readcyclecounter")
                out[item] = passed[item] * 3
                stamps[item, 3] = T.call_llvm_intrin("int64", "llvm.readcyclecounter")
        path = T.bind(T.call_extern("handle", "getenv", TRACE_VARIABLE))
        if not T.isnullptr(path):
            file = T.bind(T.call_extern("handle", "fopen", path, "ab"))
            if not T.isnullptr(file):
                count = T.meta_var(T.Cast("int64", num_items))
                T.evaluate(
                    T.call_extern(
                        "int64", "fwrite", stamps.data, T.int64(8 * STAMP_COLUMNS), count, file
                    )
                )
                T.evaluate(T.call_extern("int32", "fclose", file))

    return after


def test_stages_are_stamped_and_the_launch_reported() -> None:
    after = StampStages()(module_of(staged()))
    tvm.ir.assert_structural_equal(after, module_of(expected()))
    assert tirx.analysis.verify_well_formed(after["kernel"])


def test_stamps_survive_the_pipeline() -> None:
    passes = tvm.transform.Sequential([StampStages(), PipelineHeads(1, AVX2)])
    after = passes(module_of(staged()))["kernel"]
    assert tirx.analysis.verify_well_formed(after)
    assert after.script().count("llvm.readcyclecounter") == 4


def test_other_functions_stay() -> None:
    module = module_of(staged().with_body(tirx.Evaluate(tirx.IntImm("int32", 0))))
    tvm.ir.assert_structural_equal(StampStages()(module), module)
