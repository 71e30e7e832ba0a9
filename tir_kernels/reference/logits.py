"""NumPy twins of `tir_kernels.logits`; each returns a new array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


def softmax_with_temperature(logits: FloatArray, temperature: FloatArray) -> FloatArray:
    """logits (batch, vocab), temperature (batch,) -> probabilities; 0 means greedy."""
    rows = []
    for row, t in zip(logits.astype(np.float64), temperature.astype(np.float64), strict=True):
        if t > 0:
            weights = np.exp((row - row.max()) / t)
            rows.append(weights / weights.sum())
        else:
            rows.append((np.arange(len(row)) == row.argmax()).astype(np.float64))
    return np.array(rows, dtype=np.float32).reshape(logits.shape)


def apply_logit_bias(
    logits: FloatArray, pos2seq_id: IntArray, token_ids: IntArray, logit_bias: FloatArray
) -> FloatArray:
    """Add each bias to its (row, token)."""
    result = logits.copy()
    np.add.at(result, (pos2seq_id, token_ids), logit_bias)
    return result


def apply_penalty(
    logits: FloatArray,
    seq_ids: IntArray,
    pos2seq_id: IntArray,
    token_ids: IntArray,
    token_counts: IntArray,
    penalties: FloatArray,
) -> FloatArray:
    """Presence and frequency subtracted, then the repetition penalty; see the kernel."""
    result = logits.copy()
    for sequence, token, count in zip(pos2seq_id, token_ids, token_counts, strict=True):
        presence, frequency, repetition = penalties[sequence]
        lowered = result[seq_ids[sequence], token] - presence - count * frequency
        result[seq_ids[sequence], token] = (
            lowered * repetition if lowered < 0 else lowered / repetition
        )
    return result


def apply_bitmask(logits: FloatArray, seq_ids: IntArray, bitmask: IntArray) -> FloatArray:
    """Tokens whose bit is clear get the most negative float32."""
    result = logits.copy()
    tokens = np.arange(logits.shape[1])
    for row in seq_ids:
        words = bitmask[row].view(np.uint32)[tokens // 32]
        kept = (words >> (tokens % 32).astype(np.uint32)) & 1
        result[row, kept == 0] = np.finfo(np.float32).min
    return result
