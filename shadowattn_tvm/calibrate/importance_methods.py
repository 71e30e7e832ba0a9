"""The paper's and the public implementation's allocations as methods of `calibrate`.

Both take their importance from one ablation measurement (see `ablation`), so that whichever is
asked for second costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..corpora import Document
from .ablation import (
    DEFAULT_ABLATION_WINDOW_TOKENS,
    DEFAULT_ABLATION_WINDOWS,
    measure_ablation,
)
from .ablation_document import Ablation
from .ae import ae_ratios
from .allocation import Doubles, Ratios, scale_to_budget
from .build_plan import Method, MethodContext
from .paper import paper_importance


@dataclass(frozen=True)
class AblationSource:
    """What ablation reads: short windows of its own, not the long ones that scales come from.

    Attributes
    ----------
    documents : the corpus.
    num_windows, window_tokens : how much of it.
    store : see `measure_ablation`.
    """

    documents: Sequence[Document]
    num_windows: int = DEFAULT_ABLATION_WINDOWS
    window_tokens: int = DEFAULT_ABLATION_WINDOW_TOKENS
    store: Path | None = None


def paper_method(source: AblationSource) -> Method:
    """Equation 3 of the paper; the budget is met exactly, with k_min and dense layers inside it."""

    def choose(context: MethodContext) -> Ratios:
        return _spend(paper_importance(_measure(source, context)), context)

    return choose


def ae_method(source: AblationSource) -> Method:
    """The public implementation's ratios, then scaled to meet the budget exactly: its own don't
    count k_min."""

    def choose(context: MethodContext) -> Ratios:
        return _spend(ae_ratios(_measure(source, context), context.settings.ratio), context)

    return choose


def group_means(weights: Doubles, num_kv_heads: int) -> Doubles:
    """`[layers, query heads]`: every head gets the mean of its KV head's group."""
    layers, heads = weights.shape
    groups = weights.reshape(layers, num_kv_heads, heads // num_kv_heads)
    means: Doubles = np.broadcast_to(groups.mean(-1, keepdims=True), groups.shape)
    return means.reshape(layers, heads)


def _spend(rows: Sequence[Sequence[float]], context: MethodContext) -> Ratios:
    """The budget in proportion to `[layer][query head]` weights."""
    weights = np.array(rows, np.float64)
    settings = context.settings
    if settings.sharing.gqa_group:
        weights = group_means(weights, context.subject.model.config.num_key_value_heads)
    return scale_to_budget(weights, settings.ratio, settings.dense_layers, context.budget)


def _measure(source: AblationSource, context: MethodContext) -> Ablation:
    return measure_ablation(
        context.subject.directory,
        source.documents,
        num_windows=source.num_windows,
        window_tokens=source.window_tokens,
        store=source.store,
        model=context.subject.model,
        on_progress=lambda done, total: context.progress("ablation", done, total),
    )
