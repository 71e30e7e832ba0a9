"""4-bit weights on a GPU: dequantized inside what reads them, and nowhere else."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from shadowattn_tvm.model.quantized import GroupQuantizedEmbedding, GroupQuantizedLinear
from shadowattn_tvm.transform.fuse_dequantize import FuseDequantize
from shadowattn_tvm.transform.pipeline import lower_to_tir

N, K = 96, 64


class Residual(nn.Module):
    """A product with a bias and what it is added to."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        self.linear = GroupQuantizedLinear(K, N, bias=True, dtype=dtype)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return op.add(self.linear(x), residual)


def kernels(module: nn.Module, spec: dict[str, dict[str, object]]) -> set[str]:
    """Names of all PrimFuncs, once they are fused."""
    exported = module.export_tvm(spec=spec)[0]
    steps = [relax.transform.FuseTransposeMatmul(), *lower_to_tir(), FuseDequantize()]
    after = tvm.transform.Sequential([*steps, relax.transform.DeadCodeElimination()])(exported)
    relax.analysis.well_formed(after)  # raises if not
    return {gv.name_hint for gv, f in after.functions_items() if isinstance(f, tirx.PrimFunc)}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [1, "tokens"])
def test_a_product_takes_its_weight_and_its_epilogue(rows: int | str, dtype: str) -> None:
    shape = [1, rows]
    arguments = {
        "x": nn.spec.Tensor([*shape, K], dtype),
        "residual": nn.spec.Tensor([*shape, N], dtype),
    }
    assert kernels(Residual(dtype), {"forward": arguments}) == {
        "fused_dequantize_fused_NT_matmul_add_add1"
    }


def test_a_table_gives_rows_and_logits() -> None:
    spec = {
        "forward": {"ids": nn.spec.Tensor(["tokens"], "int32")},
        "lm_head_forward": {"x": nn.spec.Tensor([1, 1, K], "float16")},
    }
    names = kernels(GroupQuantizedEmbedding(N, K, dtype="float16"), spec)
    assert names == {"fused_dequantize_take", "fused_dequantize_NT_matmul"}
