"""The helper functions MLC's engine looks up beside the model: softmax with temperature, logit
processors, the embedding buffer."""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from tir_kernels.features import CpuFeatures
from tir_kernels.logits import (
    apply_bitmask_inplace,
    apply_logit_bias_inplace,
    apply_penalty_inplace,
    softmax_with_temperature,
)


@tvm.transform.module_pass(opt_level=0, name="AttachEngineFunctions")
class AttachEngineFunctions:
    """Add `softmax_with_temperature`, `apply_logit_bias_inplace`, `apply_penalty_inplace`,
    `apply_bitmask_inplace` and `alloc_embedding_tensor`: on CPU targets, what MLC adds itself.
    The buffer is of `dtype`, the model's; logits are float32.
    (Its sampling functions exist for GPU targets only; on a CPU its engine samples in C++.)
    """

    def __init__(
        self, features: CpuFeatures, prefill_chunk_size: int, hidden_size: int, dtype: str
    ) -> None:
        self.features = features
        self.dtype = dtype
        self.prefill_chunk_size = prefill_chunk_size
        self.hidden_size = hidden_size

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        builder = relax.BlockBuilder(module)
        self._add_softmax(builder)
        with builder.function("alloc_embedding_tensor", []):
            shape = relax.ShapeExpr([self.prefill_chunk_size, self.hidden_size])
            tensor = relax.op.builtin.alloc_tensor(
                shape, relax.DataTypeImm(self.dtype), runtime_device_index=0
            )
            builder.emit_func_output(builder.emit(tensor))
        module = builder.finalize()
        processors = {
            "apply_logit_bias_inplace": apply_logit_bias_inplace(),
            "apply_penalty_inplace": apply_penalty_inplace(),
            "apply_bitmask_inplace": apply_bitmask_inplace(),
        }
        for name, kernel in processors.items():
            module[name] = kernel.with_attr("global_symbol", name).with_attr(
                "tirx.is_scheduled", True
            )
        return module

    def _add_softmax(self, builder: relax.BlockBuilder) -> None:
        """(batch, 1, vocab) logits and (batch,) temperatures -> (batch, 1, vocab) probabilities."""
        batch, vocab = tirx.Var("batch_size", "int64"), tirx.Var("vocab_size", "int64")
        logits = relax.Var("logits", relax.TensorType([batch, 1, vocab], "float32"))
        temperature = relax.Var("temperature", relax.TensorType([batch], "float32"))
        with builder.function("softmax_with_temperature", [logits, temperature]):
            with builder.dataflow():
                kernel = softmax_with_temperature(self.features)
                name = builder.add_func(
                    kernel.with_attr("tirx.is_scheduled", True), "softmax_rows_with_temperature"
                )
                flat = builder.emit(relax.op.reshape(logits, (batch, vocab)))
                probabilities = builder.emit(
                    relax.call_tir(
                        name,
                        [flat, temperature],
                        out_ty=relax.TensorType([batch, vocab], "float32"),
                    )
                )
                output = builder.emit_output(relax.op.reshape(probabilities, (batch, 1, vocab)))
            builder.emit_func_output(output)
