"""From logits to probabilities, with MLC-LLM's processors: bias, penalties, vocabulary mask.

Parameter lists are those MLC's engine calls; all work on float32 logits in place, the softmax out
of place. These run once per token and are not where time goes.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from .constants import LOG2_E
from .features import CpuFeatures
from .simd import vector

_MASKED_LOGIT = -3.402823466e38  # the most negative float32: no probability, and no NaN either
_MASK_WORD_BITS = 32


def softmax_with_temperature(features: CpuFeatures) -> tirx.PrimFunc:
    """`logits` (batch, vocab), `temperature` (batch,), `probabilities` (batch, vocab).

    A temperature of 0 means greedy: all probability on the largest logit, the first if several are
    equal. Any vocabulary size.
    """
    lanes = features.lanes

    @T.prim_func(s_tir=True)
    def softmax_rows_with_temperature(
        var_logits: T.handle, var_temperature: T.handle, var_probabilities: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        batch = T.int64()
        vocab = T.int64()
        logits = T.match_buffer(var_logits, (batch, vocab), "float32")
        temperature = T.match_buffer(var_temperature, (batch,), "float32")
        probabilities = T.match_buffer(var_probabilities, (batch, vocab), "float32")
        for row in range(batch):
            largest = T.alloc_buffer((1,), "float32")
            where = T.alloc_buffer((1,), "int64")
            partial = T.alloc_buffer((lanes,), "float32")
            total = T.alloc_buffer((1,), "float32")
            largest[0] = logits[row, 0]
            where[0] = T.int64(0)
            for v in range(vocab):
                if logits[row, v] > largest[0]:
                    largest[0] = logits[row, v]
                    where[0] = v
            if temperature[row] > T.float32(0):
                scale = T.bind(T.float32(LOG2_E) / temperature[row])
                partial[T.ramp(0, 1, lanes)] = vector.const_f32(0.0, lanes)
                for block in range(vocab // lanes):
                    probabilities[row, T.ramp(block * lanes, 1, lanes)] = vector.exp2(
                        (
                            logits[row, T.ramp(block * lanes, 1, lanes)]
                            - vector.splat(largest[0], lanes)
                        )
                        * vector.splat(scale, lanes),
                        lanes,
                    )
                    partial[T.ramp(0, 1, lanes)] = (
                        partial[T.ramp(0, 1, lanes)]
                        + probabilities[row, T.ramp(block * lanes, 1, lanes)]
                    )
                total[0] = vector.sum_lanes(partial[T.ramp(0, 1, lanes)], lanes)
                for tail in range(vocab % lanes):
                    v = T.bind(vocab // lanes * lanes + tail)
                    probabilities[row, v] = vector.exp2((logits[row, v] - largest[0]) * scale, 1)
                    total[0] = total[0] + probabilities[row, v]
                for v in range(vocab):
                    probabilities[row, v] = probabilities[row, v] / total[0]
            else:
                for v in range(vocab):
                    probabilities[row, v] = T.Select(v == where[0], T.float32(1), T.float32(0))

    return softmax_rows_with_temperature


def apply_logit_bias_inplace() -> tirx.PrimFunc:
    """`logits` (batch, vocab); for each i < tokens: `logits[pos2seq_id[i], token_ids[i]]` grows by
    `logit_bias[i]`."""

    @T.prim_func(s_tir=True)
    def logit_bias_inplace(
        var_logits: T.handle,
        var_pos2seq_id: T.handle,
        var_token_ids: T.handle,
        var_logit_bias: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        batch = T.int32()
        vocab = T.int32()
        tokens = T.int32()
        logits = T.match_buffer(var_logits, (batch, vocab), "float32")
        pos2seq_id = T.match_buffer(var_pos2seq_id, (tokens,), "int32")
        token_ids = T.match_buffer(var_token_ids, (tokens,), "int32")
        logit_bias = T.match_buffer(var_logit_bias, (tokens,), "float32")
        for i in range(tokens):
            logits[pos2seq_id[i], token_ids[i]] = (
                logits[pos2seq_id[i], token_ids[i]] + logit_bias[i]
            )

    return logit_bias_inplace


def apply_penalty_inplace() -> tirx.PrimFunc:
    """Presence, frequency and repetition penalties for tokens seen before.

    `seq_ids` (sequences,): row of each sequence; `pos2seq_id`, `token_ids`, `token_counts`
    (tokens,): which sequence, which token, how often seen; `penalties` (sequences, 3).
    Presence + count * frequency is subtracted; then a negative logit is multiplied by the
    repetition penalty, any other divided by it.
    """

    @T.prim_func(s_tir=True)
    def penalty_inplace(
        var_logits: T.handle,
        var_seq_ids: T.handle,
        var_pos2seq_id: T.handle,
        var_token_ids: T.handle,
        var_token_counts: T.handle,
        var_penalties: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        batch = T.int32()
        vocab = T.int32()
        tokens = T.int32()
        sequences = T.int32()
        logits = T.match_buffer(var_logits, (batch, vocab), "float32")
        seq_ids = T.match_buffer(var_seq_ids, (sequences,), "int32")
        pos2seq_id = T.match_buffer(var_pos2seq_id, (tokens,), "int32")
        token_ids = T.match_buffer(var_token_ids, (tokens,), "int32")
        token_counts = T.match_buffer(var_token_counts, (tokens,), "int32")
        penalties = T.match_buffer(var_penalties, (sequences, 3), "float32")
        for i in range(tokens):
            sequence = T.bind(pos2seq_id[i])
            row = T.bind(seq_ids[sequence])
            lowered = T.bind(
                logits[row, token_ids[i]]
                - penalties[sequence, 0]
                - T.Cast("float32", token_counts[i]) * penalties[sequence, 1]
            )
            repetition = T.bind(penalties[sequence, 2])
            logits[row, token_ids[i]] = T.Select(
                lowered < T.float32(0), lowered * repetition, lowered / repetition
            )

    return penalty_inplace


def apply_bitmask_inplace() -> tirx.PrimFunc:
    """Grammar mask: token v of sequence s stays if bit v % 32 of `bitmask[seq_ids[s], v // 32]`
    is set, else its logit becomes the most negative float32."""

    @T.prim_func(s_tir=True)
    def bitmask_inplace(var_logits: T.handle, var_seq_ids: T.handle, var_bitmask: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        batch = T.int32()
        vocab = T.int32()
        sequences = T.int32()
        logits = T.match_buffer(var_logits, (batch, vocab), "float32")
        seq_ids = T.match_buffer(var_seq_ids, (sequences,), "int32")
        bitmask = T.match_buffer(
            var_bitmask,
            (batch, (vocab + _MASK_WORD_BITS - 1) // _MASK_WORD_BITS),
            "int32",
        )
        for s, v in T.grid(sequences, vocab):
            word = T.bind(bitmask[seq_ids[s], v // _MASK_WORD_BITS])
            kept = T.bind(T.bitwise_and(T.shift_right(word, v % _MASK_WORD_BITS), 1))
            logits[seq_ids[s], v] = T.Select(
                kept == 1, logits[seq_ids[s], v], T.float32(_MASKED_LOGIT)
            )

    return bitmask_inplace
