"""Who selects from rows of scores, by the type that they are kept in."""

from __future__ import annotations

from typing import Any, Literal

from ..features import CpuFeatures
from .byte_top_k import ByteSelector
from .top_k import RowSelector


def row_selector(features: CpuFeatures, dtype: Literal["int32", "int8"]) -> Any:
    """The selector of rows of `dtype`, made once per task; the lists don't depend on it::

        selector.start()
        selector.select(scores, row, num_vectors, visible, k, indices, out_row, counts)

    Rows are padded with MASKED_SCORE, or MASKED_BYTE, to `num_vectors` vectors of
    `selector.vector_scores`.
    """
    return {"int32": RowSelector, "int8": ByteSelector}[dtype](features)
