"""The number of tokens becomes known where that plans no memory."""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from shadowattn_tvm.mlc.vocabulary import bind_vocabulary


def logits_module(names: dict[str, tuple[str, int | str]]) -> tvm.IRModule:
    """`name` -> (rows' extent, vocabulary): functions that multiply by the embedding."""
    builder = relax.BlockBuilder()
    for name, (rows, vocabulary) in names.items():
        extent = tirx.Var(vocabulary, "int64") if isinstance(vocabulary, str) else vocabulary
        x = relax.Var("x", relax.TensorType([tirx.Var(rows, "int64"), 4], "float32"))
        w = relax.Var("w", relax.TensorType([extent, 4], "float32"))
        with builder.function(name, [x, w]):
            product = relax.op.matmul(x, builder.emit(relax.op.permute_dims(w)))
            builder.emit_func_output(builder.emit(product))
    return builder.finalize()


def test_before_and_after() -> None:
    before = logits_module(
        {
            "batch_decode": ("batch_size", "vocab_size"),
            "get_logits": ("seq_len", "vocab_size"),
            "batch_verify": ("seq_len", "vocab_size"),
            "prefill": ("seq_len", 50),
            "something_else": ("seq_len", "other_size"),
        }
    )
    expected = logits_module(
        {
            "batch_decode": ("batch_size", 100),
            "get_logits": ("num_logit_rows", 100),
            "batch_verify": ("seq_len", "vocab_size"),
            "prefill": ("seq_len", 50),
            "something_else": ("seq_len", "other_size"),
        }
    )
    after = bind_vocabulary(before, 100)
    tvm.ir.assert_structural_equal(after, expected, map_free_vars=True)
    relax.analysis.well_formed(after)  # raises if not
    rows = after["get_logits"].params[0].ty.shape[0]
    assert rows.name == "num_logit_rows"  # no name that MLC bounds
