"""Every number the kernels share, with its reason."""

from __future__ import annotations

import math

LOG2_E = math.log2(math.e)
"""The kernels work with base-2 exponentials, as the runtime's merge kernel does."""

PAGE_SIZE_TOKENS = 16
"""Tokens in one page of the runtime's paged KV cache; MLC-LLM compiles with this size."""

EMPTY_LSE = -5.0e4
"""Base-2 log-sum-exp of an empty set of keys. Finite, so merging two empty parts gives no NaN, and
the value TVM's own kernels use, so its merge kernel gives such a part the weight zero."""

MASKED_SCORE = -(2**31)
"""What a masked position holds; no score comes near it (|score| <= 127 * 127 * head_dim)."""

MASKED_BYTE = -(2**7)
"""The same among scores of 8 bits, which reach from -127 to 127."""

INT8_QMAX = 127
"""Symmetric quantization leaves -128 unused, so that negation is exact and no product overflows."""

PROBABILITY_LEVELS = 255
"""Static scale of 8-bit probabilities, as an NPU's graph has them: 255 stands for one."""

RATIO_ONE = 1 << 16
"""Keep ratios reach the kernels as fixed-point fractions of this; see `spec.keep_count`."""

QUERY_BLOCKS = (1, 8, 16, 32, 64, 128)
"""Queries that may share a list; every one divides the usual prefill chunks."""

MIN_VOTERS = 4
"""Fewest queries of a whole block that vote on its list: what register tiles take at a time on
every target, so that fewer would save nothing."""

MAX_SHARING_ROWS = 2048
"""Rows of one list: queries of a block times query heads of a group. Each adds at most 2^19 to a
key's importance, and the sum must fit 31 bits."""

REST_STRIDE = 8
"""Of a past of a few thousand keys every so many-th counts for its mean. Of what dropping the rest
costs, the mean of all takes 2 and 11 % more off, every 16th 14 and 5 % less (SmolLM2, two windows
of 2,048 tokens)."""

REST_SAMPLES = 512
"""At most so many do: a mean gets no better by the length of what it is of, and a long past is
mostly far away."""

MEAN_BLOCK_TOKENS = 64
"""C/G-Block-Sparse's blocks (paper, baselines): of queries, counted from the chunk's first, and of
keys, counted from the sequence's first."""

QUANT_GROUP = 32
"""Weights that share one scale in MLC's q4f32_1."""

QUANT_PER_WORD = 8
"""4-bit weights in one uint32 of MLC's q4f32_1, the lowest nibble first."""

QUANT_ZERO_POINT = 7
"""MLC's q4f32_1 stores clamp(round(w / scale + 7), 0, 14), with scale = absmax / 7."""

STACK_BYTES = 1024
"""Buffers of so many bytes and more are left on the heap by TVM; LLVM turns smaller ones into
registers."""
