"""Which products become our kernels, and which stay."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax.frontend import nn

from shadowattn_tvm.model.quantized import GroupQuantizedEmbedding, GroupQuantizedLinear
from shadowattn_tvm.transform import DispatchLinear
from tir_kernels.features import GENERIC
from tir_kernels.linear.matmul import linear, linear_decode
from tir_kernels.spec import LinearSpec

N, K = 96, 64


def product_module(
    rows: int | str, dtype: str = "float32", out_dtype: str | None = None
) -> tvm.IRModule:
    """`y = x @ w.T` of a float weight, as `nn.Linear` spells it."""
    builder = relax.BlockBuilder()
    extent = tirx.Var(rows, "int64") if isinstance(rows, str) else rows
    x = relax.Var("x", relax.TensorType((1, extent, K), dtype))
    w = relax.Var("w", relax.TensorType((N, K), dtype))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            transposed = builder.emit(relax.op.permute_dims(w))
            y = builder.emit_output(relax.op.matmul(x, transposed, out_dtype))
        builder.emit_func_output(y)
    return builder.finalize()


def expected_module(rows: int | str) -> tvm.IRModule:
    """The same product through our kernel, written out."""
    builder = relax.BlockBuilder()
    extent = tirx.Var(rows, "int64") if isinstance(rows, str) else tirx.IntImm("int64", rows)
    factory = linear_decode if rows == 1 else linear
    name = f"{factory.__name__}_q0f32_{N}x{K}"
    kernel = factory(LinearSpec(N, K), GENERIC).with_attr(
        {"global_symbol": name, "tirx.is_scheduled": True}
    )
    global_var = builder.add_func(kernel, name)
    x = relax.Var("x", relax.TensorType((1, extent, K), "float32"))
    w = relax.Var("w", relax.TensorType((N, K), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            flat = builder.emit(relax.op.reshape(x, (extent, K)))
            product = builder.emit(
                relax.call_tir(
                    global_var, [flat, w], out_ty=relax.TensorType((extent, N), "float32")
                )
            )
            y = builder.emit_output(relax.op.reshape(product, (1, extent, N)))
        builder.emit_func_output(y)
    return builder.finalize()


@pytest.mark.parametrize("rows", [1, 5, "tokens"])
def test_a_float_product_calls_our_kernel(rows: int | str) -> None:
    after = DispatchLinear(GENERIC)(product_module(rows))
    tvm.relax.analysis.well_formed(after)  # raises if not
    tvm.ir.assert_structural_equal(after["main"], expected_module(rows)["main"], True)
    names = [gv.name_hint for gv in after.get_global_vars() if gv.name_hint != "main"]
    assert names == [f"{'linear_decode' if rows == 1 else 'linear'}_q0f32_{N}x{K}"]


@pytest.mark.parametrize(("out_dtype", "suffix"), [(None, ""), ("float32", "_to_float32")])
def test_a_float16_product_has_the_dtype_it_had(out_dtype: str | None, suffix: str) -> None:
    before = product_module("tokens", "float16", out_dtype)
    after = DispatchLinear(GENERIC)(before)
    tvm.relax.analysis.well_formed(after)  # raises if not
    assert kernel_names(after) == {f"linear_q0f16_{N}x{K}{suffix}"}
    assert after["main"].ret_ty.dtype.dtype == (out_dtype or "float16")


@pytest.mark.parametrize(("dtype", "out_dtype"), [("float64", None), ("float32", "float64")])
def test_other_dtypes_stay_as_they_are(dtype: str, out_dtype: str | None) -> None:
    before = product_module("tokens", dtype, out_dtype)
    tvm.ir.assert_structural_equal(DispatchLinear(GENERIC)(before), before)


def exported(module: nn.Module, spec: dict[str, dict[str, object]]) -> tvm.IRModule:
    return module.export_tvm(spec=spec)[0]


def kernel_names(module: tvm.IRModule) -> set[str]:
    return {gv.name_hint for gv, f in module.functions_items() if isinstance(f, tirx.PrimFunc)}


def test_a_quantized_product_is_fused_and_nothing_dequantizes_whole_weights() -> None:
    spec = {"forward": {"x": nn.spec.Tensor([1, "tokens", K], "float32")}}
    before = exported(GroupQuantizedLinear(K, N), spec)
    assert kernel_names(before) == {"dequantize"}
    after = DispatchLinear(GENERIC)(before)
    assert kernel_names(after) == {f"linear_q4f32_1_{N}x{K}"}
    tvm.relax.analysis.well_formed(after)  # raises if not


def test_a_quantized_embedding_gathers_and_dequantizes_rows_only() -> None:
    spec = {
        "forward": {"ids": nn.spec.Tensor(["tokens"], "int32")},
        "lm_head_forward": {"x": nn.spec.Tensor([1, 1, K], "float32")},
    }
    after = DispatchLinear(GENERIC)(exported(GroupQuantizedEmbedding(N, K), spec))
    assert kernel_names(after) == {f"embedding_q4f32_1_{N}x{K}", f"linear_decode_q4f32_1_{N}x{K}"}
    tvm.relax.analysis.well_formed(after)  # raises if not


def test_a_float16_table_gives_float16_rows_and_float32_logits() -> None:
    spec = {
        "forward": {"ids": nn.spec.Tensor(["tokens"], "int32")},
        "lm_head_forward": {"x": nn.spec.Tensor([1, 1, K], "float16")},
    }
    module = exported(GroupQuantizedEmbedding(N, K, dtype="float16"), spec)
    after = DispatchLinear(GENERIC)(module)
    tvm.relax.analysis.well_formed(after)  # raises if not
    assert kernel_names(after) == {
        f"embedding_q4f16_1_{N}x{K}",
        f"linear_decode_q4f16_1_{N}x{K}_to_float32",
    }
